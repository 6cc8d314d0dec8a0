"""A stand-in for TensorFlow Serving in tests: the same wire formats, over the real SavedModel.

No package registry has the binary of TensorFlow Serving (`tensorflow_model_server`; it comes as a Debian package and as a
container image). So that clients and exported models can be tested without it, this program answers the same requests:

- gRPC: `PredictionService` (Predict, GetModelMetadata) and `ModelService` (GetModelStatus, HandleReloadConfigRequest), from the
  official protos in the package tensorflow-serving-api;
- REST: `/v1/models/NAME[/versions/N|/labels/L]:predict`, `/v1/models/NAME[...]` (status), `/v1/models/NAME[...]/metadata`;
- folders of numbered versions that are polled, version policies and labels, warm-up records that run before a version serves.

Statuses and messages follow the sources of TensorFlow Serving. It is slow, has no batching, and belongs to the tests: it is no
product, listens on 127.0.0.1 alone, and what it cannot show is anything about the real server's speed or memory.
"""

import argparse
import concurrent.futures
import contextlib
import ctypes
import http.server
import json
import os
import pathlib
import re
import signal
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import rest_codec
import tensorflow as tf
from google.protobuf import json_format, text_format
from served_models import Model, ServingError, State, decode_tensors, encode_tensor, serving_errors
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

