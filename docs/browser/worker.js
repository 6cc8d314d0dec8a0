/**
 * Enhances pictures off the page's thread.
 *
 * Takes {type: "prepare", settings}, {type: "enhance", job, settings, bitmap, output, strength} and {type: "cancel"}; posts
 * {type: "progress", job, done, total}, {type: "result", job, png, width, height, numThreads} and {type: "failed", job, reason}.
 */

import { Network } from "./network.js";
import { makePng, readPicture } from "./pictures.js";
import { cutPicture } from "./tiles.js";

let loading = null;
let currentJob = null;

self.onmessage = async ({ data }) => {
  if (data.type === "cancel") {
    currentJob = null;
    return;
  }
  if (data.type === "enhance") currentJob = data.job;
  try {
    loading ??= Network.load(data.settings);
    const network = await loading;
    if (data.type === "enhance") await enhance(network, data);
  } catch (error) {
    self.postMessage({ type: "failed", job: data.job, reason: error?.message ?? String(error) });
  }
};

async function enhance(network, { job, bitmap, output, strength }) {
  const { scale, overlap } = network.settings.outputs[output];
  const { alignment, max_tile_pixels: maxTilePixels } = network.settings;
  const picture = readPicture(bitmap, scale);
  const { rows, columns } = cutPicture(picture.height, picture.width, { overlap, alignment, maxTilePixels });
  await network.compile(output, rows.length, columns.length);
  const result = new Uint8ClampedArray(picture.width * picture.height * scale ** 2 * 4);
  const total = rows.starts.length * columns.starts.length;
  self.postMessage({ type: "progress", job, done: 0, total });
  for (let i = 0; i < total; i++) {
    await nextMessages();
    if (job !== currentJob) return;
    const row = Math.floor(i / columns.starts.length);
    const column = i % columns.starts.length;
    const tile = { top: rows.starts[row], left: columns.starts[column], height: rows.length, width: columns.length };
    const values = await network.run(picture.levels, picture.width, tile, output, strength);
    const kept = {
      top: rows.borders[row],
      bottom: rows.borders[row + 1],
      left: columns.borders[column],
      right: columns.borders[column + 1],
    };
    write(values, tile, kept, picture, scale, result);
    self.postMessage({ type: "progress", job, done: i + 1, total });
  }
  const width = picture.width * scale;
  const png = await makePng(result, width);
  self.postMessage({ type: "result", job, png, width, height: picture.height * scale, numThreads: network.numThreads });
}

/** Round what is kept of a tile into the result; the clamped array does so as jpegsr/pixels.py does, halves to even. */
function write(values, tile, kept, picture, scale, result) {
  const stride = picture.width * scale;
  for (let row = kept.top * scale; row < kept.bottom * scale; row++) {
    let source = ((row - tile.top * scale) * tile.width * scale + (kept.left - tile.left) * scale) * 3;
    const end = (row * stride + kept.right * scale) * 4;
    for (let target = (row * stride + kept.left * scale) * 4; target < end; target += 4, source += 3) {
      let red = values[source];
      let green = values[source + 1];
      let blue = values[source + 2];
      if (picture.isGray) red = green = blue = (red + green + blue) / 3;
      result[target] = Math.fround(red * 255);
      result[target + 1] = Math.fround(green * 255);
      result[target + 2] = Math.fround(blue * 255);
      result[target + 3] = picture.alpha ? picture.alpha[target + 3] : 255;
    }
  }
}

/** Lets the messages in that have come meanwhile. */
function nextMessages() {
  return new Promise((resolve) => setTimeout(resolve));
}
