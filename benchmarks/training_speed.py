"""How much of the machine training uses: ratios, so that they hold on any machine.

    python benchmarks/training_speed.py --data=FOLDER [--output=results/training_speed.json]

Prints the rate of the whole training loop (input pipeline, progress, logging) as a share of the rate of its compiled step on
one constant batch, and the rate of the input pipeline alone as a multiple of what the loop consumes. Run it on an idle machine.
"""

import dataclasses
import json
import pathlib
import tempfile
import threading
import time

import figures_file
import tensorflow as tf
from absl import app, flags

from jpegsr import models, training
from jpegsr.config import RunConfig, TrainingConfig, training_preset
from jpegsr.data import PatchSampler, patch_dataset

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "folder of training pictures", required=True)
flags.DEFINE_string("preset", "base", "what to train")
flags.DEFINE_integer("steps", 60, "steps to time")
flags.DEFINE_integer("rounds", 3, "how often to measure step and loop in turn; the medians count")
flags.DEFINE_string("output", None, "JSON file to write")
_WARM_UP_STEPS = 10


def make_trainer(config: TrainingConfig, folder: str, steps: int) -> training.StageTrainer:
    config = dataclasses.replace(config, stage=dataclasses.replace(config.stage, steps=steps, warmup_steps=0))
    sampler = PatchSampler(config.data, config.model.scale)
    joint = models.build_joint(config.model)
    return training.StageTrainer(config, "joint", pathlib.Path(folder), joint, sampler, tf.distribute.get_strategy())


def seconds_of_loop(config: TrainingConfig, steps: int) -> float:
    """Of a whole run of so many steps, compilation and the final checkpoint included."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, folder, steps)
        started = time.perf_counter()
        trainer.run(threading.Event())
        return time.perf_counter() - started


def step_rate(config: TrainingConfig) -> float:
    """Patches per second of the compiled step on one batch."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, folder, FLAGS.steps)
        step = trainer.make_step()
        batch = next(iter(patch_dataset(trainer.sampler, config.stage.batch_size)))
        for _ in range(_WARM_UP_STEPS):
            float(step(batch)[0])
        started = time.perf_counter()
        losses = [step(batch)[0] for _ in range(FLAGS.steps)]
        float(losses[-1])
        return FLAGS.steps * config.stage.batch_size / (time.perf_counter() - started)


def loop_rate(config: TrainingConfig) -> float:
    """Patches per second of the loop: a long run less a short one, so that neither start nor end counts."""
    short = seconds_of_loop(config, _WARM_UP_STEPS)
    long = seconds_of_loop(config, _WARM_UP_STEPS + FLAGS.steps)
    return FLAGS.steps * config.stage.batch_size / (long - short)


def pipeline_rate(config: TrainingConfig) -> float:
    """Patches per second of the input pipeline with its cache filled."""
    sampler = PatchSampler(config.data, config.model.scale)
    for cache in sampler.caches:
        for index in range(len(cache.source.names)):
            cache.get(index)
    batches = iter(patch_dataset(sampler, config.stage.batch_size))
    for _ in range(20):
        next(batches)
    count = 200
    started = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * config.stage.batch_size / (time.perf_counter() - started)


def main(_: list[str]) -> None:
    preset = training_preset(FLAGS.preset)
    config = dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, sources=((FLAGS.data, 0.0),), holdout_every=0),
        run=RunConfig(checkpoint_every=10**9, validate_every=10**9),
    )
    steps, loops = [], []
    for _ in range(FLAGS.rounds):
        steps.append(step_rate(config))
        loops.append(loop_rate(config))
    step, loop, pipeline = sorted(steps)[FLAGS.rounds // 2], sorted(loops)[FLAGS.rounds // 2], pipeline_rate(config)
    figures = {
        "step_patches_per_second": round(step, 2),
        "loop_patches_per_second": round(loop, 2),
        "pipeline_patches_per_second": round(pipeline, 1),
        "loop_over_step": round(loop / step, 3),
        "pipeline_over_loop": round(pipeline / loop, 1),
    }
    print(json.dumps(figures, indent=2))
    if FLAGS.output:
        figures_file.write(FLAGS.output, f"{FLAGS.steps} steps, median of {FLAGS.rounds} rounds", figures)


if __name__ == "__main__":
    app.run(main)
