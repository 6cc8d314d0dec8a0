"""Settings as frozen dataclasses, their named presets, and JSON in and out.

Each setting lives here once. The command line derives its flags from these fields (name, type and the `help` metadata), a
training run writes them to `config.json`, and a model card carries the `ModelConfig` that rebuilds its network.
"""

import dataclasses
import json
from typing import Any, Literal, Self

from jpegsr.errors import UserError

CarBody = Literal["plain", "residual"]
StageName = Literal["car", "sr", "joint"]
LossName = Literal["l1", "l2", "log_l2"]
STAGE_NAMES: tuple[StageName, ...] = ("car", "sr", "joint")
SCALES = (2, 3, 4)
_SMALLEST_VALIDATION_CROP = 16  # pixels: of fewer, too few are left without the borders that are not scored
_LARGEST_SEED = 2**32 - 1  # that Keras and NumPy take


def setting(default: Any, help_text: str) -> Any:
    """A dataclass field with a default and the sentence that `--help` shows for it."""
    return dataclasses.field(default=default, metadata={"help": help_text})


class JsonMixin:
    """JSON round trip for the frozen dataclasses below; unknown keys are an error, never ignored."""

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - known):
            raise UserError(f"unknown {cls.__name__} settings {', '.join(unknown)}: written by another version of jpegsr?")
        return cls(**{key: _as_tuples(value) for key, value in values.items()})


def _require_positive(settings: Any, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:  # nor is NaN
            raise UserError(f"{name} {getattr(settings, name)} is not above zero")


def _require_not_negative(settings: Any, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) >= 0:
            raise UserError(f"{name} {getattr(settings, name)} is not zero or above")


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class ModelConfig(JsonMixin):
    """The sizes of the artifact-removal (CAR) and super-resolution (SR) networks; enough to rebuild a model.

    Attributes:
      scale: integer upscaling factor, 2, 3 or 4.
      car_num_filters: feature maps of every CAR layer.
      car_num_layers: 3x3 convolutions between the first and the last layer of CAR (16 in section 2.1.1).
      car_body: "plain" is the paper's chain of convolution (+ batch normalisation) + ReLU; "residual" groups the
        layers in pairs with a skip connection, as EDSR does.
      car_batch_normalization: batch normalisation after each convolution of a plain body.
      car_stride: CAR works at 1/car_stride of the input's width and height (1 in the paper). At 2 the same
        arithmetic buys twice the width and twice the receptive field.
      sr_num_filters: feature maps of every SR layer (256 in section 2.1.2).
      sr_num_residual_blocks: convolution, ReLU, convolution blocks (the paper leaves it open, EDSR has 32).
      sr_residual_scaling: factor on each block's residual (0.1 in section 2.1.2).
      sr_image_skip: add the nearest-neighbour enlargement of the input to the output, so that SR learns the
        difference; training converges much sooner. The paper has no such connection.
      negative_slope: slope of the ReLUs below zero, 0 in the paper. Above it no unit can come to rest for good.
    """

    scale: int = 2
    car_num_filters: int = 96
    car_num_layers: int = 10
    car_body: CarBody = "residual"
    car_batch_normalization: bool = False
    car_stride: int = 2
    sr_num_filters: int = 48
    sr_num_residual_blocks: int = 12
    sr_residual_scaling: float = 1.0
    sr_image_skip: bool = True
    negative_slope: float = 0.0

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise UserError(f"scale {self.scale} is not one of {', '.join(map(str, SCALES))}")
        _require_positive(self, "car_num_filters", "car_num_layers", "car_stride", "sr_num_filters", "sr_num_residual_blocks")
        if not 0 <= self.negative_slope < 1:
            raise UserError(f"negative_slope {self.negative_slope} is not at least 0 and below 1")
        if self.car_body == "residual" and (self.car_num_layers % 2 or self.car_batch_normalization):
            raise UserError("a residual CAR body takes an even car_num_layers and no batch normalisation")

    @property
    def receptive_radius(self) -> int:
        """Input pixels to each side that can influence an output pixel: the overlap that exact tiling needs."""
        return self.car_receptive_radius + 2 * self.sr_num_residual_blocks + 3

    @property
    def car_receptive_radius(self) -> int:
        """The same for CAR's own output."""
        # Its first kernel reaches 1 cell beyond the own one, as do all others, in cells of car_stride pixels; the pixel
        # itself may lie at the far end of its cell.
        return (self.car_num_layers + 2) * self.car_stride + (self.car_stride - 1)

    @property
    def alignment(self) -> int:
        """Tiles that start at multiples of this many pixels see the same strided grid as the whole picture."""
        return self.car_stride


MODEL_PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(
        car_num_filters=64,
        car_num_layers=16,
        car_body="plain",
        car_batch_normalization=True,
        car_stride=1,
        sr_num_filters=256,
        sr_num_residual_blocks=32,
        sr_residual_scaling=0.1,
        sr_image_skip=False,
    ),
    "large": ModelConfig(
        car_num_filters=192, car_num_layers=16, sr_num_filters=96, sr_num_residual_blocks=32, negative_slope=0.1
    ),
    "base": ModelConfig(negative_slope=0.1),
    "fast": ModelConfig(car_num_filters=64, car_num_layers=2, sr_num_filters=32, sr_num_residual_blocks=6, negative_slope=0.1),
    "tiny": ModelConfig(car_num_filters=8, car_num_layers=2, car_stride=1, sr_num_filters=8, sr_num_residual_blocks=1),
}


