"""Draw pictures with text, charts, windows and line art to train on, of which collections of photographs have next to none.

    python scripts/draw_training_graphics.py --output_dir=graphics --number=400

What is drawn is in `training_graphics.py`.
"""

import pathlib

import tqdm
import training_graphics
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", None, "folder for the PNGs", required=True)
flags.DEFINE_integer("number", 400, "of pictures", lower_bound=1)
flags.DEFINE_integer("seed", 1, "of all that is random")


def main(_: list[str]) -> None:
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm.tqdm(range(FLAGS.number), unit="picture"):
        training_graphics.picture(FLAGS.seed, index).save(folder / f"graphic{index:04d}.png")


if __name__ == "__main__":
    app.run(main)
