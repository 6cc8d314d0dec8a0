"""The flags about what is done to photos that `enhance` and `batch` share."""

from typing import TYPE_CHECKING

from absl import flags

from jpegsr.cli import photo_files
from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.files import Settings


def define_runtime(flag_values: flags.FlagValues) -> None:
    """The flags about what executes the network; `demo` has them too."""
    flags.DEFINE_enum(
        "runtime",
        "auto",
        ["auto", "tensorflow", "openvino", "litert"],
        "tensorflow: float32; openvino, litert: int8, several times faster on a CPU; auto: the fastest that is installed",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "device", None, ["cpu", "gpu"], "where to run (default: what the runtime prefers)", flag_values=flag_values
    )


def define(flag_values: flags.FlagValues) -> None:
    """The flags that `settings` reads, but for those of `photo_files.define_result_flags`."""
    flags.DEFINE_integer(
        "scale",
        None,
        "how many times larger: 2, 3 or 4, or 1 to restore only (default: what the model does)",
        flag_values=flag_values,
    )
    flags.DEFINE_string("size", None, "WIDTHxHEIGHT that the result fits into, proportions kept", flag_values=flag_values)
    flags.DEFINE_integer("longest_side", None, "width or height of the result, whichever is longer", flag_values=flag_values)
    flags.DEFINE_float(
        "strength", 1.0, "how much of the artifact removal to apply: 0 (none) to 1 (all)", flag_values=flag_values
    )
    flags.DEFINE_bool(
        "self_ensemble", False, "average over 8 flips and turns: 8 times slower, a little better", flag_values=flag_values
    )
    flags.DEFINE_string("model", "base", "shipped name, .keras file or folder of a training run", flag_values=flag_values)
    define_runtime(flag_values)
    flags.DEFINE_integer("tile_size", None, "side of a tile in pixels (default: by memory)", flag_values=flag_values)


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (text.isascii() and width.isdecimal() and height.isdecimal()):
        raise UserError(f"--size={text} is not WIDTHxHEIGHT")
    return int(width), int(height)


def settings(flag_values: flags.FlagValues) -> "Settings":
    """What the flags say; `UserError` where they contradict each other."""
    from jpegsr.files import Settings

    return Settings(
        model=flag_values.model,
        scale=flag_values.scale,
        size=_parse_size(flag_values.size),
        longest_side=flag_values.longest_side,
        runtime=flag_values.runtime,
        device=flag_values.device,
        strength=flag_values.strength,
        self_ensemble=flag_values.self_ensemble,
        tile_size=flag_values.tile_size,
        **photo_files.file_settings(flag_values),
    )
