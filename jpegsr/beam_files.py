"""Files on any of Apache Beam's filesystems: found, read, and written at once or not at all.

Paths are as Beam takes them: of this machine, or with a scheme (`gs://bucket/photo.jpg`) for which Beam's plugin is installed.
What fails for a passing reason is tried again; what fails for good becomes a `UserError` that names the file.
"""

import contextlib
import dataclasses
import errno
import os
import posixpath
import random
import re
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import google_crc32c
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from jpegsr.errors import UserError, first_line

_Answer = TypeVar("_Answer")
_PAUSES = (0.5, 1.0, 2.0)  # seconds before the second, third and fourth try
# Of the errors that an operating system numbers, those that may pass. Errors without a number come from clients of remote
# filesystems, each with exceptions of its own: they all may.
_PASSING = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_UNFINISHED = ".unfinished"


class NoSpaceError(UserError):
    """Whatever is written next will fail as well."""


def _cause(error: Exception) -> Exception:
    """What Beam has wrapped."""
    if isinstance(error, BeamIOError) and error.exception_details:
        return _cause(next(iter(error.exception_details.values())))
    if isinstance(error, OSError) and error.errno is None and error.args and isinstance(error.args[0], Exception):
        return _cause(error.args[0])
    return error


def _retried(what: str, call: Callable[[], _Answer], passing: set[int] = _PASSING) -> _Answer:
    """The answer of a call, tried again while it fails for reasons that may pass; `UserError` says that it cannot do `what`."""
    for pause in (*_PAUSES, None):
        try:
            return call()
        except Exception as error:  # see _PASSING
            cause = _cause(error)
            number = cause.errno if isinstance(cause, OSError) else None
            if pause is None or isinstance(cause, ValueError) or (number is not None and number not in passing):
                reason = (cause.strerror if isinstance(cause, OSError) else None) or first_line(cause)
                raise (NoSpaceError if number in _NO_SPACE else UserError)(f"cannot {what}: {reason}") from None
        time.sleep(pause * random.uniform(0.5, 1.5))  # workers that failed together must not come back together
    raise AssertionError  # the last pass returns or raises


def read(path: str) -> bytes:
    """A file's content; `UserError` if it cannot be read."""

    def attempt() -> bytes:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return file.read()

    return _retried(f"read {path!r}", attempt)


def exists(path: str) -> bool:
    """Whether there is a file of that name; `UserError` if that cannot be found out."""
    return _retried(f"look for {path!r}", lambda: FileSystems.exists(path))


def find(pattern: str) -> list[str]:
    """The files that match a pattern (`*` stops at a slash, `**` does not); `UserError` if they cannot be listed."""
    found = _retried(f"list {pattern!r}", lambda: FileSystems.match([pattern]))
    return [metadata.path for metadata in found[0].metadata_list]


def matches_something(pattern: str) -> bool:
    """Whether `find` would find anything; errors as there."""
    return bool(_retried(f"list {pattern!r}", lambda: FileSystems.match([pattern], [1]))[0].metadata_list)


def absolute(path: str) -> str:
    """A path that means the same in all processes of a machine."""
    return os.path.abspath(path) if FileSystems.get_scheme(path) is None else path


def as_pattern(location: str) -> str:
    """A pattern, a file's path, or a folder's, as a pattern with an absolute path; errors as in `find`."""
    location = absolute(location)
    if not has_wildcard(location) and matches_something(below := f"{location.rstrip('/')}/**"):
        return below
    return location


def has_wildcard(path: str) -> bool:
    """Whether a path is a pattern."""
    return re.search(r"[*?[]", path) is not None


def root_of(pattern: str) -> str:
    """The folder below which everything lies that matches a pattern, with a slash at its end."""
    start = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    return start[: start.rfind("/") + 1]


def relative_name(path: str, root: str) -> str:
    """A name below an output folder, from the part of a path below `root`; without parts that would lead out of it."""
    below = path.removeprefix(root) if root else re.sub(r"^[a-zA-Z][-a-zA-Z0-9+.]*://", "", path)
    return "/".join(part for part in below.split("/") if part not in ("", ".", ".."))


