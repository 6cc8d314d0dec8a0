"""What changes of `base` bring: each is trained from random weights for as long as `base` takes for `--steps` steps.

    python benchmarks/ablations.py --data=photos@2,BSDS400@4,T91@1 --output_dir=runs/ablations [--only=u_shaped]

Stage `joint` alone, but for what varies the stages. Processor time counts, measured anew for each variant beside `base`
itself, so the machine and its load matter little. Scored by PSNR-Y on the pictures that `--holdout_every` keeps out of
training. After each variant `--output` is written; those that it has are kept.
"""

import dataclasses
import json
import pathlib
import tempfile
import time
from typing import Any

import figures_file
import keras
import numpy as np
from ablation_training import AblationTrainer, gigaflops
from ablation_variants import VARIANTS, Phase, Variant
from absl import app, flags

from jpegsr import models, provenance
from jpegsr.cli.settings import parse_sources
from jpegsr.config import RunConfig, TrainingConfig, training_preset
from jpegsr.runs import stop_requests

FLAGS = flags.FLAGS
_TIMED_STEPS = 6
_WARM_UP = 3
flags.DEFINE_list("data", None, "folders of training pictures, as of `jpegsr train`", required=True)
flags.DEFINE_string("output_dir", None, "folder of the runs", required=True)
flags.DEFINE_string("output", "results/ablations.json", "JSON file to write")
flags.DEFINE_multi_enum("only", list(VARIANTS), list(VARIANTS), "variants to train, but for those that `--output` has")
flags.DEFINE_integer("steps", 500, "steps of `base` whose processor time each variant gets")
flags.DEFINE_bool("mixed_precision", False, "compute in bfloat16: faster on processors with instructions for it")


def settings(preset: str, phase: Phase, steps: int) -> TrainingConfig:
    base = training_preset(preset)
    changes = {"warmup_steps": steps // 10, "mixed_precision": FLAGS.mixed_precision, **dict(phase.changes), "steps": steps}
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
    config = settings(variant.preset, phase, steps)
    keras.utils.set_random_seed(config.data.seed)
    joint = variant.build(config.model)
    if start:
        joint.set_weights(start)
    folder.mkdir(parents=True, exist_ok=True)
    return AblationTrainer(config, phase.stage, folder, joint, variant.teacher)


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
        **({"teacher": variant.teacher} if variant.teacher else {}),
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
    keras.config.set_dtype_policy("mixed_bfloat16" if FLAGS.mixed_precision else "float32")
    with stop_requests() as stop:
        for name in (name for name in FLAGS.only if name not in known):
            result = run(name, FLAGS.steps * seconds_per_step(base, base.phases[0]), stop)
            if result is None:
                return
            known[name] = {**result, "commit": provenance.source()["commit"]}
            ordered = {key: known[key] for key in VARIANTS if key in known}
            figures_file.write(output, " ".join((__doc__ or "").split()), {"variants": ordered})
            print(name, result, flush=True)


if __name__ == "__main__":
    app.run(main)
