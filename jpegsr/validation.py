"""Scoring during training: PSNR on pictures that were kept out of it, with the moving average of the weights."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops

from jpegsr import degradation, metrics
from jpegsr.config import TrainingConfig
from jpegsr.data import Patch, PatchSampler, open_source, validation_images
from jpegsr.pixels import to_levels, to_unit
from jpegsr.stages import AveragingAdam, Stage


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
        examples: dict[int, list[Patch]] = {quality: [] for quality in config.validation_qualities if pictures}
        for quality, patches in examples.items():
            for picture in pictures:
                lr = degradation.downscale(picture, sampler.scale)
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
