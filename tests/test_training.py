import dataclasses
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_FLAGS, run_python
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jpegsr import models, stages, training, weights
from jpegsr.cli.main import main
from jpegsr.config import MODEL_PRESETS, RunConfig, TrainingConfig, training_preset
from jpegsr.data import PatchSampler
from jpegsr.errors import UserError
from jpegsr.validation import Validator, averaged_weights


def make_config(photo_folder, **stage_settings) -> TrainingConfig:
    preset = training_preset("tiny")
    return dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, sources=((str(photo_folder), 0.0),), holdout_every=5),
        stage=dataclasses.replace(preset.stage, **{"steps": 8, "batch_size": 4, **stage_settings}),
        run=RunConfig(validate_every=4, checkpoint_every=4, validation_qualities=(10,), validation_crop=64),
    )


def make_trainer(config, name, folder, strategy=None) -> training.StageTrainer:
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    sampler = PatchSampler(config.data, config.model.scale)
    with strategy.scope():
        joint = models.build_joint(config.model)
    return training.StageTrainer(config, name, pathlib.Path(folder), joint, sampler, strategy)


def train_one_stage(config, name, folder, strategy=None) -> training.StageTrainer:
    trainer = make_trainer(config, name, folder, strategy)
    assert trainer.run(training.threading.Event())
    return trainer


def final_weights(run_folder: pathlib.Path, stage: str) -> list[np.ndarray]:
    """All numbers of a stage's last checkpoint: model, moving average and optimizer."""
    checkpoint = tf.train.latest_checkpoint(str(run_folder / stage / "checkpoints"))
    reader = tf.train.load_checkpoint(checkpoint)
    names = sorted(name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name and "seconds" not in name)
    return [reader.get_tensor(name) for name in names]


def logged(folder: pathlib.Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    return [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


@pytest.mark.parametrize(("name", "changed"), [("car", {"car"}), ("sr", {"sr"}), ("joint", {"car", "sr"})])
def test_a_stage_changes_what_it_trains_and_nothing_else(name, changed, photo_folder, tmp_path):
    trainer = make_trainer(make_config(photo_folder), name, tmp_path)
    before = {part: trainer.joint.get_layer(part).get_weights() for part in ("car", "sr")}
    assert trainer.run(training.threading.Event())
    for part, values in before.items():
        now = trainer.joint.get_layer(part).get_weights()
        assert (part in changed) == any(not np.array_equal(a, b) for a, b in zip(values, now, strict=True))


def test_stage_losses_are_the_papers(photo_folder):
    config = make_config(photo_folder)
    patch = PatchSampler(config.data, 2).patch(0)
    batch = type(patch)(*(part[None] for part in patch))
    outputs = {"restored": stages.to_unit(batch.compressed), "upscaled": stages.to_unit(batch.hr) + 0.25}
    car, sr = (stages.get_stage(name, config.stage) for name in ("car", "sr"))
    expected = np.abs(batch.lr.astype(float) - batch.compressed).mean() / 255
    assert float(stages.stage_loss(car, car.targets(batch), outputs)) == pytest.approx(expected, rel=1e-5)
    assert float(stages.stage_loss(sr, sr.targets(batch), outputs)) == pytest.approx(0.25, rel=1e-5)
    joint = stages.get_stage("joint", dataclasses.replace(config.stage, restored_loss_weight=2.0))
    assert float(stages.stage_loss(joint, joint.targets(batch), outputs)) == pytest.approx(0.25 + 2 * expected, rel=1e-5)


def test_learning_rate_warms_up_and_decays():
    config = dataclasses.replace(
        training_preset("base").stage, steps=100, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-5
    )
    schedule = stages.build_optimizer(config)._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 5.05e-4, 1e-5], rel=1e-3)
    constant = stages.build_optimizer(training_preset("paper").stage)
    assert float(constant.learning_rate) == pytest.approx(1e-4)


