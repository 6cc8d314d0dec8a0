"""What commands that turn photos into photos share: PHOTO arguments, flags about the results, and doing it for many."""

import argparse
import concurrent.futures
import csv
import dataclasses
import pathlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from absl import flags

from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.files import Enhancers, Job, Outcome


def define_output_flags(flag_values: flags.FlagValues) -> None:
    """The flags that the functions of this module read."""
    flags.DEFINE_string(
        "output",
        None,
        "file to write for a single photo; its suffix decides the format; - for standard output (default: PHOTO_xSCALE.png)",
        short_name="o",
        flag_values=flag_values,
    )
    define_result_flags(flag_values)
    flags.DEFINE_string("manifest", None, "CSV file to write: input, output, status, seconds, error", flag_values=flag_values)


def define_result_flags(flag_values: flags.FlagValues) -> None:
    """Those of them that do not ask for files on this machine."""
    flags.DEFINE_string("output_dir", None, "folder to write to; the structure of folders is kept", flag_values=flag_values)
    flags.DEFINE_enum(
        "format", None, ["png", "jpeg", "webp", "tiff"], "format of the results (default: png)", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "jpeg_quality", 95, "quality of results in JPEG, 1-100; colour is kept at 4:4:4", flag_values=flag_values
    )
    flags.DEFINE_integer("png_compression", 1, "0-9: higher levels save up to a third and take longer", flag_values=flag_values)
    flags.DEFINE_integer("max_pixels", 100_000_000, "refuse pictures with more pixels than this", flag_values=flag_values)
    flags.DEFINE_bool("overwrite", False, "redo results that are already there", flag_values=flag_values)


def add_photo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="file, folder, pattern, or - for standard input")


