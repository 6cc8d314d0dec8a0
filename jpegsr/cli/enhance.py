"""`jpegsr enhance`: photos in, clean and larger ones out."""

import argparse
from typing import TYPE_CHECKING

from absl import flags

from jpegsr.cli import photo_files
from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.files import Settings

DESCRIPTION = """Remove the JPEG artifacts of photos and enlarge them.

PHOTO is a file, a folder (searched recursively), a pattern in quotes, or - for standard input. Colour profile, EXIF, XMP,
resolution, transparency, gray and 16 bits are kept. Results that are already there are left alone unless --overwrite."""
EXAMPLES = (
    "jpegsr enhance photo.jpg                                  # writes photo_x2.png",
    "jpegsr enhance photo.jpg -o clean.jpg --scale=1           # same size, artifacts removed",
    "jpegsr enhance photo.jpg --longest_side=2560 --strength=0.7",
    "jpegsr enhance album/ --output_dir=album_x2 --format=jpeg --manifest=album.csv",
    "jpegsr enhance 'scans/*.jpg' --output_dir=out --scale=4",
    "cat photo.jpg | jpegsr enhance - > larger.png",
)

FLAGS = flags.FlagValues()
photo_files.define_output_flags(FLAGS)
flags.DEFINE_integer(
    "scale", None, "how many times larger: 2, 3 or 4, or 1 to restore only (default: what the model does)", flag_values=FLAGS
)
flags.DEFINE_string("size", None, "WIDTHxHEIGHT that the result fits into, proportions kept", flag_values=FLAGS)
flags.DEFINE_integer("longest_side", None, "width or height of the result, whichever is longer", flag_values=FLAGS)
flags.DEFINE_float("strength", 1.0, "how much of the artifact removal to apply: 0 (none) to 1 (all)", flag_values=FLAGS)
flags.DEFINE_bool("self_ensemble", False, "average over 8 flips and turns: 8 times slower, a little better", flag_values=FLAGS)
flags.DEFINE_string("model", "base", "shipped name, .keras file or folder of a training run", flag_values=FLAGS)
flags.DEFINE_enum(
    "runtime",
    "auto",
    ["auto", "tensorflow", "openvino", "litert"],
    "tensorflow: float32; openvino, litert: int8, several times faster on a CPU; auto: the fastest that is installed",
    flag_values=FLAGS,
)
flags.DEFINE_enum("device", None, ["cpu", "gpu"], "where to run (default: what the runtime prefers)", flag_values=FLAGS)
flags.DEFINE_integer("tile_size", None, "side of a tile in pixels (default: by free memory)", flag_values=FLAGS)
flags.DEFINE_integer("jobs", 2, "photos worked on at a time; one is in the network at a time", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    photo_files.add_photo_arguments(parser)


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (text.isascii() and width.isdecimal() and height.isdecimal()):
        raise UserError(f"--size={text} is not WIDTHxHEIGHT")
    return int(width), int(height)


def _settings() -> "Settings":
    from jpegsr.files import Settings

    return Settings(
        model=FLAGS.model,
        scale=FLAGS.scale,
        size=_parse_size(FLAGS.size),
        longest_side=FLAGS.longest_side,
        runtime=FLAGS.runtime,
        device=FLAGS.device,
        strength=FLAGS.strength,
        self_ensemble=FLAGS.self_ensemble,
        tile_size=FLAGS.tile_size,
        **photo_files.file_settings(FLAGS),
    )


def run(arguments: argparse.Namespace) -> int:
    from jpegsr import files, model_files, runtimes
    from jpegsr.cli.main import load_tensorflow

    if FLAGS.jobs < 1:
        raise UserError(f"--jobs={FLAGS.jobs} is not above zero")
    settings = _settings()
    work = photo_files.Batch(FLAGS, arguments.photos)
    is_sized = settings.size or settings.longest_side
    jobs, failures = work.jobs("_resized" if is_sized else f"_x{settings.default_scale()}")
    weights_path = model_files.find(FLAGS.model, None if settings.scale == 1 else settings.scale)
    if runtimes.choose(settings.runtime, weights_path, settings.device) == "tensorflow":
        load_tensorflow()
    enhancers = files.Enhancers(settings)
    if not is_sized:
        enhancers.get(settings.default_scale())  # a wrong model is one error, not one per photo
    return work.run(jobs, failures, enhancers, FLAGS.jobs)
