"""Benchmark scores: degrade test pictures, restore them, and measure every picture by itself.

Protocol: the original is cropped to a multiple of the scale and reduced with `degradation.downscale`; the result is compressed
by libjpeg, 4:2:0 (quality 0: not at all), enlarged by each method and rounded to 8 bits. PSNR and SSIM are taken on BT.601
studio-range luma, and PSNR on RGB beside it, all without `scale` pixels at each border, and averaged over pictures.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from jpegsr import degradation, images, metrics

# A method takes the compressed low-resolution picture, uint8 [H, W, 3], to uint8 [scale * H, scale * W, 3].
Method = Callable[[np.ndarray], np.ndarray]
BICUBIC = "bicubic"


@dataclasses.dataclass(frozen=True)
class Score:
    """One row of the results: a method on a picture at a quality."""

    dataset: str
    image: str
    scale: int
    quality: int
    method: str
    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The pictures behind the scores of one test picture at one quality.

    Attributes:
      original, compressed: uint8 `[H, W, 3]` and `[H / scale, W / scale, 3]`.
      results: method name -> (its score, its picture, uint8 `[H, W, 3]`).
    """

    original: np.ndarray
    compressed: np.ndarray
    results: dict[str, tuple[Score, np.ndarray]]


def score_picture(original: np.ndarray, result: np.ndarray, scale: int) -> tuple[float, float, float]:
    """(PSNR-Y in dB, SSIM-Y, PSNR-RGB in dB) of uint8 pictures `[H, W, 3]`, `scale` border pixels left out."""
    original, result = (metrics.crop_border(picture, scale) for picture in (original, result))
    luma_original, luma_result = metrics.luma(original), metrics.luma(result)
    return (
        metrics.psnr(luma_original, luma_result),
        metrics.ssim(luma_original, luma_result),
        metrics.psnr(original, result),
    )


def evaluate(
    methods: Mapping[str, Method], datasets: Mapping[str, str | os.PathLike[str]], scale: int, qualities: Iterable[int]
) -> Iterator[Comparison]:
    """Score all methods, and bicubic first, on every picture of every dataset at every quality.

    Args:
      methods: name -> what to score.
      datasets: name -> folder of original pictures; `UserError` if it does not exist.
      scale: 2, 3 or 4.
      qualities: JPEG qualities 1-100, or 0 for uncompressed.
    """
    all_methods = {BICUBIC: lambda picture: degradation.upscale_bicubic(picture, scale), **methods}
    # All folders are opened before the first picture is scored: a typing mistake should not show after an hour.
    files = [(name, path) for name, folder in datasets.items() for path in images.list_images(folder)]
    for (dataset, path), quality in itertools.product(files, qualities):
        original = degradation.crop_to_multiple(images.read_rgb(path), scale)
        compressed = degradation.jpeg(degradation.downscale(original, scale), quality)
        results = {}
        for name, method in all_methods.items():
            started = time.perf_counter()
            picture = method(compressed)
            seconds = time.perf_counter() - started
            scores = score_picture(original, picture, scale)
            results[name] = (Score(dataset, path.stem, scale, quality, name, *scores, seconds), picture)
        yield Comparison(original, compressed, results)
