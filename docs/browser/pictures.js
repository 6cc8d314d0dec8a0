/** Pictures between the browser and the network: levels in, levels and a PNG file out. */

/**
 * The pixels of a picture, and what the result needs to know of them.
 *
 * @param {ImageBitmap} bitmap closed here.
 * @param {number} scale by which the result is larger.
 * @returns {{width: number, height: number, levels: Uint8ClampedArray, isGray: boolean, alpha: ?Uint8ClampedArray}}
 *   `levels` is RGBA; `alpha` is the opacity of the result, in every fourth byte, or null if all is opaque.
 */
export function readPicture(bitmap, scale) {
  const { width, height } = bitmap;
  const levels = levelsOf(drawn(bitmap, width, height));
  let alpha = null;
  if (!isOpaque(levels)) {
    alpha = levelsOf(drawn(bitmap, width * scale, height * scale));
    fillTransparent(levels, bitmap);
  }
  bitmap.close();
  return { width, height, levels, isGray: isGray(levels), alpha };
}

/**
 * An RGBA picture as a PNG file.
 *
 * @param {Uint8ClampedArray} levels
 * @param {number} width
 * @returns {Promise<Blob>}
 */
export function makePng(levels, width) {
  const canvas = new OffscreenCanvas(width, levels.length / 4 / width);
  contextOf(canvas).putImageData(new ImageData(levels, width), 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/**
 * Give fully transparent pixels the colour of what is visible around them: what a network would otherwise carry into the
 * visible edge is black. Coarser and coarser copies are laid under the picture until nothing shows through.
 */
function fillTransparent(levels, bitmap) {
  const canvas = drawn(bitmap, bitmap.width, bitmap.height);
  const context = contextOf(canvas);
  context.globalCompositeOperation = "destination-over";
  for (let divisor = 2, coarser = canvas; Math.max(coarser.width, coarser.height) > 1; divisor *= 2) {
    coarser = drawn(coarser, Math.ceil(bitmap.width / divisor), Math.ceil(bitmap.height / divisor));
    // Twice, so that what is half transparent in the copy covers more.
    for (let i = 0; i < 2; i++) context.drawImage(coarser, 0, 0, bitmap.width, bitmap.height);
  }
  const filled = levelsOf(canvas);
  for (let i = 0; i < levels.length; i += 4) {
    if (levels[i + 3] === 0) levels.set(filled.subarray(i, i + 3), i);
  }
}

function isOpaque(levels) {
  for (let i = 3; i < levels.length; i += 4) if (levels[i] < 255) return false;
  return true;
}

function isGray(levels) {
  for (let i = 0; i < levels.length; i += 4) if (levels[i] !== levels[i + 1] || levels[i] !== levels[i + 2]) return false;
  return true;
}

/** A canvas with a source drawn over all of it. */
function drawn(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = contextOf(canvas);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  return canvas;
}

function levelsOf(canvas) {
  return contextOf(canvas).getImageData(0, 0, canvas.width, canvas.height).data;
}

function contextOf(canvas) {
  // Pixels are read back at once: a canvas on the graphics card would have to be copied.
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("no memory for a canvas of this size");
  return context;
}
