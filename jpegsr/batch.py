"""An archive of photos through `Enhancer`s on Apache Beam, by any of its runners: list, group, read, enhance, write.

Grouping by the name of the result spreads the work over the workers, as a reshuffle would, lets a photo that is listed twice be
done once, and tells photos apart whose results would share a name. A result that is there is not made again; one that is not
there yet is written beside and renamed. So a run may be killed at any time, and the next one redoes what was under way.
"""

import dataclasses
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import apache_beam as beam
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from jpegsr import beam_files, beam_options, files, photos
from jpegsr.beam_inference import METRICS, STAGES, Enhanced, Failure, PhotoHandler, Picture, Work
from jpegsr.enhancement import TILE_MEMORY
from jpegsr.errors import UserError

Kind = Literal["photos", "file_list", "tfrecord"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What runners make of a `UserError` of a worker: some raise it with a note at its end, some quote a traceback.
_USER_ERROR = re.compile(r"(?:UserError|NoSpaceError): (.*?)(?: \[while running|\n|$)")
_LOST_WORKER = "Channel closed prematurely"  # as the local runner says it


@dataclasses.dataclass(frozen=True)
class Archive:
    """What is to be enhanced, and where results go.

    Attributes:
      kind: of the input: all photos that match a pattern, those that a text file lists line by line, or the encoded pictures in
        all TFRecord files that match a pattern.
      location: the pattern (see `beam_files.as_pattern`), or the path of the text file.
      output_dir: folder for the results. They are named after the photos: by the path below what the pattern has before its
        first wildcard, by the whole path for listed ones, by the file's name and the record's number for records.
      format: of the results, one of `photos.FORMATS`.
    """

    kind: Kind
    location: str
    output_dir: str
    format: str = "png"

    def target(self, picture: Picture, by_whole_name: bool = False) -> str:
        """Where the result goes: the suffix of the photo replaced, or, to tell photos apart, added.

        It is always added to a name like `a.jpg.png`, whose result might meet that of an `a.jpg` otherwise.
        """
        root = "" if self.kind == "file_list" else beam_files.root_of(self.location)
        name = beam_files.relative_name(picture.path, root)
        if picture.record is not None:
            name = (
                f"{name}/{picture.record.index:08}"  # what looks like a suffix may tell shards apart: x.tfrecord-00001-of-00010
            )
        elif not by_whole_name:
            stem, suffix = posixpath.splitext(name)
            if suffix.lower() in photos.SUFFIXES and posixpath.splitext(stem)[1].lower() not in photos.SUFFIXES:
                name = stem
        return posixpath.join(self.output_dir, name + photos.FORMATS[self.format][0])

    def has(self, path: str) -> bool:
        """Whether a path that matches the pattern is one that is meant: no hidden file, no result, and a photo or a shard."""
        if self.kind == "tfrecord" and not beam_files.has_wildcard(self.location):
            return True
        parts = beam_files.relative_name(path, beam_files.root_of(self.location)).split("/")
        is_hidden = any(part.startswith(".") for part in parts)
        is_result = path.startswith(f"{self.output_dir.rstrip('/')}/")
        is_of_its_kind = self.kind == "tfrecord" or posixpath.splitext(path)[1].lower() in photos.SUFFIXES
        return not is_hidden and not is_result and is_of_its_kind


def _list(archive: Archive) -> Iterator[Picture]:
    """The files that are meant."""
    if archive.kind == "file_list":
        yield from map(Picture, beam_files.read_lines(archive.location))
    else:
        yield from (Picture(path) for path in beam_files.find(archive.location) if archive.has(path))


class _ListRecords(beam.DoFn):
    """TFRecord file -> its records, and a failure if it is damaged."""

    def process(self, shard: Picture) -> Iterator[Any]:
        try:
            records, damage = beam_files.list_records(shard.path)
        except UserError as error:
            records, damage = [], str(error)
        yield from (Picture(shard.path, record) for record in records)
        if damage:
            yield beam.pvalue.TaggedOutput("failures", Failure(shard.name, "list", damage))


class _Read(beam.DoFn):
    """(target, pictures that would go there) -> the work that is left to do."""

    def __init__(self, archive: Archive, overwrite: bool):
        self._archive, self._overwrite = archive, overwrite

    def process(self, group: tuple[bytes, Iterable[Picture]]) -> Iterator[Any]:
        pictures = sorted(set(group[1]))
        taken: dict[str, str] = {}
        for picture in pictures:
            target = self._archive.target(picture, by_whole_name=len(pictures) > 1)
            try:
                if (other := taken.setdefault(target, picture.name)) != picture.name:
                    raise UserError(f"its result would have the name of that of {other!r}: enhance it to another folder")
                if target == beam_files.absolute(picture.path):
                    raise UserError(f"{picture.name!r} would be overwritten by its own result: choose another --output_dir")
                if not self._overwrite and beam_files.exists(target):
                    Metrics.counter(METRICS, "skipped").inc()
                else:
                    yield Work(picture, target, picture.read())
            except UserError as error:
                yield beam.pvalue.TaggedOutput("failures", Failure(picture.name, "read", str(error)))


class _Write(beam.DoFn):
    """(work, its result) -> nothing but the failures."""

    def __init__(self, output_dir: str):
        self._output_dir = output_dir

    def process(self, result: tuple[Work, Enhanced | Failure]) -> Iterator[Failure]:
        work, enhanced = result
        if isinstance(enhanced, Failure):
            yield enhanced
            return
        try:
            beam_files.write(work.target, enhanced.content, self._output_dir)
        except beam_files.NoSpaceError:
            raise
        except UserError as error:
            yield Failure(work.picture.name, "write", str(error))
            return
        Metrics.counter(METRICS, "done").inc()
        Metrics.counter(METRICS, "pixels").inc(enhanced.num_pixels)
        for stage, seconds in enhanced.seconds.items():
            Metrics.counter(METRICS, f"{stage}_microseconds").inc(round(1e6 * seconds))


def _write_table(failures: list[Failure], path: str) -> None:
    """Write the dead-letter table, without a row if nothing failed: a table of an earlier run tells nothing any more."""
    Metrics.counter(METRICS, "failed").inc(len(failures))
    rows = [json.dumps(dataclasses.asdict(failure)) for failure in sorted(failures, key=dataclasses.astuple)]
    beam_files.write(path, "".join(f"{row}\n" for row in rows).encode(), posixpath.dirname(path))


def build(pipeline: beam.Pipeline, archive: Archive, settings: files.Settings, dead_letters: str) -> None:
    """Add all steps to a pipeline; arguments as in `run`."""
    failures = []
    pictures = pipeline | "Archive" >> beam.Create([archive]) | "List" >> beam.FlatMap(_list)
    if archive.kind == "tfrecord":
        shards = pictures | "SpreadShards" >> beam.Reshuffle()
        pictures, damaged = shards | "ListRecords" >> beam.ParDo(_ListRecords()).with_outputs("failures", main="pictures")
        failures.append(damaged)
    work, unread = (
        pictures
        # As bytes, since names on old disks need not be UTF-8.
        | "Name" >> beam.WithKeys(lambda picture: archive.target(picture).encode("utf-8", "surrogateescape"))
        | "Group" >> beam.GroupByKey()
        | "Read" >> beam.ParDo(_Read(archive, settings.overwrite)).with_outputs("failures", main="work")
    )
    unwritten = (
        work
        | "Enhance" >> RunInference(PhotoHandler(settings, archive.format))
        | "Write" >> beam.ParDo(_Write(archive.output_dir))
    )
    (
        (*failures, unread, unwritten)
        | "Failures" >> beam.Flatten()
        | "OneTable" >> beam.combiners.ToList()
        | "WriteTable" >> beam.Map(_write_table, dead_letters)
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of an archive.

    Attributes:
      done: results that were made.
      skipped: results that were there.
      failed: rows of the dead-letter table.
      megapixels: of the inputs of those done.
      seconds: summed over all workers, in each of "decode", "network" and "encode".
    """

    done: int
    skipped: int
    failed: int
    megapixels: float
    seconds: dict[str, float]


def _check(archive: Archive, output_folders: set[str]) -> None:
    """`UserError` for what would make every photo fail."""
    for folder in output_folders:
        if beam_files.has_wildcard(folder):
            raise UserError(f"{folder!r} has one of *?[ in it, which Apache Beam takes for a pattern: choose another folder")
    is_among = beam_files.root_of(archive.location).rstrip("/") == archive.output_dir.rstrip("/")
    if is_among and (archive.kind == "photos" or (archive.kind == "tfrecord" and beam_files.has_wildcard(archive.location))):
        raise UserError(f"results would lie among the files of {archive.location!r}: choose another --output_dir")
    if not beam_files.matches_something(archive.location):
        raise UserError(f"no file matches {archive.location!r}")
    for folder in output_folders:
        beam_files.require_writable(folder)


def run(archive: Archive, settings: files.Settings, options: PipelineOptions, dead_letters: str) -> Report:
    """Enhance an archive and wait for the end of it.

    Args:
      archive: what to enhance, and where to write.
      settings: what to do; unless `tile_memory` is set, it is `TILE_MEMORY`, however much memory a worker has free.
      options: of Beam.
      dead_letters: path of the table of failures, JSON lines with `input`, `stage` and `reason`.

    Raises:
      UserError: there is no picture, results cannot be written, the disk is full, or the runner cannot run.
    """
    output_folders = {archive.output_dir, posixpath.dirname(dead_letters)}
    _check(archive, output_folders)
    settings = dataclasses.replace(settings, tile_memory=settings.tile_memory or TILE_MEMORY)
    pipeline = beam_options.make_pipeline(options)
    build(pipeline, archive, settings, dead_letters)
    try:
        result = pipeline.run()
        state = result.wait_until_finish()
    except Exception as error:
        if str(error).startswith("KeyboardInterrupt"):  # Ctrl-C, while the local runner was within a step
            raise KeyboardInterrupt from None
        if (told := _told(error)) is None:
            raise
        raise UserError(f"{told}: stopped; the same command goes on from here") from None
    if state != PipelineState.DONE:
        raise UserError(f"the pipeline ended as {state}: see the runner's log; the same command goes on from here")
    for folder in output_folders:
        beam_files.remove_unfinished(folder)
    report = _report(result)
    if report.done + report.skipped + report.failed == 0:
        raise UserError(f"no picture in {archive.location!r}")
    return report


def _told(error: Exception) -> str | None:
    """What to tell of the error that ended a pipeline, or None if it is a defect."""
    if reasons := _USER_ERROR.findall(f"{type(error).__name__}: {error}"):
        return reasons[-1]
    return "a worker process has ended, killed or out of memory" if _LOST_WORKER in str(error) else None


def _report(result: Any) -> Report:
    counters = result.metrics().query(MetricsFilter().with_namespace(METRICS))["counters"]
    counts: dict[str, int] = {}
    for counter in counters:
        name = counter.key.metric.name
        counts[name] = counts.get(name, 0) + (counter.committed or counter.attempted or 0)
    return Report(
        done=counts.get("done", 0),
        skipped=counts.get("skipped", 0),
        failed=counts.get("failed", 0),
        megapixels=counts.get("pixels", 0) / 1e6,
        seconds={stage: counts.get(f"{stage}_microseconds", 0) / 1e6 for stage in STAGES},
    )
