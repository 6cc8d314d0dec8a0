"""Train the networks of `benchmarks/systems` and write their weights, with the package's own loop, patches and optimizer.

    DATA=photos@2,BSDS400@4,T91@1
    for name in srcnn_clean vdsr_clean vdsr_jpeg edsr_baseline_clean base_clean; do
      python benchmarks/systems/train_networks.py --network=$name --data=$DATA --output_dir=runs/systems/$name
    done

All get the pictures of `base` and its optimizer, Muon, which gets further than Adam in as many steps (docs/ablations.md). A run
that was stopped goes on where it was. At the end `weights/NAME_x2.npz` is written, and what it was made with beside it.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import clean_base
import edsr_baseline
import keras
import srcnn
import tensorflow as tf
import vdsr
from absl import app, flags
from keras import layers, ops
from trained_network import WEIGHTS_FOLDER, save_weights

from jpegsr import stages
from jpegsr.cli.settings import parse_sources
from jpegsr.config import DataConfig, LossName, ModelConfig, RunConfig, TrainingConfig, training_preset
from jpegsr.data import PatchSampler
from jpegsr.images import write_text
from jpegsr.runs import stop_requests
from jpegsr.training import StageTrainer

FLAGS = flags.FLAGS
CLEAN = DataConfig(clean_share=1.0, double_share=0.0)
JPEG = DataConfig()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
      build: scale -> the network.
      data: what it sees, but for the pictures.
      patch_size: side of a patch before enlargement, in pixels.
      steps: of 16 patches each.
      on_luma: it is the luma that is compared, by mean square as these publications do; else RGB, by mean absolute difference.
    """

    build: Callable[[int], Any]
    data: DataConfig
    patch_size: int
    steps: int
    on_luma: bool = False


RECIPES = {
    "srcnn_clean": Recipe(srcnn.build, CLEAN, 24, 1500, on_luma=True),
    # 40x40 when enlarged; the publication has 41x41, which is what the network sees of a picture.
    "vdsr_clean": Recipe(vdsr.build, CLEAN, 20, 1000, on_luma=True),
    "vdsr_jpeg": Recipe(vdsr.build, JPEG, 20, 1000, on_luma=True),
    "edsr_baseline_clean": Recipe(edsr_baseline.build, CLEAN, 32, 1200),
    "base_clean": Recipe(clean_base.build, CLEAN, 32, 1200),
}
flags.DEFINE_enum("network", None, list(RECIPES), "what to train", required=True)
flags.DEFINE_list("data", None, "folders of training pictures, as of `jpegsr train`", required=True)
flags.DEFINE_string("output_dir", None, "folder of the run", required=True)
flags.DEFINE_integer("scale", 2, "how much the network enlarges")
flags.DEFINE_integer("steps", None, "training steps, instead of the recipe's")
flags.DEFINE_string("weights_dir", str(WEIGHTS_FOLDER), "where the weights go")


@dataclasses.dataclass(frozen=True)
class LumaStage(stages.Stage):
    """A stage that compares the lumas, in [0, 1]."""

    kind: LossName = "l2"

    def difference(self, target, output):
        return super().difference(*(ops.image.rgb_to_grayscale(picture) for picture in (target, output)))


class NetworkTrainer(StageTrainer):
    """Stage `sr` of the package's loop, with any network in the place of SR and nothing in that of CAR."""

    def save_best(self, card: dict[str, Any]) -> None:
        save_weights(self.folder / "best.npz", self.joint.get_layer("sr"))
        sources = [[pathlib.Path(location).name, weight] for location, weight in card["training"]["data"]["sources"]]
        card["training"]["data"]["sources"] = sources
        write_text(self.folder / "best.json", json.dumps({"network": FLAGS.network, **card}, indent=2) + "\n")


def as_joint(network: Any) -> keras.Model:
    """The network in the form of `models.build_joint`, with a CAR that does nothing."""
    compressed = keras.Input((None, None, 3), name="compressed")
    restored = layers.Identity(name="restored")(compressed)
    car = keras.Model(compressed, restored, name="car")
    network.name = "sr"
    outputs = {"restored": car(compressed), "upscaled": network(car(compressed))}
    return keras.Model(compressed, outputs, name="joint")


def config_of(recipe: Recipe) -> TrainingConfig:
    base = training_preset("base")
    data = dataclasses.replace(recipe.data, sources=parse_sources(FLAGS.data), patch_size=recipe.patch_size)
    steps = FLAGS.steps or recipe.steps
    stage = dataclasses.replace(base.stage, steps=steps, warmup_steps=min(200, steps // 5), restored_loss_weight=0.0)
    qualities = (0,) if recipe.data is CLEAN else (10, 20, 30, 40)
    run = RunConfig(checkpoint_every=250, validate_every=-(-steps // 2), validation_qualities=qualities, validation_crop=128)
    return TrainingConfig(ModelConfig(scale=FLAGS.scale), data, stage, run)


def main(_: list[str]) -> None:
    recipe = RECIPES[FLAGS.network]
    config = config_of(recipe)
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.data.seed)
    joint = as_joint(recipe.build(FLAGS.scale))
    with stop_requests() as stop:
        sampler = PatchSampler(config.data, FLAGS.scale)
        trainer = NetworkTrainer(config, "sr", folder, joint, sampler, tf.distribute.get_strategy())
        if recipe.on_luma:
            trainer.stage = LumaStage("sr", ("sr",), trainer.stage.losses)
        if not trainer.run(stop):
            return
    for suffix in (".npz", ".json"):
        target = pathlib.Path(FLAGS.weights_dir) / f"{FLAGS.network}_x{FLAGS.scale}{suffix}"
        shutil.copyfile(folder / f"best{suffix}", target)
        print(f"wrote {target}")


if __name__ == "__main__":
    app.run(main)
