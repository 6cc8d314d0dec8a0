"""`jpegsr train` and `python train.py`: the three training stages."""

import argparse
import dataclasses
import os

from absl import flags

from jpegsr.cli import settings
from jpegsr.config import STAGE_NAMES, StageName, TrainingConfig, training_preset
from jpegsr.errors import UserError

DESCRIPTION = """Train a model in three stages: car (remove artifacts), sr (enlarge what car restored), joint (both end to end).

Started again with the same flags, a run goes on where it was, after SIGKILL as well as after SIGTERM or Ctrl-C. Unset flags
have the preset's values. With KERAS_BACKEND=jax, Keras' own `fit` trains the same stages on the same patches."""
EXAMPLES = (
    "python train.py --data=photos --output_dir=runs/mine",
    "python train.py --data=photos@2,tfds:div2k/bicubic_x2@3 --output_dir=runs/mine --scale=4 --init_from=base",
    "python train.py --data=prepared:sub_images --output_dir=runs/mine       # after jpegsr prepare",
    "python train.py --preset=paper --data=General100 --quality=30 --output_dir=runs/q30",
    "python train.py --preset=paper --data=General100 --quality=20 --output_dir=runs/q20 --init_from=runs/q30",
    "python train.py --preset=tiny --data=photos --output_dir=runs/trial         # a minute, to see everything work",
)

FLAGS = flags.FlagValues()
flags.DEFINE_string("preset", "base", "settings to start from: paper, large, base, fast or tiny", flag_values=FLAGS)
flags.DEFINE_enum("stage", "all", [*STAGE_NAMES, "all"], "which stage to run", flag_values=FLAGS)
flags.DEFINE_list(
    "data",
    None,
    "folders of pictures (searched recursively), tfds:NAME[:SPLIT] or prepared:FOLDER (of `jpegsr prepare`), each with @WEIGHT "
    "if wanted (required)",
    flag_values=FLAGS,
)
flags.DEFINE_string("output_dir", None, "folder of the run (required)", flag_values=FLAGS)
flags.DEFINE_string(
    "init_from",
    None,
    "start from these weights: shipped name, .keras file or folder of a run; of any scale, with as many blocks or fewer",
    flag_values=FLAGS,
)
flags.DEFINE_integer("scale", None, "upscaling factor, 2, 3 or 4", flag_values=FLAGS)
_BASE = training_preset("base")
for _settings in (_BASE.data, _BASE.stage, _BASE.run):
    settings.define(FLAGS, _settings)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def read_config() -> TrainingConfig:
    """The preset with what the flags change."""
    preset = training_preset(FLAGS.preset)
    data = settings.override(FLAGS, preset.data)
    return TrainingConfig(
        model=dataclasses.replace(preset.model, scale=preset.model.scale if FLAGS.scale is None else FLAGS.scale),
        data=dataclasses.replace(data, sources=settings.parse_sources(FLAGS.data)),
        stage=settings.override(FLAGS, preset.stage),
        run=settings.override(FLAGS, preset.run),
    )


def run(arguments: argparse.Namespace) -> int:
    # Read when NumPy is first imported. Patches are made in threads of their own; those that NumPy's matrix products would
    # start beside them make no patch sooner and take time from the training.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from jpegsr import provenance
    from jpegsr.cli.main import load_tensorflow

    provenance.source()  # that of the code which is about to run, whatever is committed meanwhile
    config = read_config()
    if not FLAGS.output_dir:
        raise UserError("name the folder of the run with --output_dir")
    stage_names: tuple[StageName, ...] = STAGE_NAMES if FLAGS.stage == "all" else (FLAGS.stage,)
    if os.environ.get("KERAS_BACKEND") == "jax":
        from jpegsr import keras_training

        is_done = keras_training.train(config, FLAGS.output_dir, stage_names, FLAGS.init_from)
    else:
        load_tensorflow()
        from jpegsr import training

        is_done = training.train(config, FLAGS.output_dir, stage_names, FLAGS.init_from)
    if not is_done:
        print("stopped and saved; the same command goes on from here")
    return 0
