"""Which ReLUs work: the share of the values above zero after each, and of the channels that are above zero anywhere.

    python benchmarks/activity.py --data=photos,BSDS400 [--models=base,fast] [--quality=30] [--output=results/activity.json]

Measured on the centres of the pictures that training with the same folders keeps out, compressed. A block whose ReLU gives
zeros adds a constant at most: it is arithmetic that does nothing.
"""

import json

import figures_file
import keras
import numpy as np
from absl import app, flags

from jpegsr import degradation, model_files, weights
from jpegsr.config import DataConfig
from jpegsr.data import open_source, validation_images
from jpegsr.pixels import to_unit
from jpegsr.validation import working_shares

FLAGS = flags.FLAGS
flags.DEFINE_list("data", None, "folders of training pictures, in the order of the training", required=True)
flags.DEFINE_list("models", ["base", "fast"], "names of shipped models, or others that --model takes")
flags.DEFINE_integer("scale", 2, "theirs")
flags.DEFINE_integer("quality", 30, "JPEG quality of the pictures")
flags.DEFINE_integer("crop", 256, "central pixels that are taken, a side")
flags.DEFINE_string("output", None, "JSON file to write")


def shares(network: keras.Model, pictures: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Of each ReLU, over pictures, float32 `[1, H, W, 3]`: mean share of the values, and share of the channels, above zero."""
    return {
        name: {"values": round(float(share.mean()), 4), "channels": round(float((share > 0).mean()), 4)}
        for name, share in working_shares(network, pictures).items()
    }


def main(_: list[str]) -> None:
    sources = [open_source(location, 64 * FLAGS.scale).split(DataConfig().holdout_every)[1] for location in FLAGS.data]
    crops = validation_images(sources, FLAGS.crop, FLAGS.scale)
    inputs = [to_unit(degradation.jpeg(degradation.downscale(crop, FLAGS.scale), FLAGS.quality))[None] for crop in crops]
    figures = {}
    for name in FLAGS.models:
        joint = weights.load(name, FLAGS.scale).model
        car, sr = joint.get_layer("car"), joint.get_layer("sr")
        restored = [np.asarray(car(picture, training=False)) for picture in inputs]
        figures[name] = {"car": shares(car, inputs), "sr": shares(sr, restored)}
    print(json.dumps(figures, indent=2))
    if FLAGS.output:
        side = FLAGS.crop
        protocol = f"{len(crops)} held-out pictures of at most {side}x{side}, x{FLAGS.scale}, quality {FLAGS.quality}"
        shipped = [name for name in FLAGS.models if model_files.shipped_scales(name)]
        figures_file.write(FLAGS.output, protocol, {"active": figures}, shipped, FLAGS.scale)


if __name__ == "__main__":
    app.run(main)
