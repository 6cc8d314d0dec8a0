"""Does restoring at the same size (--scale=1) ever make a picture worse? Gain over the JPEG itself, on held-out pictures.

    python benchmarks/restoring.py --data=photos,BSDS400 [--runtime=openvino] [--output=results/restoring.json]

The pictures are those that training with the same folders keeps out (every 20th), reduced to half, which removes the artifacts
that they have themselves, and cut to at most 384 x 384 pixels. They are compressed in four ways: 4:2:0, 4:4:4, and saved before
at quality 75 and then cut so that the two block grids differ, both. JPEGs are restored as files, since their tables count; what
is clean, as pixels.
"""

from collections.abc import Callable

import figures_file
import numpy as np
from absl import app, flags
from tqdm import tqdm

from jpegsr import degradation, photos
from jpegsr.data import open_source, validation_images
from jpegsr.enhancement import Enhancer
from jpegsr.evaluation import score_picture

FLAGS = flags.FLAGS
flags.DEFINE_list("data", None, "folders of training pictures, in the order of the training", required=True)
flags.DEFINE_string("model", "base", "what restores")
flags.DEFINE_enum("runtime", "tensorflow", ["tensorflow", "openvino", "litert"], "what runs it")
flags.DEFINE_list("qualities", ["5", "10", "20", "30", "40", "50", "70", "90", "95", "100", "0"], "JPEG qualities, 0: clean")
flags.DEFINE_string("output", None, "JSON file to write")
HOLDOUT_EVERY = 20
CROP = 384
SHIFT = slice(3, None), slice(5, None)  # pixels by which a picture that is saved again has been cut before


def _saved_before(picture: np.ndarray, chroma_444: bool) -> np.ndarray:
    return degradation.jpeg(picture, 75, chroma_444)[SHIFT]


# Way -> (what the JPEG is made of, 4:4:4 or not), from the picture.
WAYS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool]] = {
    "4:2:0": (lambda picture: picture[SHIFT], False),
    "4:4:4": (lambda picture: picture[SHIFT], True),
    "saved twice, 4:2:0": (lambda picture: _saved_before(picture, False), False),
    "saved twice, 4:4:4": (lambda picture: _saved_before(picture, True), True),
}


def held_out_pictures() -> list[np.ndarray]:
    """uint8 `[H, W, 3]`."""
    sources = [open_source(location, 2 * 64).split(HOLDOUT_EVERY)[1] for location in FLAGS.data]
    return [degradation.downscale(picture, 2) for picture in validation_images(sources, 2 * CROP, 2)]


def gains(enhancer: Enhancer, pictures: list[np.ndarray], way: str, quality: int) -> dict[str, float]:
    """Mean gains over the JPEG in dB, and the share of the pictures that lose more than 0.02 dB."""
    prepare, chroma_444 = WAYS[way]
    differences = []
    for picture in pictures:
        source = prepare(picture)
        photo = photos.read(degradation.encode_jpeg(source, quality, chroma_444)) if quality else photos.Photo(source)
        pictures_to_score = photo.pixels, enhancer.enhance_photo(photo).pixels
        before, after = (score_picture(picture[SHIFT], result, 1) for result in pictures_to_score)
        # What nothing was done to is infinitely good; a loss then still counts.
        differences.append([min(b, 60.0) - min(a, 60.0) for a, b in zip(before, after, strict=True)])
    luma, _, colour = np.mean(differences, axis=0)
    worse = np.mean([min(row[0], row[2]) < -0.02 for row in differences])
    return {"psnr_y": round(float(luma), 3), "psnr_rgb": round(float(colour), 3), "share_worse": round(float(worse), 3)}


def main(_: list[str]) -> None:
    pictures = held_out_pictures()
    enhancer = Enhancer(FLAGS.model, 1, FLAGS.runtime)
    qualities = [int(quality) for quality in FLAGS.qualities]
    rows = []
    for way, quality in tqdm([(way, quality) for way in WAYS for quality in qualities]):
        rows.append({"way": way, "quality": quality, **gains(enhancer, pictures, way, quality)})
        tqdm.write(str(rows[-1]))
    if FLAGS.output:
        what = f"gain over the JPEG in dB (PSNR capped at 60), means over {len(pictures)} held-out pictures"
        figures_file.write(FLAGS.output, what, {"rows": rows}, [FLAGS.model], scale=1)


if __name__ == "__main__":
    app.run(main)