def write(path: str, content: bytes, output_dir: str) -> None:
    """Write a file at once or not at all, by way of the hidden folder for unfinished ones.

    Args:
      path: of the file; an older one is replaced.
      content: of the file.
      output_dir: folder on the same filesystem that has the hidden one.

    Raises:
      UserError: it cannot be written; `NoSpaceError` if the disk is full.
    """
    temporary = posixpath.join(output_dir, _UNFINISHED, uuid.uuid4().hex)

    def attempt() -> None:
        with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(content)
        _make_folder(path.rpartition("/")[0])
        FileSystems.rename([temporary], [path])

    try:
        # A run that ends may have removed the hidden folder meanwhile.
        _retried(f"write {path!r}", attempt, _PASSING | {errno.ENOENT})
    except UserError:
        with contextlib.suppress(UserError):  # of the two errors, the first one counts
            _delete([temporary])
        raise


def _make_folder(folder: str) -> None:
    """Where filesystems have folders; two workers may be at it at once."""
    if folder and not FileSystems.exists(folder):
        try:
            FileSystems.mkdirs(folder)
        except OSError:
            if not FileSystems.exists(folder):
                raise


def _delete(paths: list[str]) -> None:
    """Those of the files, or folders, that are there."""
    there = [path for path in paths if exists(path)]
    if there:
        _retried(f"delete {there[0]!r}", lambda: FileSystems.delete(there))


def require_writable(output_dir: str) -> None:
    """`UserError` if files cannot be written to a folder."""
    probe = posixpath.join(output_dir, _UNFINISHED, uuid.uuid4().hex)

    def attempt() -> None:
        FileSystems.create(probe, compression_type=CompressionTypes.UNCOMPRESSED).close()

    _retried(f"write to folder {output_dir!r}", attempt)
    _delete([probe])


def remove_unfinished(output_dir: str) -> None:
    """Delete what killed runs have left behind. Runs that are under way write what they lose by it again."""
    folder = posixpath.join(output_dir, _UNFINISHED)
    _delete(find(f"{folder}/**"))
    _delete([folder])


@dataclasses.dataclass(frozen=True, order=True)
class Record:
    """Where a record of a TFRecord file lies.

    Attributes:
      index: how many come before it.
      offset: of its header, in bytes.
      length: of its content, in bytes.
    """

    index: int
    offset: int
    length: int


def list_records(path: str) -> tuple[list[Record], str | None]:
    """The records of a TFRecord file, and what is wrong with it, if the list had to end before the file does.

    `UserError` if the file cannot be read. Contents are not looked at.
    """
    return _retried(f"read {path!r}", lambda: _scan(path))


def _scan(path: str) -> tuple[list[Record], str | None]:
    records: list[Record] = []
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        offset = 0
        while header := file.read(12):
            length = _checked_length(header)
            if length is None:
                return records, f"{path!r} is damaged or no TFRecord: record {len(records)}, and what follows it, is lost"
            records.append(Record(len(records), offset, length))
            offset += 12 + length + 4
            file.seek(offset)
    return records, None


def _checked_length(header: bytes) -> int | None:
    """The length that a record's header tells, if its checksum is right."""
    if len(header) < 12:
        return None
    length, checksum = struct.unpack("<QI", header)
    return length if checksum == _masked_checksum(header[:8]) else None


def _masked_checksum(content: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecords have it."""
    checksum = google_crc32c.value(content)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_record(path: str, record: Record) -> bytes:
    """A record's content; `UserError` if it cannot be read or is damaged."""

    def attempt() -> bytes:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.seek(record.offset + 12)
            return file.read(record.length + 4)

    content = _retried(f"read {path!r}", attempt)
    body, checksum = content[: record.length], content[record.length :]
    if len(checksum) < 4 or struct.unpack("<I", checksum)[0] != _masked_checksum(body):
        raise UserError(f"record {record.index} of {path!r} is damaged")
    return body


def read_lines(path: str) -> Iterator[str]:
    """The lines of a text file that are not blank; names in it need not be UTF-8. Errors as in `read`."""
    for line in read(path).splitlines():
        if line.strip():
            yield line.decode("utf-8", "surrogateescape")
