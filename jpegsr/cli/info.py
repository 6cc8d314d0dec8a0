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
    from jpegsr.jpeg_traces import EarlierJpeg

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

_MODE_NAMES = {
    "1": "black and white",
    "L": "gray",
    "LA": "gray with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGBA": "RGB with alpha",
    "I": "gray",
    "F": "gray, floating point",
}


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
    mode = _MODE_NAMES.get(report.mode, "gray" if report.mode.startswith("I;") else report.mode)
    lines = {
        "photo": path,
        "format": f"{report.format}, progressive" if report.jpeg and report.jpeg.is_progressive else report.format,
        "size": f"{report.width}x{report.height}",
        "colour": f"{mode}, {report.bit_depth} bit{'s' if report.bit_depth > 1 else ''}",
        "bytes": f"{report.num_bytes:,}",
    }
    if report.dpi:
        lines["resolution"] = " x ".join(f"{value:g}" for value in dict.fromkeys(report.dpi)) + " dpi"
    if report.has_icc_profile:
        lines["profile"] = report.icc_description or "(cannot be read)"
    metadata = [name for name, is_there in (("EXIF", report.has_exif), ("XMP", report.has_xmp)) if is_there]
    lines["metadata"] = ", ".join(metadata) or "none"
    lines["transparency"] = "yes" if report.has_alpha else "no"
    if report.jpeg:
        lines["quality"] = f"{report.jpeg.quality}" if report.jpeg.quality_is_exact else f"about {report.jpeg.quality}"
        lines["chroma"] = report.jpeg.subsampling or "none"
    lines["earlier JPEG"] = _describe_earlier(report.earlier_jpeg, report.jpeg is not None)
    if plan:
        key, _, value = plan.partition(": ")
        lines[key] = value
    width = max(map(len, lines)) + 1
    return "\n".join(f"{key + ':':<{width}} {value}" for key, value in lines.items())


def _describe_earlier(earlier: "EarlierJpeg | None", is_jpeg: bool) -> str:
    if earlier is None:
        return "no traces found"
    if earlier.row or earlier.column:
        place = f"cropped or moved since: its grid begins at row {earlier.row}, column {earlier.column}"
    else:
        place = "saved again on the same grid" if is_jpeg else "not cropped or moved since"
    return f"about quality {earlier.quality}, {place}"