_HTTP_STATUSES = {
    **dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400),
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class ModelServer:
    """The server, running from construction to `stop`.

    Args:
      configs: of the models; `ServingError` if one of them has no version that loads and warms up.
      port: of gRPC; 0 takes a free one.
      rest_port: of REST.
      poll_seconds: between looks at the version folders; 0 looks once.
      max_message_bytes: larger requests are refused, with RESOURCE_EXHAUSTED or HTTP's 413.
      num_threads: requests that are at work at a time; models run one after the other.
      as_content: results as tensor content, which is TensorFlow Serving's flag enable_serialization_as_tensor_content.
      labels_before_load: its flag allow_version_labels_for_unavailable_models.
    """

    def __init__(
        self,
        configs: Sequence[model_server_config_pb2.ModelConfig],
        port: int = 0,
        rest_port: int = 0,
        *,
        poll_seconds: float = 0.2,
        max_message_bytes: int = (1 << 31) - 1,
        num_threads: int = 4,
        as_content: bool = False,
        labels_before_load: bool = False,
    ):
        self.max_message_bytes = max_message_bytes
        self._as_content, self._labels_before_load = as_content, labels_before_load
        self._places, self._polling = threading.BoundedSemaphore(num_threads), threading.Lock()
        self.models: dict[str, Model] = {}
        self.configure(configs)
        for model in self.models.values():
            if not model.available:
                reasons = "; ".join(f"{number}: {error}" for number, (_, error) in model.states.items() if error)
                raise ServingError("UNKNOWN", f"model {model.config.name} did not become available: {reasons or 'no versions'}")
        limits = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("receive", "send")]
        self._workers = concurrent.futures.ThreadPoolExecutor(4 * num_threads)
        self._grpc = grpc.server(self._workers, options=[*limits, ("grpc.so_reuseport", 0)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(self), self._grpc)
        self.port = self._grpc.add_insecure_port(f"127.0.0.1:{port}")
        self._rest = _RestServer(("127.0.0.1", rest_port), _RestHandler.bound_to(self))
        self.rest_port = self._rest.server_address[1]
        self._stopped = threading.Event()
        self._grpc.start()
        threading.Thread(target=self._rest.serve_forever, args=(0.05,), daemon=True).start()
        if poll_seconds:
            threading.Thread(target=self._poll, args=(poll_seconds,), daemon=True).start()

    def __enter__(self) -> "ModelServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, grace_seconds: float | None = None) -> None:
        """End; requests under way are cut off, or have `grace_seconds` left."""
        self._stopped.set()
        self._grpc.stop(grace_seconds).wait()
        self._rest.shutdown()
        self._rest.server_close()
        self._workers.shutdown(wait=False)

    def _poll(self, seconds: float) -> None:
        while not self._stopped.wait(seconds):
            with self._polling, contextlib.suppress(OSError):  # a folder that is being removed
                for model in list(self.models.values()):
                    model.poll()

    def configure(self, configs: Sequence[model_server_config_pb2.ModelConfig]) -> None:
        """Serve these models, and no others."""
        with self._polling:
            for config in configs:
                states = self.models[config.name].states if config.name in self.models else {}
                for label, number in config.version_labels.items():
                    if not self._labels_before_load and states.get(number, (None,))[0] != State.AVAILABLE:
                        raise ServingError(
                            "FAILED_PRECONDITION",
                            f"Request to assign label {label} to version {number} of model {config.name}, "
                            "which is not currently available for inference",
                        )
            models = {config.name: self.models.get(config.name) or Model(config) for config in configs}
            for config in configs:
                models[config.name].config = config
                models[config.name].poll()
            self.models = models

    def model(self, name: str) -> Model:
        if name not in self.models:
            raise ServingError("NOT_FOUND", f"Servable not found for request: Latest({name})")
        return self.models[name]

    def status(self, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        if spec.name not in self.models:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        return self.models[spec.name].status(spec)

    def metadata(self, spec: model_pb2.ModelSpec) -> get_model_metadata_pb2.GetModelMetadataResponse:
        version = self.model(spec.name).version(spec)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=model_pb2.ModelSpec(name=spec.name))
        response.model_spec.version.value = version.number
        response.metadata["signature_def"].Pack(signatures)
        return response

    @contextlib.contextmanager
    def place(self, seconds: float | None = None) -> Iterator[None]:
        """One of the places for requests in models; waiting longer than `seconds` exceeds the deadline."""
        if not self._places.acquire(timeout=min(seconds, 1e6) if seconds is not None else None):
            raise ServingError("DEADLINE_EXCEEDED", "Deadline Exceeded")
        try:
            yield
        finally:
            self._places.release()

    def predict(self, request: predict_pb2.PredictRequest, seconds: float | None) -> predict_pb2.PredictResponse:
        spec = request.model_spec
        version = self.model(spec.name).version(spec)
        with self.place(seconds):
            inputs = decode_tensors(request.inputs, self.max_message_bytes)
            outputs = version.predict(spec.signature_name, inputs, request.output_filter)
        response = predict_pb2.PredictResponse(model_spec=spec)
        response.model_spec.version.value = version.number
        response.model_spec.signature_name = spec.signature_name or "serving_default"
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(encode_tensor(array, self._as_content))
        return response

    def predict_json(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        version = self.model(spec.name).version(spec)
        with self.place():
            request = rest_codec.decode_json(body)
            signature_name = request.get("signature_name", "")
            inputs = rest_codec.decode_inputs(request, version.dtypes(signature_name))
            return rest_codec.encode_outputs(version.predict(signature_name, inputs), "instances" in request)


def _answer(context: grpc.ServicerContext, action: Callable[[], Any]) -> Any:
    try:
        with serving_errors():
            return action()
    except ServingError as error:
        context.abort(grpc.StatusCode[error.code], error.message)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server: ModelServer):
        self._server = server

    def Predict(self, request, context):  # noqa: N802
        return _answer(context, lambda: self._server.predict(request, context.time_remaining()))

    def GetModelMetadata(self, request, context):  # noqa: N802
        if list(request.metadata_field) != ["signature_def"]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "GetModelMetadataRequest must specify the field signature_def")
        return _answer(context, lambda: self._server.metadata(request.model_spec))


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server: ModelServer):
        self._server = server

    def GetModelStatus(self, request, context):  # noqa: N802
        return _answer(context, lambda: self._server.status(request.model_spec))

    def HandleReloadConfigRequest(self, request, context):  # noqa: N802
        _answer(context, lambda: self._server.configure(request.config.model_config_list.config))
        return model_management_pb2.ReloadConfigResponse()


