"""Variants of the networks for `ablations.py`: each maps a `ModelConfig` to a joint network as `models.build_joint` does.

When they run they are about as expensive as the network that they vary (`ablations.py` counts), whatever training costs.
"""

import dataclasses
from typing import Any

import keras
from keras import layers, ops

from jpegsr import models
from jpegsr.config import ModelConfig
from jpegsr.layers import CropLike
from jpegsr.models import NUM_CHANNELS, convolution, residual_block


def _joint(car: keras.Model, sr: keras.Model, num_planes: int = NUM_CHANNELS) -> keras.Model:
    compressed = keras.Input((None, None, num_planes), name="compressed")
    outputs = car(compressed)
    restored = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return keras.Model(compressed, {"restored": restored, "upscaled": sr(outputs)}, name="joint")


def without_slope(config: ModelConfig) -> keras.Model:
    """ReLUs without a slope below zero, as in the paper."""
    return models.build_joint(dataclasses.replace(config, negative_slope=0.0))


class ReparameterizedConvolution(layers.Conv2D):
    """A 3x3 convolution learnt as a sum: 3x3, 1x1, and identity times a factor per channel; deployed as one 3x3."""

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        channels = input_shape[-1]
        self.pointwise = self.add_weight(shape=(channels, self.filters), initializer="glorot_uniform", name="pointwise")
        self.factors = self.add_weight(shape=(channels,), initializer="zeros", name="factors")

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        center = self.pointwise + ops.diag(self.factors)
        return super().convolution_op(inputs, kernel + ops.pad(center[None, None], [[1, 1], [1, 1], [0, 0], [0, 0]]))


def reparameterized(config: ModelConfig) -> keras.Model:
    """Re-parameterised convolutions between features (as RepVGG and ECBSR do)."""

    def clone(layer: layers.Layer) -> layers.Layer:
        is_between_features = models.is_residual_block(layer.name) or layer.name == "body_end"
        is_replaced = is_between_features and isinstance(layer, layers.Conv2D)
        kind = ReparameterizedConvolution if is_replaced else layer.__class__
        return kind.from_config(layer.get_config())

    networks = (build(config) for build in (models.build_car, models.build_sr))
    return _joint(*(keras.models.clone_model(network, clone_function=clone) for network in networks))


def features_passed(config: ModelConfig) -> keras.Model:
    """SR reads, beside the restored picture, what CAR's last layer reads."""
    car = models.build_car(config)
    features = car.get_layer("last").input
    if config.car_stride > 1:
        features = CropLike(name="crop_features")([ops.depth_to_space(features, config.car_stride), car.input])
    car = keras.Model(car.input, [car.output, features], name="car")
    restored, passed = (keras.Input(output.shape[1:]) for output in car.outputs)
    # The body of SR from its first convolution on; what is passed is added to what that gives, as a 1x1 convolution sees it.
    sr = models.build_sr(config)
    first = sr.get_layer("first")
    body = keras.Model([sr.input, first.output], sr.output)
    mixed = first(restored) + convolution(config.sr_num_filters, "passed", kernel_size=1)(passed)
    return _joint(car, keras.Model([restored, passed], body([restored, mixed]), name="sr"))


def u_shaped(config: ModelConfig) -> keras.Model:
    """CAR as a U: 2 blocks of 96 channels at half resolution around 4 of 144 at a quarter, for the arithmetic of 5 at half."""
    half, quarter = config.car_num_filters, 3 * config.car_num_filters // 2
    slope = config.negative_slope
    compressed = keras.Input((None, None, NUM_CHANNELS), name="compressed")
    top = layers.ReLU(negative_slope=slope)(convolution(half, "first", 6, 2)(compressed))
    top = residual_block(top, half, 1.0, "block_down", slope)
    bottom = layers.ReLU(negative_slope=slope)(convolution(quarter, "down", 4, 2)(top))
    for i in range(4):
        bottom = residual_block(bottom, quarter, 1.0, f"block{i}", slope)
    up = ops.depth_to_space(convolution(4 * half, "up", 1)(bottom), 2)
    top = residual_block(top + CropLike(name="crop_up")([up, top]), half, 1.0, "block_up", slope)
    residual = convolution(NUM_CHANNELS * 4, "last", dtype="float32", kernel_initializer="zeros")(top)
    residual = CropLike(dtype="float32", name="crop")([ops.depth_to_space(residual, 2), compressed])
    restored = layers.Add(dtype="float32", name="restored")([compressed, residual])
    return _joint(keras.Model(compressed, restored, name="car"), models.build_sr(config))


def table_conditioned(config: ModelConfig) -> keras.Model:
    """CAR reads a fourth plane: how coarse the quantisation table of the file is (`ablation_training.coarseness`)."""
    car = models.build_car(config)
    planes = keras.Input((None, None, NUM_CHANNELS + 1), name="compressed")
    picture = planes[..., :NUM_CHANNELS]
    first = car.get_layer("first")
    body = keras.Model([car.input, first.output], car.output)
    stride = config.car_stride
    plane = convolution(config.car_num_filters, "coarseness", stride, stride)(planes[..., NUM_CHANNELS:])
    restored = body([picture, first(picture) + plane])
    return _joint(keras.Model(planes, restored, name="car"), models.build_sr(config), NUM_CHANNELS + 1)


def _at_full_resolution(config: ModelConfig, **changes: Any) -> keras.Model:
    """CAR at full resolution, 48 channels wide, which costs what 96 at half resolution cost."""
    return models.build_joint(dataclasses.replace(config, car_stride=1, car_num_filters=48, **changes))


def residual_full_resolution(config: ModelConfig) -> keras.Model:
    """CAR at full resolution in residual blocks of 48 channels."""
    return _at_full_resolution(config)


def plain_full_resolution(config: ModelConfig) -> keras.Model:
    """The paper's CAR: a plain chain at full resolution, batch-normalised, of the same arithmetic; SR without image skip."""
    return _at_full_resolution(config, car_body="plain", car_batch_normalization=True, sr_image_skip=False)


def plain_without_normalization(config: ModelConfig) -> keras.Model:
    """The same without batch normalisation."""
    return _at_full_resolution(config, car_body="plain", sr_image_skip=False)


def wider_and_shallower(config: ModelConfig) -> keras.Model:
    """SR of 7 blocks of 64 channels instead of 12 of 48."""
    return models.build_joint(dataclasses.replace(config, sr_num_filters=64, sr_num_residual_blocks=7))


def shorter_car(config: ModelConfig) -> keras.Model:
    """CAR of 4 layers instead of 10, for SR of 15 blocks instead of 12."""
    return models.build_joint(dataclasses.replace(config, car_num_layers=4, sr_num_residual_blocks=15))
