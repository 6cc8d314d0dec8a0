"""jpegsr: small, blocky JPEGs in, clean pictures at 2, 3 or 4 times the size out.

`jpegsr.enhance(image)` is the short way; the modules are the long one. Importing this package imports neither TensorFlow
nor NumPy: they load when first needed.
"""

from typing import TYPE_CHECKING

from jpegsr.errors import UserError

if TYPE_CHECKING:
    import numpy as np

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "enhance"]


def enhance(image: "np.ndarray", scale: int | None = None, model: str = "base") -> "np.ndarray":
    """Remove the compression artifacts of a picture and enlarge it; see `jpegsr.enhancement.enhance`.

    Args:
      image: uint8 `[H, W, 3]` (sRGB) or `[H, W]` (gray), levels 0-255.
      scale: 2, 3 or 4; by default that of the model.
      model: a shipped name, a `.keras` file, or the folder of a training run.

    Returns:
      uint8 `[scale * H, scale * W, 3]`, or `[scale * H, scale * W]` for gray.
    """
    from jpegsr import enhancement

    return enhancement.enhance(image, scale, model)
