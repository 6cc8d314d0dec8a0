"""The degradation Z = C S H X (eq. 2 and 4) in NumPy and Pillow: the reference, used by evaluation and outside TensorFlow.

`degradation_graph` has the same operations as TensorFlow ops for `tf.data`; the tests hold both equal, level for level.
Pictures are uint8 `[H, W, C]`, C = 3 (RGB) or 1 (gray).
"""

import functools
import io

import numpy as np
from PIL import Image

from jpegsr.errors import UserError

# Sums of weighted levels that fall on .5 must round up whatever the order of summation.
ROUNDING_GUARD = 1e-6


def cubic_kernel(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5, the one of MATLAB's `imresize`."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, inner, np.where(x <= 2.0, outer, 0.0))


@functools.lru_cache(maxsize=8)  # dense: 144 MB for one that halves 6000 pixels
def resize_matrix(in_size: int, out_size: int) -> np.ndarray:
    """The weights of MATLAB's bicubic `imresize` along one axis, float64 `[out_size, in_size]`, rows summing to 1.

    When it shrinks, the kernel is stretched by the factor (antialiasing); beyond the edges the picture is mirrored.
    """
    ratio = out_size / in_size
    stretch = max(1.0, 1.0 / ratio)
    centers = (np.arange(out_size) + 0.5) / ratio - 0.5
    taps = int(np.ceil(4 * stretch)) + 2
    positions = np.floor(centers - 2 * stretch).astype(int)[:, None] + np.arange(taps)[None, :]
    weights = cubic_kernel((centers[:, None] - positions) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = positions % (2 * in_size)
    mirrored = np.where(mirrored < in_size, mirrored, 2 * in_size - 1 - mirrored)
    matrix = np.zeros((out_size, in_size))
    np.add.at(matrix, (np.arange(out_size)[:, None], mirrored), weights)
    matrix.setflags(write=False)
    return matrix


def _round_to_levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + (0.5 + ROUNDING_GUARD)), 0, 255)


def _resize(image: np.ndarray, height: int, width: int, round_between: bool) -> np.ndarray:
    """Vertical pass, then horizontal pass."""
    rows = np.einsum("oh,hwc->owc", resize_matrix(image.shape[0], height), image, optimize=True)
    rows = _round_to_levels(rows) if round_between else rows
    columns = np.einsum("ow,hwc->hoc", resize_matrix(image.shape[1], width), rows, optimize=True)
    return _round_to_levels(columns).astype(np.uint8)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic resampling to any size, antialiased where it shrinks, uint8 `[H, W, C]` -> `[height, width, C]`, rounded once."""
    return _resize(image, height, width, round_between=False)


def downscale(image: np.ndarray, scale: int) -> np.ndarray:
    """S H X: antialiased bicubic, uint8 `[H, W, C]` -> `[H / scale, W / scale, C]`; H and W must be multiples of it.

    Rounded after each pass, as MATLAB's `imresize` does on uint8.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise UserError(f"a {width}x{height} picture does not divide by {scale}: crop it first (crop_to_multiple)")
    return _resize(image, height // scale, width // scale, round_between=True)


def upscale_bicubic(image: np.ndarray, scale: int) -> np.ndarray:
    """The baseline of every table: bicubic enlargement, uint8 `[H, W, C]` -> `[scale * H, scale * W, C]`, rounded once."""
    return resize(image, image.shape[0] * scale, image.shape[1] * scale)


def crop_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """Drop the rows at the bottom and the columns at the right that do not fill a multiple."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]


def encode_jpeg(image: np.ndarray, quality: int, chroma_444: bool = False) -> bytes:
    """The file that libjpeg writes at a quality of 1-100, 4:2:0 or 4:4:4."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.save(buffer, "JPEG", quality=int(quality), subsampling=0 if chroma_444 else 2)
    return buffer.getvalue()


def encode(image: np.ndarray, quality: int) -> bytes:
    """The file that holds what `jpeg` gives: a 4:2:0 JPEG, or for quality 0 a PNG, uint8 `[H, W, C]` -> its content."""
    if quality:
        return encode_jpeg(image, quality)
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(image: np.ndarray, quality: int, chroma_444: bool = False) -> np.ndarray:
    """C: compress and decompress, uint8 `[H, W, C]` -> the same shape. Quality 0 stands for no compression."""
    if quality == 0:
        return image
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(image, quality, chroma_444))))
    return decoded.reshape(image.shape)
