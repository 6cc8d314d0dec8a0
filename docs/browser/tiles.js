/** How a picture is cut into tiles that overlap: `Tiling.shape` and `cut` of jpegsr/inference.py, which say why. */

/**
 * The cuts along both axes: near-square tiles of one shape.
 *
 * @param {number} height of the picture, in pixels.
 * @param {number} width
 * @param {{overlap: number, alignment: number, maxTilePixels: number}} tiling
 * @returns {{rows: Cuts, columns: Cuts}}
 */
export function cutPicture(height, width, { overlap, alignment, maxTilePixels }) {
  const side = Math.floor(Math.sqrt(maxTilePixels));
  const rows = cut(height, Math.max(side, Math.floor(maxTilePixels / width)), overlap, alignment);
  const columns = cut(width, Math.max(side, Math.floor(maxTilePixels / rows.length)), overlap, alignment);
  return { rows, columns };
}

/**
 * Cut an axis into the fewest tiles, and those as short as that number allows.
 *
 * @typedef {{length: number, starts: number[], borders: number[]}} Cuts tile i begins at `starts[i]` and gives the result
 *   from `borders[i]` to `borders[i + 1]`.
 * @returns {Cuts}
 */
function cut(size, maxLength, overlap, alignment) {
  const whole = { length: size, starts: [0], borders: [0, size] };
  if (size <= maxLength) return whole;
  const margin = 2 * Math.ceil(overlap / alignment) * alignment;
  // The last tile ends with the picture, on a start that is a multiple of the alignment.
  const remainder = size % alignment;
  const longestStep = Math.max(Math.floor((maxLength - margin - remainder) / alignment), 1) * alignment;
  const steps = Math.ceil((size - margin) / longestStep);
  const step = Math.ceil((size - margin) / (steps * alignment)) * alignment;
  const length = step + margin + remainder;
  if (length >= size) return whole;
  const count = Math.ceil((size - length) / step) + 1;
  const starts = Array.from({ length: count }, (_, i) => Math.min(i * step, size - length));
  const middles = starts.slice(1).map((following, i) => Math.floor((starts[i] + length + following) / 2));
  return { length, starts, borders: [0, ...middles, size] };
}
