"""jpegsr: small, blocky JPEGs in, clean pictures at 1, 2, 3 or 4 times the size out.

`jpegsr.enhance(image)` is the short way, `jpegsr.Enhancer` the one with choices; the modules are the long one. Importing this
package imports neither TensorFlow nor NumPy: they load when first needed.
"""

from typing import TYPE_CHECKING, Any

from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.enhancement import Enhancer, enhance

__version__ = "0.1.0"
__all__ = ["Enhancer", "UserError", "__version__", "enhance"]


def __getattr__(name: str) -> Any:
    if name in ("Enhancer", "enhance"):
        from jpegsr import enhancement

        return getattr(enhancement, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
