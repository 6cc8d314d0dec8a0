"""`jpegsr quantize`: int8 files of a model, for the fast CPU runtimes."""

import argparse

from absl import flags

from jpegsr.errors import UserError

DESCRIPTION = """Make the int8 files of a model, with which `--runtime=openvino` and `--runtime=litert` become several
times faster.

They are calibrated on pictures that training kept out, degraded over all qualities, and lie beside the model's .keras file.
The PSNR they lose is measured on further such pictures, printed, and kept in the .int8.json. Takes some minutes."""
EXAMPLES = (
    "jpegsr quantize --model=runs/mine --data=photos",
    "jpegsr quantize --model=runs/mine --data=photos --runtimes=openvino",
)

FLAGS = flags.FlagValues()
flags.DEFINE_string("model", None, "shipped name, .keras file or folder of a training run (required)", flag_values=FLAGS)
flags.DEFINE_integer("scale", None, "which of a shipped model's scales (default: 2; 1: what restores alone)", flag_values=FLAGS)
flags.DEFINE_list(
    "data",
    None,
    "the training data: folders of pictures, tfds:NAME[:SPLIT] or prepared:FOLDER; the pictures it holds out serve (required)",
    flag_values=FLAGS,
)
flags.DEFINE_integer("holdout_every", 20, "every N-th picture was kept out of training; as in `train`", flag_values=FLAGS)
flags.DEFINE_integer("num_pictures", 96, "calibration pictures of at most 128x128 pixels", flag_values=FLAGS)
flags.DEFINE_list("runtimes", ["openvino", "litert"], "for which runtimes", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def run(arguments: argparse.Namespace) -> int:
    from jpegsr.cli.main import load_tensorflow

    if not FLAGS.model or not FLAGS.data:
        raise UserError("name the model with --model and its training data with --data")
    if bad := sorted(set(FLAGS.runtimes) - {"openvino", "litert"}):
        raise UserError(f"there is no int8 file for runtime {bad[0]!r}: choose openvino, litert or both")
    if FLAGS.num_pictures < 1:
        raise UserError(f"--num_pictures={FLAGS.num_pictures} is not above zero")
    load_tensorflow()
    from jpegsr import data, quantization, weights
    from jpegsr.cli.settings import parse_sources
    from jpegsr.config import DataConfig

    trained = weights.load(FLAGS.model, FLAGS.scale, allow_partial=True)
    config = DataConfig(sources=parse_sources(FLAGS.data), holdout_every=FLAGS.holdout_every)
    sampler = data.PatchSampler(config, trained.config.scale)
    record = quantization.quantize_beside(trained, sampler, FLAGS.runtimes, FLAGS.num_pictures, arguments.command_line)
    print(f"int8 models written beside {trained.path}; PSNR-Y (dB) on pictures kept out of training:")
    for name, scores in record["validation_psnr"].items():
        print(f"  {name:12}" + ", ".join(f"{quality} {value:.3f}" for quality, value in scores.items()))
    return 0
