"""The three-stage training of section 3 as a custom TensorFlow loop.

A run's folder holds one folder per stage:

    car/ sr/ joint/
      config.json   the settings, checked when the run is resumed
      checkpoints/  model, moving average, optimizer, step, best score and position in the patch stream
      best.keras    the moving average of the weights at its best validation score, and best.json, its card
      logs/         TensorBoard scalars and pictures

A stage that was killed goes on from its last checkpoint and ends with the very weights of an uninterrupted run, because a
patch depends on nothing but the seed and its index.
"""

import json
import logging
import math
import pathlib
import threading
import time
import zlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from jpegsr import models, stages, weights
from jpegsr.config import STAGE_NAMES, StageName, TrainingConfig
from jpegsr.console import progress_bar
from jpegsr.data import PatchSampler, patch_dataset
from jpegsr.errors import UserError
from jpegsr.pixels import to_unit
from jpegsr.runs import check_settings, is_scored_alike, model_card, start_weights, stop_requests
from jpegsr.validation import Validator, averaged_weights, describe, describe_rest, mean_score
from jpegsr.workers import Workers, make_strategy

_logger = logging.getLogger(__name__)
# Losses are fetched from the device in groups, so that it never waits for Python between two steps.
_FETCH_EVERY = 10


def train(
    config: TrainingConfig,
    run_folder: str | pathlib.Path,
    stage_names: tuple[StageName, ...] = STAGE_NAMES,
    init_from: str | None = None,
) -> bool:
    """Run or resume training stages in order, each from the best weights of the one before.

    Args:
      config: all settings.
      run_folder: where the run lives; finished stages are skipped, a started one is resumed.
      stage_names: which stages to run.
      init_from: shipped name, `.keras` file or run folder whose weights a new run starts from.

    Returns:
      True if all stages are done, False if SIGTERM or Ctrl-C ended the run early (its state is saved).

    Raises:
      UserError: data, weights or run folder do not fit, or the loss is not a number; `workers.PeerLostError` if another worker
        of the run has ended.
    """
    run_folder = pathlib.Path(run_folder)
    strategy = make_strategy(config.run.strategy)
    if config.run.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy("mixed_bfloat16" if config.stage.mixed_precision else "float32")
    keras.utils.set_random_seed(config.data.seed)
    with stop_requests() as stop:
        sampler = PatchSampler(config.data, config.model.scale)
        try:
            with strategy.scope():
                joint = models.build_joint(config.model)
            for name in stage_names:
                start_weights(joint, run_folder, name, init_from if name == stage_names[0] else None)
                trainer = StageTrainer(config, name, run_folder / name, joint, sampler, strategy)
                if not trainer.run(stop):
                    return False
        except tf.errors.OpError as error:
            raise (sampler.failure or Workers(strategy).explained(error)) from None
    return True


