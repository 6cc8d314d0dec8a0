"""Where models lie and what their cards say: shipped ones by name, any other by path. Needs no Keras.

A model is a `.keras` file with a card beside it, the JSON file of the same name: the `ModelConfig` that rebuilds the network,
how it was trained, its scores and the SHA-256 of the weights file. Next to them may lie the int8 files of `quantization`.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from jpegsr.config import SCALES, ModelConfig
from jpegsr.errors import UserError

SHIPPED_FOLDER = pathlib.Path(__file__).parent / "shipped"


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Where the card of a `.keras` file stands."""
    return pathlib.Path(path).with_suffix(".json")


def shipped_names() -> list[str]:
    """The models in the package, as NAME_xSCALE; x1 restores alone."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.keras"))


def shipped_scales(name: str) -> list[int]:
    """The scales that a shipped model has weights for; none if there is no such model."""
    if os.path.basename(name) != name:  # a path, which would lead out of the package
        return []
    return [scale for scale in SCALES if (SHIPPED_FOLDER / f"{name}_x{scale}.keras").is_file()]


def find(name_or_path: str, scale: int | None = None) -> pathlib.Path:
    """The `.keras` file of a shipped model (by name, for a scale; 2 by default), of a path, or of a training run's folder.

    Scale 1 is CAR alone: a shipped model has weights of its own for that, or else serves with those for scale 2. A run's folder
    stands for the best weights of its latest stage. `UserError` if there is no such model.
    """
    path = pathlib.Path(name_or_path)
    if scale is not None and scale not in (1, *SCALES):
        raise UserError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}, nor 1, which restores alone")
    shipped = SHIPPED_FOLDER / f"{name_or_path}_x{scale or 2}.keras"
    if scale == 1 and not shipped.is_file():
        shipped = SHIPPED_FOLDER / f"{name_or_path}_x2.keras"
    if shipped_scales(name_or_path) and shipped.is_file():  # whatever lies in the current folder; that is ./NAME
        return shipped
    if path.is_file():
        return path
    if path.is_dir():
        for candidate in (path / "best.keras", *(path / stage / "best.keras" for stage in ("joint", "sr", "car"))):
            if candidate.is_file():
                return candidate
        raise UserError(f"no best.keras in {name_or_path!r} or its stage folders: has the run validated once?")
    others = [name for name in shipped_names() if name.rpartition("_x")[0] == name_or_path]
    if others:
        raise UserError(f"{name_or_path!r} has no weights for scale {scale}: there are {', '.join(others)}")
    names = sorted({name.rpartition("_x")[0] for name in shipped_names()})
    raise UserError(f"no model {name_or_path!r}: give a .keras file, the folder of a training run, or {' or '.join(names)}")


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The model card of a `.keras` file; `UserError` if it is missing or no card."""
    beside = card_path(path)
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
        ModelConfig.from_json(card["config"])
        str(card["name"] + card["sha256"])
    except FileNotFoundError:
        raise UserError(f"no model card {str(beside)!r} beside the weights: copy both files together") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(beside)!r} is not a model card: {error!r}") from None
    return card


def refuse_partial(path: pathlib.Path, card: dict[str, Any]) -> None:
    """`UserError` for weights whose SR has not been trained."""
    if card.get("stage") == "car":
        raise UserError(f"{str(path)!r} has only been through stage car: it restores (scale 1), but does not enlarge")


def config_of(name_or_path: str, scale: int | None = None) -> ModelConfig:
    """The sizes of a model, without its weights; arguments and errors as in `weights.load`."""
    return ModelConfig.from_json(read_card(find(name_or_path, scale))["config"])
