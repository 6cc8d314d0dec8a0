"""`jpegsr enhance`: photos in, clean and larger ones out."""

import argparse
import csv
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.files import Enhancers, Job, Outcome, Settings

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
flags.DEFINE_string(
    "output",
    None,
    "file to write for a single photo; its suffix decides the format; - for standard output (default: PHOTO_xSCALE.png)",
    short_name="o",
    flag_values=FLAGS,
)
flags.DEFINE_string("output_dir", None, "folder to write to; the structure of folders is kept", flag_values=FLAGS)
flags.DEFINE_enum("format", None, ["png", "jpeg", "webp", "tiff"], "format of the results (default: png)", flag_values=FLAGS)
flags.DEFINE_integer("jpeg_quality", 95, "quality of results in JPEG, 1-100; colour is kept at 4:4:4", flag_values=FLAGS)
flags.DEFINE_integer("png_compression", 1, "0-9: higher levels save up to a third and take longer", flag_values=FLAGS)
flags.DEFINE_integer(
    "scale", None, "how many times larger: 2, 3 or 4, or 1 to restore only (default: what the model does)", flag_values=FLAGS
)
flags.DEFINE_string("size", None, "WIDTHxHEIGHT that the result fits into, proportions kept", flag_values=FLAGS)
flags.DEFINE_integer("longest_side", None, "width or height of the result, whichever is longer", flag_values=FLAGS)
flags.DEFINE_float("strength", 1.0, "how much of the artifact removal to apply: 0 (none) to 1 (all)", flag_values=FLAGS)
flags.DEFINE_bool("self_ensemble", False, "average over 8 flips and turns: 8 times slower, a little better", flag_values=FLAGS)
flags.DEFINE_string("model", "base", "shipped name, .keras file or folder of a training run", flag_values=FLAGS)
flags.DEFINE_enum(
    "runtime",
    "auto",
    ["auto", "tensorflow", "openvino", "litert"],
    "tensorflow: float32; openvino, litert: int8, several times faster on a CPU; auto: the fastest that is installed",
    flag_values=FLAGS,
)
flags.DEFINE_enum("device", None, ["cpu", "gpu"], "where to run (default: what the runtime prefers)", flag_values=FLAGS)
flags.DEFINE_integer("tile_size", None, "side of a tile in pixels (default: by free memory)", flag_values=FLAGS)
flags.DEFINE_integer("max_pixels", 100_000_000, "refuse pictures with more pixels than this", flag_values=FLAGS)
flags.DEFINE_integer("jobs", 2, "photos worked on at a time; one is in the network at a time", flag_values=FLAGS)
flags.DEFINE_bool("overwrite", False, "redo results that are already there", flag_values=FLAGS)
flags.DEFINE_string("manifest", None, "CSV file to write: input, output, status, seconds, error", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="file, folder, pattern, or - for standard input")


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (text.isascii() and width.isdecimal() and height.isdecimal()):
        raise UserError(f"--size={text} is not WIDTHxHEIGHT")
    return int(width), int(height)


def _settings() -> "Settings":
    from jpegsr.files import Settings
    from jpegsr.photos import EncoderOptions

    return Settings(
        model=FLAGS.model,
        scale=FLAGS.scale,
        size=_parse_size(FLAGS.size),
        longest_side=FLAGS.longest_side,
        runtime=FLAGS.runtime,
        device=FLAGS.device,
        strength=FLAGS.strength,
        self_ensemble=FLAGS.self_ensemble,
        tile_size=FLAGS.tile_size,
        encoder=EncoderOptions(FLAGS.jpeg_quality, FLAGS.png_compression),
        max_pixels=FLAGS.max_pixels,
        overwrite=FLAGS.overwrite,
    )


def _check_output_flags(arguments: list[str], is_stream: bool) -> None:
    """`UserError` for flags about outputs that contradict each other."""
    from jpegsr import photos

    if FLAGS.jobs < 1:
        raise UserError(f"--jobs={FLAGS.jobs} is not above zero")
    if FLAGS.output and FLAGS.output_dir:
        raise UserError("give --output or --output_dir, not both")
    if is_stream and (len(arguments) > 1 or FLAGS.output_dir or FLAGS.manifest):
        raise UserError("- stands for one photo, or one result: give one PHOTO, no --output_dir and no --manifest")
    if FLAGS.output and (len(arguments) > 1 or pathlib.Path(arguments[0]).is_dir()):
        raise UserError("--output names one file: use --output_dir for several photos")
    if FLAGS.output not in (None, "-") and FLAGS.format not in (None, photos.format_of(FLAGS.output)):
        raise UserError(f"--output={FLAGS.output} and --format={FLAGS.format} differ")


