"""SRCNN (Dong et al. 2014), its 9-5-5 variant: three convolutions on the luma of the bicubic enlargement, which they replace.

Trained on clean pictures. Deviations: optimizer and batches are ours (see `train_networks.py`); borders are padded with zeros
where the publication shrinks the picture.
"""

from typing import Any

from trained_network import TrainedNetwork, on_luma


def build(scale: int) -> Any:
    """`[B, H, W, 3]` -> `[B, scale * H, scale * W, 3]`."""
    from keras import layers

    def correction(luma):
        features = luma
        for filters, size, name in ((64, 9, "first"), (32, 5, "middle")):
            convolution = layers.Conv2D(filters, size, padding="same", kernel_initializer="he_normal", name=name)
            features = layers.ReLU()(convolution(features))
        return layers.Conv2D(1, 5, padding="same", kernel_initializer="he_normal", name="last")(features) - luma

    return on_luma(scale, correction, "srcnn")


SYSTEMS = {"SRCNN, clean-trained": TrainedNetwork("srcnn_clean", build)}
