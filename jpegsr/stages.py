"""What each training stage of section 3 learns from: stated once, for the TensorFlow loop and the Keras `fit` trainer.

Stage `car` maps Z to Y with CAR alone; `sr` maps the output of the frozen CAR to X; `joint` trains both end to end.
"""

import dataclasses

import keras
from keras import ops

from jpegsr.config import StageConfig, StageName
from jpegsr.data import Patch


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """One output of the model, the patch it is compared with, and the weight of the difference."""

    output: str  # "restored" or "upscaled"
    target: str  # a field of `data.Patch`
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """A training stage.

    Attributes:
      name: "car", "sr" or "joint".
      trains: which of the networks "car" and "sr" change.
      losses: what is minimised; the first one is the result that progress and validation score.
    """

    name: StageName
    trains: tuple[str, ...]
    losses: tuple[OutputLoss, ...]

    @property
    def main(self) -> OutputLoss:
        return self.losses[0]

    def targets(self, patch: Patch) -> dict:
        """Output name -> the pixels that the output should have, in [0, 1]."""
        return {loss.output: to_unit(getattr(patch, loss.target)) for loss in self.losses}


def get_stage(name: StageName, config: StageConfig) -> Stage:
    """The stage of that name."""
    upscaled, restored = OutputLoss("upscaled", "hr"), OutputLoss("restored", "lr")
    if name == "car":
        return Stage(name, ("car",), (restored,))
    if name == "sr":
        return Stage(name, ("sr",), (upscaled,))
    if not config.restored_loss_weight:
        return Stage(name, ("car", "sr"), (upscaled,))
    return Stage(name, ("car", "sr"), (upscaled, dataclasses.replace(restored, weight=config.restored_loss_weight)))


def stage_model(stage: Stage, joint: keras.Model) -> keras.Model:
    """`[B, P, P, 3]` -> the outputs that the stage compares, over the networks of `joint`; freezes those not trained."""
    for name in ("car", "sr"):
        joint.get_layer(name).trainable = name in stage.trains
    return keras.Model(joint.input, {loss.output: joint.output[loss.output] for loss in stage.losses}, name="stage")


def to_unit(levels):
    """Levels 0-255 of any type -> float32 in [0, 1]."""
    return ops.cast(levels, "float32") / 255.0


def l1_loss(target, output):
    """Mean absolute difference per pixel: `[B, H, W, C]` twice -> `[B, H, W]`."""
    return ops.mean(ops.abs(target - ops.cast(output, "float32")), axis=-1)


def stage_loss(stage: Stage, targets: dict, outputs: dict):
    """The weighted sum of the mean L1 losses of all outputs, a scalar."""
    return sum(loss.weight * ops.mean(l1_loss(targets[loss.output], outputs[loss.output])) for loss in stage.losses)


class AveragingAdam(keras.optimizers.Adam):
    """Adam that keeps Keras' moving average of the weights beside the weights.

    Keras' `fit` overwrites the weights with the average when it ends; here training goes on from the weights themselves.
    """

    def finalize_variable_values(self, var_list) -> None:
        """Called at the end of `fit`: leave the weights as they are."""

    def load_average(self, variables) -> None:
        """Overwrite the weights with their moving average, if there is one."""
        super().finalize_variable_values(variables)


def build_optimizer(config: StageConfig) -> AveragingAdam:
    """Adam with warm-up, cosine decay, clipping and a moving average of the weights, as far as the config asks."""
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.warmup_steps or config.final_learning_rate != config.learning_rate:
        warmup = min(config.warmup_steps, config.steps - 1)
        learning_rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=config.steps - warmup,
            alpha=config.final_learning_rate / config.learning_rate,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    return AveragingAdam(
        learning_rate,
        global_clipnorm=config.gradient_clip_norm or None,
        use_ema=config.ema_decay > 0,
        ema_momentum=config.ema_decay,
    )
