"""`jpegsr enhance`: photos in, clean and larger ones out."""

import argparse

from absl import flags

from jpegsr.cli import enhancer_flags, photo_files
from jpegsr.errors import UserError

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
enhancer_flags.define(FLAGS)
flags.DEFINE_integer("jobs", 2, "photos worked on at a time; one is in the network at a time", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    photo_files.add_photo_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from jpegsr import files, model_files, runtimes
    from jpegsr.cli.main import load_tensorflow

    if FLAGS.jobs < 1:
        raise UserError(f"--jobs={FLAGS.jobs} is not above zero")
    settings = enhancer_flags.settings(FLAGS)
    work = photo_files.Batch(FLAGS, arguments.photos)
    is_sized = settings.size or settings.longest_side
    jobs, failures = work.jobs("_resized" if is_sized else f"_x{settings.default_scale()}")
    weights_path = model_files.find(FLAGS.model, settings.scale)
    if runtimes.choose(settings.runtime, weights_path, settings.device) == "tensorflow":
        load_tensorflow()
    enhancers = files.Enhancers(settings)
    if not is_sized:
        enhancers.get(settings.default_scale())  # a wrong model is one error, not one per photo
    return work.run(jobs, failures, enhancers, FLAGS.jobs)
