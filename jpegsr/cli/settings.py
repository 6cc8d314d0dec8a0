"""Flags made from the fields of a settings dataclass, so that a setting is written down once."""

import dataclasses
import math
import typing
from typing import Any

from absl import flags

from jpegsr.errors import UserError


def define(flag_values: flags.FlagValues, preset: Any, label: str = "base") -> None:
    """One flag per field of a settings object that has a help text; unset flags leave the preset as it is.

    Args:
      flag_values: where the flags go.
      preset: settings whose values the help texts name.
      label: what the help texts call these settings.
    """
    types = typing.get_type_hints(type(preset))
    for field in dataclasses.fields(preset):
        if "help" not in field.metadata:
            continue
        help_text = f"{field.metadata['help']} ({label}: {_shown(getattr(preset, field.name))})"
        kind, name = types[field.name], field.name
        if typing.get_origin(kind) is typing.Literal:
            flags.DEFINE_enum(name, None, list(typing.get_args(kind)), help_text, flag_values=flag_values)
        elif kind is bool:
            flags.DEFINE_bool(name, None, help_text, flag_values=flag_values)
        elif kind in (int, int | None):
            flags.DEFINE_integer(name, None, help_text, flag_values=flag_values)
        elif kind is float:
            flags.DEFINE_float(name, None, help_text, flag_values=flag_values)
        elif kind is str or kind == tuple[int, int]:
            flags.DEFINE_string(name, None, help_text, flag_values=flag_values)
        else:
            flags.DEFINE_list(name, None, help_text, flag_values=flag_values)


def _shown(value: Any) -> str:
    """A setting as its flag takes it."""
    if isinstance(value, tuple):
        return ("-" if len(value) == 2 else ",").join(map(str, value)) or "unset"
    return "unset" if value in ("", None) else str(value)


def override(flag_values: flags.FlagValues, settings: Any) -> Any:
    """The settings with the fields replaced whose flags are set."""
    types = typing.get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = flag_values[field.name].value if field.name in flag_values else None
        if value is None:
            continue
        if types[field.name] == tuple[int, int]:
            value = parse_range(field.name, value)
        elif isinstance(value, list):
            value = parse_integers(field.name, value)
        changes[field.name] = value
    return dataclasses.replace(settings, **changes)


def parse_integers(name: str, values: list[str]) -> tuple[int, ...]:
    """The numbers of a list flag."""
    try:
        return tuple(int(value) for value in values)
    except ValueError:
        raise UserError(f"--{name}={','.join(values)} is not a list of whole numbers") from None


def parse_range(name: str, value: str) -> tuple[int, int]:
    """`LOW-HIGH` or one number for both."""
    low, dash, high = value.partition("-")
    low_high = parse_integers(name, [low, high if dash else low])
    return low_high[0], low_high[1]


def parse_sources(values: list[str] | None) -> tuple[tuple[str, float], ...]:
    """`LOCATION@WEIGHT` for all, or `LOCATION` for all: then the weight is 0, for "as many as it has pictures"."""
    if not values:
        raise UserError("name training pictures with --data=FOLDER, --data=tfds:NAME or --data=prepared:FOLDER")
    sources = []
    for value in values:
        location, _, weight = value.rpartition("@")
        try:
            sources.append((location, float(weight)))
        except ValueError:  # no weight, or a path with an @ in it
            sources.append((value, 0.0))
    if any(not location for location, _ in sources):
        raise UserError(f"--data={','.join(values)}: a source has no name")
    weights = [weight for _, weight in sources]
    if not all(0 < weight < math.inf for weight in weights) and any(weights):
        raise UserError(f"--data={','.join(values)}: give all sources a weight above zero, as in a@2,b@1, or none")
    return tuple(sources)
