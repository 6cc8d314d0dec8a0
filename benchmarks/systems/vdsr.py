"""VDSR (Kim et al. 2016): 20 convolutions with 64 filters on the luma of the bicubic enlargement; they predict the residual.

Trained once on clean pictures, as in its paper, and once on JPEGs. Deviations: optimizer and batches are ours (see
`train_networks.py`), and one scale is trained at a time.
"""

from typing import Any

from trained_network import TrainedNetwork, on_luma

_NUM_LAYERS = 20
_NUM_FILTERS = 64


def build(scale: int) -> Any:
    """`[B, H, W, 3]` -> `[B, scale * H, scale * W, 3]`."""
    from keras import layers

    def residual(luma):
        features = luma
        for i in range(_NUM_LAYERS - 1):
            name = f"conv{i}" if i else "first"
            convolution = layers.Conv2D(_NUM_FILTERS, 3, padding="same", kernel_initializer="he_normal", name=name)
            features = layers.ReLU()(convolution(features))
        # Zeros at first: training starts from bicubic.
        return layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros", name="last")(features)

    return on_luma(scale, residual, "vdsr")


SYSTEMS = {
    "VDSR, clean-trained": TrainedNetwork("vdsr_clean", build),
    "VDSR, JPEG-trained": TrainedNetwork("vdsr_jpeg", build),
}
