"""What changes of `base` bring: each is trained from random weights for as long as `base` takes for `--steps` steps.

    python benchmarks/ablations.py --data=photos@2,BSDS400@4,T91@1 --output_dir=runs/ablations [--only=leaky --only=u_shaped]

Stage `joint` alone, but for what varies the stages. Processor time counts, measured anew for each variant beside `base`
itself, so the machine and its load matter little. Scored by PSNR-Y on the pictures that `--holdout_every` keeps out of
training. After each variant `--output` is written; those that it has are kept.
"""

import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import ablation_networks
import figures_file
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from jpegsr import models, provenance
from jpegsr.cli.settings import parse_sources
from jpegsr.config import ModelConfig, RunConfig, StageName, TrainingConfig, training_preset
from jpegsr.data import Patch, PatchSampler
from jpegsr.images import write_text
from jpegsr.pixels import to_unit
from jpegsr.runs import stop_requests
from jpegsr.training import StageTrainer
from jpegsr.validation import Validator

FLAGS = flags.FLAGS
_TIMED_STEPS = 6
_WARM_UP = 3
_MEAN_STEP = 57.6  # of libjpeg's luma table for quality 50


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a training.

    Attributes:
      stage: what trains.
      share: of the time.
      changes: of the settings of `DataConfig` and `StageConfig`, by name.
    """

    stage: StageName = "joint"
    share: float = 1.0
    changes: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is trained in the place of `base`, and how.

    Attributes:
      build: the network.
      phases: of its training, in order.
      is_conditioned: it gets the coarseness of the quantisation table as a fourth plane.
    """

    build: Callable[[ModelConfig], keras.Model] = models.build_joint
    phases: tuple[Phase, ...] = (Phase(),)
    is_conditioned: bool = False


def _changed(**changes: Any) -> tuple[Phase, ...]:
    return (Phase(changes=tuple(changes.items())),)


VARIANTS = {
    "base": Variant(),
    "another_seed": Variant(phases=_changed(seed=1)),
    "three_stages": Variant(phases=(Phase("car", 0.2), Phase("sr", 0.1), Phase("joint", 0.7))),
    "leaky": Variant(ablation_networks.leaky),
    "features_passed": Variant(ablation_networks.features_passed),
    "u_shaped": Variant(ablation_networks.u_shaped),
    "wider_and_shallower": Variant(ablation_networks.wider_and_shallower),
    "reparameterized": Variant(ablation_networks.reparameterized),
    "residual_full_resolution": Variant(ablation_networks.residual_full_resolution),
    "plain_full_resolution": Variant(ablation_networks.plain_full_resolution),
    "plain_without_normalization": Variant(ablation_networks.plain_without_normalization),
    "table_conditioned": Variant(ablation_networks.table_conditioned, is_conditioned=True),
    "quality_10_only": Variant(phases=_changed(quality=(10, 10), clean_share=0.0)),
    "quality_30_only": Variant(phases=_changed(quality=(30, 30), clean_share=0.0)),
    "without_average": Variant(phases=_changed(ema_decay=0.0)),
    "adam": Variant(phases=_changed(optimizer="adam")),
    "scale_augmentation": Variant(phases=_changed(scale_augmentation=0.5)),
    "larger_final_patches": Variant(
        phases=(
            Phase(share=0.7, changes=(("final_learning_rate", 3e-4),)),
            Phase(share=0.3, changes=(("patch_size", 72), ("batch_size", 7), ("learning_rate", 3e-4), ("warmup_steps", 0))),
        )
    ),
}
flags.DEFINE_list("data", None, "folders of training pictures, as of `jpegsr train`", required=True)
flags.DEFINE_string("output_dir", None, "folder of the runs", required=True)
flags.DEFINE_string("output", "results/ablations.json", "JSON file to write")
flags.DEFINE_multi_enum("only", list(VARIANTS), list(VARIANTS), "variants to train")
flags.DEFINE_integer("steps", 500, "steps of `base` whose processor time each variant gets")


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


class AblationTrainer(StageTrainer):
    """The package's loop for any joint network, with a fourth plane if asked for."""

    def __init__(self, *arguments: Any, is_conditioned: bool = False):
        self._is_conditioned = is_conditioned
        super().__init__(*arguments)
        if is_conditioned:
            self.validator = ConditionedValidator(self.stage, self.validator.examples)

    def batches(self) -> Iterator[Patch]:
        first, size = int(self.next_patch.numpy()), self.config.stage.batch_size
        for number, batch in enumerate(super().batches()):
            if self._is_conditioned:
                indices = range(first + number * size, first + (number + 1) * size)
                qualities = [self.sampler.draw(index)[1].quality for index in indices]
                batch = batch._replace(compressed=with_coarseness(batch.compressed, qualities))
            yield batch

    def save_best(self, card: dict[str, Any]) -> None:
        write_text(self.folder / "best.json", json.dumps(card))
        np.savez(self.folder / "best.npz", *self.joint.get_weights())


