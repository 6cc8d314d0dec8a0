"""A network of `base`'s size that has never seen a JPEG: what `base` owes to its training data, and not to its network."""

from typing import Any

from trained_network import TrainedNetwork


def build(scale: int) -> Any:
    """`[B, H, W, 3]` -> `[B, scale * H, scale * W, 3]`."""
    import dataclasses

    import keras

    from jpegsr import models
    from jpegsr.config import MODEL_PRESETS

    joint = models.build_joint(dataclasses.replace(MODEL_PRESETS["base"], scale=scale))
    return keras.Model(joint.input, joint.output["upscaled"], name="clean_base")


SYSTEMS = {"base's network, clean-trained": TrainedNetwork("base_clean", build)}
