"""Weights on pictures kept out of training, as validation scores them, and on the same pictures reduced to half.

    python benchmarks/held_out.py --data=photos,BSDS400,T91 --models=base,runs/mine [--output=results/held_out.json]

Reduced pictures are sharp pixel by pixel, as those that people have from the web are; the originals are soft. To choose between
weights by: the test sets are for reporting only. In float32, whatever the weights were trained in.
"""

import json

import figures_file
import keras
import numpy as np
from absl import app, flags

from jpegsr import degradation, model_files, stages, weights
from jpegsr.config import DataConfig, StageConfig
from jpegsr.data import open_source, validation_images
from jpegsr.validation import Validator

FLAGS = flags.FLAGS
flags.DEFINE_list("data", None, "folders of training pictures, in the order of the training", required=True)
flags.DEFINE_list("models", ["base"], "names of shipped models, or others that --model takes")
flags.DEFINE_integer("scale", 2, "theirs")
flags.DEFINE_list("qualities", ["0", "10", "20", "30", "40"], "JPEG qualities, 0: clean")
flags.DEFINE_integer("crop", 256, "central pixels that are taken, a side")
flags.DEFINE_string("output", None, "JSON file to write")


def held_out_pictures() -> dict[str, list[np.ndarray]]:
    """uint8 `[H, W, 3]` originals, as they are and reduced."""
    sources = [open_source(location, 64 * FLAGS.scale).split(DataConfig().holdout_every)[1] for location in FLAGS.data]
    reduced = [degradation.downscale(picture, 2) for picture in validation_images(sources, 2 * FLAGS.crop, 2 * FLAGS.scale)]
    return {"as they are": validation_images(sources, FLAGS.crop, FLAGS.scale), "reduced to half": reduced}


def scores(joint: keras.Model, pictures: list[np.ndarray]) -> dict[str, float]:
    """Mean PSNR-Y in dB, by quality."""
    stage = stages.get_stage("joint", StageConfig())
    validator = Validator.from_pictures(pictures, FLAGS.scale, map(int, FLAGS.qualities), stage)
    means, _ = validator.score(lambda picture: joint(picture, training=False))
    return {f"quality {quality}": round(mean, 3) for quality, mean in means.items()}


def main(_: list[str]) -> None:
    groups = held_out_pictures()
    figures = {}
    for name in FLAGS.models:
        trained = weights.load(name, FLAGS.scale)
        figures[name] = {group: scores(trained.model, pictures) for group, pictures in groups.items()}
        figures[name]["sha256"] = trained.checksum
        print(name, json.dumps(figures[name], indent=2))
    if FLAGS.output:
        protocol = (
            f"mean PSNR-Y of {len(groups['as they are'])} held-out pictures, at most {FLAGS.crop}x{FLAGS.crop}, x{FLAGS.scale}"
        )
        shipped = [name for name in FLAGS.models if model_files.shipped_scales(name)]
        figures_file.write(FLAGS.output, protocol, {"psnr_y": figures}, shipped, FLAGS.scale)


if __name__ == "__main__":
    app.run(main)
