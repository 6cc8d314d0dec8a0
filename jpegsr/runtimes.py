"""What executes a model: TensorFlow in float32, OpenVINO and LiteRT in int8.

The int8 files are made by `quantization` and lie beside the `.keras` file; a runtime that has none for a model says so.
TensorFlow and Keras are imported only for the runtime of that name.
"""

import collections
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from jpegsr import model_files
from jpegsr.config import ModelConfig
from jpegsr.console import silenced_stderr
from jpegsr.errors import UserError, first_line
from jpegsr.inference import Tiling

RUNTIMES = ("auto", "tensorflow", "openvino", "litert")
# Compiled programs for tile shapes, kept per model: a batch of photos has few.
_NUM_COMPILED = 4
# OpenVINO takes 0.15 s to compile a program for a shape. The one for any shape takes 0.02 s at the first call with a shape, and
# is then 2 to 8 % slower: the better choice for small pictures. Which one runs depends on the shape alone and never on what
# came before, as they may round an activation differently that lies between two levels of int8.
_ANY_SHAPE = (1, -1, -1, 3)
_MOST_PIXELS_OF_ANY_SHAPE = 512 * 512
_PACKAGES = {"openvino": "openvino", "litert": "ai_edge_litert"}
_Run = Callable[[np.ndarray, float], np.ndarray]  # (pixels, strength) -> pixels, as in `Network`


@dataclasses.dataclass(frozen=True)
class Network:
    """A model that is ready to run; callers from several threads wait for each other where it runs on one thing at a time.

    Attributes:
      run: (float32 `[1, h, w, 3]` in [0, 1], strength) -> float32 `[1, scale * h, scale * w, 3]`; with a tiling that has fixed
        tiles, also for several at once.
      scale: 1 (CAR's own output), 2, 3 or 4.
      overlap: receptive radius in input pixels.
      alignment: of tiles.
      bytes_per_pixel: memory that a call takes, per input pixel.
      runtime: "tensorflow", "openvino", "litert" or "server".
      tiling: how to cut pictures, if the network has a say in that; else it is a matter of the memory that is free.
      is_8_bit: whether levels between the 256 of 8 bits are lost.
      close: ends calls that are under way, if they can be ended; the network is of no use after it.
    """

    run: _Run
    scale: int
    overlap: int
    alignment: int
    bytes_per_pixel: int
    runtime: str
    tiling: Tiling | None = None
    is_8_bit: bool = False
    close: Callable[[], None] = lambda: None


def int8_path(weights_path: pathlib.Path, runtime: str) -> pathlib.Path:
    """Where the int8 model for a runtime lies, or, for "record", what is known about those files."""
    return weights_path.with_suffix({"openvino": ".int8.xml", "litert": ".int8.tflite", "record": ".int8.json"}[runtime])


def int8_files(weights_path: pathlib.Path, runtime: str) -> list[pathlib.Path]:
    """All files of the int8 model for a runtime: OpenVINO keeps weights beside the graph."""
    path = int8_path(weights_path, runtime)
    return [path, path.with_suffix(".bin")] if runtime == "openvino" else [path]


def checksums(weights_path: pathlib.Path, runtime: str) -> dict[str, str]:
    """Name -> SHA-256 of each file that a runtime other than "auto" reads for these weights."""
    files = [weights_path] if runtime == "tensorflow" else int8_files(weights_path, runtime)
    return {path.name: model_files.sha256(path) for path in files}


