import dataclasses
import json

import pytest

from jpegsr.config import MODEL_PRESETS, TRAINING_PRESETS, DataConfig, ModelConfig, TrainingConfig, training_preset
from jpegsr.errors import UserError


@pytest.mark.parametrize("name", TRAINING_PRESETS)
def test_presets_survive_json(name):
    config = training_preset(name)
    assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_unknown_setting_is_an_error():
    with pytest.raises(UserError, match="colour"):
        ModelConfig.from_json({**MODEL_PRESETS["tiny"].to_json(), "colour": 1})


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(UserError, match=r"huge.*paper, large, base, fast, tiny"):
        training_preset("huge")


@pytest.mark.parametrize(
    "changes", [{"scale": 5}, {"car_num_layers": 3}, {"car_batch_normalization": True}, {"negative_slope": 1.0}]
)
def test_impossible_models_are_refused(changes):
    with pytest.raises(UserError):
        dataclasses.replace(MODEL_PRESETS["base"], **changes)


@pytest.mark.parametrize("changes", [{"quality": (0, 10)}, {"quality": (30, 20)}, {"clean_share": 1.5}, {"seed": 2**32}])
def test_impossible_data_are_refused(changes):
    with pytest.raises(UserError):
        DataConfig(**changes)


def test_paper_preset_is_the_papers():
    config = training_preset("paper")
    assert (config.model.car_num_filters, config.model.car_num_layers, config.model.car_batch_normalization) == (64, 16, True)
    assert (config.model.sr_num_filters, config.model.sr_residual_scaling) == (256, 0.1)
    assert (config.stage.learning_rate, config.stage.batch_size, config.data.patch_size) == (1e-4, 16, 48)
    assert config.model.sr_num_residual_blocks == 32
    assert (config.stage.loss, config.stage.final_learning_rate) == ("l1", config.stage.learning_rate)
    # One quality, on an aligned 4:2:0 grid, and validated on that quality.
    assert (config.data.quality, config.validation_qualities) == ((10, 10), (10,))
    shares = ("clean_share", "double_share", "chroma_444_share", "shifted_share")
    assert [getattr(config.data, share) for share in shares] == [0, 0, 0, 0]


def test_blind_presets_are_validated_over_the_range():
    assert training_preset("base").validation_qualities == (10, 20, 30, 40)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("stage", {"learning_rate": 0.0}),
        ("stage", {"learning_rate": float("nan")}),
        ("stage", {"final_learning_rate": float("nan")}),
        ("run", {"validation_crop": 1}),
        ("stage", {"learning_rate": 1e-6, "final_learning_rate": 1e-5}),
        ("stage", {"gradient_clip_norm": -1.0}),
        ("stage", {"steps": 0}),
        ("stage", {"ema_decay": 1.0}),
        ("run", {"validate_every": 0}),
        ("run", {"validation_qualities": (10, 200)}),
        ("data", {"holdout_every": 1}),
        ("data", {"patch_size": 0}),
        ("data", {"seed": -1}),
    ],
)
def test_impossible_settings_are_refused(part, changes):
    with pytest.raises(UserError, match=next(iter(changes)).split("_")[-1]):
        dataclasses.replace(getattr(training_preset("base"), part), **changes)
