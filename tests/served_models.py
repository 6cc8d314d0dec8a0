"""The models of `model_server`: versions of SavedModels, loaded, warmed up and unloaded as their folder and policy say."""

import contextlib
import pathlib
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import get_model_status_pb2, model_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

WARMUP_FILE = pathlib.Path("assets.extra", "tf_serving_warmup_requests")
State = get_model_status_pb2.ModelVersionStatus
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# One model at a time runs, however many requests are taken: TensorFlow 2.21 with oneDNN corrupts its memory, once in some
# thousand runs, where several threads of a process convolve pictures of different sizes.
_running = threading.Lock()


class ServingError(Exception):
    """The answer to a request that fails: the name of a gRPC status, and the reason."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message[:1024]  # longer ones do not fit into the headers of gRPC


@contextlib.contextmanager
def serving_errors() -> Iterator[None]:
    """Whatever goes wrong with a request, as a `ServingError`: it must not harm the server."""
    try:
        yield
    except ServingError:
        raise
    except tf.errors.OpError as error:
        # Python's SavedModel loader puts a place in front of what the operation says.
        message = error.message.rpartition("<stack traces unavailable>\n")[2]
        raise ServingError(_CODES[error.error_code].name, message) from None
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", str(error)) from None
    except MemoryError:
        raise ServingError("RESOURCE_EXHAUSTED", "out of memory") from None
    except Exception as error:
        traceback.print_exc()
        raise ServingError("INTERNAL", f"{type(error).__name__}: {error}") from error


class Version:
    """One loaded SavedModel; it does not serve before its warm-up records have run."""

    def __init__(self, folder: pathlib.Path):
        self.number = int(folder.name)
        proto = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = proto.meta_graphs[0].signature_def
        self._model = tf.saved_model.load(str(folder))
        self.num_warmup_records = 0
        warmup = folder / WARMUP_FILE
        for record in tf.data.TFRecordDataset(str(warmup)).as_numpy_iterator() if warmup.exists() else ():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            self.predict(request.model_spec.signature_name, decode_tensors(request.inputs, 1 << 31))
            self.num_warmup_records += 1

    def dtypes(self, signature_name: str) -> dict[str, np.dtype]:
        """Of the inputs of a signature, as REST needs them: an unknown name is answered differently there."""
        if (name := signature_name or "serving_default") not in self.signatures:
            raise ServingError("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def')
        inputs = self.signatures[name].inputs
        return {key: np.dtype(tf.as_dtype(inputs[key].dtype).as_numpy_dtype) for key in sorted(inputs)}

    def predict(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        name = signature_name or "serving_default"
        if name not in self.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        self._check(inputs, signature)
        for output in output_filter:
            if output not in signature.outputs:
                raise ServingError("INVALID_ARGUMENT", f"output tensor alias not found in signature: {output}")
        tensors = {key: tf.constant(value, signature.inputs[key].dtype) for key, value in inputs.items()}
        with _running:
            outputs = self._model.signatures[name](**tensors)
        return {key: outputs[key].numpy() for key in output_filter or sorted(outputs)}

    @staticmethod
    def _check(inputs: Mapping[str, np.ndarray], signature: meta_graph_pb2.SignatureDef) -> None:
        sent, wanted = set(inputs), set(signature.inputs)
        if sent != wanted:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{','.join(sorted(sent))}}}) != "
                f"len({{{','.join(sorted(wanted))}}}). Sent extra: {{{','.join(sorted(sent - wanted))}}}. "
                f"Missing but required: {{{','.join(sorted(wanted - sent))}}}.",
            )
        for key, array in inputs.items():
            dtype, shape = tf.as_dtype(signature.inputs[key].dtype), tf.TensorShape(signature.inputs[key].tensor_shape)
            if np.dtype(dtype.as_numpy_dtype) != array.dtype:
                raise ServingError("INVALID_ARGUMENT", f"Expects {key} to be {dtype.name} but {array.dtype.name} is provided")
            if not shape.is_compatible_with(array.shape):
                raise ServingError("INVALID_ARGUMENT", f"Expects {key} of shape {shape} but {list(array.shape)} is provided")


def decode_tensors(protos: Mapping[str, tensor_pb2.TensorProto], max_bytes: int) -> dict[str, np.ndarray]:
    """Tensors of a request; `ServingError` if one contradicts itself, or unfolds to more than `max_bytes`."""
    arrays = {}
    for name, proto in protos.items():
        try:
            size = tf.as_dtype(proto.dtype).size * tf.TensorShape(proto.tensor_shape).num_elements()
            if size > max_bytes:
                raise ServingError("RESOURCE_EXHAUSTED", f"input {name} takes {size} bytes, above the limit of {max_bytes}")
            arrays[name] = tf.make_ndarray(proto)
        except (TypeError, ValueError, KeyError) as error:
            raise ServingError("INVALID_ARGUMENT", f"tensor parsing error: {name}: {error}") from None
    return arrays


def encode_tensor(array: np.ndarray, as_content: bool) -> tensor_pb2.TensorProto:
    """As the server does by default, a field per value; as content, integers are shorter (one byte for one of uint8)."""
    if array.dtype != np.uint8 or as_content:
        return tf.make_tensor_proto(array)
    shape = tf.TensorShape(array.shape).as_proto()
    return tensor_pb2.TensorProto(dtype=tf.uint8.as_datatype_enum, tensor_shape=shape, int_val=array.ravel().tolist())


class Model:
    """The versions of one model, as its policy wants them."""

    def __init__(self, config: model_server_config_pb2.ModelConfig):
        self.config = config
        self.available: dict[int, Version] = {}  # replaced, never changed: requests read it without a lock
        self.states: dict[int, tuple[int, str]] = {}

    def poll(self) -> None:
        """Load and unload what the folder and the policy ask for; old versions serve until new ones do."""
        base = pathlib.Path(self.config.base_path)
        present = sorted(int(path.name) for path in base.iterdir() if path.name.isdigit()) if base.is_dir() else []
        policy = self.config.model_version_policy
        wanted = present[-(policy.latest.num_versions or 1) :]
        if policy.HasField("all"):
            wanted = present
        elif policy.HasField("specific"):
            wanted = [number for number in present if number in policy.specific.versions]
        for number in wanted:
            if number not in self.available and self.states.get(number, (None, ""))[0] != State.END:
                self._load(base / str(number))
        if any(number in self.available for number in wanted):
            for number in set(self.available) - set(wanted):
                self.available = {key: version for key, version in self.available.items() if key != number}
                self.states[number] = State.END, ""
        self.states = {key: state for key, state in self.states.items() if key in present or state[0] == State.AVAILABLE}

    def _load(self, folder: pathlib.Path) -> None:
        number = int(folder.name)
        self.states[number] = State.LOADING, ""
        try:
            with serving_errors():
                version = Version(folder)
        except ServingError as error:
            self.states[number] = State.END, f"{error.code}: {error.message}"
        else:
            self.available = dict(sorted({**self.available, number: version}.items()))
            self.states[number] = State.AVAILABLE, ""

    def number_of(self, spec: model_pb2.ModelSpec) -> int | None:
        """The version that a request names by number or label, or None."""
        if spec.HasField("version"):
            return spec.version.value
        if spec.version_label:
            if spec.version_label not in self.config.version_labels:
                raise ServingError("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
            return self.config.version_labels[spec.version_label]
        return None

    def version(self, spec: model_pb2.ModelSpec) -> Version:
        number, available = self.number_of(spec), self.available
        if number is None and available:
            return available[max(available)]
        if number not in available:
            request = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {request}")
        return available[number]

    def status(self, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        number, states = self.number_of(spec), self.states
        if number is not None and number not in states:
            raise ServingError("NOT_FOUND", f"Could not find version {number} of model {spec.name}")
        if not states:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for key, (state, error) in sorted(states.items(), reverse=True):
            if number in (None, key):
                entry = response.model_version_status.add(version=key, state=state)
                entry.status.error_code, entry.status.error_message = (2 if error else 0), error
        return response
