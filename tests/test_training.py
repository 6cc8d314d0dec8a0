import dataclasses
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_FLAGS, run_python
from keras import ops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jpegsr import model_files, models, stages, training, weights
from jpegsr.cli.main import main
from jpegsr.config import MODEL_PRESETS, RunConfig, TrainingConfig, training_preset
from jpegsr.data import Patch, PatchSampler
from jpegsr.errors import UserError
from jpegsr.pixels import to_unit
from jpegsr.validation import Validator, averaged_weights, working_shares


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
    assert trainer.run(threading.Event())
    return trainer


def final_weights(run_folder: pathlib.Path, stage: str) -> list[np.ndarray]:
    """All numbers of a stage's last checkpoint: model, moving average and optimizer."""
    checkpoint = tf.train.latest_checkpoint(str(run_folder / stage / "checkpoints"))
    reader = tf.train.load_checkpoint(checkpoint)
    names = sorted(name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name and "seconds" not in name)
    return [reader.get_tensor(name) for name in names]


def load_part(folder: pathlib.Path, part: str) -> keras.Model:
    return weights.load(str(folder), allow_partial=True).model.get_layer(part)


def best_weights(run_folder: pathlib.Path, stage: str) -> list[np.ndarray]:
    return weights.load(str(run_folder / stage), allow_partial=True).model.get_weights()


def logged_tags(folder: pathlib.Path) -> list[str]:
    return EventAccumulator(str(folder / "logs")).Reload().Tags()["tensors"]


def logged(folder: pathlib.Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    return [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


# Trains on JAX; as "interrupted", a SIGTERM comes as soon as the state has been saved for the first time.
JAX_PROGRAM = """
import json, os, pathlib, signal, sys, threading, time
sys.modules["tensorflow"] = None  # as on a machine without it
from jpegsr import keras_training
from jpegsr.config import TrainingConfig
folder, start, how = sys.argv[1:]

def stop_after_first_save():
    while not pathlib.Path(folder, "jax", "car", "state.npz").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

if how == "interrupted":
    threading.Thread(target=stop_after_first_save).start()
config = TrainingConfig.from_json(json.load(open(folder + "/config.json")))
is_done = keras_training.train(config, folder + "/jax", init_from=start)
assert is_done == (how != "interrupted")
"""


@pytest.mark.parametrize(("name", "changed"), [("car", {"car"}), ("sr", {"sr"}), ("joint", {"car", "sr"})])
def test_a_stage_changes_what_it_trains_and_nothing_else(name, changed, photo_folder, tmp_path):
    trainer = make_trainer(make_config(photo_folder), name, tmp_path)
    before = {part: trainer.joint.get_layer(part).get_weights() for part in ("car", "sr")}
    assert trainer.run(threading.Event())
    for part, values in before.items():
        now = trainer.joint.get_layer(part).get_weights()
        assert (part in changed) == any(not np.array_equal(a, b) for a, b in zip(values, now, strict=True))


def test_stage_losses_are_the_papers(photo_folder):
    config = make_config(photo_folder)
    patch = PatchSampler(config.data, 2).patch(0)
    batch = type(patch)(*(part[None] for part in patch))
    outputs = {"restored": to_unit(batch.compressed), "upscaled": to_unit(batch.hr) + 0.25}
    car, sr = (stages.get_stage(name, config.stage) for name in ("car", "sr"))
    expected = np.abs(batch.lr.astype(float) - batch.compressed).mean() / 255
    assert float(stages.stage_loss(car, car.targets(batch), outputs)) == pytest.approx(expected, rel=1e-5)
    assert float(stages.stage_loss(sr, sr.targets(batch), outputs)) == pytest.approx(0.25, rel=1e-5)
    joint = stages.get_stage("joint", dataclasses.replace(config.stage, restored_loss_weight=2.0))
    assert float(stages.stage_loss(joint, joint.targets(batch), outputs)) == pytest.approx(0.25 + 2 * expected, rel=1e-5)
    squared = stages.get_stage("sr", dataclasses.replace(config.stage, loss="l2"))
    assert float(stages.stage_loss(squared, squared.targets(batch), outputs)) == pytest.approx(0.25**2, rel=1e-5)


def test_logarithmic_loss_gains_as_much_by_any_patch(photo_folder):
    stage = stages.get_stage("sr", dataclasses.replace(make_config(photo_folder).stage, loss="log_l2"))
    target = np.zeros((2, 4, 4, 3), np.float32)

    def loss(*offsets: float) -> float:
        return float(np.mean(stage.difference(target, target + np.array(offsets, np.float32)[:, None, None, None])))

    assert loss(0.2, 0.4) == pytest.approx(0.02 * np.log([0.2**2 + 1e-4, 0.4**2 + 1e-4]).mean(), rel=1e-5)
    assert loss(0.2, 0.4) - loss(0.1, 0.4) == pytest.approx(loss(0.2, 0.4) - loss(0.2, 0.2), rel=0.01)
    assert loss(0.001, 0.4) - loss(0.0, 0.4) < 0.01 * (loss(0.2, 0.4) - loss(0.1, 0.4))


def test_learning_rate_warms_up_and_decays():
    config = dataclasses.replace(
        training_preset("base").stage, steps=100, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-5
    )
    schedule = stages.build_optimizer(config)._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 5.05e-4, 1e-5], rel=1e-3)
    short = stages.build_optimizer(dataclasses.replace(config, warmup_steps=200))._learning_rate
    assert [float(short(step)) for step in (25, 50, 100)] == pytest.approx([5e-4, 1e-3, 1e-5], rel=1e-3)
    constant = stages.build_optimizer(training_preset("paper").stage)
    assert float(constant.learning_rate) == pytest.approx(1e-4)


