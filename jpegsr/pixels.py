"""The one boundary between 8-bit levels and the floats that networks compute with, for arrays and tensors of any backend."""

from keras import ops


def to_unit(levels):
    """Levels 0-255 of any type -> float32 in [0, 1]."""
    return ops.cast(levels, "float32") / 255.0


def to_levels(pixels):
    """Float values -> uint8 levels, rounded to the nearest and clipped."""
    return ops.cast(ops.clip(ops.round(ops.cast(pixels, "float32") * 255.0), 0.0, 255.0), "uint8")
