"""`jpegsr enhance`: a photo in, a clean and larger one out."""

import argparse
import pathlib

from absl import flags

from jpegsr.errors import UserError

DESCRIPTION = "Remove the JPEG artifacts of a photo and enlarge it."
EXAMPLES = (
    "jpegsr enhance photo.jpg                      # writes photo_x2.png",
    "jpegsr enhance photo.jpg -o clean.png",
    "jpegsr enhance photo.jpg -o clean.png --model=runs/mine",
)

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output",
    None,
    "file to write; its suffix decides the format (default: PHOTO_xSCALE.png)",
    short_name="o",
    flag_values=FLAGS,
)
flags.DEFINE_integer("scale", None, "how many times larger (default: what the model does)", flag_values=FLAGS)
flags.DEFINE_string("model", "base", "shipped name, .keras file or folder of a training run", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", metavar="PHOTO", help="picture file to enhance")


def run(arguments: argparse.Namespace) -> int:
    from jpegsr.cli.main import load_tensorflow

    photo = pathlib.Path(arguments.photo)
    if not photo.is_file():
        raise UserError(f"no file {str(photo)!r}")
    load_tensorflow()
    from jpegsr import enhancement, weights

    scale = weights.config_of(FLAGS.model, FLAGS.scale).scale
    output = pathlib.Path(FLAGS.output) if FLAGS.output else photo.with_name(f"{photo.stem}_x{scale}.png")
    height, width = enhancement.enhance_file(photo, output, FLAGS.scale, FLAGS.model)
    print(f"{photo} -> {output} ({width}x{height})")
    return 0