def settings(phase: Phase, steps: int) -> TrainingConfig:
    base = training_preset("base")
    changes = {"warmup_steps": steps // 10, **dict(phase.changes), "steps": steps}
    parts = {}
    for part, values in (("data", base.data), ("stage", base.stage)):
        names = {field.name for field in dataclasses.fields(values)}
        parts[part] = dataclasses.replace(values, **{key: value for key, value in changes.items() if key in names})
    parts["data"] = dataclasses.replace(parts["data"], sources=parse_sources(FLAGS.data))
    run = RunConfig(checkpoint_every=250, validate_every=steps, validation_qualities=(0, 10, 20, 30, 40))
    return dataclasses.replace(base, **parts, run=run)


def _trainer(
    variant: Variant, phase: Phase, steps: int, folder: pathlib.Path, start: list[np.ndarray] | None = None
) -> AblationTrainer:
    config = settings(phase, steps)
    keras.utils.set_random_seed(config.data.seed)
    joint = variant.build(config.model)
    if start:
        joint.set_weights(start)
    sampler = PatchSampler(config.data, config.model.scale)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = (config, phase.stage, folder, joint, sampler, tf.distribute.get_strategy())
    return AblationTrainer(*arguments, is_conditioned=variant.is_conditioned)


def seconds_per_step(variant: Variant, phase: Phase) -> float:
    """Processor time of a step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(variant, phase, 100, pathlib.Path(folder))
        step, batches = trainer.make_step(), trainer.batches()
        for number in range(_WARM_UP + _TIMED_STEPS):
            if number == _WARM_UP:
                started = time.process_time()
            float(step(next(batches))[0])
        return (time.process_time() - started) / _TIMED_STEPS


def gigaflops(joint: keras.Model) -> float:
    """Arithmetic per megapixel that comes out, in units of 10^9, as TensorFlow's profiler counts it."""
    from tensorflow.python.profiler import model_analyzer, option_builder

    side = 64
    spec = tf.TensorSpec((1, side, side, joint.input.shape[-1]), tf.float32)
    graph = tf.function(lambda pixels: joint(pixels, training=False)["upscaled"]).get_concrete_function(spec).graph
    builder = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
    total = model_analyzer.profile(graph, options=builder.with_empty_output().build()).total_float_ops
    return total / (2 * side) ** 2 / 1e3


def run(name: str, budget: float, stop: Any) -> dict[str, Any] | None:
    """Train a variant for so many seconds of processor time; what came of it, or None if it was stopped."""
    variant, folder = VARIANTS[name], pathlib.Path(FLAGS.output_dir) / name
    weights, steps = None, []
    for number, phase in enumerate(variant.phases):
        path = folder / str(number)
        known = path / "config.json"
        if known.is_file():  # a run that was stopped goes on
            count = json.loads(known.read_text(encoding="utf-8"))["stage"]["steps"]
        else:
            count = round(budget * phase.share / seconds_per_step(variant, phase))
        trainer = _trainer(variant, phase, count, path, weights)
        if not trainer.run(stop):
            return None
        with np.load(path / "best.npz") as stored:
            weights = list(stored.values())
        steps.append(count)
    scores = json.loads((path / "best.json").read_text(encoding="utf-8"))["validation_psnr"]
    return {
        "description": (variant.build.__doc__ or "").split("\n")[0] if variant.build is not models.build_joint else "",
        "phases": [dataclasses.asdict(phase) for phase in variant.phases],
        "steps": steps,
        "processor_seconds": round(budget),
        "parameters": trainer.joint.count_params(),
        "gigaflops_per_megapixel": round(gigaflops(trainer.joint)),
        "validation_psnr_y": scores,
    }


def main(_: list[str]) -> None:
    output = pathlib.Path(FLAGS.output)
    known = json.loads(output.read_text(encoding="utf-8"))["variants"] if output.is_file() else {}
    base = Variant()
    with stop_requests() as stop:
        for name in FLAGS.only:
            result = run(name, FLAGS.steps * seconds_per_step(base, base.phases[0]), stop)
            if result is None:
                return
            known[name] = {**result, "commit": provenance.source()["commit"]}
            ordered = {key: known[key] for key in VARIANTS if key in known}
            figures_file.write(output, " ".join((__doc__ or "").split()), {"variants": ordered})
            print(name, result, flush=True)


if __name__ == "__main__":
    app.run(main)
