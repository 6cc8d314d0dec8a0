"""Pictures -> sub-images in shards (`prepared`): what decoding whole pictures costs is paid once, before training.

A shard is a run of so many pictures. It gets its name when it is whole, and then a line in `finished.jsonl`; `index.json` gets
the list of shards at the end. So a run that was killed loses the shard it was at, and the same command, started again, checks
those that are there by their SHA-256 and writes the others: byte for byte those of an undisturbed run.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import itertools
import json
import logging
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image
from tqdm import tqdm

from jpegsr import images
from jpegsr.config import PreparationConfig
from jpegsr.console import progress_bar
from jpegsr.data import PREPARED_PREFIX, ImageSource, open_source
from jpegsr.errors import UserError, first_line
from jpegsr.model_files import sha256
from jpegsr.prepared import INDEX_NAME, Plan, Shard, array_record_module, read_index

_logger = logging.getLogger(__name__)
_FINISHED_NAME = "finished.jsonl"


@dataclasses.dataclass(frozen=True)
class _Job:
    """A shard to be written: its file's name, and its pictures as (source, index)."""

    name: str
    pictures: tuple[tuple[ImageSource, int], ...]
    encode: Callable[[np.ndarray], list[bytes]]  # picture -> records


def prepare(
    locations: list[str],
    folder: str | pathlib.Path,
    config: PreparationConfig,
    workers: int,
) -> list[Shard]:
    """Write the sub-images of all pictures, or what is missing of them.

    Args:
      locations: folders and TFDS names, as `data.open_source` takes them.
      folder: where to; empty, or begun with the same arguments.
      config: sizes, encoding, holdout.
      workers: threads that decode and encode; they make no difference to what is written.

    Returns:
      All shards.

    Raises:
      UserError: there is no usable picture, the folder holds something else, or it cannot be written.
    """
    folder = pathlib.Path(folder)
    if already := next((location for location in locations if location.startswith(PREPARED_PREFIX)), None):
        raise UserError(f"{already!r} is prepared already: give the folders or the tfds:NAME that it came from")
    array_record_module()
    sources = [open_source(location, config.size) for location in locations]
    plan = _plan(sources, config)
    _check_plan(folder, plan)
    kept = _finished(folder)
    shards = []
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        progress_bar("prepare", "picture", plan.num_pictures) as bar,
    ):
        for job in _jobs(sources, config):
            shard = kept.get(job.name)
            if shard and _is_whole(folder, shard):
                bar.update(len(job.pictures))
            else:
                shard = _write_shard(folder, job, pool, workers, bar)
                _note(folder, shard)
            shards.append(shard)
    if not sum(shard.num_records for shard in shards if shard.name.startswith("train")):
        raise UserError(f"no picture in {', '.join(locations)} could be decoded for training")
    _write_index(folder, plan, shards)
    (folder / _FINISHED_NAME).unlink(missing_ok=True)
    return shards


def _plan(sources: list[ImageSource], config: PreparationConfig) -> Plan:
    names = hashlib.sha256()
    for name in itertools.chain.from_iterable(source.names for source in sources):
        names.update(name.encode("utf-8", "surrogateescape") + b"\0")
    num_pictures = sum(len(source.names) for source in sources)
    return Plan(tuple(source.location for source in sources), num_pictures, names.hexdigest(), config.to_json())


def _check_plan(folder: pathlib.Path, plan: Plan) -> None:
    """Write the plan to a new folder, or compare it with that of the folder to be completed."""
    if not (folder / INDEX_NAME).exists():
        _write_index(folder, plan, [])
        return
    there, ours = read_index(folder)[0].to_json(), plan.to_json()
    old, new = ({**values.pop("settings"), **values} for values in (there, ours))
    if changed := [f"{key} {old.get(key)} is now {new.get(key)}" for key in new if old.get(key) != new[key]]:
        raise UserError(f"{str(folder)!r} was begun otherwise ({'; '.join(changed)}): repeat that, or choose another folder")


def _write_index(folder: pathlib.Path, plan: Plan, shards: list[Shard]) -> None:
    content = {"plan": plan.to_json(), "shards": [shard.to_json() for shard in shards]}
    images.write_text(folder / INDEX_NAME, json.dumps(content, indent=1) + "\n")


