"""The variants of benchmarks/ablation_variants.py: comparable networks, and what they are told."""

import pathlib
import sys

import keras
import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parent.parent / "benchmarks"))

import ablation_networks
import ablation_training
from ablation_variants import VARIANTS

from jpegsr import degradation, models, weights
from jpegsr.config import MODEL_PRESETS, ModelConfig
from jpegsr.pixels import to_levels, to_unit

BUILDS = {name: variant.build for name, variant in VARIANTS.items() if variant.build is not models.build_joint}
SMALL = ModelConfig(car_num_filters=8, car_num_layers=4, sr_num_filters=8, sr_num_residual_blocks=2, negative_slope=0.1)


@pytest.fixture(scope="module")
def arithmetic_of_base() -> float:
    return ablation_training.gigaflops(models.build_joint(MODEL_PRESETS["base"]))


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_variants_cost_what_base_costs(name, arithmetic_of_base):
    assert ablation_training.gigaflops(BUILDS[name](MODEL_PRESETS["base"])) == pytest.approx(arithmetic_of_base, rel=0.06)


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_variants_take_odd_sizes_and_have_the_layers_that_stages_freeze(name, photo):
    joint = BUILDS[name](SMALL)
    pixels = photo[None, :21, :30].astype(np.float32) / 255
    if joint.input.shape[-1] > 3:
        pixels = ablation_training.with_coarseness(pixels, [30])
    outputs = joint(pixels)
    assert outputs["restored"].shape == (1, 21, 30, 3)
    assert outputs["upscaled"].shape == (1, 42, 60, 3)
    weights = [joint.get_layer(part).count_params() for part in ("car", "sr")]
    assert sum(weights) == joint.count_params()


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_variants_give_float32_pictures_in_mixed_precision(name):
    with models.dtype_policy("mixed_bfloat16"):
        joint = BUILDS[name](SMALL)
    assert {output.dtype for output in joint.output.values()} == {"float32"}


def test_reparameterized_convolution_is_one_convolution():
    layer = ablation_networks.ReparameterizedConvolution(4, 3, padding="same")
    features = np.random.default_rng(0).normal(size=(1, 6, 7, 4)).astype(np.float32)
    layer(features)
    layer.factors.assign([1.0, 2.0, 3.0, 4.0])
    kernel = layer.kernel.numpy()
    kernel[1, 1] += layer.pointwise.numpy() + np.diag([1.0, 2.0, 3.0, 4.0])
    merged = keras.ops.conv(features, kernel, padding="same")
    np.testing.assert_allclose(layer(features), merged, atol=1e-5)


def test_features_reach_sr_beside_the_picture(photo):
    joint = ablation_networks.features_passed(SMALL)
    pixels = photo[None, :16, :16].astype(np.float32) / 255
    subpixel = joint.get_layer("sr").layers[-1].get_layer("subpixel")
    subpixel.kernel.assign(np.full(subpixel.kernel.shape, 0.1))
    before = joint(pixels)
    mixing = joint.get_layer("sr").get_layer("passed")
    mixing.kernel.assign(np.zeros(mixing.kernel.shape))
    after = joint(pixels)
    np.testing.assert_array_equal(before["restored"], after["restored"])
    assert np.abs(before["upscaled"] - after["upscaled"]).max() > 1e-3


def test_teacher_gives_what_the_shipped_model_gives(photo):
    levels = degradation.jpeg(np.ascontiguousarray(photo[:32, :48]), 20)
    taught = ablation_training.teacher("fast", 2)(levels[None])
    assert taught.dtype == np.uint8
    shipped = weights.load("fast", 2).model(to_unit(levels[None]))["upscaled"]
    np.testing.assert_array_equal(taught, to_levels(shipped))


def test_pictures_between_two_are_their_mean():
    levels = np.array([0, 10, 254, 255], np.uint8)
    assert np.asarray(ablation_training.between(levels, np.array([0, 20, 255, 255], np.uint8))).tolist() == [0, 15, 254, 255]


def test_coarseness_falls_with_quality_and_is_zero_for_clean_pictures():
    values = np.asarray(ablation_training.coarseness([5, 10, 20, 30, 50, 70, 90, 0])).astype(int)
    assert (np.diff(values) < 0).all()
    assert values[-1] == 0
    plane = ablation_training.with_coarseness(np.zeros((2, 3, 4, 3), np.uint8), [10, 0])
    assert plane.dtype == np.uint8
    assert np.asarray(plane)[:, 0, 0, 3].tolist() == [values[1], 0]
