"""Trained models as files for others to run: a version folder per export, complete or not there at all.

A version folder `DIR/1`, or the next number if that is taken, holds `saved_model.pb` and `variables/` (saved_model),
`model.tflite` (litert), `model.onnx` (onnx), or `model.xml` and `model.bin` (openvino), and in `assets.extra/jpegsr.json` the
model card, checksums, options, and how far the result is from that of Keras.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from jpegsr import conversion, degradation, images, model_files, provenance, runtimes, serving
from jpegsr.endpoints import DEFAULT_OPTIONS, ServingOptions
from jpegsr.errors import UserError, first_line
from jpegsr.pixels import to_levels, to_unit
from jpegsr.weights import TrainedModel

Format = Literal["saved_model", "litert", "onnx", "openvino"]
Precision = Literal["float32", "bfloat16", "int8"]
# What each format can be had in.
PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "saved_model": ("float32", "bfloat16"),
    "litert": ("float32", "int8"),
    "onnx": ("float32",),
    "openvino": ("float32", "int8"),
}
_MAX_INT8_DIFFERENCE = 4.0  # levels, on average
RECORD = pathlib.Path("assets.extra", "jpegsr.json")
_FILE_NAMES = {"litert": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml"}
# uint8 [H, W, 3] -> uint8 [scale * H, scale * W, 3]
Upscale = Callable[[np.ndarray], np.ndarray]


def export(
    trained: TrainedModel,
    folder: str | os.PathLike[str],
    kind: Format = "saved_model",
    precision: Precision = "float32",
    options: ServingOptions = DEFAULT_OPTIONS,
) -> pathlib.Path:
    """Write a model to a new version folder, and try it there.

    Args:
      trained: the model.
      folder: receives `1`, or the number after the highest one that is there.
      kind: what to write; see `serving` for the SavedModel and `conversion` for the other formats.
      precision: one of `PRECISIONS` of that format. Of a SavedModel it concerns `upscale_tiles` alone.
      options: of a SavedModel; its `precision` is replaced.

    Returns:
      The version folder.

    Raises:
      UserError: the format has no such precision or there are no int8 files of the model, a package is missing, the folder
        cannot be written, or what was written does not do what the model does.
    """
    if precision not in PRECISIONS[kind]:
        raise UserError(f"there is no {precision} for format {kind}: choose {' or '.join(PRECISIONS[kind])}")
    folder = pathlib.Path(folder)
    images.require_writable(folder)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix=".export-"))
    try:
        written = temporary / "model"
        if kind == "saved_model":
            options = dataclasses.replace(options, precision="bfloat16" if precision == "bfloat16" else "float32")
            serving.write_saved_model(trained, written, options)
        else:
            _write_converted(trained, written, kind, precision)
        _write_record(trained, written, kind, precision, dataclasses.asdict(options) if kind == "saved_model" else None)
        target = folder / str(max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=0) + 1)
        written.rename(target)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write the model: {first_line(error)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write_converted(trained: TrainedModel, folder: pathlib.Path, kind: Format, precision: Precision) -> None:
    folder.mkdir()
    path = folder / _FILE_NAMES[kind]
    if precision == "int8":
        if reason := runtimes.problem(kind, trained.path):
            raise UserError(reason)
        for source in runtimes.int8_files(trained.path, kind):
            shutil.copyfile(source, path.with_suffix(source.suffix))
        return
    with conversion.quiet():
        if kind == "onnx":
            path.write_bytes(conversion.onnx_content(trained))
            return
        with conversion.interchange_model(trained) as saved_model:
            if kind == "litert":
                path.write_bytes(conversion.litert_content(saved_model, conversion.OUTPUTS))
            else:
                conversion.save_openvino(conversion.openvino_model(saved_model), path, half_precision=False)


def _write_record(
    trained: TrainedModel, folder: pathlib.Path, kind: Format, precision: Precision, options: dict[str, Any] | None
) -> None:
    """Compare what was written with the model, and write the JSON file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    record = {
        "format": kind,
        "precision": precision,
        **provenance.source(),
        "options": options,
        "difference_of_upscaled_from_keras_in_levels": _difference(trained, folder, kind, precision),
        "sha256": {str(path.relative_to(folder)): model_files.sha256(path) for path in files},
        "model_card": trained.card,
    }
    (folder / RECORD).parent.mkdir(exist_ok=True)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _difference(trained: TrainedModel, folder: pathlib.Path, kind: Format, precision: Precision) -> dict[str, float]:
    """The largest and the mean difference of `upscaled` (of a SavedModel, `upscale`) on a picture made for that.

    `UserError` if float32 differs by more than rounding, or int8 is no likeness.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    picture = degradation.jpeg(coarse.repeat(8, axis=0).repeat(8, axis=1), 30)
    expected = to_levels(trained.model.predict_on_batch(to_unit(picture[None]))["upscaled"][0])
    difference = np.abs(open_exported(folder, kind)(picture).astype(int) - expected)
    if difference.max() > 1 if precision != "int8" else difference.mean() > _MAX_INT8_DIFFERENCE:
        raise UserError(f"the exported model is {difference.max()} levels off its original: the converter is at fault")
    return {"largest": int(difference.max()), "mean": round(float(difference.mean()), 4)}


def open_exported(folder: pathlib.Path, kind: Format) -> Upscale:
    """The `upscaled` output of an exported model, run by the format's own runtime on the CPU."""
    if kind == "saved_model":
        return _open_saved_model(folder)
    opened = {"litert": _open_litert, "onnx": _open_onnx, "openvino": _open_openvino}[kind](folder / _FILE_NAMES[kind])
    return lambda picture: to_levels(opened({"image": to_unit(picture[None]), "strength": np.array(1, np.float32)})[0])


_Run = Callable[[dict[str, np.ndarray]], np.ndarray]


def _open_saved_model(folder: pathlib.Path) -> Upscale:
    model = tf.saved_model.load(str(folder))
    upscale = model.signatures["upscale"]
    # The model is named in the closure, as it owns the signature's variables.
    return lambda picture: (model, upscale(image=tf.constant(picture[None])))[1]["upscaled"].numpy()[0]


def _open_litert(path: pathlib.Path) -> _Run:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError("LiteRT is not installed: pip install 'jpegsr[fast]'") from None
    with conversion.quiet():
        runner = Interpreter(str(path), num_threads=os.cpu_count()).get_signature_runner("upscaled")
        # It sets itself up, and tells so, at the first run.
        runner(image=np.zeros((1, 16, 16, 3), np.float32), strength=np.float32(1))
    return lambda inputs: runner(**inputs)["upscaled"]


def _open_onnx(path: pathlib.Path) -> _Run:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("ONNX Runtime is not installed: pip install 'jpegsr[onnx]'") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["upscaled"], inputs)[0]


def _open_openvino(path: pathlib.Path) -> _Run:
    import openvino

    core = openvino.Core()
    # By itself OpenVINO computes in bfloat16 where the processor can.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(path), "CPU", options)
    return lambda inputs: model(inputs)["upscaled"]
