"""`jpegsr export`: a model as a TensorFlow SavedModel."""

import argparse

from absl import flags

from jpegsr.errors import UserError

DESCRIPTION = """Write a model as a TensorFlow SavedModel, which loads without this package.

Signatures: upscale (also serving_default) and restore, uint8 images in and out; upscale_float, float32 in [0, 1].
The model goes to OUTPUT_DIR/1, or the next number if that is taken, as TensorFlow Serving expects."""
EXAMPLES = (
    "jpegsr export --output_dir=exported/base",
    "python export.py --model=runs/mine --output_dir=exported/mine",
)

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", "base", "shipped name, .keras file or folder of a training run", flag_values=FLAGS)
flags.DEFINE_integer("scale", None, "how many times larger (default: what the model does)", flag_values=FLAGS)
flags.DEFINE_string("output_dir", None, "folder that receives the version folder (required)", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def run(arguments: argparse.Namespace) -> int:
    from jpegsr.cli.main import load_tensorflow

    if not FLAGS.output_dir:
        raise UserError("name the folder to write with --output_dir")
    load_tensorflow()
    from jpegsr import serving, weights

    path = serving.export_saved_model(weights.load(FLAGS.model, FLAGS.scale), FLAGS.output_dir)
    print(f"SavedModel written to {path}")
    return 0
