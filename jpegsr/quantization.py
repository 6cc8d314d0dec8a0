"""Post-training quantisation: a trained model as int8 files for the fast CPU runtimes, OpenVINO and LiteRT.

Weights and activations of the convolutions become 8-bit integers, with ranges measured on calibration pictures. The input
picture itself, to which both networks add what they find, stays in floats (OpenVINO).
"""

import contextlib
import io
import json
import logging
import pathlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jpegsr import degradation, images, inference, metrics, model_files, models, provenance, runtimes
from jpegsr.console import silenced_stderr
from jpegsr.data import PatchSampler, validation_images
from jpegsr.errors import UserError
from jpegsr.pixels import to_unit
from jpegsr.weights import TrainedModel

OUTPUTS = ("upscaled", "restored")
PICTURE_SIZE = 128  # largest side of a calibration picture, in pixels of the network's input
# One after the other over the calibration pictures: what the blind models are trained for. 0: uncompressed.
CALIBRATION_QUALITIES = (5, 10, 20, 30, 40, 60, 80, 95, 0)
SCORED_QUALITIES = (10, 20, 30, 40, 90)


def quantize_beside(
    trained: TrainedModel, sampler: PatchSampler, runtime_names: Sequence[str], num_pictures: int, command: str
) -> dict[str, Any]:
    """Write the int8 files of a model next to its weights, measure what they lose, and record it.

    Args:
      trained: the float32 model.
      sampler: of its training data; the pictures that it holds out serve.
      runtime_names: "openvino", "litert".
      num_pictures: for calibration; every second picture held out is used for that, the others for scoring.
      command: what the record names as its origin.

    Returns:
      The record, as written to the `.int8.json`.
    """
    pictures = validation_images(sampler.validation_sources, PICTURE_SIZE * sampler.scale, sampler.scale)
    if len(pictures) < 2:
        raise UserError("fewer than two pictures are held out of training: give more --data, or a smaller --holdout_every")
    calibration = []
    for index in range(num_pictures):
        small = degradation.downscale(pictures[::2][index % len(pictures[::2])], sampler.scale)
        calibration.append(degradation.jpeg(small, CALIBRATION_QUALITIES[index % len(CALIBRATION_QUALITIES)]))
    quantize(trained, calibration, {name: runtimes.int8_path(trained.path, name) for name in runtime_names})
    record_path = runtimes.int8_path(trained.path, "record")
    record = {"command": command, **provenance.source(), "weights_sha256": trained.checksum, "num_pictures": num_pictures}
    # Files for the other runtime that are there already stay usable.
    kept = [name for name in ("openvino", "litert") if name not in runtime_names and not runtimes.problem(name, trained.path)]
    names = [*kept, *runtime_names]
    files = [path for name in names for path in runtimes.int8_files(trained.path, name)]
    record["sha256"] = {path.name: model_files.sha256(path) for path in files}
    images.write_text(record_path, json.dumps(record))  # without it, no runtime takes the files
    record["validation_psnr"] = {
        name: _score(str(trained.path), name, pictures[1::2], sampler.scale) for name in ("tensorflow", *names)
    }
    images.write_text(record_path, json.dumps(record, indent=2) + "\n")
    return record


def _score(model: str, runtime: str, pictures: list[np.ndarray], scale: int) -> dict[str, float]:
    """Mean PSNR-Y in dB per quality."""
    network = runtimes.load(model, runtime=runtime)
    tiling = inference.Tiling(scale, network.overlap, network.alignment)
    scores = {}
    for quality in SCORED_QUALITIES:
        values = []
        for original in pictures:
            compressed = degradation.jpeg(degradation.downscale(original, scale), quality)
            result = inference.apply(lambda pixels: network.run(pixels, 1.0), compressed, tiling)
            values.append(metrics.psnr(metrics.luma(original), metrics.luma(result)))
        scores[f"quality {quality}"] = round(float(np.mean(values)), 4)
    return scores


def quantize(trained: TrainedModel, pictures: Sequence[np.ndarray], paths: dict[str, pathlib.Path]) -> None:
    """Write the int8 files of a model.

    Args:
      trained: the float32 model.
      pictures: calibration pictures as the network meets them (compressed), uint8 `[H, W, 3]`, of any sizes.
      paths: runtime ("openvino", "litert") -> file to write; OpenVINO's `.xml` gets a `.bin` beside it.

    Raises:
      UserError: a package that makes these files is not installed.
    """
    inputs = [{"image": to_unit(picture[None]), "strength": np.float32(1)} for picture in pictures]
    with tempfile.TemporaryDirectory() as folder:
        saved_model = pathlib.Path(folder) / "model"
        _save(trained.model, saved_model)
        if "openvino" in paths:
            _write_openvino(saved_model, inputs, paths["openvino"])
        if "litert" in paths:
            _write_litert(saved_model, inputs, paths["litert"])


def _save(joint: keras.Model, folder: pathlib.Path) -> None:
    """A SavedModel with a signature per output and one (the default) with both."""
    signature = [tf.TensorSpec((1, None, None, 3), tf.float32, "image"), tf.TensorSpec((), tf.float32, "strength")]
    archive = keras.export.ExportArchive()
    archive.track(joint)
    archive.add_endpoint("serving_default", lambda image, strength: models.enhance(joint, image, strength), signature)
    for name in OUTPUTS:
        archive.add_endpoint(name, _endpoint(joint, name), signature)
    archive.write_out(str(folder), verbose=False)


def _endpoint(joint: keras.Model, output: str):
    return lambda image, strength: {output: models.enhance(joint, image, strength)[output]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converters' progress bars and warnings about their own parts are of no use to the caller."""
    with contextlib.redirect_stdout(io.StringIO()), silenced_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_openvino(saved_model: pathlib.Path, inputs: list[dict[str, np.ndarray]], path: pathlib.Path) -> None:
    with _quiet():
        try:
            import nncf
            import openvino
        except ImportError as error:
            raise UserError(f"quantisation needs {error.name}: pip install 'jpegsr[quantize]'") from None
        logging.getLogger("nncf").setLevel(logging.ERROR)
        model = openvino.convert_model(str(saved_model))
        for output in model.outputs:  # the names of the signature, whatever the converter made of them
            output.get_tensor().set_names({next(name for name in OUTPUTS if any(name in known for known in output.names))})
        quantized = nncf.quantize(model, nncf.Dataset(inputs), preset=nncf.QuantizationPreset.MIXED, subset_size=len(inputs))
        with tempfile.TemporaryDirectory() as folder:
            temporary = pathlib.Path(folder) / path.name
            quantized.set_rt_info("", ["conversion_parameters", "input_model"])  # a folder that is gone by then
            openvino.save_model(quantized, temporary)
            for suffix in (".bin", ".xml"):
                with images.written_beside(path.with_suffix(suffix)) as target:
                    target.write_bytes(temporary.with_suffix(suffix).read_bytes())


def _write_litert(saved_model: pathlib.Path, inputs: list[dict[str, np.ndarray]], path: pathlib.Path) -> None:
    def representative_dataset():
        for name in OUTPUTS:
            yield from ((name, values) for values in inputs)

    with _quiet():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=list(OUTPUTS))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative_dataset
        content = converter.convert()
    with images.written_beside(path) as target:
        target.write_bytes(content)
