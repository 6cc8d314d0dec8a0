"""The requests of `remote` over gRPC. Importing this imports TensorFlow, whose protos are those of the requests."""

import logging
import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read at import; below that, each lost connection is a line on stderr

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2, prediction_service_pb2_grpc

from jpegsr.inference import FixedTiles
from jpegsr.servers import DeadlineError, RefusedError, Server, UnavailableError, refusal

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that has been restarted is found again within this time.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]

_CANNOT_COMPILE = ("INTERNAL", "UNIMPLEMENTED", "NOT_FOUND")
_logger = logging.getLogger(__name__)


class Client:
    """A model on a server. Thread-safe.

    All methods raise `UnavailableError`, `DeadlineError`, or `UserError` for requests that the server refuses.
    """

    def __init__(self, server: Server):
        self._server = server
        if server.tls:
            self._channel = grpc.secure_channel(server.address, grpc.ssl_channel_credentials(), _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(server.address, _OPTIONS)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._fixed: FixedTiles | None = None
        self._has_compiler = True

    def describe(self, keys: tuple[str, ...]) -> list[str]:
        """What the model says of itself, by key; "" for what it does not know."""
        values = self._predict("describe", "keys", np.array(keys, object), "values")
        return [value.decode() for value in values]

    def fixed_tiles(self) -> FixedTiles | None:
        """The shape of tiles that the model is compiled for; `upscale` makes use of it from then on."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=self._spec(), metadata_field=["signature_def"])
        response = self._call(self._stub.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        tiles = signatures.signature_def["upscale_tiles"].inputs["tiles"]
        sizes = [dimension.size for dimension in tiles.tensor_shape.dim]
        is_fixed = len(sizes) == 4 and min(sizes) > 0 and sizes[1] == sizes[2]
        self._fixed = FixedTiles(side=sizes[1], count=sizes[0]) if is_fixed else None
        return self._fixed

    def upscale(self, levels: np.ndarray) -> np.ndarray:
        """uint8 `[N, h, w, 3]` -> `[N, scale * h, scale * w, 3]`; N is at most the count of fixed tiles, if of their shape."""
        if self._fixed is None or levels.shape[1:3] != (self._fixed.side, self._fixed.side) or not self._has_compiler:
            return self._predict("upscale", "image", levels, "upscaled")
        missing = self._fixed.count - len(levels)
        full = np.pad(levels, ((0, missing), (0, 0), (0, 0), (0, 0)))
        try:
            return self._predict("upscale_tiles", "tiles", full, "upscaled")[: len(levels)]
        except RefusedError as error:
            if error.status not in _CANNOT_COMPILE:
                raise
            # TensorFlow Serving compiles only if it is told to, and on some devices not at all.
            _logger.warning("the server does not compile, tiles go uncompiled: %s", error)
            self._has_compiler = False
            return self.upscale(levels)

    def restore(self, levels: np.ndarray) -> np.ndarray:
        """uint8 `[N, h, w, 3]` -> the same without compression artifacts."""
        return self._predict("restore", "image", levels, "restored")

    def close(self) -> None:
        """Break off the requests that are under way, which then end with an error."""
        self._channel.close()

    def _spec(self, signature: str = "") -> model_pb2.ModelSpec:
        server = self._server
        spec = model_pb2.ModelSpec(name=server.model_name, version_label=server.label, signature_name=signature)
        if server.version is not None:
            spec.version.value = server.version
        return spec

    def _predict(self, signature: str, input_name: str, array: np.ndarray, output_name: str) -> np.ndarray:
        request = predict_pb2.PredictRequest(model_spec=self._spec(signature))
        request.inputs[input_name].CopyFrom(tf.make_tensor_proto(array))
        response = self._call(self._stub.Predict, request)
        if output_name not in response.outputs:
            raise refusal("OK", f"but gives no {output_name}")
        return tf.make_ndarray(response.outputs[output_name])

    def _call(self, method, request):
        try:
            return method(request, timeout=self._server.deadline)
        except grpc.RpcError as error:
            status, reason = error.code(), error.details() or ""
        except ValueError as error:  # the channel is closed
            raise UnavailableError(str(error)) from None
        if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # cancelled by the server: it goes down
            raise UnavailableError(reason)
        if status == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise DeadlineError
        raise refusal(status.name, reason)
