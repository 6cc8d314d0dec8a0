"""The stand-in for TensorFlow Serving answers as the real one does; the tests of `jpegsr remote` rest on that."""

import base64
import io
import json
import pathlib
import shutil
import threading
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import served_models
import tensorflow as tf
from model_server import ModelServer
from PIL import Image
from served_models import ServingError
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

State = get_model_status_pb2.ModelVersionStatus


def config(base_path: pathlib.Path, **fields) -> model_server_config_pb2.ModelConfig:
    return model_server_config_pb2.ModelConfig(name="jpegsr", base_path=str(base_path), **fields)


def add_version(base_path: pathlib.Path, served_model: pathlib.Path, number: int) -> pathlib.Path:
    """Put a version there in one step, as exports do, without warm-up, for it to be there soon."""
    shutil.copytree(served_model, base_path / "copying", ignore=shutil.ignore_patterns(served_models.WARMUP_FILE.name))
    return (base_path / "copying").rename(base_path / str(number))


@pytest.fixture(scope="module")
def server(served_model):
    with ModelServer([config(served_model.parent)], poll_seconds=0, max_message_bytes=2_000_000) as server:
        yield server


class Connection:
    """The official stubs on a server."""

    def __init__(self, server: ModelServer):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_) -> None:
        self.channel.close()

    def predict(self, signature: str, inputs: dict, name: str = "jpegsr", version: int | None = None, label: str = ""):
        spec = model_pb2.ModelSpec(name=name, version_label=label, signature_name=signature)
        if version is not None:
            spec.version.value = version
        request = predict_pb2.PredictRequest(model_spec=spec)
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        response = self.prediction.Predict(request, timeout=20)
        return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}, response.model_spec.version.value

    def status(self) -> dict[int, tuple[int, str]]:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_pb2.ModelSpec(name="jpegsr"))
        entries = self.models.GetModelStatus(request, timeout=20).model_version_status
        return {entry.version: (entry.state, entry.status.error_message) for entry in entries}


