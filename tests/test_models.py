import dataclasses
import pathlib
import runpy

import keras
import numpy as np
import pytest
from conftest import run_python

from jpegsr import models, weights
from jpegsr.config import MODEL_PRESETS, ModelConfig

TINY = MODEL_PRESETS["tiny"]
LIMITS = {"base": 1_600_000, "fast": 250_000, "large": 12_000_000}


def convolution_parameters(inputs: int, outputs: int, kernel: int = 3, bias: bool = True) -> int:
    return kernel * kernel * inputs * outputs + bias * outputs


def closed_form_parameters(config: ModelConfig) -> int:
    car, sr, channels = config.car_num_filters, config.sr_num_filters, models.NUM_CHANNELS
    normalization = config.car_batch_normalization
    total = convolution_parameters(channels, car, 3 * config.car_stride)
    total += config.car_num_layers * (convolution_parameters(car, car, bias=not normalization) + 4 * car * normalization)
    total += convolution_parameters(car, channels * config.car_stride**2)
    total += convolution_parameters(channels, sr)
    total += (2 * config.sr_num_residual_blocks + 1) * convolution_parameters(sr, sr)
    return total + convolution_parameters(sr, channels * config.scale**2)


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Random weights everywhere, also where training starts from zeros."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [np.abs(rng.normal(0, 0.05, w.shape)) if "variance" in w.path else rng.normal(0, 0.05, w.shape) for w in model.weights]
    )
    return model


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_parameter_counts(name):
    count = models.build_joint(MODEL_PRESETS[name]).count_params()
    assert count == closed_form_parameters(MODEL_PRESETS[name])
    assert count <= LIMITS.get(name, count)


@pytest.mark.parametrize("car_stride", [1, 2])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (17, 30), (33, 5), (1, 1)])
def test_any_height_and_width(size, scale, car_stride):
    model = models.build_joint(dataclasses.replace(TINY, scale=scale, car_stride=car_stride))
    outputs = model(np.zeros((2, *size, 3), np.float32))
    assert outputs["restored"].shape == (2, *size, 3)
    assert outputs["upscaled"].shape == (2, scale * size[0], scale * size[1], 3)


@pytest.mark.parametrize("name", ["paper", "base", "tiny"])
def test_car_with_zero_last_layer_returns_its_input(name, photo):
    car = randomised(models.build_car(MODEL_PRESETS[name]))
    last = car.get_layer("last")
    last.set_weights([np.zeros_like(w) for w in last.get_weights()])
    picture = photo[None, :31, :45].astype(np.float32) / 255
    np.testing.assert_array_equal(car(picture), picture)


def test_sr_without_features_is_the_enlarged_picture(photo):
    picture = photo[None, :20, :30].astype(np.float32) / 255
    upscaled = models.build_sr(TINY)(picture)
    np.testing.assert_array_equal(upscaled, picture.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("car_body", ["plain", "residual"])
def test_negative_slope_is_that_of_every_rectifier(car_body):
    config = dataclasses.replace(TINY, car_body=car_body, negative_slope=0.1)
    for network in (models.build_car(config), models.build_sr(config)):
        for layer in (layer for layer in network.layers if isinstance(layer, keras.layers.ReLU)):
            np.testing.assert_allclose(layer(np.array([-2.0, 3.0])), [-0.2, 3.0], rtol=1e-6)
    plain = models.build_joint(dataclasses.replace(config, negative_slope=0.0))
    sloping = models.build_joint(config)
    sloping.set_weights(randomised(plain).get_weights())
    picture = np.random.default_rng(0).random((1, 9, 12, 3), np.float32)
    assert np.abs(plain(picture)["upscaled"] - sloping(picture)["upscaled"]).max() > 1e-3


@pytest.mark.parametrize("name", ["base", "fast", "tiny", "paper"])
def test_receptive_radius_bounds_the_influence(name):
    config = MODEL_PRESETS[name]
    if name == "paper":  # the same topology, fewer blocks, to keep the test short
        config = dataclasses.replace(config, sr_num_residual_blocks=2, sr_num_filters=16, car_num_filters=16)
    radius = config.receptive_radius
    model = randomised(models.build_joint(config))
    size = 2 * radius + 8
    picture = np.random.default_rng(1).random((1, size, size, 3)).astype(np.float32)
    changed = picture.copy()
    changed[:, radius + 3, radius + 3] += 1
    difference = np.abs(np.asarray(model(picture)["upscaled"]) - np.asarray(model(changed)["upscaled"])).max(axis=(0, 2, 3))
    rows = np.flatnonzero(difference) // config.scale
    assert rows.size
    assert rows.min() >= radius + 3 - radius
    assert rows.max() <= radius + 3 + radius


@pytest.mark.parametrize("name", ["fast", "paper"])
def test_saved_models_load_with_equal_outputs_also_on_jax(name, tmp_path, photo):
    config = MODEL_PRESETS[name]
    if name == "paper":
        config = dataclasses.replace(config, sr_num_residual_blocks=1, sr_num_filters=32)
    model = randomised(models.build_joint(config))
    picture = photo[None, :33, :46].astype(np.float32) / 255
    expected = model.predict_on_batch(picture)
    weights.save(tmp_path / "model.keras", model, config, {"name": "test"})
    reloaded = weights.load(str(tmp_path / "model.keras"))
    assert reloaded.config == config
    for output, values in reloaded.model.predict_on_batch(picture).items():
        np.testing.assert_array_equal(values, expected[output])
    np.save(tmp_path / "picture.npy", picture)
    program = """
import sys, numpy as np
from jpegsr import weights
folder = sys.argv[1]
outputs = weights.load(folder + "/model.keras").model.predict_on_batch(np.load(folder + "/picture.npy"))
np.savez(folder + "/jax.npz", **{name: np.asarray(values) for name, values in outputs.items()})
assert "tensorflow" not in sys.modules
"""
    run_python("-c", program, str(tmp_path), KERAS_BACKEND="jax")
    with np.load(tmp_path / "jax.npz") as on_jax:
        for output, values in expected.items():
            np.testing.assert_allclose(on_jax[output], values, atol=1e-4)


def test_mixed_precision_is_saved_as_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = randomised(models.build_joint(TINY))
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("car").get_layer("first").compute_dtype == "bfloat16"
    weights.save(tmp_path / "model.keras", model, TINY, {"name": "test"})
    reloaded = weights.load(str(tmp_path / "model.keras")).model
    assert reloaded.get_layer("car").get_layer("first").compute_dtype == "float32"
    for ours, theirs in zip(reloaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_page_of_the_models_and_scores_of_the_readme_are_those_of_the_cards():
    root = pathlib.Path(__file__).parent.parent
    script = runpy.run_path(str(root / "scripts" / "render_model_cards.py"))
    assert (root / "docs" / "models.md").read_text() == script["render"](), "run scripts/render_model_cards.py"
    assert (root / "README.md").read_text() == script["render_readme"](), "run scripts/render_model_cards.py"


def test_page_of_results_has_the_gains_of_self_ensembles():
    root = pathlib.Path(__file__).parent.parent
    script = runpy.run_path(str(root / "scripts" / "render_self_ensemble.py"))
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    assert text.count(script["BEGIN"]) == text.count(script["END"]) == 1
    assert text == script["render"](), "run scripts/render_self_ensemble.py"