@pytest.mark.parametrize("shape", [(432, 48), (12, 40), (16, 16)])
def test_orthogonalizing_keeps_the_singular_vectors_and_evens_out_the_singular_values(shape):
    rng = np.random.default_rng(0)
    rank = min(shape)
    left, right = (np.linalg.qr(rng.normal(size=(side, rank)))[0] for side in shape)
    values = np.geomspace(1, 0.05, rank)
    result = ops.convert_to_numpy(stages.orthogonalize(ops.convert_to_tensor((left * values) @ right.T, "float32")))
    turned = left.T @ result @ right
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-4)
    assert 0.6 < np.diag(turned).min() < np.diag(turned).max() < 1.3
    np.testing.assert_array_equal(stages.orthogonalize(ops.zeros(shape)), np.zeros(shape))


def test_muon_steps_follow_their_definition_and_leave_all_but_inner_kernels_to_adam(photo_folder, tmp_path):
    config = make_config(photo_folder, optimizer="muon", warmup_steps=0, learning_rate=1e-3, final_learning_rate=1e-3)
    joint = make_trainer(config, "joint", tmp_path).joint
    rng = np.random.default_rng(0)
    start = [rng.normal(0, 0.05, variable.shape).astype(np.float32) for variable in joint.weights]
    gradients = [[rng.normal(0, 0.01, variable.shape).astype(np.float32) for variable in joint.weights] for _ in range(2)]
    moved = {}
    for name in ("adam", "muon"):
        joint.set_weights(start)
        optimizer = stages.build_optimizer(dataclasses.replace(config.stage, optimizer=name, gradient_clip_norm=0.0))
        for step in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient) for gradient in step], joint.trainable_variables)
        moved[name] = joint.get_weights()
    num_inner = 0
    for variable, first, second, before, by_adam, by_muon in zip(
        joint.weights, *gradients, start, moved["adam"], moved["muon"], strict=True
    ):
        layer, kind = variable.path.split("/")[-2:]
        if kind == "bias":  # moves a tenth as far
            np.testing.assert_allclose(by_muon - before, 0.1 * (by_adam - before), atol=1e-7)
            continue
        if layer in ("first", "last", "subpixel"):
            np.testing.assert_array_equal(by_muon, by_adam)
            continue
        num_inner += 1
        expected = before.copy()
        momentum = 0.0
        for gradient in (first, second):
            momentum = 0.95 * momentum + gradient
            ahead = (gradient + 0.95 * momentum).reshape(-1, variable.shape[-1])
            # Each singular value near 1, so that a weight moves by 0.2 times the learning rate.
            step = ops.convert_to_numpy(stages.orthogonalize(ops.convert_to_tensor(ahead)))
            step *= 1e-3 * 0.2 * max(ahead.shape) ** 0.5
            assert 0.7 * 0.2e-3 < np.sqrt(np.mean(step**2)) < 1.2 * 0.2e-3
            expected -= step.reshape(variable.shape)
        np.testing.assert_allclose(by_muon, expected, atol=1e-6)
    assert num_inner == 2 + 2 + 1, "CAR's and SR's blocks have two kernels each, and SR ends with one more"


