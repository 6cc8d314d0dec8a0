"""Photo files through `Enhancer`s: what to do with which file, and doing it for many, whatever happens to one of them."""

import collections
import concurrent.futures
import dataclasses
import glob
import logging
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from jpegsr import model_files, photos, vips
from jpegsr.config import ModelConfig
from jpegsr.enhancement import Enhancer
from jpegsr.errors import UserError, first_line
from jpegsr.photos import Photo
from jpegsr.runtimes import Network

_logger = logging.getLogger(__name__)
# Beyond the largest scale it is plain resampling.
_MOST_ENLARGEMENT = 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is done to each file; all but the sizes and the last three as in `Enhancer`.

    Attributes:
      size: largest width and height of the result; proportions are kept.
      longest_side: of the result, in pixels. At most one of `scale`, `size` and `longest_side` is set.
      encoder: how results are encoded.
      max_pixels: larger inputs are refused.
      overwrite: redo what is already there.
    """

    model: str | Network = "base"
    scale: int | None = None
    size: tuple[int, int] | None = None
    longest_side: int | None = None
    runtime: str = "auto"
    device: str | None = None
    strength: float = 1.0
    self_ensemble: bool = False
    tile_size: int | None = None
    tile_memory: int | None = None
    num_threads: int | None = None
    encoder: photos.EncoderOptions = dataclasses.field(default_factory=photos.EncoderOptions)
    max_pixels: int = photos.DEFAULT_MAX_PIXELS
    overwrite: bool = False

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.scale, self.size, self.longest_side)) > 1:
            raise UserError("--scale, --size and --longest_side say the same thing: give one of them")
        if min(self.size or (1,)) < 1 or (self.longest_side or 1) < 1:
            raise UserError("--size and --longest_side are in pixels, above zero")
        if self.max_pixels < 1:
            raise UserError(f"--max_pixels={self.max_pixels} is not above zero")
        if self.num_threads is not None and self.num_threads < 1:
            raise UserError(f"{self.num_threads} threads are too few: one is the least")

    def scales(self) -> list[int]:
        """The scales that the model offers, in rising order; `UserError` if there is no such model."""
        if isinstance(self.model, Network):
            return [self.model.scale]
        return sorted({1, self._own_scale(), *model_files.shipped_scales(self.model)})

    def _own_scale(self) -> int:
        """That of the model itself, whichever others there are of its name."""
        if isinstance(self.model, Network):
            return self.model.scale
        return ModelConfig.from_json(model_files.read_card(model_files.find(self.model))["config"]).scale

    def default_scale(self) -> int:
        """The scale of pictures for which no size is asked."""
        if self.scale is None:
            return self._own_scale()
        if self.scale not in (scales := self.scales()):
            raise UserError(f"{self.model!r} has no weights for scale {self.scale}: there are {', '.join(map(str, scales))}")
        return self.scale

    def plan(self, height: int, width: int) -> tuple[int, int, int]:
        """(network's scale, height, width of the result) for an input of this size.

        The network enlarges at least as far as asked, where it can; the rest is resampled.
        """
        if self.size is None and self.longest_side is None:
            scale = self.default_scale()
            return scale, height * scale, width * scale
        box = self.size or (self.longest_side, self.longest_side)
        factor = min(box[0] / width, box[1] / height)  # type: ignore[operator]
        scales = self.scales()
        if factor > _MOST_ENLARGEMENT:
            raise UserError(f"a picture of {width}x{height} would be enlarged {factor:.0f} times: {_MOST_ENLARGEMENT} at most")
        scale = next((scale for scale in scales if scale >= factor), scales[-1])
        return scale, max(round(height * factor), 1), max(round(width * factor), 1)


class Enhancers:
    """The `Enhancer`s of some settings, one per scale, loaded when first needed. Thread-safe."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._lock = threading.Lock()
        self._by_scale: dict[int, Enhancer] = {}

    def get(self, scale: int) -> Enhancer:
        """The one for a scale; errors as in `Enhancer`."""
        with self._lock:
            if scale not in self._by_scale:
                settings = self.settings
                self._by_scale[scale] = Enhancer(
                    settings.model,
                    scale,
                    settings.runtime,
                    strength=settings.strength,
                    self_ensemble=settings.self_ensemble,
                    tile_size=settings.tile_size,
                    tile_memory=settings.tile_memory,
                    device=settings.device,
                    num_threads=settings.num_threads,
                )
            return self._by_scale[scale]

    def enhance(self, photo: Photo, name: str, progress: Callable[[int, int], None] | None = None) -> Photo:
        """A photo, which messages call `name`, at the size that the settings ask for."""
        scale, height, width = self.settings.plan(*photo.pixels.shape[:2])
        enhancer = self.get(scale)
        if enhancer.network.is_8_bit and photo.pixels.dtype == np.uint16:
            _logger.warning("%s: the network rounds its 16 bits to 8", name)
        try:
            result = enhancer.enhance_photo(photo, progress)
        except UserError as error:
            raise UserError(f"cannot enhance {name!r}: {error}") from None
        if result.pixels.shape[:2] == (height, width):
            return result
        alpha = None if result.alpha is None else vips.resize(result.alpha, width, height)
        return Photo(vips.resize(result.pixels, width, height), alpha)

    def close(self) -> None:
        """End what is under way in the networks, where that is possible."""
        with self._lock:
            for enhancer in self._by_scale.values():
                enhancer.network.close()


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to be made from another."""

    source: pathlib.Path
    target: pathlib.Path


Status = Literal["done", "skipped", "failed"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job: its status, the seconds it took and, if it failed, why."""

    job: Job
    status: Status
    seconds: float = 0.0
    error: str = ""


def list_jobs(
    arguments: Sequence[str], output_dir: str | None, suffix: str, name_ending: str, overwrite: bool = False
) -> tuple[list[Job], list[Outcome]]:
    """The files that arguments stand for, and where their results go.

    Args:
      arguments: files, folders (searched recursively; hidden files and folders are left out), or glob patterns.
      output_dir: where results go; folders keep their structure below it. None: beside each photo.
      suffix: of the results (".png").
      name_ending: added to the names of results that stand beside their photo ("_x2").
      overwrite: whether results that are there will be replaced.

    Returns:
      The jobs, and an outcome for each folder that could not be read.

    Raises:
      UserError: an argument stands for nothing, folders are given without `output_dir`, or a photo that is named would be
        overwritten by the result of another.
    """
    found: list[tuple[pathlib.Path, pathlib.Path]] = []  # (file, its path below the output folder)
    named = set()
    failures: list[Outcome] = []
    for argument in arguments:
        path = pathlib.Path(argument)
        if path.is_dir():
            if output_dir is None:
                raise UserError(f"{argument!r} is a folder: name one for the results with --output_dir")
            below = _below(path, pathlib.Path(output_dir), failures)
            if not below and not failures:
                raise UserError(f"no picture in {argument!r}: looked for {', '.join(photos.SUFFIXES)} files")
            found += [(file, file.relative_to(path)) for file in below]
        elif not path.exists() and (matches := sorted(glob.glob(argument, recursive=True))):
            files = _meant(argument, [pathlib.Path(match) for match in matches], output_dir)
            if not files:
                raise UserError(f"no file matches {argument!r}, only folders or earlier results do")
            found += [(file, pathlib.Path(file.name)) for file in files]
        elif path.exists():
            found.append((path, pathlib.Path(path.name)))
            named.add(path)
        else:
            raise UserError(f"no file {argument!r}")
    jobs = _place(list(dict.fromkeys(found)), output_dir, suffix, name_ending)
    placed = {job.source for job in jobs}
    left_out = [source for source in dict.fromkeys(source for source, _ in found) if source not in placed]
    if overwrite and (lost := [source for source in left_out if source in named]):
        raise UserError(
            f"{str(lost[0])!r} has the name of another photo's result, which --overwrite would put in its place: "
            "leave it out, or give --output_dir"
        )
    if left_out:
        _logger.info("left out, as earlier results have such names: %s", ", ".join(map(str, left_out)))
    return jobs, failures


def _meant(pattern: str, matches: list[pathlib.Path], output_dir: str | None) -> list[pathlib.Path]:
    """The files among a pattern's matches, without the results of earlier runs where it reaches into their folder."""
    files = [path for path in matches if path.is_file()]
    if output_dir is None:
        return files
    out = pathlib.Path(output_dir).resolve()
    start = pathlib.Path(re.split(r"[*?[]", pattern, maxsplit=1)[0] + "x").parent.resolve()
    # Who begins the pattern within that folder means what is there.
    return files if start.is_relative_to(out) else [file for file in files if not file.resolve().is_relative_to(out)]


def _below(folder: pathlib.Path, output_dir: pathlib.Path, failures: list[Outcome]) -> list[pathlib.Path]:
    """The pictures below a folder, without the results of earlier runs that lie there."""
    top, out = folder.resolve(), output_dir.resolve()
    if top == out:
        raise UserError(f"results would lie among the photos of {str(folder)!r}: choose another --output_dir")
    files = _walk(folder, failures)
    return [file for file in files if not out.is_relative_to(top) or not (top / file.relative_to(folder)).is_relative_to(out)]


def _walk(folder: pathlib.Path, failures: list[Outcome]) -> list[pathlib.Path]:
    """The picture files below a folder, in order."""
    files = []

    def failed(error: OSError) -> None:
        place = pathlib.Path(error.filename)
        failures.append(
            Outcome(Job(place, pathlib.Path()), "failed", error=f"cannot read folder {str(place)!r}: {error.strerror}")
        )

    for parent, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [
            pathlib.Path(parent, name)
            for name in sorted(names)
            if not name.startswith(".") and pathlib.Path(name).suffix.lower() in photos.SUFFIXES
        ]
    return files


def _place(found: list[tuple[pathlib.Path, pathlib.Path]], output_dir: str | None, suffix: str, name_ending: str) -> list[Job]:
    """Targets, told apart by the whole name of the photo where they would meet each other or a photo."""

    def target(source: pathlib.Path, relative: pathlib.Path, name: str) -> pathlib.Path:
        place = source.with_name(name) if output_dir is None else pathlib.Path(output_dir, relative).with_name(name)
        return place.with_name(f"{name}{name_ending if output_dir is None else ''}{suffix}")

    targets = [target(source, relative, source.stem) for source, relative in found]
    if output_dir is None:  # results of an earlier run, met again by a pattern
        places = {target(*item, name).absolute() for item in found for name in (item[0].stem, item[0].name)}
        kept = [source.absolute() not in places for source, _ in found]
        found = [item for item, is_kept in zip(found, kept, strict=True) if is_kept]
        targets = [item for item, is_kept in zip(targets, kept, strict=True) if is_kept]
    sources = {source.absolute() for source, _ in found}
    counts = collections.Counter(targets)
    jobs = []
    for (source, relative), place in zip(found, targets, strict=True):
        meets_another = place.absolute() in sources and place.absolute() != source.absolute()
        jobs.append(Job(source, target(source, relative, source.name) if counts[place] > 1 or meets_another else place))
    if len({job.target for job in jobs}) < len(jobs) or any(
        job.target.absolute() in sources - {job.source.absolute()} for job in jobs
    ):
        raise UserError("two photos of the same name would be written to one file: enhance their folders one by one")
    return jobs


def reason(error: Exception, name: str) -> str:
    """One line on why the file that messages call `name` could not be enhanced, whatever was raised."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"{name!r} does not fit into memory"
    return f"{name!r}: unexpected {type(error).__name__}: {first_line(error)}"  # a fault of ours or a library's


class StoppedError(Exception):
    """The work was called off."""


def run_job(job: Job, enhancers: Enhancers, progress: Callable[[int, int], None] | None = None) -> Outcome:
    """Do one job; whatever is wrong with its file becomes an outcome, never an exception."""
    started = time.perf_counter()
    settings = enhancers.settings
    try:
        if job.target.exists():
            if job.source.exists() and os.path.samefile(job.source, job.target):
                raise UserError(f"{str(job.source)!r} would be overwritten by its own result: choose another output")
            if not settings.overwrite:
                return Outcome(job, "skipped")
        photo = photos.read(job.source, settings.max_pixels)
        photos.check_size(job.target, *settings.plan(*photo.pixels.shape[:2])[1:])
        photos.write(job.target, enhancers.enhance(photo, str(job.source), progress), photo, settings.encoder)
    except StoppedError:
        raise
    except Exception as error:  # the other files go on, and the manifest tells
        return Outcome(job, "failed", time.perf_counter() - started, reason(error, str(job.source)))
    return Outcome(job, "done", time.perf_counter() - started)


def run_jobs(
    jobs: Sequence[Job], enhancers: Enhancers, num_parallel: int, advance: Callable[[float], None]
) -> Iterator[Outcome]:
    """Do jobs, several at a time, so that decoding and encoding of some overlap with the network's work on others.

    Args:
      jobs: what to do.
      enhancers: with the settings.
      num_parallel: jobs at a time; each has its decoded input and output in memory.
      advance: told by how many files, in fractions of tiles, the work has gone on; called from several threads.

    Yields:
      Outcomes in the order in which jobs end. Closing the generator, or Ctrl-C, calls off what is under way. At the end the
      networks are closed.
    """
    stop = threading.Event()

    def work(job: Job) -> Outcome:
        advanced = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal advanced
            if stop.is_set():
                raise StoppedError
            # The last twentieth stands for encoding.
            advance(0.95 * done / total - advanced)
            advanced = 0.95 * done / total

        if stop.is_set():
            raise StoppedError
        outcome = run_job(job, enhancers, progress)
        advance(1 - advanced)
        return outcome

    with concurrent.futures.ThreadPoolExecutor(num_parallel) as pool:
        try:
            for future in concurrent.futures.as_completed([pool.submit(work, job) for job in jobs]):
                yield future.result()
        finally:
            stop.set()
            enhancers.close()
            pool.shutdown(cancel_futures=True)
