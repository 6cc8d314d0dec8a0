"""Weights in and out of `.keras` files; `model_files` tells where those lie."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import keras
import numpy as np

from jpegsr import models
from jpegsr.config import ModelConfig
from jpegsr.errors import UserError, first_line
from jpegsr.images import write_text, written_beside
from jpegsr.model_files import card_path, find, read_card, refuse_partial, sha256


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
      scale: what the caller needs, 1 if that is CAR alone; `UserError` if the model has another one.
      allow_partial: also load weights whose SR has not been trained, to restore with CAR or to train on.
    """
    path = find(name_or_path, scale)
    card = read_card(path)
    config = ModelConfig.from_json(card["config"])
    if scale not in (None, 1, config.scale):
        raise UserError(f"{str(path)!r} enlarges {config.scale} times, not {scale}")
    if not allow_partial:
        refuse_partial(path, card)
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
    """Copy all weights from one joint model to another of the same widths, whatever its scale; it may have more blocks.

    Residual blocks that the source lacks start with a second convolution of zeros, so that they pass on what they get: the
    deeper network begins with the very outputs of the shallower one.

    Returns:
      The layers that got no weights from the source: blocks it lacks, and the last one if its shape depends on the scale.

    Raises:
      UserError: the networks differ in anything else.
    """
    old_layers, new_layers = _weighted_layers(source), _weighted_layers(target)
    if surplus := sorted("/".join(name) for name in old_layers.keys() - new_layers.keys()):
        raise UserError(f"the initial weights have layers that this network lacks ({', '.join(surplus)}): use the same sizes")
    left = []
    for (part, name), new in new_layers.items():
        old = old_layers.get((part, name))
        if old is None and models.is_residual_block(name):
            if name.endswith("conv2"):
                new.set_weights([np.zeros(variable.shape) for variable in new.weights])
        elif old is None:
            raise UserError(f"the initial weights lack {part}/{name}: they belong to a network of another size")
        elif [variable.shape for variable in old.weights] == [variable.shape for variable in new.weights]:
            new.set_weights(old.get_weights())
            continue
        elif name != "subpixel":
            sizes = [tuple(layer.weights[0].shape) for layer in (old, new)]
            raise UserError(f"the initial weights have {part}/{name} {sizes[0]}, this network {sizes[1]}")
        left.append(f"{part}/{name}")
    return left


def _weighted_layers(joint: keras.Model) -> dict[tuple[str, str], keras.layers.Layer]:
    """The layers with weights, by network and name."""
    return {(part, layer.name): layer for part in ("car", "sr") for layer in joint.get_layer(part).layers if layer.weights}