def rest(server: ModelServer, path: str, body: dict | bytes | None = None) -> tuple[int, dict]:
    """(HTTP status, the JSON of the answer)."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(f"http://127.0.0.1:{server.rest_port}/v1/models/{path}", content)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def test_both_protocols_give_the_same_for_one_and_many_of_mixed_sizes(server, photo):
    pictures = [photo[:20, :30], photo[40:57, 10:50], photo[:1, :1]]
    files = [encoded(picture) for picture in pictures]
    with Connection(server) as connection:
        together = connection.predict("", {"image_bytes": np.array(files, object)})[0]["image_bytes"]
        alone = [connection.predict("upscale", {"image": picture[None]})[0]["upscaled"][0] for picture in pictures]
        batch = connection.predict("upscale", {"image": np.stack([pictures[0]] * 3)})[0]["upscaled"]
        assert connection.predict("restore", {"image": pictures[0][None]})[0]["restored"].shape == (1, 20, 30, 3)
    for content, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(decoded(content), expected)
    np.testing.assert_array_equal(batch, np.stack([alone[0]] * 3))
    # The rows of REST have no names where there is one tensor; both of its formats, and arrays.
    for body, key in (
        ({"instances": [b64(content) for content in files]}, "predictions"),
        ({"instances": [{"image_bytes": b64(content)} for content in files]}, "predictions"),
        ({"inputs": {"image_bytes": [b64(content) for content in files]}}, "outputs"),
        ({"signature_name": "serving_default", "inputs": [b64(content) for content in files]}, "outputs"),
    ):
        status, answer = rest(server, "jpegsr:predict", body)
        assert status == 200
        for content, expected in zip(answer[key], alone, strict=True):
            np.testing.assert_array_equal(decoded(base64.b64decode(content["b64"])), expected)
    for body, key in (({"instances": [pictures[0].tolist()]}, "predictions"), ({"inputs": [pictures[0].tolist()]}, "outputs")):
        status, answer = rest(server, "jpegsr/versions/1:predict", {"signature_name": "upscale", **body})
        np.testing.assert_array_equal(answer[key][0], alone[0])
    status, answer = rest(server, "jpegsr:predict", {"signature_name": "describe", "instances": ["scale", "nonsense"]})
    assert answer == {"predictions": ["2", ""]}


def test_metadata_and_status(server):
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=model_pb2.ModelSpec(name="jpegsr"))
    with Connection(server) as connection:
        with pytest.raises(grpc.RpcError) as error:
            connection.prediction.GetModelMetadata(request)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        request.metadata_field.append("signature_def")
        response = connection.prediction.GetModelMetadata(request)
        assert connection.status() == {1: (State.AVAILABLE, "")}
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    tiles = signatures.signature_def["upscale_tiles"].inputs["tiles"]
    assert [dimension.size for dimension in tiles.tensor_shape.dim] == [3, 48, 48, 3]
    status, answer = rest(server, "jpegsr/metadata")
    assert (status, answer["model_spec"]["version"]) == (200, "1")
    assert "describe" in answer["metadata"]["signature_def"]["signature_def"]
    entry = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert rest(server, "jpegsr") == rest(server, "jpegsr/versions/1") == (200, {"model_version_status": [entry]})


PICTURE = np.zeros((1, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("signature", "inputs", "options", "code", "words"),
    [
        ("upscale", {"image": PICTURE}, {"name": "other"}, "NOT_FOUND", "Latest(other)"),
        ("upscale", {"image": PICTURE}, {"version": 7}, "NOT_FOUND", "Specific(jpegsr, 7)"),
        ("upscale", {"image": PICTURE}, {"label": "x"}, "INVALID_ARGUMENT", "label: x"),
        ("other", {"image": PICTURE}, {}, "FAILED_PRECONDITION", '"other" not found'),
        ("upscale", {"picture": PICTURE}, {}, "INVALID_ARGUMENT", "Sent extra: {picture}. Missing but required: {image}"),
        ("upscale", {"image": PICTURE, "more": PICTURE}, {}, "INVALID_ARGUMENT", "2!=1"),
        ("upscale", {}, {}, "INVALID_ARGUMENT", "Missing but required: {image}"),
        ("upscale", {"image": PICTURE.astype(np.float32)}, {}, "INVALID_ARGUMENT", "to be uint8 but float32"),
        ("upscale", {"image": np.array([b"x"], object)}, {}, "INVALID_ARGUMENT", "to be uint8"),
        ("upscale", {"image": PICTURE[0]}, {}, "INVALID_ARGUMENT", "shape"),
        ("upscale", {"image": PICTURE[..., :1]}, {}, "INVALID_ARGUMENT", "shape"),
        ("upscale", {"image": PICTURE[:, :0]}, {}, "INVALID_ARGUMENT", ""),
        ("upscale_tiles", {"tiles": PICTURE}, {}, "INVALID_ARGUMENT", "shape"),
        ("", {"image_bytes": np.array([b"no picture"], object)}, {}, "INVALID_ARGUMENT", ""),
        ("", {"image_bytes": np.array([b""], object)}, {}, "INVALID_ARGUMENT", ""),
        ("upscale", {"image": np.zeros((1, 1000, 1000, 3), np.uint8)}, {}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_requests_that_grpc_refuses(server, signature, inputs, options, code, words):
    with Connection(server) as connection:
        with pytest.raises(grpc.RpcError) as error:
            connection.predict(signature, inputs, **options)
        assert (error.value.code().name, words in error.value.details()) == (code, True), error.value.details()
        assert connection.predict("upscale", {"image": PICTURE})[0]["upscaled"].shape == (1, 8, 8, 3)


def test_tensors_that_contradict_themselves(server):
    with Connection(server) as connection:
        for sizes, code in ((1, 5, 4, 3), "INVALID_ARGUMENT"), ((1, 10**6, 10**6, 3), "RESOURCE_EXHAUSTED"):
            request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name="jpegsr", signature_name="upscale"))
            request.inputs["image"].CopyFrom(tf.make_tensor_proto(PICTURE))
            request.inputs["image"].tensor_shape.CopyFrom(tf.TensorShape(sizes).as_proto())
            with pytest.raises(grpc.RpcError) as error:
                connection.prediction.Predict(request)
            assert error.value.code().name == code


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("other:predict", {"instances": [1]}, 404, "Latest(other)"),
        ("jpegsr/versions/7:predict", {"instances": [1]}, 404, "Specific(jpegsr, 7)"),
        ("jpegsr/labels/x:predict", {"instances": [1]}, 400, "label: x"),
        ("jpegsr:classify", {"instances": [1]}, 400, "Malformed request"),
        ("jpegsr:predict", b"", 400, "JSON Parse error"),
        ("jpegsr:predict", b"{", 400, "JSON Parse error"),
        ("jpegsr:predict", b"[" * 100_000, 400, "JSON Parse error"),
        ("jpegsr:predict", b"[1]", 400, "not object"),
        ("jpegsr:predict", {}, 400, "exactly one of"),
        ("jpegsr:predict", {"instances": [1], "inputs": [1]}, 400, "exactly one of"),
        ("jpegsr:predict", {"instances": []}, 400, "at least one value"),
        ("jpegsr:predict", {"instances": [{"b64": "?"}]}, 400, "Unable to base64 decode"),
        ("jpegsr:predict", {"instances": [{"other": "?"}]}, 400, "keys must be equal to: image_bytes"),
        ("jpegsr:predict", {"instances": ["no picture"]}, 400, ""),
        ("jpegsr:predict", {"inputs": {"other": ["?"]}}, 400, "Missing named input: image_bytes"),
        ("jpegsr:predict", {"signature_name": "other", "instances": [1]}, 400, '"other" not found'),
        ("jpegsr:predict", {"signature_name": 1, "instances": [1]}, 400, "must be a string"),
        ("jpegsr:predict", {"signature_name": "upscale", "instances": [[[[1, 2, 3]], [[1, 2]]]]}, 400, "unexpected size"),
        ("jpegsr:predict", {"signature_name": "upscale", "instances": [[[[0.5, 2, 3]]]]}, 400, "expected type: uint8"),
        ("jpegsr:predict", {"signature_name": "upscale", "instances": [[[[256, 2, 3]]]]}, 400, "range of uint8"),
        ("jpegsr:predict", {"signature_name": "upscale", "instances": [1]}, 400, "shape"),
        ("jpegsr:predict", b" " * 3_000_000, 413, "size"),
        ("other", None, 404, "any versions of model other"),
        ("jpegsr/versions/7", None, 404, "version 7"),
        ("jpegsr/labels/x", None, 400, "label: x"),
    ],
)
def test_requests_that_rest_refuses(server, path, body, status, words):
    code, answer = rest(server, path, body)
    assert (code, list(answer), words in answer["error"]) == (status, ["error"], True), answer
    assert rest(server, "jpegsr")[0] == 200


def test_requests_move_to_a_new_version_and_none_fails(served_model, tmp_path):
    add_version(tmp_path, served_model, 1)
    seen, stop = [], threading.Event()
    with ModelServer([config(tmp_path)], poll_seconds=0.05) as server, Connection(server) as connection:

        def keep_asking() -> None:
            while not stop.is_set():
                seen.append(connection.predict("upscale", {"image": PICTURE})[1])

        threads = [threading.Thread(target=keep_asking) for _ in range(2)]
        for thread in threads:
            thread.start()
        add_version(tmp_path, served_model, 3)
        deadline = time.monotonic() + 30
        while connection.status().get(1) != (State.END, "") and time.monotonic() < deadline:
            time.sleep(0.05)
        asked = len(seen)
        while len(seen) < asked + 4:
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        assert connection.status() == {1: (State.END, ""), 3: (State.AVAILABLE, "")}
        with pytest.raises(grpc.RpcError, match="Specific\\(jpegsr, 1\\)"):
            connection.predict("upscale", {"image": PICTURE}, version=1)
    assert set(seen) == {1, 3}
    assert set(seen[asked + 2 :]) == {3}


def test_labels_name_versions_that_serve(served_model, tmp_path):
    for number in (1, 2):
        add_version(tmp_path, served_model, number)
    both = {"specific": {"versions": [1, 2]}}
    labelled = config(tmp_path, model_version_policy=both, version_labels={"stable": 1, "canary": 2})
    with pytest.raises(ServingError, match="not currently available"):  # as the real one without its flag for that
        ModelServer([labelled])
    with ModelServer([labelled], poll_seconds=0, labels_before_load=True) as server, Connection(server) as connection:
        for label, number in {"stable": 1, "canary": 2}.items():
            assert connection.predict("upscale", {"image": PICTURE}, label=label)[1] == number
            assert rest(server, f"jpegsr/labels/{label}/metadata")[1]["model_spec"]["version"] == str(number)
        assert connection.predict("upscale", {"image": PICTURE})[1] == 2
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add().CopyFrom(labelled)
        request.config.model_config_list.config[0].version_labels["stable"] = 2
        connection.models.HandleReloadConfigRequest(request)
        assert connection.predict("upscale", {"image": PICTURE}, label="stable")[1] == 2


def test_warmup_runs_before_a_version_serves_and_bad_records_keep_it_from_that(server, served_model, tmp_path):
    assert server.models["jpegsr"].available[1].num_warmup_records == 4  # one per signature but upscale_tiles
    add_version(tmp_path, served_model, 1)
    with ModelServer([config(tmp_path)], poll_seconds=0.05) as server, Connection(server) as connection:
        broken = shutil.copytree(served_model, tmp_path / "copying")
        warmup = broken / served_models.WARMUP_FILE
        records = list(tf.data.TFRecordDataset(str(warmup)).as_numpy_iterator())
        with tf.io.TFRecordWriter(str(warmup)) as writer:
            for record in records:
                writer.write(record.replace(b"describe", b"describf"))
        broken.rename(tmp_path / "2")
        deadline = time.monotonic() + 30
        while connection.status().get(2, (0,))[0] != State.END and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "describf" in connection.status()[2][1]
        assert connection.predict("upscale", {"image": PICTURE})[1] == 1  # goes on
    with pytest.raises(ServingError, match="describf"):
        ModelServer([config(tmp_path)])
