"""Models as TensorFlow SavedModels that load and run without this package."""

import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from jpegsr.errors import UserError
from jpegsr.pixels import to_levels, to_unit
from jpegsr.weights import TrainedModel


def export_saved_model(trained: TrainedModel, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Write a SavedModel to `folder/1`, or to the next number if that is taken.

    Signatures, all with one argument `image` of any batch, height and width:
      upscale, serving_default: uint8 `[B, H, W, 3]` -> `upscaled`, uint8 `[B, scale * H, scale * W, 3]`.
      restore: uint8 `[B, H, W, 3]` -> `restored`, uint8 of the same shape.
      upscale_float: float32 `[B, H, W, 3]` in [0, 1] -> `upscaled`, float32, not clipped.

    Returns:
      The version folder, which appears complete or not at all.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix=".export-"))
    except OSError as error:
        raise UserError(f"cannot write to folder {str(folder)!r}: {error.strerror}") from None
    try:
        _write(trained.model, temporary / "model")
        taken = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
        target = folder / str(max(taken, default=0) + 1)
        (temporary / "model").rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write(model: keras.Model, path: pathlib.Path) -> None:
    def levels_endpoint(output: str):
        return lambda image: {output: to_levels(model(to_unit(image), training=False)[output])}

    def specification(dtype: tf.DType) -> list[tf.TensorSpec]:
        return [tf.TensorSpec((None, None, None, 3), dtype, name="image")]

    archive = keras.export.ExportArchive()
    archive.track(model)
    # The first endpoint is what TensorFlow Serving calls when no signature is named.
    archive.add_endpoint("serving_default", levels_endpoint("upscaled"), specification(tf.uint8))
    archive.add_endpoint("upscale", levels_endpoint("upscaled"), specification(tf.uint8))
    archive.add_endpoint("restore", levels_endpoint("restored"), specification(tf.uint8))
    archive.add_endpoint(
        "upscale_float", lambda image: {"upscaled": model(image, training=False)["upscaled"]}, specification(tf.float32)
    )
    archive.write_out(str(path), verbose=False)
