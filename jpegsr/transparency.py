"""Pictures with an alpha channel: colours that leave no fringe, and opacity enlarged on its own."""

import numpy as np

from jpegsr import vips

_BAND = 256  # rows, an even number


def fill_transparent(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give fully transparent pixels the colour of what is visible around them.

    What a file stores there is arbitrary, often black; a network would carry it into the visible edge. The filling is the
    mean over the 2x2, 4x4, ... neighbourhood, weighted by opacity (premultiplied), of the smallest one that is not all
    transparent.

    Args:
      pixels: uint8 or uint16 `[H, W, C]`.
      alpha: `[H, W, 1]` of the same type.

    Returns:
      `[H, W, C]`; visible pixels are as they were.
    """
    if alpha.all() or not alpha.any():
        return pixels
    # In bands, as floats of the whole picture take many times its memory.
    bands = [slice(start, start + _BAND) for start in range(0, len(pixels), _BAND)]
    weighted = np.concatenate([_halved(pixels[band] * alpha[band].astype(np.float32)) for band in bands])
    weight = np.concatenate([_halved(alpha[band].astype(np.float32)) for band in bands])
    filling = _filled(weighted, weight)
    height, width = pixels.shape[:2]
    enlarged = np.rint(filling).astype(pixels.dtype).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(alpha == 0, enlarged, pixels)


def _filled(weighted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours of a level of the pyramid, those without weight taken from the next coarser level; float32 `[H, W, C]`."""
    colours = weighted / np.maximum(weight, 1e-6)
    if weight.all():
        return colours
    coarser = _filled(_halved(weighted), _halved(weight))
    height, width = weight.shape[:2]
    return np.where(weight == 0, coarser.repeat(2, axis=0).repeat(2, axis=1)[:height, :width], colours)


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels, float32; an odd last row or column stands for two."""
    height, width = values.shape[:2]
    values = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) * np.float32(0.25)


def enlarge_alpha(alpha: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic, `[H, W, 1]` -> `[scale * H, scale * W, 1]`."""
    if scale == 1:
        return alpha
    height, width = alpha.shape[:2]
    return vips.resize(alpha, width * scale, height * scale, "cubic")