@dataclasses.dataclass(frozen=True)
class DataConfig(JsonMixin):
    """Where training pictures come from and how patches are cut and degraded (see `data.PatchSampler`)."""

    sources: tuple[tuple[str, float], ...] = ()
    holdout_every: int = setting(
        20,
        "keep every N-th training picture by name out of training and validate on those, 0 keeps none; prepared data: as there",
    )
    patch_size: int = setting(48, "side of a low-resolution training patch, in pixels")
    quality: tuple[int, int] = setting(
        (5, 100), "JPEG quality of the patches, LOW-HIGH (drawn evenly on a log scale) or one number"
    )
    clean_share: float = setting(0.05, "share of the patches that are not compressed at all")
    double_share: float = setting(0.15, "share of the patches compressed twice, on shifted grids, as re-saved photos are")
    chroma_444_share: float = setting(0.25, "share of the patches compressed with full-resolution colour (4:4:4)")
    shifted_share: float = setting(
        1.0, "share of the patches cut at a random offset from the JPEG block grid; the others start on a block corner"
    )
    scale_augmentation: float = setting(
        1.0, "originals are reduced at random, to between this share of their width and all of it, before a patch is cut"
    )
    cache_megabytes: int = setting(4096, "memory for decoded training pictures; those beyond it are decoded at each visit")
    seed: int = setting(0, "seed of every random draw; a patch is a function of the seed and its index alone")

    def __post_init__(self) -> None:
        low, high = self.quality
        if not 1 <= low <= high <= 100:
            raise UserError(f"quality {low}-{high} is not a range within 1-100")
        _require_positive(self, "patch_size")
        _require_not_negative(self, "holdout_every", "cache_megabytes", "seed")
        if self.seed > _LARGEST_SEED:
            raise UserError(f"seed {self.seed} is above {_LARGEST_SEED}")
        if self.holdout_every == 1:
            raise UserError("holdout_every 1 keeps all pictures out of training: take 2 or more, or 0 for none")
        if not 0 < self.scale_augmentation <= 1:
            raise UserError(f"scale_augmentation {self.scale_augmentation} is not above 0 and at most 1")
        for name in ("clean_share", "double_share", "chroma_444_share", "shifted_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is not between 0 and 1")


