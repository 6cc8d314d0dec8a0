"""Several devices of one machine, and what a TPU asks for."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run_python
from test_training import make_config, make_trainer

from jpegsr import keras_training, models, training, weights
from jpegsr.config import RunConfig
from jpegsr.errors import UserError


def random_weights(model: keras.Model) -> list[np.ndarray]:
    """Not the usual start from zeros, where most gradients are nothing but rounding noise at first."""
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.05, variable.shape) for variable in model.weights]


def test_whole_step_compiles_with_static_shapes(photo_folder, tmp_path):
    """What --strategy=tpu needs: XLA takes the step from patches to new weights as one program, whose sizes are all known."""
    # Muon includes Adam, for the weights that are not its own.
    config = make_config(photo_folder, steps=4, gradient_clip_norm=1e-2, optimizer="muon", restored_loss_weight=0.1)
    trainers = [make_trainer(config, "joint", tmp_path / name) for name in ("plain", "compiled")]
    for trainer in trainers:
        trainer.joint.set_weights(random_weights(trainer.joint))
    batches = trainers[0].batches()
    specs = batches.element_spec
    assert [spec.shape.as_list() for spec in specs] == [[4, 48, 48, 3], [4, 24, 24, 3], [4, 24, 24, 3]]
    plain, compiled = trainers[0].make_step(), tf.function(trainers[1].make_step().python_function, jit_compile=True)
    patch = next(batches)
    program = compiled.experimental_get_compiler_ir(patch)(stage="hlo")
    assert "convolution" in program
    # XLA writes the bound of a size that is only known at run time as `<=`.
    assert not re.search(r"\[[^\]]*<=|dimension-size|PadToStatic|SliceToDynamic|[su]\d+\[\?", program)
    for _ in range(3):
        np.testing.assert_allclose(compiled(patch), plain(patch), rtol=1e-3)
        patch = next(batches)
    assert compiled.experimental_get_tracing_count() == 1


def test_no_tpu_is_one_line(photo_folder, tmp_path):
    config = dataclasses.replace(make_config(photo_folder), run=RunConfig(strategy="tpu"))
    with pytest.raises(UserError, match="no TPU on this machine"):
        training.train(config, tmp_path)


# Trains on JAX and saves the loss of every step.
JAX_PROGRAM = """
import dataclasses, json, sys
import keras, numpy as np
sys.modules["tensorflow"] = None
from jpegsr import keras_training
from jpegsr.config import TrainingConfig
folder = sys.argv[1]
assert len(keras.distribution.list_devices()) == 2
losses, fit = [], keras.Model.fit

def recording_fit(model, *arguments, **options):
    history = fit(model, *arguments, **options)
    losses.extend(history.history["loss"])
    return history

keras.Model.fit = recording_fit
config = TrainingConfig.from_json(json.load(open(folder + "/config.json")))
for strategy in ("default", "mirrored"):
    losses.clear()
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, strategy=strategy))
    assert keras_training.train(config, f"{folder}/{strategy}", ("joint",), folder + "/start.keras")
    np.save(f"{folder}/{strategy}.npy", losses)
    assert keras.distribution.distribution() is None
"""


def test_jax_trainer_on_two_devices_learns_what_it_learns_on_one(photo_folder, tmp_path):
    config = make_config(photo_folder, gradient_clip_norm=1e-2, steps=5)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, checkpoint_every=1, validate_every=4))
    joint = models.build_joint(config.model)
    joint.set_weights(random_weights(joint))
    weights.save(tmp_path / "start.keras", joint, config.model, {"name": "start", "stage": "joint"})
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    run_python("-c", JAX_PROGRAM, str(tmp_path), KERAS_BACKEND="jax", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    one, two = (np.load(tmp_path / f"{strategy}.npy") for strategy in ("default", "mirrored"))
    assert one.shape == (5,)
    np.testing.assert_allclose(two, one, atol=1e-5)
    assert one[-1] < one[0]
    cards = [json.loads((tmp_path / run / "joint" / "best.json").read_text()) for run in ("default", "mirrored")]
    assert cards[0]["validation_psnr"]["quality 10"] == pytest.approx(cards[1]["validation_psnr"]["quality 10"], abs=0.01)


def test_jax_trainer_refuses_strategies_that_it_cannot_follow(photo_folder, tmp_path):
    config = dataclasses.replace(make_config(photo_folder), run=RunConfig(strategy="multi_worker"))
    with pytest.raises(UserError, match="for the TensorFlow backend"):
        keras_training.train(config, tmp_path)
    program = """
import sys
from jpegsr.cli.main import main
assert main(["train", "--preset=tiny", "--strategy=mirrored", *sys.argv[1:]]) == 1
"""
    result = run_python("-c", program, f"--data={photo_folder}", f"--output_dir={tmp_path}", KERAS_BACKEND="jax")
    assert "no second device" in result.stderr