def _jobs(sources: list[ImageSource], config: PreparationConfig) -> Iterator[_Job]:
    """All shards in order; every N-th picture of each source goes to those for validation."""
    training: list[tuple[ImageSource, int]] = []
    held_out: list[tuple[ImageSource, int]] = []
    for source in sources:
        for index in range(len(source.names)):
            (held_out if source.is_held_out(index, config.holdout_every) else training).append((source, index))

    def encode(picture: np.ndarray) -> list[bytes]:
        parts = cut(picture, config.size, config.overlap)
        return [_png(part) if config.encoding == "png" else part.tobytes() for part in parts]

    for split, pictures, function in (("train", training, encode), ("validation", held_out, lambda whole: [_png(whole)])):
        for start in range(0, len(pictures), config.pictures_per_shard):
            number, batch = start // config.pictures_per_shard, pictures[start : start + config.pictures_per_shard]
            yield _Job(f"{split}-{number:05d}.array_record", tuple(batch), function)


def cut(picture: np.ndarray, size: int, overlap: int) -> list[np.ndarray]:
    """Sub-images `[size, size, 3]` that cover a picture `[H, W, 3]`: as few, and as evenly spread, as the overlap allows.

    Raises:
      UserError: the picture is smaller than that.
    """
    if min(picture.shape[:2]) < size:
        raise UserError(f"a picture of {picture.shape[1]}x{picture.shape[0]} is below {size} pixels on a side")

    def starts(extent: int) -> list[int]:
        count = 1 + math.ceil((extent - size) / (size - overlap))
        return [round(start) for start in np.linspace(0, extent - size, count)]

    rows, columns = (starts(extent) for extent in picture.shape[:2])
    return [picture[top : top + size, left : left + size] for top in rows for left in columns]


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _finished(folder: pathlib.Path) -> dict[str, Shard]:
    """The shards that this folder should have, by name, from the index or from the notes of an unfinished run."""
    shards = read_index(folder)[1]
    notes = folder / _FINISHED_NAME
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    for line in filter(None, lines):
        try:
            shards.append(Shard.from_json(json.loads(line)))
        except ValueError:  # the kill came while this line was being written
            _logger.info("%s ends in half a line; its shard is made again", notes)
    return {shard.name: shard for shard in shards}


def _note(folder: pathlib.Path, shard: Shard) -> None:
    # The line break comes first, so that half a line of a killed run spoils no other.
    with (folder / _FINISHED_NAME).open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(shard.to_json()))


def _is_whole(folder: pathlib.Path, shard: Shard) -> bool:
    path = folder / shard.name
    if not path.is_file():
        return False
    if path.stat().st_size == shard.num_bytes and sha256(path) == shard.sha256:
        return True
    _logger.warning("%s is damaged and made again", path)
    return False


def _write_shard(folder: pathlib.Path, job: _Job, pool: concurrent.futures.Executor, workers: int, bar: tqdm) -> Shard:
    """Decode, cut, encode and write the pictures of one shard."""

    def records_of(picture: tuple[ImageSource, int]) -> list[bytes]:
        source, index = picture
        try:
            return job.encode(source.read(index))
        except UserError as error:
            _logger.warning("skipped: %s", error)
            return []

    num_records = num_skipped = 0
    path = folder / job.name
    with images.written_beside(path) as temporary:
        try:
            # Records of their own chunks, as they are: each is to be read alone.
            writer = array_record_module().ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            for records in _in_order(pool, records_of, job.pictures, 2 * workers):
                for record in records:
                    writer.write(record)
                num_records += len(records)
                num_skipped += not records
                bar.update()
            writer.close()
        except RuntimeError as error:
            raise UserError(f"cannot write {str(path)!r}: {first_line(error).partition(';')[0]}") from None
        num_bytes, checksum = temporary.stat().st_size, sha256(temporary)
    first, last = (source.names[index] for source, index in (job.pictures[0], job.pictures[-1]))
    return Shard(job.name, num_records, num_bytes, checksum, first, last, num_skipped)


def _in_order(pool: concurrent.futures.Executor, function: Callable, items: Iterable, ahead: int) -> Iterator:
    """The results of a function over items, in their order, at most so many computed ahead of the one that is taken."""
    pending: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
