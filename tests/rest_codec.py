"""TensorFlow Serving's JSON for tensors: request bodies -> arrays, arrays -> response bodies.

The rules are those of https://www.tensorflow.org/tfx/serving/api_rest and of `json_tensor.cc` there: "instances" (row format, a
list of examples) is answered by "predictions", "inputs" (columnar, whole tensors) by "outputs"; bytes are `{"b64": ...}`, and
strings come back in that form if the name of the output ends in `_bytes`.
"""

import base64
import binascii
import json
from collections.abc import Mapping

import numpy as np


def decode_json(body: bytes) -> dict:
    """The object that a body holds; `ValueError` if it holds none."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise ValueError("JSON Value: Is not object")
    if not isinstance(request.get("signature_name", ""), str):
        raise ValueError("JSON Value: not formatted correctly. 'signature_name' key must be a string value.")
    return request


def decode_inputs(request: dict, dtypes: Mapping[str, np.dtype]) -> dict[str, np.ndarray]:
    """The input tensors of a request.

    Args:
      request: from `decode_json`.
      dtypes: of the signature's inputs; object stands for strings.

    Raises:
      ValueError: the request is not of one of the two formats, or holds other names or types.
    """
    if ("instances" in request) == ("inputs" in request):
        raise ValueError("Not formatted correctly expecting exactly one of 'inputs' or 'instances' keys to exist")
    columns = _columns_of_rows(request["instances"], dtypes) if "instances" in request else _columns(request["inputs"], dtypes)
    return {name: _to_array(name, value, dtypes[name]) for name, value in columns.items()}


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _columns(inputs: object, dtypes: Mapping[str, np.dtype]) -> dict[str, object]:
    if not isinstance(inputs, dict) or _is_base64(inputs):
        if len(dtypes) > 1:
            raise ValueError("inputs is a plain value/list, but expecting an object as multiple input tensors required")
        return dict.fromkeys(dtypes, inputs)
    for name in dtypes:
        if name not in inputs:
            raise ValueError(f"Missing named input: {name} in 'inputs' object.")
    return {name: inputs[name] for name in dtypes}  # others are ignored, as the server does


def _columns_of_rows(rows: object, dtypes: Mapping[str, np.dtype]) -> dict[str, object]:
    if not isinstance(rows, list) or not rows:
        raise ValueError("Expecting 'instances' to be a list/array with at least one value")
    are_objects = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not are_objects and len(dtypes) > 1:
        raise ValueError("instances is a plain list, but expecting list of objects as multiple input tensors required")
    for i, row in enumerate(rows):
        if are_objects != (isinstance(row, dict) and not _is_base64(row)):
            raise ValueError(f"Expecting {'object' if are_objects else 'value/list'} at item {i} of input list")
        if are_objects and set(row) != set(dtypes):
            raise ValueError(
                f"Failed to process element: {i} of 'instances' list. JSON object keys must be equal to: {','.join(dtypes)}"
            )
    return {name: [row[name] if are_objects else row for row in rows] for name in dtypes}


def _to_array(name: str, value: object, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "O":
        strings = _decode_strings(value)
        return np.array(strings, object).reshape(_shape(strings))
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError(f"Encountered list at unexpected size in input {name}: all rows must have one shape") from None
    if array.dtype.kind not in {"u": "iu", "i": "iu", "f": "iuf", "b": "b"}[dtype.kind] and array.size:
        raise ValueError(f"JSON Value of input {name} is not of expected type: {dtype.name}")
    if dtype.kind in "iu" and array.size and not (np.iinfo(dtype).min <= array.min() and array.max() <= np.iinfo(dtype).max):
        raise ValueError(f"JSON Value of input {name} is not within the range of {dtype.name}")
    return array.astype(dtype)


def _decode_strings(value: object) -> object:
    """Nested lists of JSON strings and base64 objects -> nested lists of bytes."""
    if isinstance(value, list):
        return [_decode_strings(item) for item in value]
    if isinstance(value, str):
        return value.encode()
    if not _is_base64(value):
        raise ValueError(f"JSON Value of type {type(value).__name__} is not of expected type: string")
    try:
        return base64.b64decode(value["b64"], validate=True)  # type: ignore[index]
    except binascii.Error:
        raise ValueError("Unable to base64 decode") from None


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    shapes = {_shape(item) for item in value}
    if len(shapes) > 1:
        raise ValueError("Encountered list at unexpected size: all rows must have one shape")
    return (len(value), *next(iter(shapes), ()))


def encode_outputs(outputs: Mapping[str, np.ndarray], is_row_format: bool) -> bytes:
    """The body of a response; `ValueError` if the rows of the outputs differ in number."""
    values = {name: _encode_array(name, array) for name, array in outputs.items()}
    only = next(iter(values.values())) if len(values) == 1 else None
    if not is_row_format:
        return json.dumps({"outputs": values if only is None else only}).encode()
    if len({array.shape[:1] for array in outputs.values()}) > 1 or any(array.ndim == 0 for array in outputs.values()):
        raise ValueError("Tensors have no or an inconsistent batch size")
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)] if only is None else only
    return json.dumps({"predictions": rows}).encode()


def _encode_array(name: str, array: np.ndarray) -> object:
    if array.dtype != object:
        return array.tolist()

    def encode(value: object) -> object:
        if isinstance(value, list):
            return [encode(item) for item in value]
        content = value if isinstance(value, bytes) else str(value).encode()
        return {"b64": base64.b64encode(content).decode()} if name.endswith("_bytes") else content.decode(errors="replace")

    return encode(array.tolist())
