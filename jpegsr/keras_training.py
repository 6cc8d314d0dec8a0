"""The stages of `stages`, trained by Keras' own `fit`: for machines whose accelerator only the JAX backend reaches.

Run with `KERAS_BACKEND=jax`; nothing here imports TensorFlow. The patches are those of the TensorFlow loop, level for level,
and the weights files are the same, so that either trainer goes on from what the other one saved.
"""

import concurrent.futures
import contextlib
import pathlib
import random
import threading
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from jpegsr import models, stages, weights
from jpegsr.config import STAGE_NAMES, StageName, TrainingConfig
from jpegsr.data import Patch, PatchSampler
from jpegsr.errors import UserError
from jpegsr.images import written_beside
from jpegsr.pixels import to_unit
from jpegsr.runs import check_settings, is_scored_alike, model_card, start_weights, stop_requests
from jpegsr.validation import Validator, averaged_weights, describe, describe_rest, mean_score


class PatchBatches(keras.utils.PyDataset):
    """Batches of the patch stream for `fit`, as a context manager: its threads, which draw ahead, end with the block.

    (Keras' own workers stay alive when `fit` is stopped, and can then crash the interpreter at its exit.)

    Attributes:
      first_patch: index of the first patch of the first batch.
    """

    def __init__(
        self, sampler: PatchSampler, stage: stages.Stage, batch_size: int, num_batches: int, first_patch: int, workers: int
    ):
        super().__init__()
        self.first_patch = first_patch
        self._sampler = sampler
        self._stage = stage
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._ahead = 2 * workers
        self._pool = concurrent.futures.ThreadPoolExecutor(workers)
        self._drawn: dict[int, concurrent.futures.Future] = {}

    def __enter__(self) -> "PatchBatches":
        return self

    def __exit__(self, *_exception) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, batch: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """float32 inputs `[B, P, P, 3]` in [0, 1] and the targets by output name."""
        for number in range(batch, min(batch + 1 + self._ahead, self._num_batches)):
            if number not in self._drawn:
                self._drawn[number] = self._pool.submit(self._draw, number)
        return self._drawn.pop(batch).result()

    def _draw(self, batch: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        first = self.first_patch + batch * self._batch_size
        patches = [self._sampler.patch(index) for index in range(first, first + self._batch_size)]
        stacked = Patch(*(np.stack(part) for part in zip(*patches, strict=True)))
        targets = {output: ops.convert_to_numpy(target) for output, target in self._stage.targets(stacked).items()}
        return ops.convert_to_numpy(to_unit(stacked.compressed)), targets


class _StopOnRequest(keras.callbacks.Callback):
    """Ends `fit` after the batch in hand once a stop is requested; counts the batches."""

    def __init__(self, stop: threading.Event):
        super().__init__()
        self.num_batches = 0
        self._stop = stop

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Called by Keras."""
        self.num_batches += 1
        self.model.stop_training = self._stop.is_set()


def train(
    config: TrainingConfig,
    run_folder: str | pathlib.Path,
    stage_names: tuple[StageName, ...] = STAGE_NAMES,
    init_from: str | None = None,
    workers: int = 2,
) -> bool:
    """Run or resume stages with `fit`; arguments, result and errors as in `training.train`.

    The state is saved every `checkpoint_every` steps, and a run that was killed repeats the steps since then.
    """
    if config.run.strategy not in ("default", "mirrored") or config.run.deterministic:
        raise UserError(
            "--strategy=multi_worker, --strategy=tpu and --deterministic are for the TensorFlow backend: unset KERAS_BACKEND, "
            "or leave them out"
        )
    run_folder = pathlib.Path(run_folder)
    keras.config.set_dtype_policy("mixed_bfloat16" if config.stage.mixed_precision else "float32")
    # What Keras' initialisers draw their seeds from; keras.utils.set_random_seed would import TensorFlow.
    random.seed(config.data.seed)
    with stop_requests() as stop, _distribution(config):
        sampler = PatchSampler(config.data, config.model.scale)
        joint = models.build_joint(config.model)
        for name in stage_names:
            start_weights(joint, run_folder, name, init_from if name == stage_names[0] else None)
            if not _fit_stage(config, name, run_folder / name, joint, sampler, workers, stop):
                return False
    return True


@contextlib.contextmanager
def _distribution(config: TrainingConfig) -> Iterator[None]:
    """Within the block, strategy "mirrored" spreads every batch over all devices of the machine; each has all the weights."""
    if config.run.strategy == "default":
        yield
        return
    devices = keras.distribution.list_devices()
    if len(devices) < 2:
        raise UserError(f"no second device beside {devices[0]!r} for --strategy=mirrored: leave it out")
    if config.stage.batch_size % len(devices):
        raise UserError(f"batch_size {config.stage.batch_size} does not divide by the {len(devices)} devices in use")
    with keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False).scope():
        yield


def _fit_stage(
    config: TrainingConfig,
    name: StageName,
    folder: pathlib.Path,
    joint: keras.Model,
    sampler: PatchSampler,
    workers: int,
    stop: threading.Event,
) -> bool:
    stage = stages.get_stage(name, config.stage)
    validator = Validator.from_sampler(sampler, config, stage)
    check_settings(folder, config, sampler.num_pictures, foreign_state="checkpoints")
    model = stages.stage_model(stage, joint)
    model.compile(
        optimizer=stages.build_optimizer(config.stage),
        loss={loss.output: stage.difference for loss in stage.losses},
        loss_weights={loss.output: loss.weight for loss in stage.losses},
    )
    model.optimizer.build(model.trainable_variables)
    step, best_score = _restore(folder, model)
    if not is_scored_alike(folder, config):
        best_score = -np.inf
    total, run, batch_size = config.stage.steps, config.run, config.stage.batch_size
    while step < total and not stop.is_set():
        next_stop = min(total, *((step // every + 1) * every for every in (run.checkpoint_every, run.validate_every)))
        counter = _StopOnRequest(stop)
        with PatchBatches(sampler, stage, batch_size, next_stop - step, step * batch_size, workers) as batches:
            history = model.fit(batches, epochs=1, shuffle=False, callbacks=[counter])
        if not np.isfinite(history.history["loss"]).all():
            raise UserError(
                f"the loss is not a number after step {step} of stage {name}, where {str(folder / 'state.npz')!r} was saved: "
                "start another run with a lower --learning_rate or a --gradient_clip_norm"
            )
        step += counter.num_batches
        if step % run.validate_every == 0 or step == total:
            best_score = _validate(config, stage, folder, joint, model, validator, step, best_score)
        _save(folder, model, step, best_score)
    return step == total


def _validate(
    config: TrainingConfig,
    stage: stages.Stage,
    folder: pathlib.Path,
    joint: keras.Model,
    model: keras.Model,
    validator: Validator,
    step: int,
    best_score: float,
) -> float:
    """Score the averaged weights and keep them if they are the best; returns the best score so far."""
    with averaged_weights(model, model.optimizer):
        scores, _ = validator.score(lambda picture: _predict(model, picture))
        rest = describe_rest(joint, validator)
        score = mean_score(scores, step)
        if score > best_score:
            weights.save(folder / "best.keras", joint, config.model, model_card(config, stage.name, step, scores))
    print(f"{stage.name} step {step}: {describe(scores)}")
    if rest:
        print(f"jpegsr: {rest}")
    return max(score, best_score)


def _predict(model: keras.Model, picture: np.ndarray) -> dict:
    """The outputs for one picture `[1, H, W, 3]`, of which a distribution over devices asks for one each."""
    distribution = keras.distribution.distribution()
    return model.predict_on_batch(picture.repeat(distribution.num_model_replicas if distribution else 1, axis=0))


def _save(folder: pathlib.Path, model: keras.Model, step: int, best_score: float) -> None:
    """Model, optimizer (with the moving average), step and best score, in one file that replaces the last one."""
    state = {f"model_{i}": ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    state |= {f"optimizer_{i}": ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    with written_beside(folder / "state.npz") as temporary:
        np.savez(temporary, step=step, best_score=best_score, **state)


def _restore(folder: pathlib.Path, model: keras.Model) -> tuple[int, float]:
    """(step, best score) of the saved state, which is put into the model and its optimizer; (0, -inf) without one."""
    path = folder / "state.npz"
    if not path.exists():
        return 0, -np.inf
    with np.load(path) as state:
        for i, variable in enumerate(model.variables):
            variable.assign(state[f"model_{i}"])
        for i, variable in enumerate(model.optimizer.variables):
            variable.assign(state[f"optimizer_{i}"])
        return int(state["step"]), float(state["best_score"])
