"""Models as TensorFlow SavedModels for TensorFlow Serving, which load and run without this package.

Beside the SavedModel, `assets.extra/tf_serving_warmup_requests` holds requests that TensorFlow Serving runs before it takes
others.
"""

import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jpegsr.endpoints import WARMUP_SIDE, Endpoints, ServingOptions
from jpegsr.weights import TrainedModel

WARMUP_FILE = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


def write_saved_model(trained: TrainedModel, folder: pathlib.Path, options: ServingOptions) -> None:
    """Write a SavedModel with its warm-up requests to a new folder.

    Signatures (see `Endpoints`), each with named inputs and outputs:
      serving_default: `image_bytes`, string `[B]`, JPEG or PNG -> `image_bytes`, string `[B]`, PNG or JPEG.
      upscale: `image`, uint8 `[B, H, W, 3]` -> `upscaled`, uint8 `[B, scale * H, scale * W, 3]`.
      restore: `image`, uint8 `[B, H, W, 3]` -> `restored`, uint8 of the same shape.
      upscale_tiles: `tiles`, uint8 `[N, T, T, 3]` -> `upscaled`, uint8 `[N, scale * T, scale * T, 3]`, compiled by XLA.
      describe: `keys`, string `[K]` -> `values`, string `[K]`.
    """
    endpoints = Endpoints(trained, options)
    pictures = tf.TensorSpec((None, None, None, 3), tf.uint8, "image")
    tiles = tf.TensorSpec((options.tile_batch, options.tile_size, options.tile_size, 3), tf.uint8, "tiles")
    # It finds the variables of the endpoints; to track the model as well would store them twice.
    archive = keras.export.ExportArchive()
    # The first one is what TensorFlow Serving calls when no signature is named.
    archive.add_endpoint("serving_default", endpoints.image_bytes, [tf.TensorSpec((None,), tf.string, "image_bytes")])
    archive.add_endpoint("upscale", endpoints.upscale, [pictures])
    archive.add_endpoint("restore", endpoints.restore, [pictures])
    archive.add_endpoint("upscale_tiles", endpoints.upscale_tiles, [tiles])
    archive.add_endpoint("describe", endpoints.describe, [tf.TensorSpec((None,), tf.string, "keys")])
    archive.write_out(str(folder), verbose=False)
    write_warmup(folder / WARMUP_FILE, options)


def write_warmup(path: pathlib.Path, options: ServingOptions) -> None:
    """A request per signature (for tiles only if the options say so), as a TFRecord file of `PredictionLog`s."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    picture = np.random.default_rng(0).integers(0, 256, (WARMUP_SIDE, WARMUP_SIDE, 3), np.uint8)
    requests: dict[str, dict[str, Any]] = {
        "serving_default": {"image_bytes": [tf.io.encode_jpeg(picture).numpy(), tf.io.encode_png(picture).numpy()]},
        "upscale": {"image": picture[None]},
        "restore": {"image": picture[None]},
        "describe": {"keys": ["scale"]},
    }
    if options.warmup_tiles:
        requests["upscale_tiles"] = {"tiles": np.zeros((options.tile_batch, options.tile_size, options.tile_size, 3), np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
