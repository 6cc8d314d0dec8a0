"""A model on a TensorFlow Serving server as a `Network`, so that everything but the network itself is done here.

The model must have been written by `jpegsr export`. Pictures of up to `MAX_REQUEST_PIXELS` are one request; larger ones are cut
here: over gRPC into the tiles of fixed shape that the model is compiled for, over REST, to restore, and where a picture is too
thin or ends off the grid of the network, into tiles of up to that many pixels. The server works in 8 bits.

Requests that get no answer are sent again: the network is a function, so a second answer is the same as the first. The newest
version serves unless one is named; a picture in tiles that is under way while a server changes versions may have parts of both.
"""

import itertools
import logging
import random
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np

from jpegsr.errors import UserError
from jpegsr.inference import Tiling
from jpegsr.pixels import to_levels, to_unit
from jpegsr.runtimes import Network
from jpegsr.servers import DeadlineError, Server, UnavailableError

MAX_REQUEST_PIXELS = 512 * 512
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0  # seconds

_logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
Protocol = Literal["grpc", "rest"]


def connect(server: Server, scale: int | None = None, protocol: Protocol = "grpc", max_retries: int = 10) -> Network:
    """Make a model on a server ready.

    Args:
      server: where it is.
      scale: 1 for the restored picture at its own size; by default what the model does.
      protocol: gRPC needs TensorFlow here; REST does not, but moves more bytes.
      max_retries: of a request to which nothing answers, with growing pauses: 10 of them take about a minute. A request whose
        deadline passes is sent once more.

    Raises:
      UserError: nothing answers, or there is no model of this package with that name, version and scale.
    """
    if max_retries < 0:
        raise UserError(f"--max_retries={max_retries} is below zero")
    client, retries = _client(server, protocol), _Retries(server, max_retries)
    facts, image_format = _facts(client, retries, server)
    if scale not in (None, 1, facts["scale"]):
        raise UserError(f"model {server.model_name!r} on {server.address} enlarges {facts['scale']} times, not {scale}")
    if protocol == "rest" and scale != 1 and image_format == "jpeg":
        _logger.warning("model %r was exported to answer in JPEG, which costs quality: gRPC avoids that", server.model_name)
    if scale == 1:
        send, factor, overlap, fixed = client.restore, 1, facts["restore_overlap"], None
    else:
        send, factor, overlap, fixed = client.upscale, facts["scale"], facts["overlap"], retries.call(client.fixed_tiles)

    def run(pixels: np.ndarray, strength: float) -> np.ndarray:
        if strength != 1:
            raise UserError("a server removes all artifacts that it finds: there is no strength but 1")
        count, height, width, channels = pixels.shape
        levels = _coloured(to_levels(pixels))
        answer = retries.call(lambda: send(levels))
        if answer.shape != (count, height * factor, width * factor, channels):
            raise UserError(f"the server makes {list(answer.shape)} of {list(pixels.shape)}: its model has changed")
        return to_unit(answer)

    def close() -> None:
        retries.stop()
        client.close()

    return Network(
        run=run,
        scale=factor,
        overlap=overlap,
        alignment=facts["alignment"],
        bytes_per_pixel=4 * 3 * (1 + factor**2),
        runtime="server",
        tiling=Tiling(factor, overlap, facts["alignment"], min(MAX_REQUEST_PIXELS, facts["max_pixels"]), fixed),
        is_8_bit=True,
        close=close,
    )


def _coloured(levels: np.ndarray) -> np.ndarray:
    """Tiles `[N, h, w, 3]`, none without any colour: where there is none, the blue of a corner is changed by one level.

    The server keeps what is colourless free of tints, as `Enhancer` does. But Enhancer decides that for a whole photo, and a
    gray part of a colour photo would differ from its neighbours. (The channels of a gray photo are then averaged here, after
    they have been rounded: up to 2 levels from what Enhancer does.)
    """
    is_gray = (levels == levels[..., :1]).all(axis=(1, 2, 3))
    levels[is_gray, 0, 0, 2] ^= 1
    return levels


def _client(server: Server, protocol: Protocol) -> Any:
    """The `Client` of a protocol; the one of gRPC imports TensorFlow."""
    if protocol == "grpc":
        from jpegsr import remote_grpc

        return remote_grpc.Client(server)
    from jpegsr import remote_rest

    return remote_rest.Client(server)


def _facts(client: Any, retries: "_Retries", server: Server) -> tuple[dict[str, int], str]:
    """What has to be known of a model to cut pictures for it, and the format of its answers.

    `UserError` if the model is none of this package's.
    """
    names = ("scale", "overlap", "restore_overlap", "alignment", "max_pixels")
    *values, image_format = retries.call(lambda: client.describe((*names, "image_format")))
    if not all(value.isdecimal() for value in values):
        raise UserError(
            f"model {server.model_name!r} on {server.address} does not say what it is: export it with `jpegsr export`"
        )
    return dict(zip(names, map(int, values), strict=True)), image_format


class _Retries:
    """Sends requests again while nothing answers. Thread-safe."""

    def __init__(self, server: Server, max_retries: int):
        self._server, self._max_retries = server, max_retries
        self._stopped, self._has_warned = threading.Event(), threading.Event()

    def stop(self) -> None:
        """End the pauses: what is waiting fails."""
        self._stopped.set()

    def call(self, request: Callable[[], _Answer]) -> _Answer:
        """What a request gives; `UserError` if it is refused, or never answered."""
        num_deadlines = 0
        for attempt in itertools.count():
            try:
                if self._stopped.is_set():
                    raise UnavailableError("called off")
                answer = request()
            except UnavailableError as error:
                self._pause_or_give_up(attempt, str(error))
            except DeadlineError:
                num_deadlines += 1
                if num_deadlines > 1 or self._stopped.is_set():
                    raise UserError(
                        f"no answer from {self._server.address} within --deadline={self._server.deadline:g} seconds, twice"
                    ) from None
                self._pause(attempt)  # what took too long is likely to be busy with it still
            else:
                self._has_warned.clear()
                return answer
        raise AssertionError  # the loop has no end

    def _pause_or_give_up(self, attempt: int, reason: str) -> None:
        if attempt >= self._max_retries or self._stopped.is_set():
            tries = f"{attempt + 1} attempt{'s' if attempt else ''}"
            raise UserError(f"no server answers at {self._server.address} ({tries}): {reason}") from None
        if not self._has_warned.is_set():
            self._has_warned.set()
            _logger.warning("no server answers at %s, trying again", self._server.address)
        self._pause(attempt)

    def _pause(self, attempt: int) -> None:
        # Clients that were cut off together must not come back together.
        pause = min(_FIRST_PAUSE * 2 ** min(attempt, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1.5)
        self._stopped.wait(pause)
