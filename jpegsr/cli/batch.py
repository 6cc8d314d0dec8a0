"""`jpegsr batch`: what `enhance` does, for an archive, on Apache Beam."""

import argparse
import dataclasses
import importlib.util
import logging
import os
import posixpath
from typing import TYPE_CHECKING

from absl import flags

from jpegsr.cli import enhancer_flags, photo_files
from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.batch import Archive, Report
    from jpegsr.files import Settings

DESCRIPTION = """Remove the JPEG artifacts of an archive's photos and enlarge them, on Apache Beam.

Name the photos with one of --photos, --file_list and --tfrecord. Paths are of this machine or of a filesystem that Beam has a
plugin for (gs://bucket/photos/**). Results are those of `jpegsr enhance`, byte for byte. Those that are already there are left
alone unless --overwrite, so that the same command goes on after a kill. What failed, and why, is in the dead-letter table.

Flags that are not listed here go to Beam: --runner=DataflowRunner, --direct_num_workers=4 and so on."""
EXAMPLES = (
    "jpegsr batch --photos='album/**.jpg' --output_dir=album_x2",
    "jpegsr batch --photos=album --output_dir=album_x2 --threads_per_worker=1 \\\n"
    "      --direct_running_mode=multi_processing --direct_num_workers=8    # for a machine of 8 cores",
    "jpegsr batch --file_list=photos.txt --output_dir=out --format=jpeg --dead_letters=failed.jsonl",
    "jpegsr batch --tfrecord='gs://bucket/shards/*.tfrecord' --output_dir=gs://bucket/out --runner=DataflowRunner \\\n"
    "      --project=mine --region=europe-west1 --temp_location=gs://bucket/temp",
)
TAKES_OTHER_FLAGS = True

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "photos", None, "folder, or pattern in quotes: * matches within a folder, ** across folders", flag_values=FLAGS
)
flags.DEFINE_string("file_list", None, "text file with the path of a photo in each line", flag_values=FLAGS)
flags.DEFINE_string("tfrecord", None, "pattern of TFRecord files, each record an encoded picture", flag_values=FLAGS)
photo_files.define_result_flags(FLAGS)
flags.DEFINE_string(
    "dead_letters", None, "JSON lines file for what failed (default: dead_letters.jsonl in --output_dir)", flag_values=FLAGS
)
enhancer_flags.define(FLAGS)
flags.DEFINE_integer("threads_per_worker", None, "of the network, in each worker (default: one per core)", flag_values=FLAGS)
flags.DEFINE_string("runner", "FnApiRunner", "Beam's runner; the default one runs on this machine", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def _archive() -> "Archive":
    from jpegsr import beam_files
    from jpegsr.batch import KINDS, Archive

    kinds = [kind for kind in KINDS if FLAGS[kind].value]
    if len(kinds) != 1:
        raise UserError("name the photos with one of --photos, --file_list and --tfrecord")
    kind, location = kinds[0], FLAGS[kinds[0]].value
    if not FLAGS.output_dir:
        raise UserError("name a folder for the results with --output_dir")
    if kind != "file_list":
        location = beam_files.as_pattern(location)
    return Archive(kind, location, beam_files.absolute(FLAGS.output_dir), FLAGS.format or "png")


def _require_model(settings: "Settings") -> None:
    """`UserError` for a model or runtime that is not there: here, and not once per worker."""
    from jpegsr import model_files, runtimes

    settings.default_scale()
    runtimes.choose(settings.runtime, model_files.find(FLAGS.model, FLAGS.scale), FLAGS.device)


def run(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("apache_beam") is None or importlib.util.find_spec("google_crc32c") is None:
        raise UserError("`jpegsr batch` needs Apache Beam: pip install 'jpegsr[batch]'")
    settings = dataclasses.replace(enhancer_flags.settings(FLAGS), num_threads=FLAGS.threads_per_worker)
    _require_model(settings)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read at import
    logging.basicConfig(level=logging.CRITICAL)  # Beam tells of packages that it could use, and logs what it raises
    from jpegsr import batch, beam_files, beam_options

    archive = _archive()
    options = beam_options.parse([f"--runner={FLAGS.runner}", *arguments.other_arguments])
    dead_letters = beam_files.absolute(FLAGS.dead_letters or posixpath.join(archive.output_dir, "dead_letters.jsonl"))
    if FLAGS.runner != beam_options.LOCAL_RUNNER:
        logging.getLogger("apache_beam").setLevel(logging.INFO)  # where the job can be seen, for one thing
    report = batch.run(archive, settings, options, dead_letters)
    _print(report, dead_letters)
    return 1 if report.failed else 0


def _print(report: "Report", dead_letters: str) -> None:
    print(
        f"{report.done} done, {report.skipped} skipped, {report.failed} failed"
        + (f": see {dead_letters}" if report.failed else "")
    )
    if report.done:
        seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in report.seconds.items())
        print(f"{report.megapixels:.1f} megapixels; {seconds}, over all workers")
