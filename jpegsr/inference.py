"""One picture of any size through a network, in tiles of one shape, with bounded memory."""

import concurrent.futures
import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np

from jpegsr.pixels import to_levels, to_unit

# float32 [1, h, w, 3] in [0, 1] -> float32 [1, s * h, s * w, 3]; called from several threads at once.
Run = Callable[[np.ndarray], np.ndarray]
# (tiles done, tiles in all); may raise to stop the work.
Progress = Callable[[int, int], None]
# One tile is in the network while another one is cut, converted or written back.
_NUM_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
      scale: the network's output is this many times larger than its input.
      overlap: input pixels to each side that a tile needs beyond what is kept of it; with the network's receptive radius
        the result is that of a single pass, and needs no blending.
      alignment: tiles start at multiples of this many pixels.
      max_tile_pixels: input pixels of a tile, overlap included.
    """

    scale: int
    overlap: int
    alignment: int = 1
    max_tile_pixels: int = 512 * 512

    def shape(self, height: int, width: int) -> tuple["Cuts", "Cuts"]:
        """The cuts along both axes: near-square tiles, all of one shape, that fill the picture from edge to edge."""
        side = math.isqrt(self.max_tile_pixels)
        # What a short axis leaves unused, the other one may use.
        rows = cut(height, max(side, self.max_tile_pixels // width), self.overlap, self.alignment)
        columns = cut(width, max(side, self.max_tile_pixels // rows.length), self.overlap, self.alignment)
        return rows, columns


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Tiles along one axis.

    Attributes:
      length: of every tile.
      starts: where they begin.
      borders: tile i gives the result from `borders[i]` to `borders[i + 1]`.
    """

    length: int
    starts: tuple[int, ...]
    borders: tuple[int, ...]


def cut(size: int, max_length: int, overlap: int, alignment: int = 1) -> Cuts:
    """Cut an axis into the fewest tiles, and those as short as that number allows.

    Args:
      size: of the axis.
      max_length: of a tile, but at least one grid cell more than both overlaps.
      overlap: as in `Tiling`.
      alignment: as in `Tiling`.
    """
    if size <= max_length:
        return Cuts(size, (0,), (0, size))
    margin = 2 * -(-overlap // alignment) * alignment
    # The last tile ends with the picture, on a start that is a multiple of the alignment.
    remainder = size % alignment
    longest_step = max((max_length - margin - remainder) // alignment, 1) * alignment
    count = -(-(size - margin) // longest_step)
    step = -(-(size - margin) // (count * alignment)) * alignment
    length = step + margin + remainder
    if length >= size:
        return Cuts(size, (0,), (0, size))
    starts = tuple(dict.fromkeys(min(i * step, size - length) for i in range(count)))
    middles = tuple((start + length + following) // 2 for start, following in itertools.pairwise(starts))
    return Cuts(length, starts, (0, *middles, size))


def apply(run: Run, picture: np.ndarray, tiling: Tiling, progress: Progress | None = None) -> np.ndarray:
    """Run a network over a picture.

    Args:
      run: the network.
      picture: uint8 or uint16 `[H, W, 3]`, or `[H, W, 1]` (gray).
      tiling: how to cut it.
      progress: called after each tile, in the caller's thread.

    Returns:
      `[scale * H, scale * W, C]` of the same type; memory beyond it is that of the tiles in flight.
    """
    height, width, channels = picture.shape
    scale = tiling.scale
    rows, columns = tiling.shape(height, width)
    result = np.empty((height * scale, width * scale, channels), picture.dtype)

    def enhance_tile(row: int, column: int) -> None:
        top, left = rows.starts[row], columns.starts[column]
        tile = to_unit(picture[None, top : top + rows.length, left : left + columns.length])
        pixels = run(np.repeat(tile, 3, axis=3) if channels == 1 else tile)[0]
        first_row, last_row = rows.borders[row : row + 2]
        first_column, last_column = columns.borders[column : column + 2]
        kept = pixels[
            (first_row - top) * scale : (last_row - top) * scale, (first_column - left) * scale : (last_column - left) * scale
        ]
        target = result[first_row * scale : last_row * scale, first_column * scale : last_column * scale]
        for start in range(0, len(kept), 64):  # bands that stay in the processor's cache
            band = kept[start : start + 64]
            if channels == 1:
                band = band.mean(axis=2, keepdims=True)
            target[start : start + 64] = to_levels(band, picture.dtype.name)

    places = [(row, column) for row in range(len(rows.starts)) for column in range(len(columns.starts))]
    with concurrent.futures.ThreadPoolExecutor(_NUM_IN_FLIGHT) as pool:
        futures = [pool.submit(enhance_tile, *place) for place in places]
        try:
            for done, future in enumerate(futures, start=1):
                future.result()
                if progress:
                    progress(done, len(futures))
        finally:
            pool.shutdown(cancel_futures=True)
    return result


def self_ensemble(run: Run) -> Run:
    """The mean over the 8 flips and quarter turns of the input, each turned back (EDSR's "+")."""

    def average(pixels: np.ndarray) -> np.ndarray:
        total: np.ndarray | None = None
        for turns in range(4):
            for flipped in (False, True):
                turned = np.rot90(pixels, turns, axes=(1, 2))
                turned = turned[:, :, ::-1] if flipped else turned
                output = run(np.ascontiguousarray(turned))
                output = output[:, :, ::-1] if flipped else output
                output = np.rot90(output, -turns, axes=(1, 2))
                total = output.copy() if total is None else np.add(total, output, out=total)
        assert total is not None
        return np.multiply(total, np.float32(1 / 8), out=total)

    return average