def file_settings(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The fields of `files.Settings` that the flags give."""
    from jpegsr import photos

    encoder = photos.EncoderOptions(flag_values.jpeg_quality, flag_values.png_compression)
    for name, needed in (("jpeg_quality", "jpeg"), ("png_compression", "png")):
        if flag_values[name].present and (kind := _result_format(flag_values)) != needed:
            raise UserError(f"--{name}={flag_values[name].value} says nothing about results in {kind}: give --format={needed}")
    return {
        "encoder": encoder,
        "max_pixels": flag_values.max_pixels,
        "overwrite": flag_values.overwrite,
    }


def _result_format(flag_values: flags.FlagValues) -> str:
    """What results will be encoded as; `UserError` for an `--output` of no format that can be written."""
    from jpegsr import photos

    output = flag_values.output if "output" in flag_values else None
    return flag_values.format or (photos.format_of(output) if output not in (None, "-") else "png")


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a command line asks for.

    Attributes:
      flag_values: with the flags of `define_output_flags`.
      photos: the arguments.
    """

    flag_values: flags.FlagValues
    photos: list[str]

    def __post_init__(self) -> None:
        """`UserError` for flags about outputs that contradict each other."""
        from jpegsr import photos

        given = self.flag_values
        if given.output and given.output_dir:
            raise UserError("give --output or --output_dir, not both")
        if self.is_stream and (len(self.photos) > 1 or given.output_dir or given.manifest):
            raise UserError("- stands for one photo, or one result: give one PHOTO, no --output_dir and no --manifest")
        if given.output and (len(self.photos) > 1 or pathlib.Path(self.photos[0]).is_dir()):
            raise UserError("--output names one file: use --output_dir for several photos")
        if given.output not in (None, "-") and pathlib.Path(given.output).is_dir():
            raise UserError(f"--output={given.output} is a folder: use --output_dir")
        if given.output not in (None, "-") and given.format not in (None, photos.format_of(given.output)):
            raise UserError(f"--output={given.output} and --format={given.format} differ")

    @property
    def is_stream(self) -> bool:
        return "-" in self.photos or self.flag_values.output == "-"

    def jobs(self, name_ending: str) -> "tuple[list[Job], list[Outcome]]":
        """As `files.list_jobs`; none for a stream. `UserError` if the results cannot be written where they should go."""
        from jpegsr import files, images, photos

        given = self.flag_values
        if self.is_stream:
            return [], []
        if given.output:
            if not (source := pathlib.Path(self.photos[0])).exists():
                raise UserError(f"no file {str(source)!r}")
            jobs = [files.Job(source, pathlib.Path(given.output))]
            failures: list[Outcome] = []
        else:
            suffix = photos.FORMATS[given.format or "png"][0]
            jobs, failures = files.list_jobs(self.photos, given.output_dir, suffix, name_ending, given.overwrite)
        if given.manifest:
            manifest = pathlib.Path(given.manifest).resolve()
            if any(manifest in (job.source.resolve(), job.target.resolve()) for job in jobs):
                raise UserError(f"--manifest={given.manifest} is one of the photos or results: choose another name")
        for job in jobs[:1]:
            images.require_writable(job.target.absolute().parent)  # before the work, not after it
        return jobs, failures

    def run(self, jobs: "list[Job]", failures: "list[Outcome]", enhancers: "Enhancers", num_parallel: int) -> int:
        """Do what `jobs` gave, report it, and return the exit status."""
        if self.is_stream:
            return self._run_stream(enhancers)
        return _report(self._run_jobs(jobs, failures, enhancers, num_parallel))

    def _run_stream(self, enhancers: "Enhancers") -> int:
        """One photo, from standard input or to standard output."""
        from jpegsr import files, photos

        source, output = self.photos[0], self.flag_values.output
        settings = enhancers.settings
        target = None if output in (None, "-") else pathlib.Path(output)
        if target and target.exists() and not settings.overwrite:
            raise UserError(f"{str(target)!r} is already there: --overwrite makes it anew")
        if source != "-":
            photo = photos.read(source, settings.max_pixels)
        elif sys.stdin is None:
            raise UserError("standard input is closed")
        else:
            photo = photos.read(sys.stdin.buffer.read(), settings.max_pixels, "standard input")
        kind = photos.format_of(target) if target else self.flag_values.format or "png"
        place = target or f"standard output{photos.FORMATS[kind][0]}"
        photos.check_size(place, *settings.plan(*photo.pixels.shape[:2])[1:])
        stop = threading.Event()

        def go_on(done: int, total: int) -> None:
            if stop.is_set():
                raise files.StoppedError

        # In a thread, so that Ctrl-C can end what the network is at: on a server at once, here after a tile.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(enhancers.enhance, photo, "standard input" if source == "-" else source, go_on)
            try:
                result = future.result()
            finally:
                stop.set()
                enhancers.close()
        if target:
            photos.write(target, result, photo, settings.encoder)
        else:
            sys.stdout.buffer.write(photos.encode(result, photo, kind, settings.encoder))
            sys.stdout.buffer.flush()
        return 0

    def _run_jobs(
        self, jobs: "list[Job]", failures: "list[Outcome]", enhancers: "Enhancers", num_parallel: int
    ) -> "list[Outcome]":
        """All jobs, with a progress bar and the manifest growing line by line, after what could not become a job."""
        from tqdm import tqdm

        from jpegsr import files

        outcomes = list(failures)
        layout = "{l_bar}{bar}| {n:.1f}/{total} photos [{elapsed}<{remaining}{postfix}]"
        with (
            _Manifest(self.flag_values.manifest) as manifest,
            tqdm(total=len(jobs), bar_format=layout, disable=not sys.stderr.isatty() and len(jobs) < 2) as bar,
        ):

            def advance(amount: float) -> None:
                # Sums of fractions may come out above the total, which tqdm would complain about.
                bar.update(min(amount, bar.total - bar.n))

            for failure in failures:
                manifest.add(failure)
                tqdm.write(f"jpegsr: error: {failure.error}", file=sys.stderr)
            for outcome in files.run_jobs(jobs, enhancers, num_parallel, advance):
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
