"""What executes a model: callables for `inference`, made from loaded weights."""

import numpy as np
import tensorflow as tf

from jpegsr.inference import Network
from jpegsr.weights import TrainedModel


def tensorflow_network(trained: TrainedModel, output: str = "upscaled") -> Network:
    """A model's output as a compiled TensorFlow function.

    Args:
      trained: the model.
      output: "upscaled" (scale times the size) or "restored" (the same size).

    Returns:
      float32 `[B, H, W, 3]` -> float32 `[B, s * H, s * W, 3]`, traced once for all sizes. Thread-safe.
    """
    signature = tf.TensorSpec((None, None, None, 3), tf.float32)
    function = tf.function(lambda pixels: trained.model(pixels, training=False)[output], input_signature=[signature])

    def network(pixels: np.ndarray) -> np.ndarray:
        return function(pixels).numpy()

    return network
