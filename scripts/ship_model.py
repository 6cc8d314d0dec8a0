r"""Put the best weights of a training run into the package, with a model card.

    python scripts/ship_model.py --run=runs/base_x2 --name=base --commit=COMMIT --hardware="2 CPU cores" --recipe=FILE \
        --limits=FILE
    python scripts/ship_model.py --name=base --scale=2 --scores=results/base_x2/results.json

The first form copies the weights and writes what is known of their training; the second adds scores to the card, once
`scripts/score_models.py` has made them from the shipped file. Weights of stage car, which only restore, become x1;
their scores are those of `benchmarks/restoring.py`. `scripts/render_model_cards.py` puts the cards on a page.
"""

import json
import os
import pathlib
import shutil
import sys
from typing import Any

import tensorflow as tf
from absl import app, flags

from jpegsr import model_files
from jpegsr.config import STAGE_NAMES
from jpegsr.images import write_text

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "folder of the training run")
flags.DEFINE_string("name", None, "name of the model in the package", required=True)
flags.DEFINE_integer("scale", 2, "scale of the model whose card gets scores")
flags.DEFINE_string("commit", None, "commit of the code that trained it")
flags.DEFINE_string("hardware", None, "what it was trained on")
flags.DEFINE_string("recipe", None, "text file with the commands that trained it, one per line")
flags.DEFINE_string("limits", None, "text file with what the model is not good at, one sentence per line")
flags.DEFINE_string("scores", None, "results.json of an evaluation of the shipped file")


def stages_done(run: pathlib.Path, last: str) -> dict[str, dict[str, Any]]:
    """Steps, hours and settings of each stage of a run up to the last one, from its last checkpoint.

    A run may start with a later stage than the first.
    """
    done = {}
    for stage in STAGE_NAMES[: STAGE_NAMES.index(last) + 1]:
        if not (run / stage).is_dir():
            continue
        checkpoint = tf.train.latest_checkpoint(str(run / stage / "checkpoints"))
        if checkpoint is None:
            sys.exit(f"{run / stage} has no checkpoint of TensorFlow, from which steps and hours are read")
        reader = tf.train.load_checkpoint(checkpoint)
        seconds = float(reader.get_tensor("seconds/.ATTRIBUTES/VARIABLE_VALUE"))
        settings = json.loads((run / stage / "config.json").read_text())
        done[stage] = {
            "steps": int(reader.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE")),
            "hours": round(seconds / 3600, 2),
            "settings": settings["stage"],
        }
    return done


def ship(run: pathlib.Path) -> pathlib.Path:
    """Copy the joint weights of a run and write their card."""
    source = model_files.find(str(run))
    card = model_files.read_card(source)
    scale = 1 if card["stage"] == "car" else card["config"]["scale"]
    target = model_files.SHIPPED_FOLDER / f"{FLAGS.name}_x{scale}.keras"
    target.parent.mkdir(exist_ok=True)
    data = {**card["training"]["data"]}
    # Folders are named, not located: the paths are those of the machine it was trained on.
    data["sources"] = [[os.path.basename(location.rstrip("/")), weight] for location, weight in data["sources"]]
    card = {
        "name": FLAGS.name,
        "stage": card["stage"],
        "step": card["step"],
        "data": data,
        "stages": stages_done(run, card["stage"]),
        "hardware": FLAGS.hardware,
        "commit": FLAGS.commit,
        "recipe": pathlib.Path(FLAGS.recipe).read_text().splitlines(),
        "validation_psnr": card["validation_psnr"],
        "limits": pathlib.Path(FLAGS.limits).read_text().splitlines(),
        "config": card["config"],
        "sha256": card["sha256"],
    }
    shutil.copyfile(source, target)
    write_text(model_files.card_path(target), json.dumps(card, indent=2) + "\n")
    return target


def add_scores(target: pathlib.Path) -> None:
    """Put the averages of an evaluation of this very file into its card."""
    results = json.loads(pathlib.Path(FLAGS.scores).read_text())
    card = model_files.read_card(target)
    if results["models"][FLAGS.name]["sha256"] != card["sha256"]:
        sys.exit("the scores are not those of the shipped file")
    kept = ("command", "commit", "protocol", "averages" if "averages" in results else "rows")
    card["scores"] = {key: results[key] for key in kept}
    write_text(model_files.card_path(target), json.dumps(card, indent=2) + "\n")


def main(_: list[str]) -> None:
    target = ship(pathlib.Path(FLAGS.run)) if FLAGS.run else model_files.find(FLAGS.name, FLAGS.scale)
    if FLAGS.scores:
        add_scores(target)
    print(target)


if __name__ == "__main__":
    app.run(main)
