"""`jpegsr info`: what a photo is, and what `enhance` would make of it."""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from absl import flags

from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.inspection import PhotoReport

DESCRIPTION = """Tell what photos are and what `jpegsr enhance` would do with them.

For a JPEG that includes the quality it was saved at. Traces of an earlier JPEG compression are searched for as well; only
clear ones are reported, so that "no traces found" proves nothing."""
EXAMPLES = (
    "jpegsr info photo.jpg",
    "jpegsr info album/*.jpg",
    "jpegsr info --json album/*.jpg > album.jsonl      # one object per line",
)

FLAGS = flags.FlagValues()
flags.DEFINE_bool("json", False, "print one JSON object per photo and line", flag_values=FLAGS)
flags.DEFINE_string("model", "base", "what `enhance` would be given as --model", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="picture file to look at")


def run(arguments: argparse.Namespace) -> int:
    from jpegsr import console, inspection

    status = 0
    is_first = True
    for path in arguments.photos:
        try:
            with console.silenced_stderr():  # libtiff has its own way with damaged files
                report = inspection.inspect(path)
            plan = _plan(path, report)
        except UserError as error:
            print(f"jpegsr: error: {' '.join(str(error).split())}", file=sys.stderr)
            status = 1
            continue
        if FLAGS.json:
            print(json.dumps({"photo": path, **dataclasses.asdict(report), "plan": plan}))
        else:
            print(("" if is_first else "\n") + _describe(path, report, plan))
        is_first = False
    return status


def _plan(path: str, report: "PhotoReport") -> str | None:
    """What `jpegsr enhance` would do, as "enhance: ..."."""
    from jpegsr import files, model_files, runtimes

    settings = files.Settings(model=FLAGS.model)
    if report.width * report.height > settings.max_pixels:
        return f"enhance: would refuse it, as it is above --max_pixels={settings.max_pixels}"
    if report.mode in ("F", "LAB") or report.bit_depth > 16:
        return "enhance: would refuse it, as it takes 8 and 16 bits of gray, RGB or CMYK alone"
    scale, height, width = settings.plan(report.height, report.width)
    jobs, _ = files.list_jobs([path], None, ".png", f"_x{scale}")
    weights = model_files.find(FLAGS.model)
    runtime = runtimes.choose("auto", weights)
    precision = "float32" if runtime == "tensorflow" else "int8"
    return f"enhance: {scale} times to {width}x{height}, by {weights.stem} on {runtime} ({precision}), as {jobs[0].target}"


def _describe(path: str, report: "PhotoReport", plan: str | None) -> str:
    """A block of "key: value" lines, the values in one column."""
    from jpegsr import inspection

    lines = {"photo": path, **inspection.describe(report)}
    if plan:
        key, _, value = plan.partition(": ")
        lines[key] = value
    width = max(map(len, lines)) + 1
    return "\n".join(f"{key + ':':<{width}} {value}" for key, value in lines.items())
