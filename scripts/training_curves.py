"""Keep the curves and settings of a training run, from its TensorBoard logs and card, as a results file for figures.

    python scripts/training_curves.py --run=runs/base_x2 --name=base --output=results/training_base_x2.json

Validation scores are kept as they are, the training loss as the mean of each stretch of `--stretch` steps.
"""

import json
import pathlib
import shlex
import sys
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jpegsr import model_files, reports
from jpegsr.config import STAGE_NAMES
from jpegsr.images import write_text

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "folder of the training run", required=True)
flags.DEFINE_string("name", None, "name of the model that came of it", required=True)
flags.DEFINE_string("output", None, "JSON file to write", required=True)
flags.DEFINE_integer("stretch", 100, "steps that are averaged into one point of the loss")


def read_logs(folder: pathlib.Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, of all scalars of a stage; where a stage was resumed, what came later counts."""
    logs = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    logs.Reload()
    tags = [tag for tag in logs.Tags()["tensors"] if not tag.startswith("validation/compressed")]
    return {tag: {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in logs.Tensors(tag)} for tag in tags}


def averaged(points: dict[int, float], stretch: int) -> list[list[float]]:
    """[last step, mean] of each stretch of steps."""
    steps, values = np.array(sorted(points)), np.array([points[step] for step in sorted(points)])
    ends = -(-steps // stretch) * stretch
    return [[int(end), round(float(values[ends == end].mean()), 6)] for end in np.unique(ends)]


def read_stage(folder: pathlib.Path, stretch: int) -> dict[str, Any]:
    """The curves of one stage."""
    logs = read_logs(folder)
    prefix = "validation/psnr_quality_"
    return {
        "loss": averaged(logs["training/loss"], stretch),
        "validation_psnr_y": {
            tag.removeprefix(prefix): [[step, round(value, 3)] for step, value in sorted(points.items())]
            for tag, points in logs.items()
            if tag.startswith(prefix)
        },
    }


def main(_: list[str]) -> None:
    run = pathlib.Path(FLAGS.run)
    card = model_files.read_card(model_files.find(str(run)))
    models = {FLAGS.name: {"sha256": card["sha256"], "config": card["config"]}}
    what = "validation: mean PSNR-Y of the pictures kept out of training; in stage car, of what CAR restored"
    curves = {
        **reports.origin_of("python " + shlex.join(sys.argv), what, models),
        "training": card["training"],
        "stages": {
            stage: read_stage(run / stage / "logs", FLAGS.stretch) for stage in STAGE_NAMES if (run / stage / "logs").is_dir()
        },
    }
    write_text(FLAGS.output, json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
