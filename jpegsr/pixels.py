"""The one boundary between integer levels and the floats that networks compute with, for arrays and tensors of any backend.

NumPy arrays need no Keras: the CPU runtimes start without it.
"""

from typing import Any

import numpy as np


def to_unit(levels: Any) -> Any:
    """Levels -> float32 in [0, 1]: 0-65535 if uint16, 0-255 of any other type."""
    if isinstance(levels, np.ndarray):
        return levels.astype(np.float32) * np.float32(1 / (65535 if levels.dtype == np.uint16 else 255))
    from keras import ops

    return ops.cast(levels, "float32") / 255.0


def to_levels(pixels: Any, dtype: str = "uint8") -> Any:
    """Float values -> "uint8" or "uint16" levels, rounded to the nearest and clipped."""
    highest = {"uint8": 255.0, "uint16": 65535.0}[dtype]
    if isinstance(pixels, np.ndarray):
        levels = pixels * np.float32(highest)
        np.rint(levels, out=levels)
        return np.clip(levels, 0.0, highest, out=levels).astype(dtype)
    from keras import ops

    return ops.cast(ops.clip(ops.round(ops.cast(pixels, "float32") * highest), 0.0, highest), dtype)
