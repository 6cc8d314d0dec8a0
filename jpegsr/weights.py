"""Weights in and out of `.keras` files; `model_files` tells where those lie."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import keras

from jpegsr import models
from jpegsr.config import ModelConfig
from jpegsr.errors import UserError, first_line
from jpegsr.images import write_text, written_beside
from jpegsr.model_files import card_path, find, read_card, sha256


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
    with models.dtype_policy("float32"):
        plain = models.build_joint(config)
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
