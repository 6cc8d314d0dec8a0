"""Draw docs/images/cat.png: the sample photo before and after, beside its original (CC0).

python scripts/readme_figure.py
"""

import pathlib

import skimage.data
from PIL import Image

from jpegsr import degradation, evaluation, images, reports
from jpegsr.enhancement import Enhancer

ROOT = pathlib.Path(__file__).parent.parent


def main() -> None:
    original = degradation.crop_to_multiple(skimage.data.chelsea(), 2)
    compressed = images.read_rgb(ROOT / "samples" / "cat.jpg")
    methods = {"bicubic": lambda picture: degradation.upscale_bicubic(picture, 2), "jpegsr": Enhancer("base", 2).enhance}
    results = {}
    for name, method in methods.items():
        picture = method(compressed)
        scores = evaluation.score_picture(original, picture, 2)
        results[name] = (evaluation.Score("samples", "cat", 2, 15, name, *scores, 0.0), picture)
    sheet = reports.ContactSheet()
    sheet.add(evaluation.Comparison(original, compressed, results))
    target = ROOT / "docs" / "images" / "cat.png"
    sheet.save(target)
    # A palette of 256 colours is enough for a web page, and a quarter of the size.
    Image.open(target).quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main()
