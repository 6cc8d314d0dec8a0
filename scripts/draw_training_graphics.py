"""Draw pictures to train on of what collections of photographs have too little of.

    python scripts/draw_training_graphics.py --output_dir=graphics --number=400
    python scripts/draw_training_graphics.py --output_dir=facades --number=400 --subject=facades

Text, charts, windows and line art are in `training_graphics.py`, walls of buildings in `training_facades.py`.
"""

import pathlib

import tqdm
import training_facades
import training_graphics
from absl import app, flags

FLAGS = flags.FLAGS
SUBJECTS = {"graphics": training_graphics.picture, "facades": training_facades.picture}
flags.DEFINE_string("output_dir", None, "folder for the PNGs", required=True)
flags.DEFINE_integer("number", 400, "of pictures", lower_bound=1)
flags.DEFINE_enum("subject", "graphics", list(SUBJECTS), "what is drawn")
flags.DEFINE_integer("seed", 1, "of all that is random")


def main(_: list[str]) -> None:
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm.tqdm(range(FLAGS.number), unit="picture"):
        SUBJECTS[FLAGS.subject](FLAGS.seed, index).save(folder / f"{FLAGS.subject.removesuffix('s')}{index:04d}.png")


if __name__ == "__main__":
    app.run(main)
