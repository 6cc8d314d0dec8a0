"""Models as files: shipped ones by name, any other by path, each a `.keras` file with a model card beside it.

The card is the JSON file of the same name: the `ModelConfig` that rebuilds the network, how it was trained, its scores and
the SHA-256 of the weights file.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import keras

from jpegsr import models
from jpegsr.config import SCALES, ModelConfig
from jpegsr.errors import UserError, first_line
from jpegsr.images import write_text, written_beside

SHIPPED_FOLDER = pathlib.Path(__file__).parent / "shipped"


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model from a file.

    Attributes:
      model: the joint network, `[B, H, W, 3]` -> `{"restored", "upscaled"}`, float32 in [0, 1].
      config: its sizes.
      card: the whole model card.
      path: the `.keras` file.
    """

    model: keras.Model
    config: ModelConfig
    card: dict[str, Any]
    path: pathlib.Path

    @property
    def name(self) -> str:
        return self.card["name"]

    @property
    def checksum(self) -> str:
        return self.card["sha256"]


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Where the card of a `.keras` file stands."""
    return pathlib.Path(path).with_suffix(".json")


def shipped_names() -> list[str]:
    """The models in the package, as NAME_xSCALE."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.keras"))


def find(name_or_path: str, scale: int | None = None) -> pathlib.Path:
    """The `.keras` file of a shipped model (by name, for a scale; 2 by default), of a path, or of a training run's folder.

    A run's folder stands for the best weights of its latest stage. `UserError` if there is no such model.
    """
    path = pathlib.Path(name_or_path)
    if scale is not None and scale not in SCALES:
        raise UserError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}")
    if path.is_file():
        return path
    if path.is_dir():
        for candidate in (path / "best.keras", *(path / stage / "best.keras" for stage in ("joint", "sr", "car"))):
            if candidate.is_file():
                return candidate
        raise UserError(f"no best.keras in {name_or_path!r} or its stage folders: has the run validated once?")
    shipped = SHIPPED_FOLDER / f"{name_or_path}_x{scale or 2}.keras"
    if shipped.is_file():
        return shipped
    others = [name for name in shipped_names() if name.rpartition("_x")[0] == name_or_path]
    if others:
        raise UserError(f"{name_or_path!r} has no weights for scale {scale}: there are {', '.join(others)}")
    raise UserError(f"no model {name_or_path!r}: give a .keras file or one of {', '.join(shipped_names()) or 'none'}")


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


def config_of(name_or_path: str, scale: int | None = None) -> ModelConfig:
    """The sizes of a model, without loading its weights; arguments and errors as in `load`."""
    return ModelConfig.from_json(read_card(find(name_or_path, scale))["config"])


def load(name_or_path: str, scale: int | None = None, allow_partial: bool = False) -> TrainedModel:
    """Load a model in Keras' safe mode, with any backend.

    Args:
      name_or_path: a shipped name, a `.keras` file, or the folder of a training run.
      scale: what the caller needs; `UserError` if the model has another one.
      allow_partial: also load weights whose SR has not been trained yet, to train on.
    """
    path = find(name_or_path, scale)
    card = read_card(path)
    config = ModelConfig.from_json(card["config"])
    if scale and config.scale != scale:
        raise UserError(f"{str(path)!r} enlarges {config.scale} times, not {scale}")
    if card.get("stage") == "car" and not allow_partial:
        raise UserError(f"{str(path)!r} has only been through stage car: train the stages sr and joint first")
    if sha256(path) != card["sha256"]:
        raise UserError(f"{str(path)!r} is not the file that its card describes (SHA-256 differs): copy both again")
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, TypeError) as error:
        raise UserError(f"cannot load {str(path)!r}: {first_line(error)}") from None
    return TrainedModel(model, config, card, path)


def save(path: str | os.PathLike[str], model: keras.Model, config: ModelConfig, card: dict[str, Any]) -> None:
    """Write a joint model in float32 and its card, each at once or not at all.

    Args:
      path: ends in `.keras`.
      model: the joint network; a mixed-precision one is saved as float32, so that it runs the same anywhere.
      config: its sizes.
      card: more entries for the card; `config` and `sha256` are added.
    """
    previous_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        plain = models.build_joint(config)
    finally:
        keras.config.set_dtype_policy(previous_policy)
    plain.set_weights(model.get_weights())
    with written_beside(path) as temporary:
        plain.save(temporary)
        checksum = sha256(temporary)
        card = {**card, "config": config.to_json(), "sha256": checksum}
        write_text(card_path(path), json.dumps(card, indent=2) + "\n")


def copy_matching(source: keras.Model, target: keras.Model) -> list[str]:
    """Copy all weights from one joint model to another of the same sizes, whatever its scale.

    Returns:
      The paths of the layers that were left as they are, since their shape depends on the scale.

    Raises:
      UserError: anything but the scale-dependent last layer differs.
    """
    if len(source.weights) != len(target.weights):
        raise UserError("the initial weights belong to a network of another size: use the same preset and sizes")
    left = []
    for old, new in zip(source.weights, target.weights, strict=True):
        if old.shape == new.shape:
            new.assign(keras.ops.convert_to_numpy(old))
        elif old.path.startswith("subpixel/"):
            left.append(new.path)
        else:
            raise UserError(f"the initial weights have {old.path} {tuple(old.shape)}, this network {tuple(new.shape)}")
    return left
