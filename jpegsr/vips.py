"""NumPy arrays <-> libvips images. Arrays are uint8 or uint16 `[H, W, C]`."""

import numpy as np
import pyvips

from jpegsr.errors import UserError


def as_image(pixels: np.ndarray) -> pyvips.Image:
    """The array as a picture, not copied."""
    height, width, bands = pixels.shape
    is_deep = pixels.dtype == np.uint16
    pixels = np.ascontiguousarray(pixels)
    image = pyvips.Image.new_from_memory(pixels.data, width, height, bands, "ushort" if is_deep else "uchar")
    interpretation = ("grey16" if is_deep else "b-w") if bands == 1 else ("rgb16" if is_deep else "srgb")
    return image.copy(interpretation=interpretation)


def as_array(image: pyvips.Image) -> np.ndarray:
    """uint8 or uint16 `[H, W, C]`."""
    return np.asarray(image.numpy()).reshape(image.height, image.width, image.bands)


def resize(pixels: np.ndarray, width: int, height: int, kernel: str = "lanczos3") -> np.ndarray:
    """Resample uint8 or uint16 `[H, W, C]` to an exact size; the kernel is stretched where that shrinks it.

    `UserError` if the memory does not suffice.
    """
    image = as_image(pixels)
    try:
        return as_array(image.resize(width / image.width, vscale=height / image.height, kernel=kernel))
    except pyvips.Error as error:
        raise UserError(f"cannot resize to {width}x{height}: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """What libvips says, of which the first line tells most."""
    detail = (error.detail or error.message) if isinstance(error, pyvips.Error) else str(error)
    return next((line.strip() for line in detail.splitlines() if line.strip()), "damaged")
