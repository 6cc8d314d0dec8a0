"""What `ablations.py` trains: `base`, other networks in its place, and other ways to train them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ablation_networks as networks
import keras

from jpegsr import models
from jpegsr.config import ModelConfig, StageName


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a training.

    Attributes:
      stage: what trains.
      share: of the time.
      changes: of the settings of `DataConfig` and `StageConfig`, by name.
    """

    stage: StageName = "joint"
    share: float = 1.0
    changes: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is trained in the place of `base`, and how.

    Attributes:
      build: the network.
      phases: of its training, in order.
      preset: whose sizes and settings it starts from.
      teacher: a shipped model to learn from beside the originals; none if empty.
    """

    build: Callable[[ModelConfig], keras.Model] = models.build_joint
    phases: tuple[Phase, ...] = (Phase(),)
    preset: str = "base"
    teacher: str = ""


def _changed(**changes: Any) -> tuple[Phase, ...]:
    return (Phase(changes=tuple(changes.items())),)


VARIANTS = {
    "base": Variant(),
    "another_seed": Variant(phases=_changed(seed=1)),
    "three_stages": Variant(phases=(Phase("car", 0.2), Phase("sr", 0.1), Phase("joint", 0.7))),
    "without_slope": Variant(networks.without_slope),
    "features_passed": Variant(networks.features_passed),
    "u_shaped": Variant(networks.u_shaped),
    "wider_and_shallower": Variant(networks.wider_and_shallower),
    "shorter_car": Variant(networks.shorter_car),
    "reparameterized": Variant(networks.reparameterized),
    "residual_full_resolution": Variant(networks.residual_full_resolution),
    "plain_full_resolution": Variant(networks.plain_full_resolution),
    "plain_without_normalization": Variant(networks.plain_without_normalization),
    "table_conditioned": Variant(networks.table_conditioned),
    "quality_10_only": Variant(phases=_changed(quality=(10, 10), clean_share=0.0)),
    "quality_30_only": Variant(phases=_changed(quality=(30, 30), clean_share=0.0)),
    "without_average": Variant(phases=_changed(ema_decay=0.0)),
    "adam": Variant(phases=_changed(optimizer="adam")),
    "scale_augmentation": Variant(phases=_changed(scale_augmentation=0.5)),
    "larger_final_patches": Variant(
        phases=(
            Phase(share=0.7, changes=(("final_learning_rate", 3e-4),)),
            Phase(share=0.3, changes=(("patch_size", 72), ("batch_size", 7), ("learning_rate", 3e-4), ("warmup_steps", 0))),
        )
    ),
    # These two are compared with each other: there is no model larger than `base` to learn from.
    "fast": Variant(preset="fast"),
    "fast_distilled": Variant(preset="fast", teacher="base"),
}