class StageTrainer:
    """One stage: the compiled step, its checkpoints and its validation."""

    def __init__(
        self,
        config: TrainingConfig,
        name: StageName,
        folder: pathlib.Path,
        joint: keras.Model,
        sampler: PatchSampler,
        strategy: tf.distribute.Strategy,
    ):
        if config.stage.batch_size % strategy.num_replicas_in_sync:
            raise UserError(
                f"batch_size {config.stage.batch_size} does not divide by the {strategy.num_replicas_in_sync} devices in use"
            )
        self.config = config
        self.folder = folder
        self.joint = joint
        self.sampler = sampler
        self.strategy = strategy
        self.workers = Workers(strategy)
        self.stage = stages.get_stage(name, config.stage)
        self.validator = Validator.from_sampler(sampler, config, self.stage)
        with strategy.scope():
            self.model = stages.stage_model(self.stage, joint)
            self.optimizer = stages.build_optimizer(config.stage, clips=False)
            self.optimizer.build(self.model.trainable_variables)
        # Not `model.predict`, which goes through the strategy: the chief validates alone.
        self._predict = tf.function(lambda images: self.model(images, training=False), reduce_retracing=True)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.next_patch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_score = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self._previous_seconds = 0.0
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._checkpoints = self._open_folder()

    def _open_folder(self) -> tf.train.CheckpointManager:
        """Check the settings and restore the last checkpoint, if there is one."""
        settings = zlib.crc32(json.dumps([self.config.to_json(), self.sampler.num_pictures]).encode())
        self.workers.require_equal(
            settings, "the workers have different settings or pictures: give all of them the same flags and folders"
        )
        if self.workers.is_chief:
            check_settings(self.folder, self.config, self.sampler.num_pictures, foreign_state="state.npz")
        checkpoint = tf.train.Checkpoint(
            joint=self.joint,
            optimizer=self.optimizer,
            step=self.step,
            next_patch=self.next_patch,
            best_score=self.best_score,
            seconds=self.seconds,
        )
        manager = tf.train.CheckpointManager(checkpoint, str(self.folder / "checkpoints"), max_to_keep=2)
        if manager.latest_checkpoint:
            checkpoint.restore(manager.latest_checkpoint).assert_consumed()
            self._previous_seconds = float(self.seconds.numpy())
            if not is_scored_alike(self.folder, self.config):
                self.best_score.assign(-math.inf)
            if self.workers.is_chief:
                _logger.info("stage %s goes on at step %d", self.stage.name, int(self.step.numpy()))
        self.workers.require_equal(
            int(self.step.numpy()),
            f"not all workers see the last checkpoint: {str(self.folder)!r} has to be on a disk that they share",
        )
        return manager

    def make_step(self):
        """The compiled step: a distributed `Patch` batch -> [loss, squared error of the main output, gradient norm], `[3]`."""
        num_replicas = self.strategy.num_replicas_in_sync
        trained = self.model.trainable_variables
        stage, model, optimizer = self.stage, self.model, self.optimizer
        clip_norm = self.config.stage.gradient_clip_norm

        def replica_step(patch):
            targets = stage.targets(patch)
            with tf.GradientTape() as tape:
                outputs = model(to_unit(patch.compressed), training=True)
                loss = stages.stage_loss(stage, targets, outputs)
            gradients = tape.gradient(loss, trained)
            # Clipped as the gradient of the whole batch, so that the number of devices makes no difference.
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
            norm = tf.linalg.global_norm(gradients)
            if clip_norm:
                gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
            # The optimizer sums over the devices.
            optimizer.apply_gradients([(gradient / num_replicas, v) for gradient, v in zip(gradients, trained, strict=True)])
            shown = tf.clip_by_value(outputs[stage.main.output], 0.0, 1.0)
            return tf.stack([loss, tf.reduce_mean(tf.square(shown - targets[stage.main.output])), norm])

        @tf.function
        def step(patch):
            per_replica = self.strategy.run(replica_step, args=(patch,))
            return self.strategy.reduce(tf.distribute.ReduceOp.MEAN, per_replica, axis=None)

        return step

    def batches(self):
        """The patch stream from the current position on, shared out over input workers and devices."""
        first_patch = int(self.next_patch.numpy())

        def share(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batch_size = context.get_per_replica_batch_size(self.config.stage.batch_size)
            return patch_dataset(self.sampler, batch_size, first_patch, context.num_input_pipelines, context.input_pipeline_id)

        return iter(self.strategy.distribute_datasets_from_function(share))

    def run(self, stop: threading.Event) -> bool:
        """Train to the last step. False if `stop` was set before; then the state is saved all the same."""
        total, first_step = self.config.stage.steps, int(self.step.numpy())
        if first_step >= total:
            return True
        step, self._batches = self.make_step(), self.batches()
        pending: list[tf.Tensor] = []
        is_chief = self.workers.is_chief
        writer = tf.summary.create_file_writer(str(self.folder / "logs")) if is_chief else tf.summary.create_noop_writer()
        started = time.monotonic()
        try:
            with progress_bar(self.stage.name, "step", total, first_step, is_shown=is_chief) as bar, writer.as_default():
                for number in range(first_step + 1, total + 1):
                    pending.append(step(next(self._batches)))
                    self.step.assign(number)
                    self.next_patch.assign_add(self.config.stage.batch_size)
                    bar.update()
                    is_last = number == total or self.workers.must_stop(number, stop.is_set())
                    is_validation = number % self.config.run.validate_every == 0 or number == total
                    is_checkpoint = number % self.config.run.checkpoint_every == 0 or is_last
                    if number % _FETCH_EVERY == 0 or is_validation or is_checkpoint:
                        self._report(pending, bar, (number - first_step) / (time.monotonic() - started))
                        pending = []
                    if is_validation and is_chief:
                        self._validate(bar)
                    if is_checkpoint and is_chief:
                        self.seconds.assign(self._previous_seconds + time.monotonic() - started)
                        self._checkpoints.save(self.step)
                    if is_last:
                        break
            # Not before the chief has written what the next stage, or the next process, starts from.
            self.workers.meet()
        finally:
            # An iterator that is still drawing patches in Python must not outlive the interpreter: it would wait forever.
            self._batches = None
        return int(self.step.numpy()) == total

    def _report(self, pending, bar: tqdm, steps_per_second: float) -> None:
        """Fetch the losses of the latest steps, show their mean, and stop at one that is not a number."""
        values = np.array([value.numpy() for value in pending], np.float64)
        last = int(self.step.numpy())
        if (bad := np.flatnonzero(~np.isfinite(values).all(axis=1))).size:
            self._stop_at_nan(last - len(pending) + 1 + int(bad[0]))
        loss, error, norm = values.mean(axis=0)
        psnr = -10 * math.log10(max(error, 1e-10))
        rate = steps_per_second * self.config.stage.batch_size
        bar.set_postfix_str(f"loss {loss:.4f}, PSNR {psnr:.2f} dB, {rate:.1f} patches/s", refresh=False)
        scalars = {"loss": loss, "psnr": psnr, "gradient_norm": norm, "patches_per_second": rate}
        for name, value in {**scalars, "learning_rate": self.optimizer.learning_rate}.items():
            tf.summary.scalar(f"training/{name}", value, last)

    def _stop_at_nan(self, step: int) -> None:
        batch_size = self.config.stage.batch_size
        first = (step - 1) * batch_size
        names = sorted({self.sampler.name(index) for index in range(first, first + batch_size)})
        last_good = self._checkpoints.latest_checkpoint
        raise UserError(
            f"the loss or gradient of step {step} of stage {self.stage.name} is not a number; its patches come from "
            f"{', '.join(names)}; "
            + (f"the last good checkpoint is {last_good!r}" if last_good else "there is no checkpoint yet")
            + f": the same settings end here again, so start another run with a lower --learning_rate or a "
            f"--gradient_clip_norm, and --init_from={self.folder} if that has validated once"
        )

    def _validate(self, bar: tqdm) -> None:
        """Score the averaged weights; keep them if they are the best so far."""
        number = int(self.step.numpy())
        with averaged_weights(self.model, self.optimizer):
            scores, pictures = self.validator.score(self._predict)
            rest = self.describe_rest()
            score = mean_score(scores, number)
            is_best = score > float(self.best_score.numpy())
            if is_best:
                self.best_score.assign(score)
                self.save_best(model_card(self.config, self.stage.name, number, scores))
        for quality, value in scores.items():
            tf.summary.scalar(f"validation/psnr_quality_{quality}", value, number)
        if pictures is not None:
            tf.summary.image("validation/compressed, restored, original", pictures[None], number)
        bar.write(f"{self.stage.name} step {number}: {describe(scores)}{' (best)' if is_best else ''}")
        if rest:
            bar.write(f"jpegsr: {rest}")

    def describe_rest(self) -> str:
        """As `validation.describe_rest`; for other networks than `models.build_joint` to do in their way."""
        return describe_rest(self.joint, self.validator)

    def save_best(self, card: dict[str, Any]) -> None:
        """Keep the present weights, the best ones so far; for other networks to do in their way, too."""
        weights.save(self.folder / "best.keras", self.joint, self.config.model, card)
