"""The networks of the paper as functional Keras models, built from a `ModelConfig` with Keras' own operations alone.

All take and return float RGB pictures `[B, H, W, 3]` with values nominally in [0, 1], at any height and width, and run the
same on the TensorFlow backend (the product) and on JAX. Weights are float32; under a mixed-precision policy the
convolutions compute in the policy's type and the outputs are float32.
"""

import contextlib
from collections.abc import Iterator

import keras
from keras import layers, ops

from jpegsr.config import ModelConfig
from jpegsr.layers import CropLike

NUM_CHANNELS = 3  # RGB


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Within the block, networks are built to compute in "float32" or "mixed_bfloat16"."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def convolution(filters: int, name: str, kernel_size: int = 3, strides: int = 1, **options) -> layers.Conv2D:
    """A convolution that keeps the size, but for its strides."""
    return layers.Conv2D(filters, kernel_size, strides, padding="same", name=name, **options)


def residual_block(features, filters: int, scaling: float, name: str, negative_slope: float):
    """Convolution, ReLU, convolution, scaled and added to the input (EDSR, reference [4] of the paper)."""
    residual = layers.ReLU(negative_slope=negative_slope, name=f"{name}_relu")(convolution(filters, f"{name}_conv1")(features))
    residual = convolution(filters, f"{name}_conv2")(residual)
    if scaling != 1.0:
        residual = residual * scaling
    return layers.Add(name=f"{name}_add")([features, residual])


def is_residual_block(layer_name: str) -> bool:
    """Whether a layer belongs to a residual block, which does nothing while its second convolution is zero."""
    return layer_name.startswith("block")


def _car_body(features, config: ModelConfig):
    if config.car_body == "residual":
        for i in range(config.car_num_layers // 2):
            features = residual_block(features, config.car_num_filters, 1.0, f"block{i}", config.negative_slope)
        return features
    for i in range(config.car_num_layers):
        features = convolution(config.car_num_filters, f"conv{i + 1}", use_bias=not config.car_batch_normalization)(features)
        if config.car_batch_normalization:
            features = layers.BatchNormalization(name=f"norm{i + 1}")(features)
        features = layers.ReLU(negative_slope=config.negative_slope, name=f"relu{i + 1}")(features)
    return features


def build_car(config: ModelConfig) -> keras.Model:
    """The compression-artifact-removal network (section 2.1.1): `[B, H, W, 3]` -> `[B, H, W, 3]`.

    It predicts the residual: with a last layer of zeros it returns its input. With `car_stride` above 1 the first
    convolution reads the pixels of a stride x stride cell (and one cell around it) as one position, and the sub-pixel
    convolution at the end writes the cell back.
    """
    compressed = keras.Input((None, None, NUM_CHANNELS), name="compressed")
    stride = config.car_stride
    features = convolution(config.car_num_filters, "first", 3 * stride, stride)(compressed)
    features = layers.ReLU(negative_slope=config.negative_slope, name="first_relu")(features)
    features = _car_body(features, config)
    # Zeros at first: training starts from the picture as it is.
    residual = convolution(NUM_CHANNELS * stride**2, "last", dtype="float32", kernel_initializer="zeros")(features)
    if stride > 1:
        residual = ops.depth_to_space(residual, stride)
        residual = CropLike(dtype="float32", name="crop")([residual, compressed])
    restored = layers.Add(dtype="float32", name="restored")([compressed, residual])
    return keras.Model(compressed, restored, name="car")


def build_sr(config: ModelConfig) -> keras.Model:
    """The super-resolution network (section 2.1.2): `[B, H, W, 3]` -> `[B, scale * H, scale * W, 3]`.

    EDSR's residual blocks between two convolutions with a long skip, then one sub-pixel convolution (reference [7]).
    """
    restored = keras.Input((None, None, NUM_CHANNELS), name="restored")
    first = convolution(config.sr_num_filters, "first")(restored)
    features, scaling = first, config.sr_residual_scaling
    for i in range(config.sr_num_residual_blocks):
        features = residual_block(features, config.sr_num_filters, scaling, f"block{i}", config.negative_slope)
    features = layers.Add(name="long_skip")([first, convolution(config.sr_num_filters, "body_end")(features)])
    initializer = "zeros" if config.sr_image_skip else "glorot_uniform"
    pixels = convolution(NUM_CHANNELS * config.scale**2, "subpixel", dtype="float32", kernel_initializer=initializer)(features)
    if config.sr_image_skip:
        # A pixel for each place in its cell: the nearest-neighbour enlargement, added while it is still small.
        enlarged = layers.Concatenate(dtype="float32", name="enlarged")([restored] * config.scale**2)
        pixels = layers.Add(dtype="float32", name="upscaled")([enlarged, pixels])
    upscaled = ops.depth_to_space(pixels, config.scale)
    return keras.Model(restored, upscaled, name="sr")


def build_joint(config: ModelConfig) -> keras.Model:
    """SR on the output of CAR: `[B, H, W, 3]` -> `{"restored": [B, H, W, 3], "upscaled": [B, sH, sW, 3]}`."""
    car, sr = build_car(config), build_sr(config)
    compressed = keras.Input((None, None, NUM_CHANNELS), name="compressed")
    restored = car(compressed)
    return keras.Model(compressed, {"restored": restored, "upscaled": sr(restored)}, name="joint")


def enhance(joint: keras.Model, image, strength) -> dict:
    """The joint network with a strength for CAR: the step from what was trained to what is deployed.

    Args:
      joint: from `build_joint`.
      image: float32 `[B, H, W, 3]`.
      strength: scalar; the share of CAR's residual that is added, 1 as trained, 0 to enlarge the image as it is.

    Returns:
      The outputs of the joint network.
    """
    residual = joint.get_layer("car")(image, training=False) - image
    restored = image + strength * residual
    return {"restored": restored, "upscaled": joint.get_layer("sr")(restored, training=False)}
