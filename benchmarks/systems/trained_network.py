"""Keras networks as systems, with weights that `train_networks.py` made: `weights/NAME_xSCALE.npz`, float16.

A network takes and gives float32 RGB in [0, 1]: `[B, H, W, 3]` -> `[B, scale * H, scale * W, 3]`.
"""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jpegsr import degradation, images
from jpegsr.errors import UserError
from jpegsr.pixels import to_levels, to_unit

WEIGHTS_FOLDER = pathlib.Path(__file__).parent / "weights"
# BT.601 luma without its offset and range, which a difference of lumas does not have: Y = 0.299 R + 0.587 G + 0.114 B.
_LUMA_WEIGHTS = ((0.299,), (0.587,), (0.114,))


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A system: (content of a JPEG or PNG, scale) -> uint8 `[scale * H, scale * W, 3]`. The picture runs as a whole.

    Attributes:
      name: of the weights.
      build: scale -> the network.
    """

    name: str
    build: Callable[[int], Any]

    def __call__(self, file: bytes, scale: int) -> np.ndarray:
        run = self._load(scale)
        return to_levels(run(to_unit(images.read_rgb(io.BytesIO(file))[None])).numpy()[0])

    @functools.cache  # noqa: B019  the systems live as long as the program
    def _load(self, scale: int) -> Callable:
        import tensorflow as tf

        path = WEIGHTS_FOLDER / f"{self.name}_x{scale}.npz"
        if not path.is_file():
            raise UserError(f"it has no weights for scale {scale} yet: train them with train_networks.py")
        network = self.build(scale)
        with np.load(path) as stored:
            network.set_weights([stored[key].astype(np.float32) for key in sorted(stored.files)])
        signature = [tf.TensorSpec((1, None, None, 3), tf.float32)]
        return tf.function(lambda pixels: network(pixels, training=False), signature, autograph=False)

    @property
    def num_parameters(self) -> int:
        return self.build(2).count_params()


def save_weights(path: pathlib.Path, network: Any) -> None:
    """In float16: half the size, and rounding that is far below that of a picture to 8 bits."""
    arrays = {f"{i:03d}": value.astype(np.float16) for i, value in enumerate(network.get_weights())}
    np.savez_compressed(path, **arrays)


def on_luma(scale: int, correct: Callable[[Any], Any], name: str) -> Any:
    """A network that enlarges with bicubic interpolation and corrects the luma, as SRCNN and VDSR do.

    Args:
      scale: how much it enlarges.
      correct: luma, float `[B, sH, sW, 1]` in [0, 1] -> what is to be added to it.
      name: of the model.

    Returns:
      The model. Adding to luma alone is, in RGB, adding the same to all three channels.
    """
    import keras
    from keras import ops

    compressed = keras.Input((None, None, 3), name="compressed")
    enlarged = enlarge_bicubic(compressed, scale)
    luma = ops.matmul(enlarged, np.array(_LUMA_WEIGHTS, np.float32))
    return keras.Model(compressed, enlarged + correct(luma), name=name)


def enlarge_bicubic(pictures: Any, scale: int) -> Any:
    """`degradation.upscale_bicubic` for float `[B, H, W, 3]`, not rounded: as a convolution and a sub-pixel step.

    (Keras' own bicubic enlargement does not work where the size is not known when the graph is made.)
    """
    from keras import ops

    phases = (np.arange(scale) + 0.5) / scale - 0.5
    taps = degradation.cubic_kernel(phases[:, None] - np.arange(-2, 3)[None, :])
    kernel = np.einsum("pi,qj,cd->ijcpqd", taps, taps, np.eye(3)).reshape(5, 5, 3, 3 * scale**2)
    mirrored = ops.pad(pictures, [[0, 0], [2, 2], [2, 2], [0, 0]], mode="symmetric")
    return ops.depth_to_space(ops.conv(mirrored, kernel.astype(np.float32), padding="valid"), scale)
