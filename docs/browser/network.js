/** The int8 model in LiteRT.js: tiles of levels in, tiles of values out. */

import { loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "@litertjs/core";

const RUNTIME_FOLDER = new URL("litert/", self.location.href).href;
// The boundary of jpegsr/pixels.py: levels are multiplied, in float32, with the float32 that is nearest to 1/255.
const UNIT = Float32Array.from({ length: 256 }, (_, level) => level * Math.fround(1 / 255));

/** A model that was loaded, and the program for the tile shape that was last asked for. */
export class Network {
  /** @param {object} settings the content of model.json. */
  constructor(settings, content, numThreads) {
    this.numThreads = numThreads;
    this.settings = settings;
    this.content = content;
    this.compiled = null;
    this.compiledFor = "";
  }

  static async load(settings) {
    const [content, numThreads] = await Promise.all([fetchBytes(settings.file), loadRuntime()]);
    return new Network(settings, content, numThreads);
  }

  /**
   * Make the program for tiles of one shape.
   *
   * LiteRT.js cannot resize inputs, and the model leaves height and width open. So they are written into a copy of the file,
   * at the places that the build found; the layers between input and output follow from them.
   */
  async compile(output, height, width) {
    const key = [output, height, width].join();
    if (key === this.compiledFor) return;
    this.compiled?.delete();
    this.compiledFor = "";
    const content = this.content.slice();
    const view = new DataView(content.buffer);
    for (const { offset, axis, times } of this.settings.outputs[output].sizes) {
      view.setInt32(offset, (axis === "height" ? height : width) * times, true);
    }
    this.compiled = await loadAndCompile(content, { accelerator: "wasm" });
    this.compiledFor = key;
  }

  /**
   * Run a tile through the program that was compiled last.
   *
   * @param {Uint8ClampedArray} levels RGBA of a whole picture that is `stride` pixels wide.
   * @returns {Promise<Float32Array>} RGB of the tile, nominally in [0, 1].
   */
  async run(levels, stride, { top, left, height, width }, output, strength) {
    const values = new Float32Array(height * width * 3);
    let target = 0;
    for (let row = top; row < top + height; row++) {
      const end = (row * stride + left + width) * 4;
      for (let source = end - width * 4; source < end; source += 4) {
        values[target++] = UNIT[levels[source]];
        values[target++] = UNIT[levels[source + 1]];
        values[target++] = UNIT[levels[source + 2]];
      }
    }
    const inputs = { image: new Tensor(values, [1, height, width, 3]), strength: new Tensor(Float32Array.of(strength), []) };
    try {
      const result = (await this.compiled.run(output, inputs))[output];
      const pixels = result.toTypedArray();
      result.delete();
      return pixels;
    } finally {
      Object.values(inputs).forEach((tensor) => tensor.delete());
    }
  }
}

/** Start LiteRT.js; gives the number of threads. */
async function loadRuntime() {
  // Threads need memory that is shared, and that needs headers which not every server sends.
  const threads = self.crossOriginIsolated && (await supportsFeature("relaxedSimd"));
  // The script of the runtime would look for its other files beside the worker.
  self.Module = {
    locateFile: (name) => RUNTIME_FOLDER + name,
    mainScriptUrlOrBlob: RUNTIME_FOLDER + "litert_wasm_threaded_internal.js",
    printErr: (line) => console.debug(line), // whatever it has to tell, it tells as an error
  };
  // It would start the graphics card, for nothing.
  Object.defineProperty(self.navigator, "gpu", { value: undefined });
  const runtime = await loadLiteRt(RUNTIME_FOLDER, { threads });
  return threads ? runtime.liteRtWasm.getThreadCount() : 1;
}

async function fetchBytes(file) {
  const response = await fetch(new URL(file, self.location.href));
  if (!response.ok) throw new Error(`${file}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}
