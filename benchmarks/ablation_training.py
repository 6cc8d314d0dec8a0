"""How `ablations.py` trains a network that the package does not have, and counts what it costs to run."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jpegsr import models, weights
from jpegsr.config import DataConfig, StageName, TrainingConfig
from jpegsr.data import Patch, PatchSampler
from jpegsr.images import write_text
from jpegsr.pixels import to_levels, to_unit
from jpegsr.training import StageTrainer
from jpegsr.validation import Validator

_MEAN_STEP = 57.6  # of libjpeg's luma table for quality 50


def coarseness(quality: int | tf.Tensor) -> tf.Tensor:
    """How coarsely libjpeg quantises luma at a quality, uint8: 28 per doubling of the mean step; 0 for a clean picture.

    A file carries its table. What is unknown would be given a middle value.
    """
    quality = tf.cast(quality, tf.float32)
    scale = tf.where(quality < 50, 50 / tf.maximum(quality, 1), 2 - quality / 50)
    mean = tf.clip_by_value(_MEAN_STEP * scale, 1.0, 512.0)
    return tf.cast(tf.where(quality == 0, 0.0, tf.round(28 * tf.math.log(mean) / tf.math.log(2.0))), tf.uint8)


def with_coarseness(pixels: Any, qualities: Any) -> tf.Tensor:
    """Pictures `[B, H, W, 3]`, uint8 or in [0, 1], and their qualities `[B]` -> `[B, H, W, 4]` of the same kind."""
    pixels = tf.convert_to_tensor(pixels)
    levels = coarseness(qualities)[:, None, None, None]
    values = levels if pixels.dtype == tf.uint8 else to_unit(levels)
    return tf.concat([pixels, tf.broadcast_to(values, [*pixels.shape[:3], 1])], axis=-1)


class ConditionedValidator(Validator):
    """A validator that tells the network the quality."""

    def score(self, predict: Callable[[np.ndarray], dict]) -> tuple[dict[int, float], np.ndarray | None]:
        scores = {}
        for quality, patches in self.examples.items():
            one = Validator(self.stage, {quality: patches})
            scores |= one.score(lambda pixels, quality=quality: predict(with_coarseness(pixels, [quality])))[0]
        return scores, None


def teacher(name: str, scale: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A shipped model, levels `[B, H, W, 3]` -> levels `[B, scale * H, scale * W, 3]`, in the precision of the training."""
    trained = weights.load(name, scale)
    joint = models.build_joint(trained.config)
    joint.set_weights(trained.model.get_weights())
    return tf.function(lambda levels: to_levels(joint(to_unit(levels), training=False)["upscaled"]))


def between(levels: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """The mean of two pictures, uint8."""
    return tf.cast((tf.cast(levels, tf.int32) + tf.cast(others, tf.int32)) // 2, tf.uint8)


class AblationTrainer(StageTrainer):
    """The package's loop for any joint network.

    One with a fourth plane of input is told how coarse the tables are. With a teacher, a shipped name, the picture to come
    near is the mean of the original and of what the teacher makes of the input.
    """

    def __init__(self, config: TrainingConfig, name: StageName, folder: pathlib.Path, joint: keras.Model, taught_by: str = ""):
        sampler = PatchSampler(config.data, config.model.scale)
        super().__init__(config, name, folder, joint, sampler, tf.distribute.get_strategy())
        # All are scored on the same pictures, also those that train on patches for which some are too small.
        usual = dataclasses.replace(config.data, patch_size=DataConfig().patch_size)
        if usual != config.data:
            self.validator = Validator.from_sampler(PatchSampler(usual, config.model.scale), config, self.stage)
        self._is_conditioned = joint.input.shape[-1] > models.NUM_CHANNELS
        if self._is_conditioned:
            self.validator = ConditionedValidator(self.stage, self.validator.examples)
        self._teacher = teacher(taught_by, config.model.scale) if taught_by else None

    def batches(self) -> Iterator[Patch]:
        first, size = int(self.next_patch.numpy()), self.config.stage.batch_size
        for number, batch in enumerate(super().batches()):
            if self._is_conditioned:
                indices = range(first + number * size, first + (number + 1) * size)
                qualities = [self.sampler.draw(index)[1].quality for index in indices]
                batch = batch._replace(compressed=with_coarseness(batch.compressed, qualities))
            if self._teacher:
                batch = batch._replace(hr=between(batch.hr, self._teacher(batch.compressed)))
            yield batch

    def describe_rest(self) -> str:
        return ""  # Some variants have no residual blocks, some other inputs.

    def save_best(self, card: dict[str, Any]) -> None:
        write_text(self.folder / "best.json", json.dumps(card))
        np.savez(self.folder / "best.npz", *self.joint.get_weights())


def gigaflops(joint: keras.Model) -> float:
    """Arithmetic per megapixel that comes out, in units of 10^9, as TensorFlow's profiler counts it."""
    from tensorflow.python.profiler import model_analyzer, option_builder

    side = 64
    spec = tf.TensorSpec((1, side, side, joint.input.shape[-1]), tf.float32)
    graph = tf.function(lambda pixels: joint(pixels, training=False)["upscaled"]).get_concrete_function(spec).graph
    builder = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
    total = model_analyzer.profile(graph, options=builder.with_empty_output().build()).total_float_ops
    return total / (2 * side) ** 2 / 1e3