def choose(runtime: str, weights_path: pathlib.Path, device: str | None = None) -> str:
    """The runtime to use; "auto" takes the fastest one that is installed and has a file for these weights.

    Args:
      runtime: one of `RUNTIMES`.
      weights_path: the `.keras` file.
      device: "gpu" lets "auto" take TensorFlow.

    Raises:
      UserError: no such runtime, it is not installed, or there is no int8 model of these weights.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"no runtime {runtime!r}: choose one of {', '.join(RUNTIMES)}")
    if runtime == "auto":
        if device not in (None, "cpu"):
            return "tensorflow"
        return next((name for name in _PACKAGES if problem(name, weights_path) is None), "tensorflow")
    if runtime != "tensorflow" and (reason := problem(runtime, weights_path)):
        raise UserError(reason)
    return runtime


def problem(runtime: str, weights_path: pathlib.Path) -> str | None:
    """Why "openvino" or "litert" cannot run these weights, or None."""
    if importlib.util.find_spec(_PACKAGES[runtime]) is None:
        return f"runtime {runtime} is not installed: pip install 'jpegsr[fast]'"
    record_path = int8_path(weights_path, "record")
    command = f"`jpegsr quantize --model={weights_path} --data=PHOTOS`"
    files = int8_files(weights_path, runtime)
    if not all(path.is_file() for path in (record_path, *files)):
        return f"no int8 model for {runtime} beside {str(weights_path)!r}: make one with {command}"
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        made_from, checksums = record["weights_sha256"], [record["sha256"][path.name] for path in files]
    except (ValueError, KeyError, TypeError):
        return f"{str(record_path)!r} is damaged: make it anew with {command}"
    if checksums != [model_files.sha256(path) for path in files]:
        return f"the int8 model beside {str(weights_path)!r} is damaged: make it anew with {command}"
    if made_from != model_files.read_card(weights_path)["sha256"]:
        return f"the int8 model beside {str(weights_path)!r} was made from other weights: make it anew with {command}"
    return None


def load(
    model: str,
    scale: int | None = None,
    runtime: str = "auto",
    device: str | None = None,
    num_threads: int | None = None,
) -> Network:
    """Make a model ready.

    Args:
      model: a shipped name, a `.keras` file, or the folder of a training run.
      scale: 1 for the restored picture at its own size; by default what the model does.
      runtime: one of `RUNTIMES`.
      device: "cpu" or "gpu"; by default what the runtime prefers.
      num_threads: that a call uses on a CPU; by default one per core. In TensorFlow it is set for the whole process.

    Raises:
      UserError: no such model, scale, runtime or device, or TensorFlow is at work already with other threads.
    """
    if device not in (None, "cpu", "gpu"):
        raise UserError(f"no device {device!r}: choose cpu or gpu")
    path = model_files.find(model, scale)
    card = model_files.read_card(path)
    config = ModelConfig.from_json(card["config"])
    if scale not in (None, 1, config.scale):
        raise UserError(f"{str(path)!r} enlarges {config.scale} times, not {scale}")
    if scale != 1:
        model_files.refuse_partial(path, card)
    chosen = choose(runtime, path, device)
    output = "restored" if scale == 1 else "upscaled"
    make = {"tensorflow": _tensorflow, "openvino": _openvino, "litert": _litert}[chosen]
    return Network(
        run=_one_at_a_time(make(path, output, device, num_threads)),
        scale=1 if scale == 1 else config.scale,
        overlap=config.car_receptive_radius if scale == 1 else config.receptive_radius,
        alignment=config.alignment,
        bytes_per_pixel=bytes_per_pixel(config, chosen),
        runtime=chosen,
    )


def _one_at_a_time(run: _Run) -> _Run:
    """Each call has all cores, and memory for one tile is all that is taken."""
    lock = threading.Lock()

    def locked(pixels: np.ndarray, strength: float) -> np.ndarray:
        with lock:
            return run(pixels, strength)

    return locked


def bytes_per_pixel(config: ModelConfig, runtime: str) -> int:
    """Upper estimate of what one input pixel takes while it is in the network (benchmarks/enhance_memory.py measures it)."""
    features = max(config.car_num_filters / config.car_stride**2, config.sr_num_filters)
    bytes_per_value = 4 if runtime == "tensorflow" else 1
    # Feature maps that are alive at a time: a block's input, its inside, its output, the long skip. LiteRT lays out no common
    # memory where sizes vary, and keeps those of all layers.
    num_layers = config.car_num_layers + 2 * config.sr_num_residual_blocks + 5
    num_maps = 1.5 * num_layers if runtime == "litert" else 4
    num_pixels = 1 + 4 * config.scale**2  # the input, and copies of the output in floats
    return int(bytes_per_value * num_maps * features + 4 * 3 * num_pixels)


def _tensorflow(path: pathlib.Path, output: str, device: str | None, num_threads: int | None) -> _Run:
    import tensorflow as tf

    from jpegsr import models, weights

    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise UserError("TensorFlow finds no GPU: pip install 'jpegsr[cuda]', or leave --device out")
    if num_threads:
        _limit_tensorflow(num_threads)
    place = f"/{device.upper()}:0" if device else None
    with tf.device(place):
        joint = weights.load(str(path), allow_partial=output == "restored").model
        signature = [tf.TensorSpec((1, None, None, 3), tf.float32), tf.TensorSpec((), tf.float32)]
        function = tf.function(
            lambda pixels, strength: models.enhance(joint, pixels, strength)[output], signature, autograph=False
        )

    def run(pixels: np.ndarray, strength: float) -> np.ndarray:
        with tf.device(place):
            return function(pixels, np.float32(strength)).numpy()

    return run


def _limit_tensorflow(num_threads: int) -> None:
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # it has started its threads
        if tf.config.threading.get_intra_op_parallelism_threads() != num_threads:
            raise UserError(f"TensorFlow is at work already: it cannot be limited to {num_threads} threads any more") from None


def _openvino(path: pathlib.Path, output: str, device: str | None, num_threads: int | None) -> _Run:
    import openvino

    core = openvino.Core()
    place = (device or "cpu").upper()
    if not any(known.startswith(place) for known in core.available_devices):
        raise UserError(f"OpenVINO finds no device {device!r}: it has {', '.join(core.available_devices).lower()}")
    try:
        model = core.read_model(int8_path(path, "openvino"))
    except RuntimeError as error:
        raise UserError(f"cannot load {str(int8_path(path, 'openvino'))!r}: {first_line(error)}") from None
    # Without the results that are not asked for, what leads only to them is not computed.
    model = openvino.Model([model.output(output)], model.get_parameters())
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if place == "CPU":
        # Pinned, the threads of several processes would all share the machine's first cores.
        properties |= {"ENABLE_CPU_PINNING": False, "INFERENCE_NUM_THREADS": num_threads or 0}
        # What is not in int8 is the picture itself. In bfloat16, which OpenVINO would take on processors that have it, it has
        # no more than 8 bits, and the result would depend on the machine.
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    requests: collections.OrderedDict[tuple[int, ...], Any] = collections.OrderedDict()

    def request_for(shape: tuple[int, ...]) -> Any:
        if math.prod(shape[:-1]) <= _MOST_PIXELS_OF_ANY_SHAPE:
            shape = _ANY_SHAPE
        if shape not in requests:
            model.reshape({"image": list(shape)})
            requests[shape] = core.compile_model(model, place, properties).create_infer_request()
            if len(requests) > _NUM_COMPILED:
                requests.popitem(last=False)
        requests.move_to_end(shape)
        return requests[shape]

    def run(pixels: np.ndarray, strength: float) -> np.ndarray:
        request = request_for(pixels.shape)
        request.infer({"image": pixels, "strength": np.float32(strength)}, share_inputs=True)
        return request.get_output_tensor().data.copy()  # the request writes its next result to the same memory

    return run


def _litert(path: pathlib.Path, output: str, device: str | None, num_threads: int | None) -> _Run:
    from ai_edge_litert.interpreter import Interpreter

    if device == "gpu":
        raise UserError("runtime litert runs on the cpu alone: use --runtime=tensorflow for a GPU")
    try:
        with silenced_stderr():
            interpreter = Interpreter(str(int8_path(path, "litert")), num_threads=num_threads or os.cpu_count())
            runner = interpreter.get_signature_runner(output)
            # It sets itself up, and tells so, at the first run.
            runner(image=np.zeros((1, 16, 16, 3), np.float32), strength=np.float32(1))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot load {str(int8_path(path, 'litert'))!r}: {first_line(error)}") from None

    def run(pixels: np.ndarray, strength: float) -> np.ndarray:
        return runner(image=pixels, strength=np.float32(strength))[output]

    return run
