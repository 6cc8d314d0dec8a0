"""Post-training quantisation: a trained model as int8 files for the fast CPU runtimes, OpenVINO and LiteRT.

Weights and activations of the convolutions become 8-bit integers, with ranges measured on calibration pictures. The input
picture itself, to which both networks add what they find, stays in floats: int8 would round it.
"""

import json
import logging
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from jpegsr import conversion, degradation, images, inference, metrics, model_files, provenance, runtimes
from jpegsr.data import PatchSampler, validation_images
from jpegsr.errors import UserError
from jpegsr.pixels import to_unit
from jpegsr.weights import TrainedModel

PICTURE_SIZE = 128  # largest side of a calibration picture, in pixels of the network's input
# One after the other over the calibration pictures: what the blind models are trained for. 0: uncompressed.
CALIBRATION_QUALITIES = (5, 10, 20, 30, 40, 60, 80, 95, 0)
SCORED_QUALITIES = (10, 20, 30, 40, 90)
# Of what restores alone, the convolutions that stay in floats, found by trying on pictures kept out of training. What the first
# two give reaches far below zero, where the slope of the rectifier leaves a tenth: most of 8 bits would be spent there, and
# 0.1 dB lost. The third one's output all later blocks read.
FLOAT_CONVOLUTIONS = ("first", "block0_conv1", "block0_conv2")


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
    # Before the files are written, which in a checkout are files of it.
    record = {"command": command, **provenance.source(), "weights_sha256": trained.checksum, "num_pictures": num_pictures}
    quantize(trained, calibration, {name: runtimes.int8_path(trained.path, name) for name in runtime_names})
    record_path = runtimes.int8_path(trained.path, "record")
    # Files for the other runtime that are there already stay usable.
    kept = [name for name in ("openvino", "litert") if name not in runtime_names and not runtimes.problem(name, trained.path)]
    names = [*kept, *runtime_names]
    files = [path for name in names for path in runtimes.int8_files(trained.path, name)]
    record["sha256"] = {path.name: model_files.sha256(path) for path in files}
    images.write_text(record_path, json.dumps(record))  # without it, no runtime takes the files
    record["validation_psnr"] = {name: _score(trained, name, pictures[1::2]) for name in ("tensorflow", *names)}
    images.write_text(record_path, json.dumps(record, indent=2) + "\n")
    return record


def _score(trained: TrainedModel, runtime: str, pictures: list[np.ndarray]) -> dict[str, float]:
    """Mean PSNR-Y in dB per quality."""
    restores_alone = conversion.outputs_of(trained) == ("restored",)
    network = runtimes.load(str(trained.path), 1 if restores_alone else None, runtime)
    tiling = inference.Tiling(network.scale, network.overlap, network.alignment)
    scores = {}
    for quality in SCORED_QUALITIES:
        values = []
        for original in pictures:
            small = degradation.downscale(original, trained.config.scale)
            result = inference.apply(lambda pixels: network.run(pixels, 1.0), degradation.jpeg(small, quality), tiling)
            target = small if restores_alone else original
            values.append(metrics.psnr(metrics.luma(target), metrics.luma(result)))
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
    in_floats = _float_convolutions(trained)
    with conversion.interchange_model(trained) as saved_model:
        if "openvino" in paths:
            _write_openvino(saved_model, inputs, paths["openvino"], in_floats.values())
        if "litert" in paths:
            with conversion.quiet():
                content = conversion.litert_content(saved_model, conversion.outputs_of(trained), inputs, in_floats)
            with images.written_beside(paths["litert"]) as target:
                target.write_bytes(content)


def _float_convolutions(trained: TrainedModel) -> dict[str, int]:
    """Name -> place in the order of CAR, of those `FLOAT_CONVOLUTIONS` that the network has."""
    if conversion.outputs_of(trained) != ("restored",):
        return {}
    layers = trained.model.get_layer("car").layers
    names = [layer.name for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    return {name: names.index(name) for name in FLOAT_CONVOLUTIONS if name in names}


def _write_openvino(
    saved_model: pathlib.Path, inputs: list[dict[str, np.ndarray]], path: pathlib.Path, in_floats: Iterable[int]
) -> None:
    """`in_floats` numbers convolutions that are left as they are."""
    with conversion.quiet():
        try:
            import nncf
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet
        except ImportError:
            raise UserError("quantisation needs nncf: pip install 'jpegsr[quantize]'") from None
        logging.getLogger("nncf").setLevel(logging.ERROR)
        model = conversion.openvino_model(saved_model)
        known = conversion.convolutions(model)
        left_out = [*conversion.additions_to_the_picture(model), *(known[number] for number in in_floats)]
        # Ranges as wide as anything calibration meets: NNCF's own, of the average picture, cut off graphics of high contrast.
        ranges = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            advanced_parameters=ranges,
            ignored_scope=nncf.IgnoredScope(names=left_out),
        )
        conversion.save_openvino(quantized, path, half_precision=True)
