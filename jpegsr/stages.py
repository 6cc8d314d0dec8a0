"""What each training stage of section 3 learns from: stated once, for the TensorFlow loop and the Keras `fit` trainer.

Stage `car` maps Z to Y with CAR alone; `sr` maps the output of the frozen CAR to X; `joint` trains both end to end.
"""

import dataclasses

import keras
from keras import ops

from jpegsr.config import LossName, StageConfig, StageName
from jpegsr.data import Patch
from jpegsr.pixels import to_unit

# Patches that are closer than about 40 dB already gain less and less by coming closer still.
_LOG_FLOOR = 1e-4
# Brings its gradient to about the size of that of "l1".
_LOG_WEIGHT = 0.02


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
      kind: what a difference counts.
    """

    name: StageName
    trains: tuple[str, ...]
    losses: tuple[OutputLoss, ...]
    kind: LossName = "l1"

    @property
    def main(self) -> OutputLoss:
        return self.losses[0]

    def difference(self, target, output):
        """The loss per pixel, of "log_l2" per patch: `[B, H, W, 3]` twice -> `[B, H, W]` or `[B]`."""
        difference = target - ops.cast(output, "float32")
        if self.kind == "l1":
            return ops.mean(ops.abs(difference), axis=-1)
        if self.kind == "l2":
            return ops.mean(ops.square(difference), axis=-1)
        return _LOG_WEIGHT * ops.log(ops.mean(ops.square(difference), axis=(1, 2, 3)) + _LOG_FLOOR)

    def targets(self, patch: Patch) -> dict:
        """Output name -> the pixels that the output should have, in [0, 1]."""
        return {loss.output: to_unit(getattr(patch, loss.target)) for loss in self.losses}


def get_stage(name: StageName, config: StageConfig) -> Stage:
    """The stage of that name."""
    upscaled, restored = OutputLoss("upscaled", "hr"), OutputLoss("restored", "lr")
    if name == "car":
        return Stage(name, ("car",), (restored,), config.loss)
    if name == "sr":
        return Stage(name, ("sr",), (upscaled,), config.loss)
    losses = (upscaled, dataclasses.replace(restored, weight=config.restored_loss_weight))
    return Stage(name, ("car", "sr"), losses if config.restored_loss_weight else (upscaled,), config.loss)


def stage_model(stage: Stage, joint: keras.Model) -> keras.Model:
    """`[B, P, P, 3]` -> the outputs that the stage compares, over the networks of `joint`; freezes those not trained."""
    for name in ("car", "sr"):
        joint.get_layer(name).trainable = name in stage.trains
    return keras.Model(joint.input, {loss.output: joint.output[loss.output] for loss in stage.losses}, name="stage")


def stage_loss(stage: Stage, targets: dict, outputs: dict):
    """The weighted sum of the mean differences of all outputs, a scalar."""
    return sum(loss.weight * ops.mean(stage.difference(targets[loss.output], outputs[loss.output])) for loss in stage.losses)


class AveragingAdam(keras.optimizers.Adam):
    """Adam that keeps Keras' moving average of the weights beside the weights.

    Two things differ from Keras: `fit` does not overwrite the weights with the average when it ends, since training goes on
    from the weights themselves; and the decay rises from 1/10 to its value, as with `num_updates` in TensorFlow's
    `ExponentialMovingAverage`, or the average would hold on to the initial weights for thousands of steps.
    """

    @property
    def ema_momentum(self):
        """Decay at the current step t: min(decay, (1 + t) / (10 + t))."""
        if not hasattr(self, "iterations"):
            return self._ema_decay
        step = ops.cast(self.iterations, "float32")
        return ops.minimum(self._ema_decay, (1.0 + step) / (10.0 + step))

    @ema_momentum.setter
    def ema_momentum(self, decay: float) -> None:
        self._ema_decay = decay

    def finalize_variable_values(self, var_list) -> None:
        """Called at the end of `fit`: leave the weights as they are."""

    def load_average(self, variables) -> None:
        """Overwrite the weights with their moving average, if there is one."""
        super().finalize_variable_values(variables)


# Of the fifth-order polynomial x -> a x + b x^3 + c x^5 that, repeated, brings every number in (0, 1] near 1 (K. Jordan et al.,
# "Muon: An optimizer for hidden layers in neural networks", 2024).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
# What a Muon step measures per weight (root mean square) at learning rate 1, about as much as a step of Adam: both then go with
# the same learning rate (J. Liu et al., "Muon is scalable for LLM training", 2025).
_MUON_STEP_SIZE = 0.2
# Biases learn at this share of the rate. Features are small (0.02 to 0.3), so biases that move as fast as Muon moves kernels
# push ReLUs below zero for all inputs, where nothing revives them (docs/ablations.md).
_BIAS_SHARE = 0.1
# The layers that read or write pictures; Muon is for those between features.
_PICTURE_LAYERS = ("first", "last", "subpixel")


def orthogonalize(matrix):
    """`[M, N]` -> about the nearest matrix with orthonormal rows or columns: all singular values are brought near 1.

    Newton-Schulz iteration, by matrix products alone. It stops early: singular values end between about 0.7 and 1.2, and
    those that were tiny stay small.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return ops.transpose(orthogonalize(ops.transpose(matrix)))
    a, b, c = _NEWTON_SCHULZ
    # No singular value exceeds the Frobenius norm.
    matrix = matrix / (ops.sqrt(ops.sum(ops.square(matrix))) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = ops.matmul(ops.transpose(matrix), matrix)
        matrix = a * matrix + ops.matmul(matrix, b * square + c * ops.matmul(square, square))
    return matrix


class AveragingMuon(AveragingAdam):
    """Muon for the kernels between features, `AveragingAdam` for all other weights, slower for biases.

    Muon steps along the orthogonalised momentum, so that every direction of a kernel, read as the matrix from the inputs under
    its window to its outputs, learns at the same pace; Adam lets the few strong ones lead. (`keras.optimizers.Muon` leaves
    every kernel of a convolution to Adam.)
    """

    _momentum = 0.95

    def build(self, variables) -> None:
        """Called by Keras: makes the state of the optimizer and notes which variables are Muon's, and which biases."""
        super().build(variables)
        self._muon_indices = frozenset(
            index
            for index, variable in enumerate(variables)
            if len(variable.shape) == 4 and variable.path.split("/")[-2] not in _PICTURE_LAYERS
        )
        self._bias_indices = frozenset(i for i, variable in enumerate(variables) if variable.path.endswith("/bias"))

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Called by Keras for each variable."""
        index = self._get_variable_index(variable)
        if index not in self._muon_indices:
            share = _BIAS_SHARE if index in self._bias_indices else 1.0
            super().update_step(gradient, variable, share * learning_rate)
            return
        # The second moment that Adam keeps for this variable stays unused.
        average = self._momentums[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(average, self._momentum * average + gradient)
        # One step ahead, as Nesterov's momentum looks.
        ahead = ops.reshape(self._momentum * average + gradient, (-1, variable.shape[-1]))
        size = _MUON_STEP_SIZE * max(ahead.shape) ** 0.5 * ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, ops.reshape(size * orthogonalize(ahead), variable.shape))


def build_optimizer(config: StageConfig, clips: bool = True) -> AveragingAdam:
    """Adam or Muon with warm-up, cosine decay, clipping and a moving average of the weights, as far as the config asks.

    Args:
      config: what it asks.
      clips: False for a loop that clips the gradients itself.
    """
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.warmup_steps or config.final_learning_rate != config.learning_rate:
        # The rate still falls for half of a run that is too short for its warm-up.
        warmup = min(config.warmup_steps, config.steps // 2)
        learning_rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=config.steps - warmup,
            alpha=config.final_learning_rate / config.learning_rate,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    optimizer = AveragingMuon if config.optimizer == "muon" else AveragingAdam
    return optimizer(
        learning_rate,
        global_clipnorm=(config.gradient_clip_norm or None) if clips else None,
        use_ema=config.ema_decay > 0,
        ema_momentum=config.ema_decay,
    )