def test_averaged_weights_are_the_moving_average_and_are_put_back(photo_folder, tmp_path):
    trainer = train_one_stage(make_config(photo_folder, ema_decay=0.5), "joint", tmp_path)
    raw = trainer.joint.get_weights()
    with averaged_weights(trainer.model, trainer.optimizer):
        averaged = trainer.joint.get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(raw, averaged, strict=True))
    for a, b in zip(raw, trainer.joint.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_moving_average_follows_its_definition(photo_folder, tmp_path):
    trainer = make_trainer(make_config(photo_folder, ema_decay=0.5, warmup_steps=0), "car", tmp_path)
    step, batches = trainer.make_step(), trainer.batches()
    expected = None
    for _ in range(3):
        step(next(batches))
        values = [variable.numpy() for variable in trainer.model.trainable_variables]
        expected = values if expected is None else [0.5 * e + 0.5 * v for e, v in zip(expected, values, strict=True)]
    with averaged_weights(trainer.model, trainer.optimizer):
        for variable, value in zip(trainer.model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(variable, value, atol=1e-6)


def test_two_replicas_learn_what_one_device_learns(photo_folder, tmp_path):
    config = make_config(photo_folder, steps=4)
    one = train_one_stage(config, "joint", tmp_path / "one")
    devices = tf.config.list_logical_devices("CPU")
    assert len(devices) == 2, "conftest makes two logical CPUs"
    two = train_one_stage(config, "joint", tmp_path / "two", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    for ours, theirs in zip(one.joint.get_weights(), two.joint.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_killed_run_ends_with_the_weights_of_an_uninterrupted_one(photo_folder, tmp_path):
    flags = [*TINY_FLAGS, "--checkpoint_every=7", f"--data={photo_folder}", "--holdout_every=5"]
    command = [sys.executable, "-m", "jpegsr.cli.main", "train", *flags]
    subprocess.run([*command, f"--output_dir={tmp_path / 'whole'}"], check=True, capture_output=True)
    dice = random.Random(time.time())
    num_kills = 0
    while True:
        process = subprocess.Popen([*command, f"--output_dir={tmp_path / 'killed'}"], stderr=subprocess.DEVNULL)
        try:
            status = process.wait(timeout=dice.uniform(7, 16) if num_kills < 3 else None)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            num_kills += 1
    assert status == 0
    assert num_kills
    for stage in ("car", "sr", "joint"):
        for whole, killed in zip(
            final_weights(tmp_path / "whole", stage), final_weights(tmp_path / "killed", stage), strict=True
        ):
            np.testing.assert_array_equal(whole, killed)
        best = [weights.load(str(tmp_path / run / stage)).model.get_weights() for run in ("whole", "killed")]
        for whole, killed in zip(*best, strict=True):
            np.testing.assert_array_equal(whole, killed)


def test_sigterm_saves_and_exits_with_0(photo_folder, tmp_path):
    command = [sys.executable, "-m", "jpegsr.cli.main", "train", "--preset=tiny", "--steps=100000", "--batch_size=4"]
    process = subprocess.Popen(
        [*command, f"--data={photo_folder}", f"--output_dir={tmp_path}"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    logs = tmp_path / "car" / "logs"
    deadline = time.monotonic() + 120
    while not list(logs.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "same command goes on" in output
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "car" / "checkpoints")))
    step = int(reader.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE"))
    assert step > 0
    assert int(reader.get_tensor("next_patch/.ATTRIBUTES/VARIABLE_VALUE")) == 4 * step


def test_nan_names_step_files_and_checkpoint(photo_folder, tmp_path):
    config = make_config(photo_folder, steps=12)
    trainer = train_one_stage(dataclasses.replace(config, stage=dataclasses.replace(config.stage, steps=12)), "car", tmp_path)
    assert int(trainer.step.numpy()) == 12
    trainer.step.assign(8)
    trainer.next_patch.assign(32)
    last = trainer.joint.get_layer("car").get_layer("last")
    last.bias.assign(np.full(last.bias.shape, np.nan))
    with pytest.raises(UserError, match=r"step 9 of stage car.*(cat|cup|astronaut).*ckpt-12"):
        trainer.run(training.threading.Event())


def test_other_settings_do_not_resume(photo_folder, tmp_path):
    train_one_stage(make_config(photo_folder, steps=2), "car", tmp_path)
    with pytest.raises(UserError, match=r"steps 2 is now 3.*--init_from"):
        make_trainer(make_config(photo_folder, steps=3), "car", tmp_path)


def test_fine_tuning_from_another_scale_keeps_all_but_the_last_layer(tiny_run, photo_folder, tmp_path):
    flags = ["--stage=joint", "--scale=3", "--steps=1", "--learning_rate=1e-9", "--final_learning_rate=1e-9", "--batch_size=2"]
    arguments = [f"--data={photo_folder}", f"--output_dir={tmp_path}", f"--init_from={tiny_run}", "--ema_decay=0"]
    assert main(["train", "--preset=tiny", *arguments, *flags]) == 0
    old, new = weights.load(str(tiny_run)), weights.load(str(tmp_path), 3)
    assert new.config.scale == 3
    for before, after in zip(old.model.weights, new.model.weights, strict=True):
        if before.path.startswith("subpixel"):
            assert before.shape != after.shape
        else:
            np.testing.assert_allclose(before, after, atol=1e-6)


def test_weights_of_another_size_are_refused(tiny_run):
    other = models.build_joint(dataclasses.replace(MODEL_PRESETS["tiny"], sr_num_filters=12))
    with pytest.raises(UserError, match="this network"):
        weights.copy_matching(weights.load(str(tiny_run)).model, other)


def test_validation_scores_the_identity_as_the_jpeg_itself(photo_folder, tmp_path):
    config = make_config(photo_folder)
    sampler = PatchSampler(config.data, 2)
    stage = stages.get_stage("car", config.stage)
    joint = models.build_joint(config.model)  # CAR starts as the identity
    scores, strip = Validator.from_sampler(sampler, config.run, stage).score(stages.stage_model(stage, joint))
    assert 20 < scores[10] < 35
    assert strip.shape[2] == 3
    folder = dataclasses.replace(config.run, validation_data=str(photo_folder))
    assert len(Validator.from_sampler(sampler, folder, stage).examples[10]) == 9


def test_jax_trainer_learns_the_same_and_its_weights_load(photo_folder, tmp_path):
    """Eight steps of every stage on both backends, from the same initial weights and patches."""
    config = make_config(photo_folder)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, validate_every=8))
    joint = models.build_joint(config.model)
    # Not the usual start from zeros, where most gradients are nothing but rounding noise at first.
    rng = np.random.default_rng(0)
    joint.set_weights([rng.normal(0, 0.05, variable.shape) for variable in joint.weights])
    weights.save(tmp_path / "start.keras", joint, config.model, {"name": "start", "stage": "joint"})
    start = str(tmp_path / "start.keras")
    assert training.train(config, tmp_path / "tensorflow", init_from=start)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    program = """
import json, sys
from jpegsr import keras_training
from jpegsr.config import TrainingConfig
folder, start = sys.argv[1:]
config = TrainingConfig.from_json(json.load(open(folder + "/config.json")))
assert "tensorflow" not in sys.modules
keras_training.train(config, folder + "/jax", init_from=start)
"""
    run_python("-c", program, str(tmp_path), start, KERAS_BACKEND="jax")
    for stage, part in (("car", "car"), ("sr", "sr"), ("joint", "car"), ("joint", "sr")):
        on_jax, on_tensorflow = (
            weights.load(str(tmp_path / run / stage)).model.get_layer(part) for run in ("jax", "tensorflow")
        )
        initial = joint.get_layer(part).get_weights()
        moves = [
            np.concatenate([(now - then).ravel() for now, then in zip(model.get_weights(), initial, strict=True)])
            for model in (on_jax, on_tensorflow)
        ]
        assert np.abs(moves[1]).max() > 5e-4
        # Adam turns rounding noise in near-zero gradients into steps of full size, so only the whole can be compared.
        assert np.linalg.norm(moves[0] - moves[1]) < 0.1 * np.linalg.norm(moves[1])


def test_whole_path(tiny_run, photo_folder, jpeg_file, tmp_path):
    """Train all stages -> resume -> evaluate -> enhance -> export -> reload, with nothing replaced."""
    for stage in ("car", "sr", "joint"):
        losses = logged(tiny_run / stage, "training/loss")
        assert len(losses) == 4
        assert losses[-1] < 0.98 * losses[0], (stage, losses)
        assert json.loads((tiny_run / stage / "best.json").read_text())["step"] in (20, 40)
    # Resume: everything is done, so nothing may change.
    before = final_weights(tiny_run, "joint")
    data = [f"--data={photo_folder}", "--holdout_every=5"]
    assert main(["train", *data, f"--output_dir={tiny_run}", *TINY_FLAGS]) == 0
    for old, new in zip(before, final_weights(tiny_run, "joint"), strict=True):
        np.testing.assert_array_equal(old, new)
    # Evaluate: better than the nearest-neighbour start it was trained from, and the CSV agrees with the JSON.
    scores = tmp_path / "scores"
    arguments = [f"--model={tiny_run}", "--qualities=0,10", f"--datasets=photos={photo_folder}", f"--output_dir={scores}"]
    assert main(["evaluate", *arguments]) == 0
    report = json.loads((scores / "results.json").read_text())
    trained = weights.load(str(tiny_run))
    assert report["models"][trained.name]["sha256"] == weights.sha256(tiny_run / "joint" / "best.keras")
    rows = [line.split(",") for line in (scores / "results.csv").read_text().splitlines()]
    header, rows = rows[0], rows[1:]
    assert len(rows) == 9 * 2 * 2
    for average in report["averages"]:
        key = [average["dataset"], str(average["quality"]), average["method"]]
        psnrs = [float(row[5]) for row in rows if [row[0], row[3], row[4]] == key]
        assert header[5] == "psnr_y"
        assert np.mean(psnrs) == pytest.approx(average["psnr_y"], abs=1e-3)
        assert 15 < average["psnr_y"] < 50
    assert len(list((scores / "photos").glob("*.png"))) == 9
    # Enhance, export and reload: one set of pixels.
    output = tmp_path / "enhanced.png"
    assert main(["enhance", str(jpeg_file), "-o", str(output), f"--model={tiny_run}"]) == 0
    assert main(["export", f"--model={tiny_run}", f"--output_dir={tmp_path / 'exported'}"]) == 0
    program = """
import sys
import numpy as np, tensorflow as tf
from PIL import Image
model = tf.saved_model.load(sys.argv[1])
image = np.asarray(Image.open(sys.argv[2]))[None]
pixels = model.signatures["serving_default"](image=tf.constant(image))["upscaled"].numpy()[0]
assert (pixels == np.asarray(Image.open(sys.argv[3]))).all()
floats = model.signatures["upscale_float"](image=tf.constant(image / 255, tf.float32))["upscaled"].numpy()[0]
assert (np.clip(np.rint(floats * 255), 0, 255) == pixels).all()
assert model.signatures["restore"](image=tf.constant(image))["restored"].shape == image.shape
assert "keras" not in sys.modules or not any(name.startswith("jpegsr") for name in sys.modules)
"""
    run_python("-c", program, str(tmp_path / "exported" / "1"), str(jpeg_file), str(output))
