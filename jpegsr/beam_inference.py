"""RunInference's side of a batch: encoded photos in, encoded results out.

Whole photos go through it, one at a time. Tiles of several photos in one call of the network would be faster by 12 % at 64
pixels a side, and by less than 2 % at 128 to 512 (int8 on OpenVINO, one thread), while each worker would have several photos
under way, with their pixels in memory. One photo is cut by the very code, and into the very tiles, of `jpegsr enhance`, so the
results are the same, byte for byte. All that touches pixels happens in a process beside the worker's: a photo that ends it, by
a defect in a decoder or by more memory than there is, costs one row of the dead-letter table and not the run.
"""

import contextlib
import dataclasses
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import pyvips
from apache_beam.ml.inference.base import ModelHandler

from jpegsr import beam_files, files, photos
from jpegsr.beam_files import Record
from jpegsr.errors import UserError

METRICS = "jpegsr"  # namespace of the counters
STAGES = ("decode", "network", "encode")
# Two, since the first process may have been ended for what others on the machine did.
_ATTEMPTS = 2


@dataclasses.dataclass(frozen=True, order=True)
class Picture:
    """Where an encoded picture is: a file, or a record of a TFRecord file."""

    path: str
    record: Record | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path if self.record is None else f"{self.path}#{self.record.index}"

    def read(self) -> bytes:
        """Its content; `UserError` if it cannot be read."""
        return beam_files.read(self.path) if self.record is None else beam_files.read_record(self.path, self.record)


@dataclasses.dataclass(frozen=True)
class Work:
    """A picture that has been read."""

    picture: Picture
    target: str
    content: bytes


@dataclasses.dataclass(frozen=True)
class Failure:
    """A row of the dead-letter table: which picture failed, where ("list", "read", "decode", ...) and why."""

    input: str
    stage: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Enhanced:
    """A result that has not been written yet.

    Attributes:
      content: the encoded picture.
      num_pixels: of the input.
      seconds: in each of `STAGES`.
    """

    content: bytes
    num_pixels: int
    seconds: dict[str, float]


class PhotoEnhancer:
    """Encoded photos in, encoded results out."""

    def __init__(self, settings: files.Settings, kind: str):
        """Args: what to do, and the format of results. `UserError` if the model cannot be loaded."""
        if settings.num_threads:
            pyvips.concurrency_set(settings.num_threads)
        self._enhancers = files.Enhancers(settings)
        self._kind = kind
        if not (settings.size or settings.longest_side):
            self._enhancers.get(settings.default_scale())

    def enhance(self, content: bytes, name: str, target: str) -> Enhanced | Failure:
        """Enhance the photo that messages call `name`; whatever is wrong with it becomes a `Failure`."""
        settings = self._enhancers.settings
        stage, times = STAGES[0], [time.perf_counter()]
        try:
            photo = photos.read(content, settings.max_pixels, name)
            photos.check_size(target, *settings.plan(*photo.pixels.shape[:2])[1:])
            stage = STAGES[1]
            times.append(time.perf_counter())
            result = self._enhancers.enhance(photo, name)
            stage = STAGES[2]
            times.append(time.perf_counter())
            encoded = photos.encode(result, photo, self._kind, settings.encoder)
            times.append(time.perf_counter())
        except Exception as error:  # the other photos go on
            return Failure(name, stage, files.reason(error, name))
        seconds = {stage: times[i + 1] - times[i] for i, stage in enumerate(STAGES)}
        return Enhanced(encoded, photo.pixels.shape[0] * photo.pixels.shape[1], seconds)


def be_enhancer(connection: Connection, settings: files.Settings, kind: str) -> None:
    """The process beside: answers the arguments of `PhotoEnhancer.enhance` until the worker is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the worker sees to this one
    problem = None
    try:
        enhancer = PhotoEnhancer(settings, kind)
    except UserError as error:
        problem = error
    with contextlib.suppress(EOFError, OSError):  # the worker may go at any time, while the model loads too
        connection.send(problem)
        while problem is None:
            connection.send(enhancer.enhance(*connection.recv()))


class IsolatedEnhancer:
    """A `PhotoEnhancer` in a process of its own; what RunInference calls a model.

    Threads take turns. The process ends with the one that made it, however that ends.
    """

    def __init__(self, settings: files.Settings, kind: str):
        """As `PhotoEnhancer`."""
        self._arguments = (settings, kind)
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process = context.Process(target=be_enhancer, args=(other_end, *self._arguments), daemon=True)
        self._process.start()
        other_end.close()
        try:
            error = self._connection.recv()
        except EOFError:
            raise UserError(f"the process that loads the model {self._end()}") from None
        if error is not None:
            raise error

    def _end(self) -> str:
        """How the process ended, in words."""
        self._process.join()
        code = self._process.exitcode or 0
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def enhance(self, content: bytes, name: str, target: str) -> Enhanced | Failure:
        """As `PhotoEnhancer.enhance`; a photo that ends the process twice is a `Failure`, too."""
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    self._connection.send((content, name, target))
                    return self._connection.recv()
                except (EOFError, OSError):
                    reason = self._end()
                    self._start()
        return Failure(name, "enhance", f"the process that enhanced it {reason}: out of memory, or a defect")


class PhotoHandler(ModelHandler[Work, tuple[Work, Enhanced | Failure], IsolatedEnhancer]):
    """Loads a model once per worker process, or, where it runs on a GPU, once for all processes of a machine."""

    def __init__(self, settings: files.Settings, kind: str):
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        super().__init__(min_batch_size=1, max_batch_size=1, env_vars=quiet)
        self._settings, self._kind = settings, kind

    def load_model(self) -> IsolatedEnhancer:
        return IsolatedEnhancer(self._settings, self._kind)

    def run_inference(
        self, batch: Sequence[Work], model: IsolatedEnhancer, inference_args: dict[str, Any] | None = None
    ) -> Iterator[tuple[Work, Enhanced | Failure]]:
        for work in batch:
            yield work, model.enhance(work.content, work.picture.name, work.target)

    def get_num_bytes(self, batch: Sequence[Work]) -> int:
        return sum(len(work.content) for work in batch)

    def get_metrics_namespace(self) -> str:
        return METRICS

    def share_model_across_processes(self) -> bool:
        return self._settings.device == "gpu"
