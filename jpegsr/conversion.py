"""A trained model in the formats of other runtimes: OpenVINO, LiteRT, ONNX.

All of them take `image`, float32 `[1, H, W, 3]` in [0, 1], any height and width, and `strength`, a float32 scalar (the share
of the artifact removal that is applied, 1 as trained); they give `upscaled`, float32 `[1, scale * H, scale * W, 3]`, and
`restored`, `[1, H, W, 3]`, neither of them clipped; weights of stage car, which only restore, give `restored` alone.
`quantization` makes the int8 ones.
"""

import contextlib
import io
import logging
import os
import pathlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jpegsr import images, models
from jpegsr.console import silenced_stderr
from jpegsr.errors import UserError
from jpegsr.weights import TrainedModel

OUTPUTS = ("upscaled", "restored")
_SIGNATURE = (tf.TensorSpec((1, None, None, 3), tf.float32, "image"), tf.TensorSpec((), tf.float32, "strength"))
_ONNX_OPSET = 18


# OpenVINO's tools report their use to their makers, unless they run on a build server. They fork the process for it, and where
# NumPy's BLAS is at work at that moment, it waits forever for threads that the fork has ended.
_WITHOUT_TELEMETRY = {"CI": "true", "NNCF_CI": "1"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Converters keep to themselves: progress bars, warnings about their own parts, what they would send elsewhere."""
    before = {name: os.environ.get(name) for name in _WITHOUT_TELEMETRY}
    os.environ.update(_WITHOUT_TELEMETRY)
    try:
        with contextlib.redirect_stdout(io.StringIO()), silenced_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def outputs_of(trained: TrainedModel) -> tuple[str, ...]:
    """What the weights have been trained to give."""
    return ("restored",) if trained.card.get("stage") == "car" else OUTPUTS


@contextlib.contextmanager
def interchange_model(trained: TrainedModel) -> Iterator[pathlib.Path]:
    """A temporary SavedModel for converters: a signature per output and one (the default) with both."""
    joint = trained.model
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model"
        archive = keras.export.ExportArchive()
        names = outputs_of(trained)
        archive.add_endpoint("serving_default", _with_outputs(joint, names), [*_SIGNATURE])
        for name in names:
            archive.add_endpoint(name, _with_outputs(joint, (name,)), [*_SIGNATURE])
        archive.write_out(str(path), verbose=False)
        yield path


def _with_outputs(joint: keras.Model, names: tuple[str, ...]) -> Callable[..., dict[str, Any]]:
    def enhance(image: tf.Tensor, strength: tf.Tensor) -> dict[str, Any]:
        outputs = models.enhance(joint, image, strength)
        return {name: outputs[name] for name in names}

    return enhance


def openvino_model(saved_model: pathlib.Path) -> Any:
    """The `openvino.Model` of an `interchange_model`; `UserError` if OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        raise UserError("OpenVINO is not installed: pip install 'jpegsr[fast]'") from None
    model = openvino.convert_model(str(saved_model))
    for output in model.outputs:  # the names of the signature, whatever the converter made of them
        output.get_tensor().set_names({next(name for name in OUTPUTS if any(name in known for known in output.names))})
    return model


def additions_to_the_picture(model: Any) -> list[str]:
    """The names of the operations in an `openvino.Model` that give its outputs, but for moving pixels, where they are sums."""
    names = []
    for result in model.get_results():
        node = result.input_value(0).get_node()
        # Cells of pixels are laid out, and results turned from the runtime's order of the axes to ours.
        while node.get_type_name() in ("Transpose", "DepthToSpace"):
            node = node.input_value(0).get_node()
        if node.get_type_name() == "Add":
            names.append(node.get_friendly_name())
    return names


def convolutions(model: Any) -> list[str]:
    """The names of the convolutions in an `openvino.Model`, in the order in which they run; those of layers are lost."""
    return [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]


def save_openvino(model: Any, path: pathlib.Path, *, half_precision: bool) -> None:
    """Write an `openvino.Model` to a `.xml` file and the `.bin` file beside it, with constants in 16 bits if asked to."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        temporary = pathlib.Path(folder) / path.name
        model.set_rt_info("", ["conversion_parameters", "input_model"])  # a folder that is gone by then
        openvino.save_model(model, temporary, compress_to_fp16=half_precision)
        for suffix in (".bin", ".xml"):
            with images.written_beside(path.with_suffix(suffix)) as target:
                target.write_bytes(temporary.with_suffix(suffix).read_bytes())


def litert_content(
    saved_model: pathlib.Path,
    names: tuple[str, ...],
    calibration: Iterable[dict[str, np.ndarray]] | None = None,
    float_convolutions: Iterable[str] = (),
) -> bytes:
    """The `.tflite` file of an `interchange_model` with these outputs, in int8 if there are inputs to calibrate it with.

    Convolutions of CAR in `float_convolutions`, and the rectifiers behind them, stay in floats.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=list(names))
    if calibration is None:
        return converter.convert()
    inputs = list(calibration)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ((name, values) for name in names for values in inputs)
    left_out = [*_picture_operations(saved_model), *_car_operations(float_convolutions)]
    # The tool is made for finding which operations suffer from int8; nothing else lets some of them be left out.
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=lambda: iter(()),
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=left_out),
    )
    return debugger.get_nondebug_quantized_model()


def _picture_operations(saved_model: pathlib.Path) -> list[str]:
    """What LiteRT's converter may call the operations on the picture itself, to which both networks add what they find.

    In int8 they would round the picture three times to fewer than 256 values.
    """
    functions = tf.saved_model.load(str(saved_model)).signatures["serving_default"].graph.as_graph_def().library.function
    nodes = {node.name for function in functions for node in function.node_def}
    # Of the sums and the enlargement in `models`, and of the arithmetic in `models.enhance`.
    known = {name for name in nodes if re.search(r"/(restored|enlarged|upscaled)_\d+/|^(sub|mul|add)(_\d+)?$", name)}
    again = {f"{name}1" for name in known}  # as they are called in a second signature
    # What a signature gives bears the name of the call of its function, not of the operation within.
    results = {f"StatefulPartitionedCall{suffix}:0" for suffix in ("", "_1", "_2")}
    return sorted(known | again | results)


def _car_operations(convolutions: Iterable[str]) -> list[str]:
    """What LiteRT's converter calls convolutions of CAR and the rectifiers that may stand behind them."""
    names = []
    for convolution in convolutions:
        layer, rectifier = f"car_1/{convolution}_1", f"car_1/{convolution.removesuffix('_conv1')}_relu_1"
        names += [f"{layer}/BiasAdd;{layer}/convolution;{layer}/Squeeze", f"{rectifier}/LeakyRelu"]
    return [*names, *(f"{name}1" for name in names)]


def onnx_content(trained: TrainedModel) -> bytes:
    """The `.onnx` file of a model; `UserError` if the converter is not installed."""
    try:
        import tf2onnx
    except ImportError:
        raise UserError("the ONNX converter is not installed: pip install 'jpegsr[onnx]'") from None
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    joint = trained.model
    function = tf.function(lambda image, strength: models.enhance(joint, image, strength), [*_SIGNATURE], autograph=False)
    model, _ = tf2onnx.convert.from_function(function, [*_SIGNATURE], opset=_ONNX_OPSET)
    for output in model.graph.output:  # the names of the dictionary, whatever the converter made of them
        _rename_output(model.graph, output.name, next(name for name in OUTPUTS if name in output.name))
    return model.SerializeToString()


def _rename_output(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for output in graph.output:
        if output.name == old:
            output.name = new
