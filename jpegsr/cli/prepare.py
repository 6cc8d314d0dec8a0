"""`jpegsr prepare`: training pictures as sub-images in shards."""

import argparse
import os

from absl import flags

from jpegsr.cli import settings
from jpegsr.config import PreparationConfig
from jpegsr.errors import UserError

DESCRIPTION = """Cut training pictures into sub-images and store these in large files, from which `train` reads patches several
times faster than from whole PNG or JPEG files: `--data=prepared:FOLDER`.

Every N-th picture is kept apart for validation, whole. Started again with the same flags, it checks the finished files by their
checksums and makes what is missing or damaged, after a kill or Ctrl-C at any moment."""
EXAMPLES = (
    "jpegsr prepare --data=photos --output_dir=sub_images",
    "jpegsr prepare --data=photos,tfds:div2k/bicubic_x2 --output_dir=sub_images --size=512 --encoding=png",
    "python train.py --data=prepared:sub_images --output_dir=runs/mine",
)

FLAGS = flags.FlagValues()
flags.DEFINE_list("data", None, "folders of pictures (searched recursively) or tfds:NAME[:SPLIT] (required)", flag_values=FLAGS)
flags.DEFINE_string("output_dir", None, "folder of the files (required)", flag_values=FLAGS)
flags.DEFINE_integer("workers", None, "threads that decode and encode (default: one per core)", flag_values=FLAGS)
settings.define(FLAGS, PreparationConfig(), "default")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def run(arguments: argparse.Namespace) -> int:
    from jpegsr import preparation

    if not FLAGS.data or not FLAGS.output_dir:
        raise UserError("name the pictures with --data and the folder of the files with --output_dir")
    sources = settings.parse_sources(FLAGS.data)
    if any(weight for _, weight in sources):
        raise UserError(
            "weights are for training: prepare each source into a folder of its own and weigh those, --data=prepared:A@2,..."
        )
    if FLAGS.workers is not None and FLAGS.workers < 1:
        raise UserError(f"--workers={FLAGS.workers} is not above zero")
    config = settings.override(FLAGS, PreparationConfig())
    shards = preparation.prepare(
        [location for location, _ in sources], FLAGS.output_dir, config, FLAGS.workers or os.cpu_count() or 1
    )
    for split, what in (("train", "sub-images"), ("validation", "pictures for validation")):
        parts = [shard for shard in shards if shard.name.startswith(split)]
        megabytes = sum(shard.num_bytes for shard in parts) / 1e6
        print(f"{sum(shard.num_records for shard in parts)} {what} in {len(parts)} files, {megabytes:.1f} MB")
    if num_skipped := sum(shard.num_skipped for shard in shards):
        print(f"{num_skipped} pictures could not be decoded and were left out")
    print(f"train on them with --data=prepared:{FLAGS.output_dir}")
    return 0
