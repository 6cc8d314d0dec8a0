"""The JSON file that a benchmark leaves: its figures, and the command, commit and models behind them."""

import json
import pathlib
import shlex
import sys
from collections.abc import Iterable
from typing import Any

from jpegsr import model_files, provenance, reports
from jpegsr.images import write_text

provenance.source()  # that of the code which is about to run, whatever is committed meanwhile


def origin(protocol: str, models: Iterable[str] = (), scale: int = 2) -> dict[str, Any]:
    """What stands before the figures.

    Args:
      protocol: how they were measured, in a sentence.
      models: names of the shipped models that were measured.
      scale: theirs.
    """
    cards = {name: model_files.read_card(model_files.find(name, scale)) for name in models}
    entries = {name: {"sha256": card["sha256"], "config": card["config"]} for name, card in cards.items()}
    return reports.origin_of("python " + shlex.join(sys.argv), protocol, entries)


def write(path: str | pathlib.Path, protocol: str, figures: dict[str, Any], models: Iterable[str] = (), scale: int = 2) -> None:
    """Write the file; `figures` come after what `origin` says."""
    write_text(path, json.dumps({**origin(protocol, models, scale), **figures}, indent=2) + "\n")