@dataclasses.dataclass(frozen=True)
class PreparationConfig(JsonMixin):
    """How `preparation.prepare` stores training pictures."""

    size: int = setting(
        256,
        "side of a sub-image in pixels, at least (patch_size + 16) x scale of the training, and that divided by its "
        "scale_augmentation; smaller pictures are left out",
    )
    overlap: int = setting(32, "pixels that neighbouring sub-images share, at least; no patch is cut across their borders")
    encoding: Literal["raw", "png"] = setting(
        "raw", "raw (fastest to read) or png (about half as large, and lossless as well) sub-images"
    )
    holdout_every: int = setting(
        20, "keep every N-th picture by name apart, whole, for validation, as `train` does; 0 keeps none"
    )
    pictures_per_shard: int = setting(100, "pictures in one file; a kill costs at most the work on one of them")

    def __post_init__(self) -> None:
        _require_positive(self, "size", "pictures_per_shard")
        _require_not_negative(self, "overlap", "holdout_every")
        if self.overlap >= self.size:
            raise UserError(f"overlap {self.overlap} is not below size {self.size}")
        if self.holdout_every == 1:
            raise UserError("holdout_every 1 keeps all pictures out of training: take 2 or more, or 0 for none")


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """How `demo.served` serves its page."""

    host: str = setting("127.0.0.1", "address to listen at; 0.0.0.0 for all of this machine's")
    port: int | None = setting(None, "port to listen at; 0 for any that is free, unset: the first free one from 7860")
    max_pixels: int = setting(50_000_000, "refuse photos, and results, with more pixels than this")
    max_megabytes: int = setting(50, "refuse uploads above this size")
    max_waiting: int = setting(20, "turn requests away while so many wait")
    open_browser: bool = setting(False, "open the page in this machine's browser")

    def __post_init__(self) -> None:
        _require_positive(self, "max_pixels", "max_megabytes", "max_waiting")
        if self.port is not None and not 0 <= self.port <= 65535:
            raise UserError(f"port {self.port} is not within 0-65535")


@dataclasses.dataclass(frozen=True)
class StageConfig(JsonMixin):
    """The optimisation of one training stage (section 3: L1 loss, Adam)."""

    loss: LossName = setting(
        "l1",
        "mean absolute (l1, the paper's) or mean squared (l2) difference, or the logarithm of each patch's mean squared one "
        "(log_l2): what PSNR averages, with more weight for good input than l1",
    )
    steps: int = setting(100_000, "training steps of each stage that runs")
    batch_size: int = setting(16, "patches per step, over all devices together")
    optimizer: Literal["adam", "muon"] = setting(
        "adam", "adam (the paper's) or muon: orthogonalised momentum for the kernels between features, Adam for the others"
    )
    learning_rate: float = setting(1e-4, "peak learning rate")
    final_learning_rate: float = setting(1e-4, "learning rate at the last step, reached along a cosine")
    warmup_steps: int = setting(0, "steps over which the learning rate rises from zero, at most half of all")
    gradient_clip_norm: float = setting(0.0, "largest global norm of the gradient; 0 does not clip")
    ema_decay: float = setting(
        0.999, "decay of the moving average of the weights, which is what gets saved; 0 saves the raw weights"
    )
    restored_loss_weight: float = setting(
        0.0, "joint stage: weight of the loss of CAR's own output beside that of the enlarged one"
    )
    mixed_precision: bool = setting(False, "compute in bfloat16 and keep the weights in float32")

    def __post_init__(self) -> None:
        _require_positive(self, "steps", "batch_size", "learning_rate")
        _require_not_negative(self, "final_learning_rate", "warmup_steps", "gradient_clip_norm", "restored_loss_weight")
        if self.final_learning_rate > self.learning_rate:
            raise UserError(
                f"final_learning_rate {self.final_learning_rate} is above learning_rate {self.learning_rate}: lower it as well"
            )
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay {self.ema_decay} is not in [0, 1)")


