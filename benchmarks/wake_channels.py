"""Give the channels that a trained network does not use a second start, for training on from its weights.

    python benchmarks/wake_channels.py --model=base --data=photos,BSDS400 --output=runs/woken/best.keras
    python train.py --preset=base --stage=joint --init_from=runs/woken --data=photos,BSDS400 --output_dir=runs/on

A channel behind a ReLU that is hardly ever above zero neither works nor learns. In each residual block such channels get
random kernels anew, of the size and position that the block's other channels have, and nothing listens to them yet: the
kernels that read them start at zero. So the network does what it did before, less the little that came through them.
"""

import keras
import numpy as np
from absl import app, flags

from jpegsr import degradation, models, weights
from jpegsr.config import DataConfig
from jpegsr.data import open_source, validation_images
from jpegsr.pixels import to_unit

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "base", "a shipped name, or another that --model takes")
flags.DEFINE_integer("scale", 2, "its scale")
flags.DEFINE_list("data", None, "folders of training pictures, of which the held-out ones are left out", required=True)
flags.DEFINE_string("output", None, "the .keras file to write", required=True)
flags.DEFINE_float("threshold", 0.01, "channels with a smaller share of values above zero start anew")
flags.DEFINE_integer("seed", 0, "seed of their new kernels")

QUALITIES = (10, 30, 90)
EVERY = 8  # Of so many pictures one is looked at.
CROP = 256  # Pixels of it a side, at most.


def compressed_pictures(locations: list[str], scale: int) -> list[np.ndarray]:
    """Some of the training pictures, reduced and compressed: float32 `[1, H, W, 3]` in [0, 1]."""
    chosen, num_before = [], 0
    for location in locations:
        source = open_source(location, 64 * scale).split(DataConfig().holdout_every)[0]
        chosen.append(source.subset(lambda i, start=num_before: (start + i) % EVERY == 0))
        num_before += len(source.names)
    crops = validation_images(chosen, CROP, scale)
    compressed = [
        degradation.jpeg(degradation.downscale(crop, scale), QUALITIES[i % len(QUALITIES)]) for i, crop in enumerate(crops)
    ]
    return [to_unit(picture)[None] for picture in compressed]


def responses(network: keras.Model, convolution: str, pictures: list[np.ndarray]) -> np.ndarray:
    """What a convolution gives, before its ReLU, at all positions of all pictures: `[positions, channels]`."""
    probe = keras.Model(network.input, network.get_layer(convolution).output)
    features = [np.asarray(probe(picture, training=False)) for picture in pictures]
    return np.concatenate([values.reshape(-1, values.shape[-1]) for values in features])


def wake(network: keras.Model, pictures: list[np.ndarray], threshold: float, rng: np.random.Generator) -> dict[str, int]:
    """Start the resting channels of a network's residual blocks anew, in place.

    Args:
      network: CAR or SR.
      pictures: its inputs, float32 `[1, H, W, 3]`.
      threshold: share of the values above zero below which a channel rests.
      rng: where new kernels come from.

    Returns:
      Block name -> number of channels woken.
    """
    woken = {}
    for layer in network.layers:
        if not (models.is_residual_block(layer.name) and layer.name.endswith("_conv1")):
            continue
        block = layer.name.removesuffix("_conv1")
        before = responses(network, layer.name, pictures)
        rests = (before > 0).mean(axis=0) < threshold
        woken[block] = int(rests.sum())
        if rests.any():
            _start_anew(network, block, rests, before, pictures, rng)
    return woken


def _start_anew(
    network: keras.Model,
    block: str,
    rests: np.ndarray,
    before: np.ndarray,
    pictures: list[np.ndarray],
    rng: np.random.Generator,
) -> None:
    layer, reader = network.get_layer(f"{block}_conv1"), network.get_layer(f"{block}_conv2")
    kernel, bias = (np.array(value) for value in layer.get_weights())
    kernel[..., rests] = rng.normal(size=kernel[..., rests].shape)
    bias[rests] = 0
    layer.set_weights([kernel, bias])
    # Above zero half of the time, and as wide as the channels that work: random kernels of any fixed size would not be.
    new = responses(network, layer.name, pictures)[:, rests]
    working = before if rests.all() else before[:, ~rests]
    factor = np.median(working.std(axis=0)) / new.std(axis=0)
    kernel[..., rests] *= factor
    bias[rests] = -new.mean(axis=0) * factor
    layer.set_weights([kernel, bias])
    kernel, bias = (np.array(value) for value in reader.get_weights())
    kernel[:, :, rests] = 0
    reader.set_weights([kernel, bias])


def main(_: list[str]) -> None:
    trained = weights.load(FLAGS.model, FLAGS.scale)
    car, sr = trained.model.get_layer("car"), trained.model.get_layer("sr")
    pictures, rng = compressed_pictures(FLAGS.data, FLAGS.scale), np.random.default_rng(FLAGS.seed)
    print(f"{len(pictures)} pictures; channels of CAR woken: {wake(car, pictures, FLAGS.threshold, rng)}")
    restored = [np.asarray(car(picture, training=False)) for picture in pictures]
    print(f"channels of SR woken: {wake(sr, restored, FLAGS.threshold, rng)}")
    card = {key: value for key, value in trained.card.items() if key != "validation_psnr"}
    weights.save(FLAGS.output, trained.model, trained.config, card)


if __name__ == "__main__":
    app.run(main)
