"""`jpegsr export`: a model as files for TensorFlow Serving, phones, browsers and other runtimes."""

import argparse
from typing import Any

from absl import flags

from jpegsr.errors import UserError

DESCRIPTION = """Write a model as files that run without this package.

  saved_model  TensorFlow SavedModel for TensorFlow Serving, with warm-up requests. Signatures: serving_default (JPEG or PNG
               content in, PNG or JPEG content out), upscale and restore (uint8 pictures of any size, tiled where they are
               large), upscale_tiles (uint8 tiles of one fixed size, compiled by XLA: for GPU and TPU), describe
  litert       .tflite for phones and browsers, float32 or int8
  onnx         .onnx, float32
  openvino     .xml and .bin, float32 or int8

The files go to OUTPUT_DIR/1, or the next number if that is taken, beside assets.extra/jpegsr.json with the model card and
checksums. Before it gets that name, what was written enlarges a picture, which has to come out as from the model itself."""
EXAMPLES = (
    "jpegsr export --output_dir=exported/base",
    "jpegsr export --output_dir=exported/tpu --precision=bfloat16 --tile_size=512 --tile_batch=8",
    "jpegsr export --format=litert --precision=int8 --output_dir=exported/phone",
    "python export.py --model=runs/mine --format=onnx --output_dir=exported/mine",
)

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", "base", "shipped name, .keras file or folder of a training run", flag_values=FLAGS)
flags.DEFINE_integer("scale", None, "how many times larger (default: what the model does)", flag_values=FLAGS)
flags.DEFINE_string("output_dir", None, "folder that receives the version folder (required)", flag_values=FLAGS)
flags.DEFINE_enum(
    "format", "saved_model", ["saved_model", "litert", "onnx", "openvino"], "what to write; see above", flag_values=FLAGS
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "bfloat16", "int8"],
    "bfloat16: upscale_tiles of a saved_model, for TPUs and recent GPUs; int8: litert and openvino",
    flag_values=FLAGS,
)
_OPTIONS: dict[str, str] = {
    "tile_size": "side of the tiles that upscale_tiles takes, in pixels (default: 384)",
    "tile_batch": "tiles that upscale_tiles takes at a time (default: 4)",
    "max_pixels": "pixels of a request that is still served (default: 50 million)",
    "jpeg_quality": "quality of answers in JPEG, 1-100 (default: 95)",
}
for _name, _help in _OPTIONS.items():
    flags.DEFINE_integer(_name, None, f"saved_model: {_help}", flag_values=FLAGS)
flags.DEFINE_bool(
    "warmup_tiles",
    None,
    "saved_model: warm upscale_tiles up as well; only for servers that compile with XLA, others would not start (default: no)",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "image_format", None, ["png", "jpeg"], "saved_model: what serving_default answers with (default: png)", flag_values=FLAGS
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def _serving_options() -> dict[str, Any]:
    """The options that are set; `UserError` where they would do nothing."""
    options = {name: FLAGS[name].value for name in (*_OPTIONS, "image_format", "warmup_tiles") if FLAGS[name].value is not None}
    if options and FLAGS.format != "saved_model":
        raise UserError(f"--{next(iter(options))} is for --format=saved_model alone")
    if "jpeg_quality" in options and options.get("image_format") != "jpeg":
        raise UserError("--jpeg_quality needs --image_format=jpeg")
    return options


def run(arguments: argparse.Namespace) -> int:
    from jpegsr.cli.main import load_tensorflow

    if not FLAGS.output_dir:
        raise UserError("name the folder to write with --output_dir")
    if FLAGS.scale == 1:
        raise UserError(
            "--scale=1 is no export of its own: the output `restored` of every model, and the signature `restore` of a "
            "SavedModel, restore with the model's own first half"
        )
    options = _serving_options()
    load_tensorflow()
    from jpegsr import exporting, weights
    from jpegsr.endpoints import ServingOptions

    trained = weights.load(FLAGS.model, FLAGS.scale)
    path = exporting.export(trained, FLAGS.output_dir, FLAGS.format, FLAGS.precision, ServingOptions(**options))
    print(f"{FLAGS.format} written to {path}")
    return 0
