"""Variants of the networks for `ablations.py`: each maps a `ModelConfig` to a joint network as `models.build_joint` does.

When they run they are about as expensive as the network that they vary (`ablations.py` counts), whatever training costs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from jpegsr import models
from jpegsr.config import ModelConfig
from jpegsr.layers import CropLike

NUM_CHANNELS = 3


def _joint(car: keras.Model, sr: keras.Model, num_planes: int = NUM_CHANNELS) -> keras.Model:
    compressed = keras.Input((None, None, num_planes), name="compressed")
    outputs = car(compressed)
    restored = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return keras.Model(compressed, {"restored": restored, "upscaled": sr(outputs)}, name="joint")


def _convolution(filters: int, name: str, kernel_size: int = 3, strides: int = 1, **options: Any) -> layers.Conv2D:
    return layers.Conv2D(filters, kernel_size, strides, padding="same", name=name, **options)


def _block(features: Any, filters: int, name: str) -> Any:
    residual = layers.ReLU(name=f"{name}_relu")(_convolution(filters, f"{name}_conv1")(features))
    return layers.Add(name=f"{name}_add")([features, _convolution(filters, f"{name}_conv2")(residual)])


def _replaced(network: keras.Model, kind: type, replace: Callable[[Any], Any]) -> keras.Model:
    """A copy, with other layers in place of those of a kind."""
    return keras.models.clone_model(
        network,
        clone_function=lambda layer: replace(layer) if type(layer) is kind else layer.__class__.from_config(layer.get_config()),
    )


def leaky(config: ModelConfig) -> keras.Model:
    """Leaky ReLU (slope 0.1 below zero), with which no unit can come to rest."""

    def replace(layer: layers.ReLU) -> layers.LeakyReLU:
        return layers.LeakyReLU(negative_slope=0.1, name=layer.name)

    return _joint(*(_replaced(build(config), layers.ReLU, replace) for build in (models.build_car, models.build_sr)))


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

    def replace(layer: layers.Conv2D) -> layers.Conv2D:
        is_inner = models.is_residual_block(layer.name) or layer.name == "body_end"
        kind = ReparameterizedConvolution if is_inner else layers.Conv2D
        return kind.from_config(layer.get_config())

    return _joint(*(_replaced(build(config), layers.Conv2D, replace) for build in (models.build_car, models.build_sr)))


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
    mixed = first(restored) + _convolution(config.sr_num_filters, "passed", kernel_size=1)(passed)
    return _joint(car, keras.Model([restored, passed], body([restored, mixed]), name="sr"))


def u_shaped(config: ModelConfig) -> keras.Model:
    """CAR as a U: 2 blocks of 96 channels at half resolution around 4 of 144 at a quarter, for the arithmetic of 5 at half."""
    half, quarter = config.car_num_filters, 3 * config.car_num_filters // 2
    compressed = keras.Input((None, None, NUM_CHANNELS), name="compressed")
    top = layers.ReLU()(_convolution(half, "first", 6, 2)(compressed))
    top = _block(top, half, "block_down")
    bottom = layers.ReLU()(_convolution(quarter, "down", 4, 2)(top))
    for i in range(4):
        bottom = _block(bottom, quarter, f"block{i}")
    up = ops.depth_to_space(_convolution(4 * half, "up", 1)(bottom), 2)
    top = _block(top + CropLike(name="crop_up")([up, top]), half, "block_up")
    residual = ops.depth_to_space(_convolution(NUM_CHANNELS * 4, "last", kernel_initializer="zeros")(top), 2)
    restored = layers.Add(name="restored")([compressed, CropLike(name="crop")([residual, compressed])])
    return _joint(keras.Model(compressed, restored, name="car"), models.build_sr(config))


def table_conditioned(config: ModelConfig) -> keras.Model:
    """CAR reads a fourth plane: how coarse the quantisation table of the file is (`ablations.coarseness`)."""
    car = models.build_car(config)
    planes = keras.Input((None, None, NUM_CHANNELS + 1), name="compressed")
    picture = planes[..., :NUM_CHANNELS]
    first = car.get_layer("first")
    body = keras.Model([car.input, first.output], car.output)
    strides = config.car_stride
    plane = _convolution(config.car_num_filters, "coarseness", strides, strides)(planes[..., NUM_CHANNELS:])
    restored = body([picture, first(picture) + plane])
    return _joint(keras.Model(planes, restored, name="car"), models.build_sr(config), NUM_CHANNELS + 1)


def plain_full_resolution(config: ModelConfig) -> keras.Model:
    """The paper's CAR: a plain chain at full resolution, batch-normalised, of the same arithmetic; SR without image skip."""
    return models.build_joint(
        dataclasses.replace(
            config,
            car_body="plain",
            car_batch_normalization=True,
            car_stride=1,
            car_num_filters=48,
            car_num_layers=10,
            sr_image_skip=False,
        )
    )


def plain_without_normalization(config: ModelConfig) -> keras.Model:
    """The same without batch normalisation."""
    return models.build_joint(
        dataclasses.replace(config, car_body="plain", car_stride=1, car_num_filters=48, car_num_layers=10, sr_image_skip=False)
    )


def residual_full_resolution(config: ModelConfig) -> keras.Model:
    """CAR at full resolution in residual blocks of 48 channels."""
    return models.build_joint(dataclasses.replace(config, car_stride=1, car_num_filters=48, car_num_layers=10))


def wider_and_shallower(config: ModelConfig) -> keras.Model:
    """SR of 7 blocks of 64 channels instead of 12 of 48."""
    return models.build_joint(dataclasses.replace(config, sr_num_filters=64, sr_num_residual_blocks=7))