@dataclasses.dataclass(frozen=True)
class RunConfig(JsonMixin):
    """How a training run behaves: checkpoints, validation, device. None of it changes what is learned per step."""

    checkpoint_every: int = setting(500, "steps between checkpoints")
    validate_every: int = setting(1000, "steps between validations; the best score so far decides which weights are kept")
    validation_data: str = setting("", "folder of pictures to validate on, instead of those that --holdout_every keeps out")
    validation_qualities: tuple[int, ...] = setting(
        (), "JPEG qualities of the validation, 0 for uncompressed; unset: the quality trained for, or 10,20,30,40 for a range"
    )
    validation_crop: int = setting(256, "validation uses the central crop of at most this many pixels a side")
    strategy: Literal["default", "mirrored", "multi_worker", "tpu"] = setting(
        "default", "default (one device), mirrored (all GPUs of this machine), multi_worker (the machines in TF_CONFIG) or tpu"
    )
    deterministic: bool = setting(False, "ask TensorFlow for bit-reproducible kernels (slower on a GPU)")

    def __post_init__(self) -> None:
        _require_positive(self, "checkpoint_every", "validate_every")
        if self.validation_crop < _SMALLEST_VALIDATION_CROP:
            raise UserError(f"validation_crop {self.validation_crop} is below {_SMALLEST_VALIDATION_CROP}")
        if bad := [quality for quality in self.validation_qualities if not 0 <= quality <= 100]:
            raise UserError(f"validation_qualities has {bad[0]}, which is not within 0-100")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(JsonMixin):
    """All that defines a training run."""

    model: ModelConfig
    data: DataConfig
    stage: StageConfig
    run: RunConfig = RunConfig()

    @property
    def validation_qualities(self) -> tuple[int, ...]:
        """The JPEG qualities that decide which weights are best."""
        low, high = self.data.quality
        return self.run.validation_qualities or ((low,) if low == high else (10, 20, 30, 40))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(
            model=ModelConfig.from_json(values["model"]),
            data=DataConfig.from_json(values["data"]),
            stage=StageConfig.from_json(values["stage"]),
            run=RunConfig.from_json(values["run"]),
        )


# Small networks bear a higher rate than the paper's 1e-4 and reach the same loss in a fraction of the steps.
_BLIND_STAGE = StageConfig(
    learning_rate=1e-3,
    final_learning_rate=1e-5,
    warmup_steps=200,
    gradient_clip_norm=1.0,
    restored_loss_weight=0.1,
)
# What won in docs/ablations.md. At twice the rate the ReLUs of CAR die.
_MUON_STAGE = dataclasses.replace(_BLIND_STAGE, optimizer="muon")
# Section 3: one model per quality, aligned 4:2:0 JPEG, no other degradation.
_PAPER_DATA = DataConfig(quality=(10, 10), clean_share=0.0, double_share=0.0, chroma_444_share=0.0, shifted_share=0.0)

TRAINING_PRESETS: dict[str, TrainingConfig] = {
    "paper": TrainingConfig(MODEL_PRESETS["paper"], _PAPER_DATA, StageConfig()),
    "large": TrainingConfig(MODEL_PRESETS["large"], DataConfig(), _MUON_STAGE),
    "base": TrainingConfig(MODEL_PRESETS["base"], DataConfig(), _MUON_STAGE),
    "fast": TrainingConfig(MODEL_PRESETS["fast"], DataConfig(), _MUON_STAGE),
    "tiny": TrainingConfig(
        MODEL_PRESETS["tiny"],
        DataConfig(patch_size=24),
        dataclasses.replace(_BLIND_STAGE, steps=60, warmup_steps=10, ema_decay=0.9),
    ),
}


def training_preset(name: str) -> TrainingConfig:
    """The preset `name`; `UserError` names the known ones."""
    try:
        return TRAINING_PRESETS[name]
    except KeyError:
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(TRAINING_PRESETS)}") from None