def _jobs(arguments: list[str], settings: "Settings") -> "tuple[list[Job], list[Outcome]]":
    from jpegsr import files, photos

    if FLAGS.output:
        if not (source := pathlib.Path(arguments[0])).exists():
            raise UserError(f"no file {str(source)!r}")
        jobs = [files.Job(source, pathlib.Path(FLAGS.output))]
        failures: list[Outcome] = []
    else:
        is_sized = settings.size or settings.longest_side
        ending = "_resized" if is_sized else f"_x{settings.default_scale()}"
        jobs, failures = files.list_jobs(arguments, FLAGS.output_dir, photos.FORMATS[FLAGS.format or "png"][0], ending)
    if FLAGS.manifest:
        manifest = pathlib.Path(FLAGS.manifest).resolve()
        if any(manifest in (job.source.resolve(), job.target.resolve()) for job in jobs):
            raise UserError(f"--manifest={FLAGS.manifest} is one of the photos or results: choose another name")
    return jobs, failures


def run(arguments: argparse.Namespace) -> int:
    from jpegsr import files, images, model_files, runtimes
    from jpegsr.cli.main import load_tensorflow

    settings = _settings()
    is_stream = "-" in arguments.photos or FLAGS.output == "-"
    _check_output_flags(arguments.photos, is_stream)
    jobs, outcomes = ([], []) if is_stream else _jobs(arguments.photos, settings)
    for job in jobs[:1]:
        images.require_writable(job.target.absolute().parent)  # before the work, not after it
    weights_path = model_files.find(settings.model, None if settings.scale == 1 else settings.scale)
    if runtimes.choose(settings.runtime, weights_path, settings.device) == "tensorflow":
        load_tensorflow()
    enhancers = files.Enhancers(settings)
    if settings.size is None and settings.longest_side is None:
        enhancers.get(settings.default_scale())  # a wrong model is one error, not one per photo
    if is_stream:
        return _run_stream(arguments.photos[0], enhancers)
    outcomes += _run_batch(jobs, enhancers)
    return _report(outcomes)


def _run_stream(source: str, enhancers: "Enhancers") -> int:
    """One photo, from standard input or to standard output."""
    from jpegsr import photos

    settings = enhancers.settings
    target = None if FLAGS.output in (None, "-") else pathlib.Path(FLAGS.output)
    if target and target.exists() and not settings.overwrite:
        raise UserError(f"{str(target)!r} is already there: --overwrite makes it anew")
    if source != "-":
        photo = photos.read(source, settings.max_pixels)
    elif sys.stdin is None:
        raise UserError("standard input is closed")
    else:
        photo = photos.read(sys.stdin.buffer.read(), settings.max_pixels, "standard input")
    kind = photos.format_of(target) if target else FLAGS.format or "png"
    photos.check_size(target or f"standard output{photos.FORMATS[kind][0]}", *settings.plan(*photo.pixels.shape[:2])[1:])
    result = enhancers.enhance(photo)
    if target:
        photos.write(target, result, photo, settings.encoder)
    else:
        sys.stdout.buffer.write(photos.encode(result, photo, kind, settings.encoder))
        sys.stdout.buffer.flush()
    return 0


def _run_batch(jobs: "list[Job]", enhancers: "Enhancers") -> "list[Outcome]":
    """All jobs, with a progress bar and the manifest growing line by line."""
    from tqdm import tqdm

    from jpegsr import files

    outcomes = []
    layout = "{l_bar}{bar}| {n:.1f}/{total} photos [{elapsed}<{remaining}{postfix}]"
    with (
        _Manifest(FLAGS.manifest) as manifest,
        tqdm(total=len(jobs), bar_format=layout, disable=not sys.stderr.isatty() and len(jobs) < 2) as bar,
    ):
        for outcome in files.run_jobs(jobs, enhancers, FLAGS.jobs, bar.update):
            outcomes.append(outcome)
            manifest.add(outcome)
            bar.set_postfix_str(outcome.job.source.name, refresh=False)
            if outcome.status == "failed":
                tqdm.write(f"jpegsr: error: {outcome.error}", file=sys.stderr)
            elif len(jobs) == 1 and outcome.status == "done":
                tqdm.write(f"{outcome.job.source} -> {outcome.job.target}", file=sys.stdout)
    return outcomes


class _Manifest:
    """A CSV file with a line per outcome, each on disk as soon as it is known."""

    def __init__(self, path: str | None):
        self._path = path

    def __enter__(self) -> "_Manifest":
        self._file = None
        if self._path:
            try:
                pathlib.Path(self._path).absolute().parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self._path, "w", newline="", encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                raise UserError(f"cannot write {self._path!r}: {error.strerror}") from None
            csv.writer(self._file).writerow(["input", "output", "status", "seconds", "error"])
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, outcome: "Outcome") -> None:
        if self._file:
            row = [outcome.job.source, outcome.job.target, outcome.status, f"{outcome.seconds:.3f}", outcome.error]
            try:
                csv.writer(self._file).writerow(row)
                self._file.flush()
            except OSError as error:
                raise UserError(f"cannot write {self._path!r}: {error.strerror}") from None


def _report(outcomes: "list[Outcome]") -> int:
    """Say what became of the photos; the exit status."""
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("done", "skipped", "failed")}
    if len(outcomes) > 1:
        print(", ".join(f"{count} {status}" for status, count in counts.items()))
    elif counts["skipped"]:
        print(f"{outcomes[0].job.target} is already there: --overwrite makes it anew")
    return 1 if counts["failed"] else 0
