"""The requests of `remote` over REST.

Pictures to enlarge travel as PNG in base64 through `serving_default`, as an array in JSON would be three times as large. There
is no such signature for restoring, so there it is arrays. The answers are lossless if the model was exported to answer in PNG.
Each request has a connection of its own.
"""

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import urllib.parse
from typing import Any

import numpy as np
import pyvips

from jpegsr.inference import FixedTiles
from jpegsr.servers import DeadlineError, Server, UnavailableError, refusal
from jpegsr.vips import as_array, as_image, one_line

# The second is a proxy's word for a server that restarts.
_BUSY = (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.BAD_GATEWAY, http.HTTPStatus.TOO_MANY_REQUESTS)


class Client:
    """A model on a server. Thread-safe.

    All methods raise `UnavailableError`, `DeadlineError`, or `UserError` for requests that the server refuses.
    """

    def __init__(self, server: Server):
        self._server = server
        self._open: set[http.client.HTTPConnection] = set()
        self._lock, self._is_closed = threading.Lock(), False

    def describe(self, keys: tuple[str, ...]) -> list[str]:
        """What the model says of itself, by key; "" for what it does not know."""
        return self._predict("describe", "keys", list(keys))

    def fixed_tiles(self) -> FixedTiles | None:
        """None: encoded pictures may have any size."""
        return None

    def upscale(self, levels: np.ndarray) -> np.ndarray:
        """uint8 `[N, h, w, 3]` -> `[N, scale * h, scale * w, 3]`."""
        pictures = [as_image(picture).pngsave_buffer(compression=1) for picture in levels]
        encoded = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]
        answers = self._predict("serving_default", "image_bytes", encoded)
        try:
            return np.stack([_decode(base64.b64decode(answer["b64"])) for answer in answers])
        except pyvips.Error as error:
            raise refusal("OK", f"but answers with no picture: {one_line(error)}") from None

    def restore(self, levels: np.ndarray) -> np.ndarray:
        """uint8 `[N, h, w, 3]` -> the same without compression artifacts."""
        return np.array(self._predict("restore", "image", levels.tolist()), np.uint8)

    def close(self) -> None:
        """Break off the requests that are under way, which then end with an error."""
        with self._lock:
            self._is_closed = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _path(self) -> str:
        server = self._server
        path = f"/v1/models/{urllib.parse.quote(server.model_name, safe='')}"
        if server.version is not None:
            path += f"/versions/{server.version}"
        if server.label is not None:
            path += f"/labels/{urllib.parse.quote(server.label, safe='')}"
        return f"{path}:predict"

    def _predict(self, signature: str, input_name: str, value: Any) -> Any:
        body = json.dumps({"signature_name": signature, "inputs": {input_name: value}}).encode()
        try:
            status, content = self._post(body)
        except TimeoutError:
            raise DeadlineError from None
        except ssl.SSLCertVerificationError as error:
            raise refusal("TLS", error.verify_message) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(str(error) or type(error).__name__) from None
        try:
            answer = json.loads(content)
            if status == http.HTTPStatus.OK:
                return answer["outputs"]
            reason = str(answer["error"])
        except (ValueError, LookupError, TypeError):
            reason = "what answers is no TensorFlow Serving"
        if status in _BUSY:
            raise UnavailableError(reason)
        if status == http.HTTPStatus.GATEWAY_TIMEOUT:
            raise DeadlineError
        raise refusal(f"HTTP {status}", reason)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        server = self._server
        kind = http.client.HTTPSConnection if server.tls else http.client.HTTPConnection
        connection = kind(server.host, server.port, timeout=server.deadline)
        try:
            connection.connect()
            with self._lock:
                if self._is_closed:
                    raise UnavailableError("called off")
                self._open.add(connection)
            # A server that refuses a request before it has read it may say why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", self._path(), body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _decode(content: bytes) -> np.ndarray:
    """A picture of three channels, uint8 `[H, W, 3]`."""
    image = pyvips.Image.new_from_buffer(content, "", access="sequential", fail_on="error")
    return as_array(image.colourspace("srgb"))