class _RestServer(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # with the 5 of the standard library, many clients at once are turned away


class _RestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model_server: ModelServer
    _PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:predict", re.IGNORECASE)
    _MODEL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?", re.IGNORECASE)

    @classmethod
    def bound_to(cls, model_server: ModelServer) -> type["_RestHandler"]:
        return type("RestHandler", (cls,), {"model_server": model_server})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > self.model_server.max_message_bytes:
            self.close_connection = True
            self._fail(413 if length.isdecimal() else 411, "request body refused for its size")
            self._discard(int(length) if length.isdecimal() else 0)
            return
        body = self.rfile.read(int(length))
        self._reply(self._PREDICT, lambda match: self.model_server.predict_json(self._spec(match), body))

    def _discard(self, num_bytes: int) -> None:
        """Read and forget: where a connection is closed with something unread, the client may lose the answer."""
        self.connection.settimeout(5)
        with contextlib.suppress(OSError):
            while num_bytes > 0 and (part := self.rfile.read(min(num_bytes, 1 << 16))):
                num_bytes -= len(part)

    def do_GET(self) -> None:
        self._reply(self._MODEL, self._describe)

    def _describe(self, match: re.Match) -> bytes:
        options = {"always_print_fields_with_no_presence": True}
        if not match[4]:
            return json_format.MessageToJson(self.model_server.status(self._spec(match)), **options).encode()
        response = self.model_server.metadata(self._spec(match))
        options["preserving_proto_field_name"] = True
        return json_format.MessageToJson(response, **options).encode()

    @staticmethod
    def _spec(match: re.Match) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match[1]), version_label=urllib.parse.unquote(match[3] or ""))
        if match[2]:
            spec.version.value = int(match[2])
        return spec

    def _reply(self, pattern: re.Pattern, action: Callable[[re.Match], bytes]) -> None:
        try:
            with serving_errors():
                if not (match := pattern.fullmatch(urllib.parse.urlsplit(self.path).path)):
                    raise ServingError("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
                self._send(200, action(match))
        except ServingError as error:
            self._fail(_HTTP_STATUSES.get(error.code, 500), error.message)

    def _fail(self, status: int, reason: str) -> None:
        self._send(status, json.dumps({"error": reason}).encode())

    def _send(self, status: int, body: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # the client has gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not worth a line each."""


def disable_xla() -> None:
    """Refuse to compile, in this whole process, as TensorFlow Serving does unless it is told to."""
    folder = pathlib.Path(tf.__file__).parent
    ctypes.CDLL(str(next(folder.glob("libtensorflow_cc.so*"))))._ZN10tensorflow21DisableXlaCompilationEv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_base_path", help="folder of version folders")
    parser.add_argument("--model_name", default="jpegsr")
    parser.add_argument("--model_config_file", help="ModelServerConfig in text format, instead of a path and a name")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rest_port", type=int, default=0)
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1.0)
    parser.add_argument("--max_message_bytes", type=int, default=(1 << 31) - 1)
    parser.add_argument("--num_threads", type=int, default=4)
    parser.add_argument("--enable_serialization_as_tensor_content", action="store_true")
    parser.add_argument("--allow_version_labels_for_unavailable_models", action="store_true")
    parser.add_argument("--xla_cpu_compilation_enabled", action="store_true")
    options = parser.parse_args()
    if not options.xla_cpu_compilation_enabled:
        disable_xla()
    if options.model_config_file:
        text = pathlib.Path(options.model_config_file).read_text(encoding="utf-8")
        configs = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    else:
        configs = [model_server_config_pb2.ModelConfig(name=options.model_name, base_path=options.model_base_path)]
    with ModelServer(
        configs,
        options.port,
        options.rest_port,
        poll_seconds=options.file_system_poll_wait_seconds,
        max_message_bytes=options.max_message_bytes,
        num_threads=options.num_threads,
        as_content=options.enable_serialization_as_tensor_content,
        labels_before_load=options.allow_version_labels_for_unavailable_models,
    ) as server:
        asked_to_stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked_to_stop.set())
        print(json.dumps({"port": server.port, "rest_port": server.rest_port}), flush=True)
        asked_to_stop.wait()


if __name__ == "__main__":
    main()
