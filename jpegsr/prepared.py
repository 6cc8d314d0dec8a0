"""Prepared training data: sub-images in shards, of which any one is a single read away. Written by `preparation`.

    index.json                     the settings, the sources, and size, count and SHA-256 of every shard
    train-00000.array_record ...   sub-images, each a record: uint8 `[S, S, 3]` as raw pixels, or a PNG file
    validation-00000.array_record  the pictures held out of training, whole, as PNG files

The shards are ArrayRecord files (https://github.com/google/array_record), and not TFRecords, because a patch is to remain a
pure function of the seed and its index: record `i` is read without those before it, and its hash is checked on the way. What a
parallel interleave and a shuffle buffer do for TFRecords, the patch stream does itself: it draws from all shards alike, and
`patch_dataset` draws many patches at once, hence reads many shards at once, while their order stays that of their indices.
Nothing here needs TensorFlow.
"""

import dataclasses
import functools
import io
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from jpegsr import images
from jpegsr.config import JsonMixin, PreparationConfig
from jpegsr.data import PREPARED_PREFIX, ImageSource
from jpegsr.errors import DamagedDataError, UserError, first_line

INDEX_NAME = "index.json"
# Each open shard holds a file descriptor, of which a process has 1024 unless told otherwise.
_MAX_OPEN_SHARDS = 256


@dataclasses.dataclass(frozen=True)
class Plan(JsonMixin):
    """What a folder is to hold; two runs of `prepare` with equal plans write equal shards.

    Attributes:
      sources: locations as the user named them.
      num_pictures: of all sources together.
      pictures_sha256: of their names, in order.
      settings: fields of the `PreparationConfig`.
    """

    sources: tuple[str, ...]
    num_pictures: int
    pictures_sha256: str
    settings: dict

    @property
    def config(self) -> PreparationConfig:
        return PreparationConfig.from_json(self.settings)


@dataclasses.dataclass(frozen=True)
class Shard(JsonMixin):
    """One file: what tells whether it is whole, and which pictures are in it, a run of them in the order of the sources."""

    name: str
    num_records: int
    num_bytes: int
    sha256: str
    first_picture: str
    last_picture: str
    num_skipped: int  # pictures that could not be decoded


def read_index(folder: pathlib.Path) -> tuple[Plan, list[Shard]]:
    """The index of a folder; no shards if `prepare` has not finished. `UserError` if it is no such folder, or damaged."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise UserError(f"{str(folder)!r} holds no prepared data: there is no {INDEX_NAME} (jpegsr prepare writes it)")
    try:
        content = json.loads(images.read_bytes(path))
        return Plan.from_json(content["plan"]), [Shard.from_json(shard) for shard in content["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} is not the index of prepared data: {first_line(error)}") from None


def open_prepared(location: str, min_size: int) -> ImageSource:
    """`prepared:FOLDER` as a source of sub-images, with the pictures held out of training as its `held_out`.

    Args:
      location: where `prepare` wrote to.
      min_size: pixels on a side that the crops need.

    Raises:
      UserError: the folder is not finished, or its sub-images are too small.
      DamagedDataError: a shard is missing or has lost bytes; later, from `read`, its content has changed.
    """
    folder = pathlib.Path(location.removeprefix(PREPARED_PREFIX))
    plan, shards = read_index(folder)
    if not shards:
        raise UserError(f"{str(folder)!r} is not finished: run the same jpegsr prepare again, it goes on where it was")
    config = plan.config
    if config.size < min_size:
        raise UserError(
            f"{location!r} holds sub-images of {config.size} pixels a side, but the patches take {min_size}: "
            f"prepare it with --size={min_size} or more"
        )
    shape = (config.size, config.size, 3)
    decoders = {"png": _decode_png, "raw": lambda content, name: np.frombuffer(content, np.uint8).reshape(shape)}
    training, held_out = ([shard for shard in shards if shard.name.startswith(split)] for split in ("train-", "validation-"))
    records, whole = Records(folder, training, decoders[config.encoding]), Records(folder, held_out, _decode_png)
    return ImageSource(location, records, records.read, ImageSource(location, whole, whole.read), config.holdout_every)


def _decode_png(content: bytes, name: str) -> np.ndarray:
    return images.read_rgb(io.BytesIO(content), name)


class Records(Sequence[str]):
    """The records of some shards as one sequence, of which any can be read. Thread-safe.

    As a sequence it holds the records' names: there may be many millions, too many for a list.
    """

    def __init__(self, folder: pathlib.Path, shards: list[Shard], decode: Callable[[bytes, str], np.ndarray]):
        """A missing or cut shard is a `DamagedDataError` right away; content is checked as it is read."""
        self._folder = folder
        self._shards = shards
        self._decode = decode
        self._ends = np.cumsum([shard.num_records for shard in shards], dtype=np.int64)
        self._open = functools.lru_cache(maxsize=_MAX_OPEN_SHARDS)(self._open_shard)
        for shard in shards:
            path = folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.num_bytes:
                raise _damaged(path, f"{shard.num_bytes} bytes are expected" if path.is_file() else "it is missing")

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._shards else 0

    def _find(self, index: int) -> tuple[Shard, int]:
        """The shard of a record, and the record's number within it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[number]
        return shard, index - int(self._ends[number]) + shard.num_records

    def __getitem__(self, index):
        shard, number = self._find(index)
        return f"{shard.name}[{number}]"

    def read(self, index: int) -> np.ndarray:
        """The pixels of a record, uint8 `[H, W, 3]`; `DamagedDataError` names its shard if they are not what was written."""
        shard, number = self._find(index)
        try:
            (content,) = self._open(shard.name).read([number])
            return self._decode(content, self[index])
        except (RuntimeError, ValueError, UserError) as error:
            raise _damaged(self._folder / shard.name, first_line(error)) from None

    def _open_shard(self, name: str):
        # Without read-ahead: the next record wanted is somewhere else.
        return array_record_module().ArrayRecordReader(str(self._folder / name), "readahead_buffer_size:0")


def _damaged(path: pathlib.Path, reason: str) -> DamagedDataError:
    return DamagedDataError(
        f"shard {str(path)!r} is damaged ({reason}): the jpegsr prepare that made it, run again, replaces it"
    )


def array_record_module():
    """The package array_record; `UserError` where it is not installed."""
    try:
        from array_record.python import array_record_module as module
    except ImportError:
        raise UserError(
            "prepared data needs array_record, which there is for Linux and macOS: pip install array_record"
        ) from None
    return module
