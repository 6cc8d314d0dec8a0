"""Draw pictures to train on of what collections of photographs have too little of.

    python scripts/draw_training_graphics.py --output_dir=graphics --number=400
    python scripts/draw_training_graphics.py --output_dir=facades --number=400 --subject=facades

Text, charts, windows and line art are in `training_graphics.py`, walls of buildings in `training_facades.py`.
"""

import concurrent.futures
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


def draw(subject: str, seed: int, index: int, path: pathlib.Path) -> None:
    """Write one picture."""
    SUBJECTS[subject](seed, index).save(path)


def main(_: list[str]) -> None:
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{FLAGS.subject.removesuffix('s')}{index:04d}.png" for index in range(FLAGS.number)]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        drawn = [pool.submit(draw, FLAGS.subject, FLAGS.seed, index, path) for index, path in enumerate(paths)]
        for picture in tqdm.tqdm(concurrent.futures.as_completed(drawn), total=len(drawn), unit="picture"):
            picture.result()


if __name__ == "__main__":
    app.run(main)
