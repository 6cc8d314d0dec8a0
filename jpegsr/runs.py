"""What a training run's folder holds and how a stage starts, for both trainers.

A run's folder has a folder per stage with `config.json` (the settings, checked at resume), the state of the trainer, and
`best.keras` with its card `best.json`: the averaged weights at their best validation score.
"""

import contextlib
import json
import logging
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import keras

from jpegsr import provenance, weights
from jpegsr.config import STAGE_NAMES, StageName, TrainingConfig
from jpegsr.errors import UserError
from jpegsr.images import write_text

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set, so that a trainer can save its state and leave."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous: dict[int, Any] = {}

    def request_stop(number, _frame):
        stop.set()
        signal.signal(number, previous[number])

    for number in (signal.SIGTERM, signal.SIGINT):
        previous[int(number)] = signal.signal(number, request_stop)
    try:
        yield stop
    finally:
        for signal_number, handler in previous.items():
            signal.signal(signal_number, handler)


def check_settings(folder: pathlib.Path, config: TrainingConfig, num_pictures: list[int], foreign_state: str) -> None:
    """Write config.json to a new stage's folder, or compare it with that of the stage to be resumed.

    Args:
      folder: of the stage.
      config: settings of the run.
      num_pictures: of each source; with more or fewer the patches would not be those that the stage began with.
      foreign_state: name under which the other trainer keeps its state.

    Raises:
      UserError: what is learned would differ, or the other trainer began the stage. Settings that change nothing about
        what is learned (`RunConfig` and the cache's size) may differ.
    """
    if (folder / foreign_state).exists():
        raise UserError(f"stage {str(folder)!r} was begun on the other Keras backend: go on there, or use --init_from")
    settings = {key: value for key, value in config.to_json().items() if key != "run"}
    del settings["data"]["cache_megabytes"]
    settings["pictures"] = {"num_pictures": num_pictures}
    path = folder / "config.json"
    if not path.exists():
        write_text(path, json.dumps(settings, indent=2) + "\n")
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored != settings:
        raise UserError(
            f"{str(folder)!r} holds a run with other settings ({_difference(stored, settings)}): "
            "repeat them, or choose another output folder and start with --init_from"
        )


def _difference(stored: dict, settings: dict) -> str:
    """The settings that two runs do not share, for a message."""
    changed = []
    for part, new in settings.items():
        old = stored.get(part, {})
        keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        changed += [f"{key} {old.get(key)} is now {new.get(key)}" for key in keys]
    return "; ".join(changed)


def is_scored_alike(folder: pathlib.Path, config: TrainingConfig) -> bool:
    """Whether the best weights so far in a stage's folder were scored on what this run would score on."""
    path = folder / "best.json"
    if not path.is_file():
        return True
    stored, ours = json.loads(path.read_text(encoding="utf-8"))["training"]["run"], config.to_json()["run"]
    differing = [key for key in ours if key.startswith("validation_") and stored.get(key) != ours[key]]
    if differing:
        _logger.info("%s: %s changed, so the best score so far is no measure any more", folder, " and ".join(differing))
    return not differing


def start_weights(joint: keras.Model, run_folder: pathlib.Path, name: StageName, init_from: str | None) -> None:
    """Start a stage from `init_from` if given, else from the stage before it in the same run, else from random weights.

    Not where TensorFlow has left a checkpoint, which holds the whole network: what the stage started from may be gone by then.
    """
    if (run_folder / name / "checkpoints" / "checkpoint").exists():
        return
    earlier = STAGE_NAMES[: STAGE_NAMES.index(name)]
    found = [str(run_folder / stage) for stage in reversed(earlier) if (run_folder / stage / "best.keras").exists()]
    source = init_from or next(iter(found), None)
    if source is None:
        if name != "car":
            _logger.warning("stage %s starts from random weights: no earlier stage in %s, no --init_from", name, run_folder)
        return
    left = weights.copy_matching(weights.load(source, allow_partial=True).model, joint)
    _logger.info("stage %s starts from %s%s", name, source, f", but for {', '.join(left)}" if left else "")


def model_card(config: TrainingConfig, name: StageName, step: int, scores: dict[int, float]) -> dict[str, Any]:
    """What the card of a run's weights says besides the model's sizes: how they were trained, and their validation PSNR."""
    return {
        "name": f"{name}-{step}",
        "stage": name,
        "step": step,
        **provenance.source(),
        "training": {key: value for key, value in config.to_json().items() if key != "model"},
        "validation_psnr": {f"quality {quality}": round(value, 3) for quality, value in scores.items()},
    }
