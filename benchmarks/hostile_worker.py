"""Processes that try hostile files, so that a crash, a hang or a swollen memory ends one of them and not the run."""

import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.enhancement import Enhancer

MAX_PIXELS = 20_000_000
# Most cases are this small; the network's time for the others would say nothing about their files.
_MOST_NETWORK_PIXELS = 20_000
BLOATED_BYTES = 1 << 30
# Beyond this a worker is ended at once, before it takes the memory of others.
_MOST_BYTES = 4 << 30
_START_SECONDS = 300.0
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a file: enhanced, refused, unexpected, crashed, hung or bloated; and what it cost."""

    status: str
    message: str
    seconds: float
    grown_bytes: int = 0
    stderr: str = ""


@functools.cache
def _enhancer() -> "Enhancer":
    from jpegsr.enhancement import Enhancer

    return Enhancer("base", runtime="openvino")


def enhance_case(path: pathlib.Path) -> None:
    """The one place that says what is under test: what `jpegsr enhance` does, without the network for large pictures."""
    from jpegsr import photos

    photo = photos.read(path, MAX_PIXELS)
    is_small = photo.pixels.shape[0] * photo.pixels.shape[1] <= _MOST_NETWORK_PIXELS
    photos.encode(_enhancer().enhance_photo(photo) if is_small else photo, photo, "png")


def attempt(path: pathlib.Path, callee: Callable[[pathlib.Path], None] = enhance_case) -> tuple[str, str]:
    """(status, message): `enhanced`, `refused` by a printable line that names the file, or `unexpected`."""
    try:
        callee(path)
    except UserError as error:
        message = str(error)
        if not message.isprintable() or path.name not in message:
            return "unexpected", f"a message that is not one printable line with the file's name: {message!r}"
        return "refused", message
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        places = " > ".join(f"{pathlib.Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
        return "unexpected", f"{type(error).__name__}: {error} [{places}]"
    return "enhanced", ""


def _status_bytes(field: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise LookupError(field)


def _peak_meter() -> Callable[[], int]:
    """A function for the growth of resident memory at its highest since now.

    Linux forgets its high-water mark on request; elsewhere, only a rise of the process's record can be seen.
    """
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        return lambda: _status_bytes("VmHWM") - before
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        record = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return lambda: unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - record)


def _serve(connection: multiprocessing.connection.Connection, callee: Callable[[pathlib.Path], None]) -> None:
    """Answer paths with outcomes until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("always")
    # What decoders print from C or Python is part of what a user sees.
    with tempfile.TemporaryFile() as stderr:
        os.dup2(stderr.fileno(), 2)
        while True:
            try:
                path = connection.recv()
            except EOFError:
                return
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)
            grown = _peak_meter()
            started = time.perf_counter()
            status, message = attempt(path, callee)
            seconds = time.perf_counter() - started
            sys.stderr.flush()
            printed = os.pread(2, 2000, 0).decode(errors="replace")
            grown_bytes = grown()
            if grown_bytes > BLOATED_BYTES:
                status, message = "bloated", f"{status}, {grown_bytes / 1e6:.0f} MB: {message}"
            connection.send(Outcome(status, message, seconds, grown_bytes, printed))


class Worker:
    """A process that tries one file after the other; a new one takes its place when it dies or has to be ended."""

    def __init__(self, valid_file: pathlib.Path, timeout: float, callee: Callable[[pathlib.Path], None] = enhance_case) -> None:
        """The valid file is tried first in each new process, so that imports and models are not on a case's bill."""
        self._valid_file, self._timeout, self._callee = valid_file, timeout, callee
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, self._callee), daemon=True)
        self._process.start()
        other_end.close()
        warm_up = self._ask(self._valid_file, _START_SECONDS)
        if warm_up.status != "enhanced":
            raise RuntimeError(f"a valid file failed: {warm_up.status}, {warm_up.message} {warm_up.stderr}")

    def run(self, path: pathlib.Path) -> Outcome:
        """Try a file. Messages are without its folder."""
        outcome = self._ask(path, self._timeout)
        if not self._process.is_alive():
            self.close()
            self._start()
        folder = f"{path.parent}{os.sep}"
        return dataclasses.replace(outcome, message=outcome.message.replace(folder, ""))

    def _ask(self, path: pathlib.Path, timeout: float) -> Outcome:
        started = time.perf_counter()
        self._connection.send(path)
        while not self._connection.poll(_POLL_SECONDS):
            seconds = time.perf_counter() - started
            if seconds > timeout:
                return self._ended("hung", f"no answer within {timeout:.0f} s", seconds)
            if self._resident_bytes() > _MOST_BYTES:
                return self._ended("bloated", f"ended at {_MOST_BYTES / 1e6:.0f} MB", seconds, _MOST_BYTES)
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return Outcome("crashed", f"the process ended with {self._process.exitcode}", time.perf_counter() - started)

    def _ended(self, status: str, message: str, seconds: float, grown_bytes: int = 0) -> Outcome:
        self._process.kill()
        self._process.join()
        return Outcome(status, message, seconds, grown_bytes)

    def _resident_bytes(self) -> int:
        try:
            pages = pathlib.Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()
