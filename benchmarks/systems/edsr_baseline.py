"""EDSR-baseline (Lim et al. 2017): 16 residual blocks of 64 filters, 1.37 million parameters, trained on clean pictures.

Deviations: the nearest-neighbour enlargement of the input is added to the output, as in `base`, instead of a mean colour being
taken off and put back: the network need not learn to hand the picture on, which takes it longer than the training here lasts.
Optimizer and pictures are those of `base` (see `train_networks.py`), for as fair a comparison as its shorter training allows.
"""

from typing import Any

from trained_network import TrainedNetwork

_NUM_BLOCKS = 16
_NUM_FILTERS = 64


def build(scale: int) -> Any:
    """`[B, H, W, 3]` -> `[B, scale * H, scale * W, 3]`, for scales 2 and 3 (one step of sub-pixel convolution)."""
    import keras
    from keras import layers, ops

    def convolution(filters: int, name: str, **options: Any):
        return layers.Conv2D(filters, 3, padding="same", name=name, **options)

    compressed = keras.Input((None, None, 3), name="compressed")
    first = features = convolution(_NUM_FILTERS, "first")(compressed)
    for i in range(_NUM_BLOCKS):
        residual = layers.ReLU()(convolution(_NUM_FILTERS, f"block{i}_conv1")(features))
        features = features + convolution(_NUM_FILTERS, f"block{i}_conv2")(residual)
    features = first + convolution(_NUM_FILTERS, "body_end")(features)
    features = ops.depth_to_space(convolution(_NUM_FILTERS * scale**2, "upsampler")(features), scale)
    detail = convolution(3, "last", kernel_initializer="zeros")(features)
    enlarged = layers.UpSampling2D(scale, interpolation="nearest")(compressed)
    return keras.Model(compressed, enlarged + detail, name="edsr_baseline")


SYSTEMS = {"EDSR-baseline, clean-trained": TrainedNetwork("edsr_baseline_clean", build)}
