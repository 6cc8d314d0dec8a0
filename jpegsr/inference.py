"""One picture of any size through a network, in tiles of one shape, with bounded memory."""

import concurrent.futures
import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np

from jpegsr.pixels import to_levels, to_unit

# float32 [N, h, w, 3] in [0, 1] -> float32 [N, s * h, s * w, 3]; called from several threads at once. N is 1 unless the tiling
# has tiles of fixed shape.
Run = Callable[[np.ndarray], np.ndarray]
# (tiles done, tiles in all); may raise to stop the work.
Progress = Callable[[int, int], None]
# One tile is in the network while another one is cut, converted or written back.
_NUM_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class FixedTiles:
    """The one shape that some networks are compiled for.

    Attributes:
      side: of the square tiles.
      count: how many of them a call takes at most.
    """

    side: int
    count: int


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
      scale: the network's output is this many times larger than its input.
      overlap: input pixels to each side that a tile needs beyond what is kept of it; with the network's receptive radius
        the result is that of a single pass, and needs no blending.
      alignment: tiles start at multiples of this many pixels.
      max_tile_pixels: input pixels of a tile, overlap included.
      fixed: tiles of a shape that the network prefers, several in a call, for pictures that are larger than one tile.
    """

    scale: int
    overlap: int
    alignment: int = 1
    max_tile_pixels: int = 512 * 512
    fixed: FixedTiles | None = None

    def shape(self, height: int, width: int) -> tuple["Cuts", "Cuts"]:
        """The cuts along both axes: near-square tiles, all of one shape, that fill the picture from edge to edge."""
        if self.fixed and height * width > self.max_tile_pixels:
            rows, columns = (cut_exactly(size, self.fixed.side, self.overlap, self.alignment) for size in (height, width))
            if rows and columns:
                return rows, columns
        side = math.isqrt(self.max_tile_pixels)
        # What a short axis leaves unused, the other one may use.
        rows = cut(height, max(side, self.max_tile_pixels // width), self.overlap, self.alignment)
        columns = cut(width, max(side, self.max_tile_pixels // rows.length), self.overlap, self.alignment)
        return rows, columns

    def groups(self, rows: "Cuts", columns: "Cuts") -> list[list[tuple[int, int]]]:
        """The (row, column) of all tiles, those together that go into one call."""
        places = list(itertools.product(range(len(rows.starts)), range(len(columns.starts))))
        is_fixed = self.fixed and rows.length == columns.length == self.fixed.side
        count = self.fixed.count if self.fixed and is_fixed else 1
        return [places[i : i + count] for i in range(0, len(places), count)]


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
    return _spread(size, length, step)


def cut_exactly(size: int, length: int, overlap: int, alignment: int = 1) -> Cuts | None:
    """Cut an axis into tiles of a given length, or None if it is too short, or ends off the grid; arguments as in `cut`."""
    step = (length - 2 * -(-overlap // alignment) * alignment) // alignment * alignment
    if step < 1 or size < length or (size - length) % alignment:
        return None
    return _spread(size, length, step)


def _spread(size: int, length: int, step: int) -> Cuts:
    """Tiles that start every `step` pixels, but for the last one, which ends with the axis."""
    count = -(-(size - length) // step) + 1
    starts = tuple(min(i * step, size - length) for i in range(count))
    middles = tuple((start + length + following) // 2 for start, following in itertools.pairwise(starts))
    return Cuts(length, starts, (0, *middles, size))


def apply(run: Run, picture: np.ndarray, tiling: Tiling, progress: Progress | None = None) -> np.ndarray:
    """Run a network over a picture.

    Args:
      run: the network.
      picture: uint8 or uint16 `[H, W, 3]`, or `[H, W, 1]` (gray).
      tiling: how to cut it.
      progress: called after each call of the network, in the caller's thread.

    Returns:
      `[scale * H, scale * W, C]` of the same type; memory beyond it is that of the tiles in flight.
    """
    height, width, channels = picture.shape
    scale = tiling.scale
    rows, columns = tiling.shape(height, width)
    result = np.empty((height * scale, width * scale, channels), picture.dtype)

    def tile(row: int, column: int) -> np.ndarray:
        top, left = rows.starts[row], columns.starts[column]
        return picture[top : top + rows.length, left : left + columns.length]

    def enhance_tiles(group: list[tuple[int, int]]) -> None:
        tiles = to_unit(np.stack([tile(*place) for place in group]))
        for place, pixels in zip(group, run(np.repeat(tiles, 3, axis=3) if channels == 1 else tiles), strict=True):
            write(*place, pixels)

    def write(row: int, column: int, pixels: np.ndarray) -> None:
        top, left = rows.starts[row], columns.starts[column]
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

    groups = tiling.groups(rows, columns)
    with concurrent.futures.ThreadPoolExecutor(_NUM_IN_FLIGHT) as pool:
        futures = [pool.submit(enhance_tiles, group) for group in groups]
        num_tiles = list(itertools.accumulate(map(len, groups)))
        try:
            for future, num_done in zip(futures, num_tiles, strict=True):
                future.result()
                if progress:
                    progress(num_done, num_tiles[-1])
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
