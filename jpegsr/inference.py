"""One picture of any size through a network.

A network is any callable that maps float32 `[B, H, W, 3]` in [0, 1] to float32 `[B, s * H, s * W, 3]`.
"""

from collections.abc import Callable, Iterator

import numpy as np
from keras import ops

from jpegsr.config import ModelConfig
from jpegsr.pixels import to_levels, to_unit

Network = Callable[[np.ndarray], np.ndarray]
# Side of the part of the input that one call covers; with the overlap around it, some 100 MB per layer of `base`.
DEFAULT_TILE_SIZE = 512


def apply(
    network: Network, image: np.ndarray, config: ModelConfig, scale: int, tile_size: int = DEFAULT_TILE_SIZE
) -> np.ndarray:
    """Run a network over a picture of any size.

    Pictures larger than a tile are cut into tiles that overlap by the receptive field, so that the result is that of a
    single pass and has no seams.

    Args:
      network: what to run.
      image: uint8 `[H, W, 3]`.
      config: of the network; tells how far the tiles must overlap and on which grid they must start.
      scale: how many times larger the network's output is.
      tile_size: side of a tile in input pixels, without the overlap.

    Returns:
      uint8 `[scale * H, scale * W, 3]`.
    """
    height, width = image.shape[:2]
    result = np.empty((height * scale, width * scale, 3), np.uint8)
    for top, bottom, outer_top, outer_bottom in _spans(height, tile_size, config):
        for left, right, outer_left, outer_right in _spans(width, tile_size, config):
            tile = ops.convert_to_numpy(to_unit(image[None, outer_top:outer_bottom, outer_left:outer_right]))
            pixels = network(tile)[0]
            inner = pixels[
                (top - outer_top) * scale : (bottom - outer_top) * scale,
                (left - outer_left) * scale : (right - outer_left) * scale,
            ]
            result[top * scale : bottom * scale, left * scale : right * scale] = ops.convert_to_numpy(to_levels(inner))
    return result


def _spans(size: int, tile_size: int, config: ModelConfig) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, start with overlap, end with overlap) of the tiles along one axis."""
    overlap = -(-config.receptive_radius // config.alignment) * config.alignment
    step = max(tile_size // config.alignment, 1) * config.alignment
    for start in range(0, size, step):
        end = min(start + step, size)
        yield start, end, max(start - overlap, 0), min(end + overlap, size)
