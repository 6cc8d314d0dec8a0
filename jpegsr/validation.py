"""Scoring during training: PSNR on pictures that were kept out of it, with the moving average of the weights."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
from keras import ops

from jpegsr import degradation, metrics, models
from jpegsr.config import TrainingConfig
from jpegsr.data import Patch, PatchSampler, open_source, validation_images
from jpegsr.pixels import to_levels, to_unit
from jpegsr.stages import AveragingAdam, Stage

# A block rests if fewer of the values after its ReLU are above zero, on some pictures of about this quality.
_RESTING_SHARE, _PROBED_QUALITY, _PROBED_PICTURES, _PROBED_SIDE = 1e-3, 30, 8, 96


@contextlib.contextmanager
def averaged_weights(model: keras.Model, optimizer: AveragingAdam) -> Iterator[None]:
    """Within the block the model has the optimizer's moving average of its weights; after it, its own again."""
    trained = model.trainable_variables
    raw = [ops.convert_to_numpy(variable) for variable in trained]
    optimizer.load_average(trained)
    # JAX would go on sharing one buffer between average and weight, and frees it when either is replaced.
    for variable in trained:
        variable.assign(ops.convert_to_numpy(variable))
    try:
        yield
    finally:
        for variable, value in zip(trained, raw, strict=True):
            variable.assign(value)


@dataclasses.dataclass
class Validator:
    """Validation pictures, degraded once, and how a stage's main output is scored on them.

    Attributes:
      stage: which output is scored against what.
      examples: JPEG quality (0: clean) -> whole pictures as `Patch`es.
    """

    stage: Stage
    examples: dict[int, list[Patch]]

    @classmethod
    def from_sampler(cls, sampler: PatchSampler, config: TrainingConfig, stage: Stage) -> "Validator":
        """From the folder that the run config names, or else from the pictures that the sampler holds out."""
        sources = sampler.validation_sources
        if config.run.validation_data:
            sources = [open_source(config.run.validation_data, sampler.scale)]
        pictures = validation_images(sources, config.run.validation_crop, sampler.scale)
        return cls.from_pictures(pictures, sampler.scale, config.validation_qualities, stage)

    @classmethod
    def from_pictures(cls, pictures: list[np.ndarray], scale: int, qualities: Iterable[int], stage: Stage) -> "Validator":
        """From originals, uint8 `[H, W, 3]`, to reduce and to compress at each quality."""
        examples: dict[int, list[Patch]] = {quality: [] for quality in qualities if pictures}
        for quality, patches in examples.items():
            for picture in pictures:
                lr = degradation.downscale(picture, scale)
                patches.append(Patch(picture, lr, degradation.jpeg(lr, quality)))
        return cls(stage, examples)

    def score(self, predict: Callable[[np.ndarray], dict]) -> tuple[dict[int, float], np.ndarray | None]:
        """Mean PSNR-Y in dB per quality, border not cropped, and one picture strip to look at, uint8 `[H, W, 3]`.

        Args:
          predict: the stage's model, float32 `[1, H, W, 3]` in [0, 1] -> outputs by name.
        """
        main = self.stage.main
        scores, strip = {}, None
        for quality, patches in self.examples.items():
            values = []
            for patch in patches:
                output = predict(to_unit(patch.compressed[None]))[main.output][0]
                levels = ops.convert_to_numpy(to_levels(output))
                target = getattr(patch, main.target)
                values.append(min(metrics.psnr(metrics.luma(target), metrics.luma(levels)), 100.0))
                if strip is None:
                    factor = target.shape[0] // patch.compressed.shape[0]
                    enlarged = patch.compressed.repeat(factor, axis=0).repeat(factor, axis=1)
                    strip = np.concatenate([enlarged, levels, target], axis=1)
            scores[quality] = float(np.mean(values))
        return scores, strip


def mean_score(scores: dict[int, float], step: int) -> float:
    """What decides which weights are best: the mean over the qualities; without validation pictures, the latest step."""
    return float(np.mean(list(scores.values()))) if scores else float(step)


def describe(scores: dict[int, float]) -> str:
    """The scores as a line to print."""
    return ", ".join(f"quality {quality}: {value:.3f} dB" for quality, value in scores.items()) or "nothing to validate on"


def working_shares(network: keras.Model, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Of each ReLU of CAR or SR, by layer name: the share of each channel's values above zero, `[channels]`.

    Args:
      network: which one.
      pictures: its inputs, float32 `[1, H, W, 3]` in [0, 1].
    """
    rectifiers = [layer for layer in network.layers if isinstance(layer, keras.layers.ReLU)]
    if not rectifiers:
        return {}
    probe = keras.Model(network.input, {layer.name: layer.output for layer in rectifiers})
    shares: dict[str, list[np.ndarray]] = {layer.name: [] for layer in rectifiers}
    for picture in pictures:
        for name, features in probe(picture, training=False).items():
            shares[name].append((ops.convert_to_numpy(features) > 0).mean(axis=(0, 1, 2)))
    return {name: np.mean(rows, axis=0) for name, rows in shares.items()}


def describe_rest(joint: keras.Model, validator: Validator) -> str:
    """A line on residual blocks that have stopped to work, of the networks in training; empty if all do.

    Once a ReLU without a slope below zero gives zeros for all pictures nothing revives it, and as the other network learns
    to do without, scores do not show it.
    """
    quality = min(validator.examples, key=lambda quality: abs(quality - _PROBED_QUALITY), default=None)
    if quality is None:
        return ""
    patches = validator.examples[quality][:_PROBED_PICTURES]
    pictures = [to_unit(patch.compressed[None, :_PROBED_SIDE, :_PROBED_SIDE]) for patch in patches]
    inputs = {"car": pictures, "sr": [joint.get_layer("car")(picture, training=False) for picture in pictures]}
    parts = []
    for part in validator.stage.trains:
        network = joint.get_layer(part)
        shares = {
            name: float(share.mean())
            for name, share in working_shares(network, inputs[part]).items()
            if models.is_residual_block(name) and not network.get_layer(name).negative_slope
        }
        if num_resting := sum(share < _RESTING_SHARE for share in shares.values()):
            parts.append(f"{num_resting} of {len(shares)} residual blocks of {part.upper()}")
    return f"{' and '.join(parts)} give zeros alone and no longer learn: lower --learning_rate" if parts else ""