def test_averaged_weights_are_the_moving_average_and_are_put_back(photo_folder, tmp_path):
    trainer = train_one_stage(make_config(photo_folder, ema_decay=0.5), "joint", tmp_path)
    raw = trainer.joint.get_weights()
    with averaged_weights(trainer.model, trainer.optimizer):
        averaged = trainer.joint.get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(raw, averaged, strict=True))
    for a, b in zip(raw, trainer.joint.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_moving_average_follows_its_definition(photo_folder, tmp_path):
    trainer = make_trainer(make_config(photo_folder, ema_decay=0.2, warmup_steps=0), "car", tmp_path)
    step, batches = trainer.make_step(), trainer.batches()
    expected = None
    for number in range(4):
        step(next(batches))
        decay = min(0.2, (1 + number) / (10 + number))
        values = [variable.numpy() for variable in trainer.model.trainable_variables]
        if expected is None:
            expected = values
        expected = [decay * e + (1 - decay) * v for e, v in zip(expected, values, strict=True)]
    with averaged_weights(trainer.model, trainer.optimizer):
        for variable, value in zip(trainer.model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(variable, value, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_two_replicas_learn_what_one_device_learns(optimizer, photo_folder, tmp_path):
    # A clipping norm that bites: summed instead of averaged, or clipped apart, the gradients would differ.
    config = make_config(photo_folder, steps=4, gradient_clip_norm=1e-3, optimizer=optimizer)
    assert len(tf.config.list_logical_devices("CPU")) == 2, "conftest makes two logical CPUs"
    one = train_one_stage(config, "joint", tmp_path / "one")
    two = train_one_stage(config, "joint", tmp_path / "two", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    for ours, theirs in zip(one.joint.get_weights(), two.joint.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    moments = [[v.numpy() for v in trainer.optimizer.variables if "momentum" in v.path] for trainer in (one, two)]
    assert moments[0]
    for ours, theirs in zip(*moments, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_batch_that_devices_cannot_share_is_refused(photo_folder, tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with pytest.raises(UserError, match="batch_size 3 does not divide by the 2 devices"):
        make_trainer(make_config(photo_folder, batch_size=3), "car", tmp_path, strategy)


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> bool:
    """Whether the file came before the process ended."""
    deadline = time.monotonic() + 180
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline, f"no {path} in three minutes"
        time.sleep(0.02)
    return process.poll() is None


def test_killed_run_ends_with_the_weights_of_an_uninterrupted_one(photo_folder, tmp_path):
    # Muon has Adam's state as well: it leaves some of the weights to it.
    flags = [*TINY_FLAGS, "--checkpoint_every=3", f"--data={photo_folder}", "--holdout_every=5", "--optimizer=muon"]
    command = [sys.executable, "-m", "jpegsr.cli.main", "train", *flags]
    subprocess.run([*command, f"--output_dir={tmp_path / 'whole'}"], check=True, capture_output=True, timeout=300)
    killed = tmp_path / "killed"
    dice = random.Random(20261122)
    unfinished = []
    # Somewhere in each stage: soon after its first checkpoint.
    for stage in ("car", "sr", "joint"):
        process = subprocess.Popen([*command, f"--output_dir={killed}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if wait_for(killed / stage / "checkpoints" / "checkpoint", process):
            time.sleep(dice.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        reader = tf.train.load_checkpoint(str(killed / stage / "checkpoints"))
        unfinished.append(int(reader.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE")) < 40)
    assert any(unfinished), "every kill came too late to test anything"
    subprocess.run([*command, f"--output_dir={killed}"], check=True, capture_output=True, timeout=300)
    for stage in ("car", "sr", "joint"):
        numbers = [final_weights(run, stage) for run in (tmp_path / "whole", killed)]
        numbers += [
            weights.load(str(run / stage), allow_partial=True).model.get_weights() for run in (tmp_path / "whole", killed)
        ]
        for pair in (numbers[:2], numbers[2:]):
            for ours, theirs in zip(*pair, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_sigterm_saves_and_exits_with_0(photo_folder, tmp_path):
    command = [sys.executable, "-m", "jpegsr.cli.main", "train", "--preset=tiny", "--steps=100000", "--checkpoint_every=7"]
    process = subprocess.Popen(
        [*command, f"--data={photo_folder}", f"--output_dir={tmp_path}"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_for(tmp_path / "car" / "checkpoints" / "checkpoint", process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "same command goes on" in output
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "car" / "checkpoints")))
    step = int(reader.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE"))
    assert step > 0
    assert int(reader.get_tensor("next_patch/.ATTRIBUTES/VARIABLE_VALUE")) == 16 * step


def test_nan_names_step_files_and_checkpoint(photo_folder, tmp_path):
    trainer = make_trainer(make_config(photo_folder, steps=12), "car", tmp_path)
    stop = threading.Event()
    stop.set()
    assert not trainer.run(stop)  # one step, then a checkpoint
    last = trainer.joint.get_layer("car").get_layer("last")
    last.bias.assign(np.full(last.bias.shape, np.nan))
    with pytest.raises(UserError, match=r"step 2 of stage car.*(cat|cup|astronaut).*ckpt-1'.*--init_from"):
        trainer.run(threading.Event())
    assert tf.train.latest_checkpoint(str(tmp_path / "checkpoints")).endswith("ckpt-1")


def test_other_settings_and_more_pictures_do_not_resume(photo_folder, tmp_path):
    photos, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photo_folder, photos)
    train_one_stage(make_config(photos, steps=2), "car", run)
    with pytest.raises(UserError, match=r"steps 2 is now 3.*--init_from"):
        make_trainer(make_config(photos, steps=3), "car", run)
    shutil.copy(photos / "cat0.png", photos / "zebra.png")
    with pytest.raises(UserError, match=r"num_pictures \[\d+\] is now \[\d+\]"):
        make_trainer(make_config(photos, steps=2), "car", run)


def test_a_run_goes_on_when_what_it_started_from_is_gone(tiny_run, photo_folder, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "old")
    flags = ["--preset=tiny", "--stage=joint", "--steps=2", "--batch_size=2", f"--data={photo_folder}"]
    command = ["train", *flags, f"--output_dir={tmp_path / 'new'}", f"--init_from={tmp_path / 'old'}"]
    assert main(command) == 0
    before = final_weights(tmp_path / "new", "joint")
    shutil.rmtree(tmp_path / "old")
    assert main(command) == 0
    for ours, theirs in zip(final_weights(tmp_path / "new", "joint"), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sr_num_filters": 12}, r"have sr/first \(3, 3, 3, 8\), this network \(3, 3, 3, 12\)"),
        ({"car_body": "plain"}, "lacks .car/block0_conv1, car/block0_conv2.: use the same sizes"),
    ],
)
def test_weights_of_another_size_are_refused(changes, message, tiny_run):
    other = models.build_joint(dataclasses.replace(MODEL_PRESETS["tiny"], **changes))
    with pytest.raises(UserError, match=message):
        weights.copy_matching(weights.load(str(tiny_run)).model, other)


def test_deeper_network_starts_as_the_shallower_one_and_all_of_it_learns(tiny_run, photo_folder, photo, tmp_path):
    sizes = dataclasses.replace(MODEL_PRESETS["tiny"], car_num_layers=4, sr_num_residual_blocks=3)
    shallow, deep = weights.load(str(tiny_run)).model, models.build_joint(sizes)
    left = weights.copy_matching(shallow, deep)
    assert left == [f"{block}_{layer}" for block in ("car/block1", "sr/block1", "sr/block2") for layer in ("conv1", "conv2")]
    picture = to_unit(photo[None, :40, :41])
    for name, output in shallow(picture).items():
        np.testing.assert_allclose(deep(picture)[name], output, atol=1e-6)
    with pytest.raises(UserError, match="layers that this network lacks"):
        weights.copy_matching(deep, shallow)

    config = dataclasses.replace(make_config(photo_folder), model=sizes)
    assert training.train(config, tmp_path, ("joint",), init_from=str(tiny_run))
    for variable, start in zip(weights.load(str(tmp_path)).model.weights, deep.weights, strict=True):
        if "block" not in variable.path or "conv2" in variable.path:
            assert not np.array_equal(variable, start), f"{variable.path} did not change"


def test_validation_scores_the_identity_as_the_jpeg_itself(photo_folder, tmp_path):
    config = make_config(photo_folder)
    sampler = PatchSampler(config.data, 2)
    stage = stages.get_stage("car", config.stage)
    joint = models.build_joint(config.model)  # CAR starts as the identity
    model = stages.stage_model(stage, joint)
    scores, strip = Validator.from_sampler(sampler, config, stage).score(model.predict_on_batch)
    assert 20 < scores[10] < 35
    assert strip.shape[2] == 3
    folder = dataclasses.replace(config, run=dataclasses.replace(config.run, validation_data=str(photo_folder)))
    assert len(Validator.from_sampler(sampler, folder, stage).examples[10]) == 9


def test_blocks_that_give_zeros_alone_are_named_while_training(photo_folder, tmp_path, capsys):
    config = make_config(photo_folder)
    trainer = make_trainer(config, "joint", tmp_path)
    assert trainer.describe_rest() == ""
    block = trainer.joint.get_layer("sr").get_layer("block0_conv1")
    kernel, bias = block.get_weights()
    block.set_weights([kernel, np.full_like(bias, -100)])
    assert trainer.describe_rest().startswith("1 of 1 residual blocks of SR give zeros alone")
    resting = tmp_path / "resting.keras"
    weights.save(resting, trainer.joint, config.model, {"name": "resting", "stage": "joint"})
    training.train(config, tmp_path / "run", ("joint",), init_from=str(resting))
    assert "jpegsr: 1 of 1 residual blocks of SR give zeros alone" in capsys.readouterr().out
    unscored = dataclasses.replace(config, data=dataclasses.replace(config.data, holdout_every=0))
    assert make_trainer(unscored, "joint", tmp_path / "unscored").describe_rest() == ""
    assert working_shares(keras.Sequential([keras.layers.Identity()]), []) == {}  # as are networks without blocks
    # With a slope below zero the block goes on learning.
    leaky = dataclasses.replace(config, model=dataclasses.replace(config.model, negative_slope=0.1))
    sloping = make_trainer(leaky, "joint", tmp_path / "leaky")
    sloping.joint.set_weights(trainer.joint.get_weights())
    assert sloping.describe_rest() == ""


def test_a_best_score_is_no_measure_after_validation_has_changed(photo_folder, tmp_path):
    config = make_config(photo_folder)
    unscored = dataclasses.replace(config, data=dataclasses.replace(config.data, holdout_every=0))
    assert train_one_stage(unscored, "sr", tmp_path).best_score.numpy() == 8  # the step, for want of pictures
    assert make_trainer(unscored, "sr", tmp_path).best_score.numpy() == 8
    scored = dataclasses.replace(unscored, run=dataclasses.replace(config.run, validation_data=str(photo_folder)))
    trainer = make_trainer(scored, "sr", tmp_path)
    assert int(trainer.step.numpy()) == 8
    assert trainer.best_score.numpy() == -np.inf


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_jax_trainer_learns_the_same_and_its_weights_load(optimizer, photo_folder, tmp_path):
    """Eight steps of every stage on both backends, from the same initial weights and patches."""
    config = make_config(photo_folder, optimizer=optimizer)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, validate_every=8))
    joint = models.build_joint(config.model)
    # Not the usual start from zeros, where most gradients are nothing but rounding noise at first.
    rng = np.random.default_rng(0)
    joint.set_weights([rng.normal(0, 0.05, variable.shape) for variable in joint.weights])
    weights.save(tmp_path / "start.keras", joint, config.model, {"name": "start", "stage": "joint"})
    start = str(tmp_path / "start.keras")
    assert training.train(config, tmp_path / "tensorflow", init_from=start)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    run_python("-c", JAX_PROGRAM, str(tmp_path), start, "interrupted", KERAS_BACKEND="jax")
    with np.load(tmp_path / "jax" / "car" / "state.npz") as state:
        assert 4 <= int(state["step"]) < 8
    run_python("-c", JAX_PROGRAM, str(tmp_path), start, "resumed", KERAS_BACKEND="jax")
    with pytest.raises(UserError, match="other Keras backend"):
        training.train(config, tmp_path / "jax")
    for stage, part in (("car", "car"), ("sr", "sr"), ("joint", "car"), ("joint", "sr")):
        on_jax, on_tensorflow = (load_part(tmp_path / run / stage, part) for run in ("jax", "tensorflow"))
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
    settings = TrainingConfig.from_json({"run": {}, **json.loads((tiny_run / "car" / "config.json").read_text())})
    sampler = PatchSampler(settings.data, 2)
    unseen = Patch(
        *(np.stack(part) for part in zip(*(sampler.patch(index) for index in range(10**6, 10**6 + 64)), strict=True))
    )
    start = models.build_joint(settings.model)
    for name in ("car", "sr", "joint"):
        stage = stages.get_stage(name, settings.stage)
        trained = weights.load(str(tiny_run / name), allow_partial=True).model
        before, after = (
            float(stages.stage_loss(stage, stage.targets(unseen), model(to_unit(unseen.compressed))))
            for model in (start, trained)
        )
        assert after < 0.985 * before, name
        assert len(logged(tiny_run / name, "training/loss")) == 4
        assert json.loads((tiny_run / name / "best.json").read_text())["step"] in (20, 40)
    # Resume: everything is done, so nothing may change.
    before = final_weights(tiny_run, "joint")
    data = [f"--data={photo_folder}", "--holdout_every=5"]
    assert main(["train", *data, f"--output_dir={tiny_run}", *TINY_FLAGS]) == 0
    for old, new in zip(before, final_weights(tiny_run, "joint"), strict=True):
        np.testing.assert_array_equal(old, new)
    # Evaluate: the CSV agrees with the JSON.
    scores = tmp_path / "scores"
    arguments = [f"--model={tiny_run}", "--qualities=0,10", f"--datasets=photos={photo_folder}", f"--output_dir={scores}"]
    assert main(["evaluate", *arguments]) == 0
    report = json.loads((scores / "results.json").read_text())
    trained = weights.load(str(tiny_run))
    assert report["models"][trained.name]["sha256"] == model_files.sha256(tiny_run / "joint" / "best.keras")
    rows = [line.split(",") for line in (scores / "results.csv").read_text().splitlines()]
    header, rows = rows[0], rows[1:]
    assert len(rows) == 9 * 2 * 2
    for average in report["averages"]:
        key = [average["dataset"], str(average["quality"]), average["method"]]
        psnrs = [float(row[5]) for row in rows if [row[0], row[3], row[4]] == key]
        assert header[5] == "psnr_y"
        assert np.mean(psnrs) == pytest.approx(average["psnr_y"], abs=1e-3)
    assert "validation/compressed, restored, original" in logged_tags(tiny_run / "joint")
    # Enhance, export and reload: one set of pixels.
    output = tmp_path / "enhanced.png"
    assert main(["enhance", str(jpeg_file), "-o", str(output), f"--model={tiny_run}"]) == 0
    assert main(["export", f"--model={tiny_run}", f"--output_dir={tmp_path / 'exported'}"]) == 0
    program = """
import sys
import numpy as np, tensorflow as tf
from PIL import Image
signatures = (model := tf.saved_model.load(sys.argv[1])).signatures
expected = np.asarray(Image.open(sys.argv[3]))
content = tf.constant([open(sys.argv[2], "rb").read()])
served = signatures["serving_default"](image_bytes=content)["image_bytes"].numpy()[0]
assert (tf.io.decode_png(served).numpy() == expected).all()
image = tf.constant(np.asarray(Image.open(sys.argv[2]))[None])
assert (signatures["upscale"](image=image)["upscaled"].numpy()[0] == expected).all()
assert signatures["restore"](image=image)["restored"].shape == image.shape
assert not any(name.startswith("jpegsr") for name in sys.modules)
"""
    run_python("-c", program, str(tmp_path / "exported" / "1"), str(jpeg_file), str(output))
