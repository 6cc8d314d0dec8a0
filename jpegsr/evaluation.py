"""Benchmark scores: degrade test pictures, restore them, and measure every picture by itself.

Protocol: the original is cropped to a multiple of the scale and reduced with `degradation.downscale`; the result is compressed
by libjpeg, 4:2:0 (quality 0: not at all), enlarged by each method and rounded to 8 bits. PSNR and SSIM are taken on BT.601
studio-range luma, and PSNR on RGB beside it, all without `scale` pixels at each border, and averaged over pictures.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from jpegsr import degradation, images, metrics
from jpegsr.errors import UserError
from jpegsr.systems import System, apply

# A method takes the compressed low-resolution picture, uint8 [H, W, 3], to uint8 [scale * H, scale * W, 3].
Method = Callable[[np.ndarray], np.ndarray]
BICUBIC = "bicubic"
_SMALLEST_PICTURE = 11  # the window of SSIM


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
    methods: Mapping[str, Method],
    datasets: Mapping[str, str | os.PathLike[str]],
    scale: int,
    qualities: Iterable[int],
    systems: Mapping[str, System] | None = None,
) -> Iterator[Comparison]:
    """Score all methods, and bicubic first, on every picture of every dataset at every quality.

    Args:
      methods: name -> what to score.
      datasets: name -> folder of original pictures; for errors see `list_test_pictures`.
      scale: 2, 3 or 4.
      qualities: JPEG qualities 1-100, or 0 for uncompressed.
      systems: name -> what to score after the methods; these get the file, a PNG at quality 0, and decode it themselves.
    """
    files = [(dataset, *file) for dataset, folder in datasets.items() for file in list_test_pictures(folder, scale)]
    is_warm = False
    for dataset, name, path in files:
        original = degradation.crop_to_multiple(images.read_rgb(path), scale)
        reduced = degradation.downscale(original, scale)
        for quality in qualities:
            all_methods = {**methods, **(_as_methods(systems, reduced, quality, scale) if systems else {})}
            yield compare(all_methods, original, degradation.jpeg(reduced, quality), quality, dataset, name, not is_warm)
            is_warm = True


def _as_methods(systems: Mapping[str, System], reduced: np.ndarray, quality: int, scale: int) -> dict[str, Method]:
    """The systems bound to the file of one picture, uint8 `[H, W, 3]`."""
    file = degradation.encode(reduced, quality)

    def bind(name: str, system: System) -> Method:
        return lambda picture: apply(name, system, file, picture.shape[:2], scale)

    return {name: bind(name, system) for name, system in systems.items()}


def compare(
    methods: Mapping[str, Method],
    original: np.ndarray,
    compressed: np.ndarray,
    quality: int,
    dataset: str,
    name: str,
    warm_up: bool = False,
) -> Comparison:
    """Score all methods, and bicubic first, on one picture.

    Args:
      methods: name -> what to score.
      original: uint8 `[H, W, 3]`.
      compressed: what was made of it, uint8 `[H / scale, W / scale, 3]`; the scale follows from the sizes.
      quality: JPEG quality that it was compressed with, for the record.
      dataset: likewise.
      name: of the picture, likewise.
      warm_up: run each method once before it is timed, as compiling is not part of the time.
    """
    scale = len(original) // len(compressed)
    all_methods = {BICUBIC: lambda picture: degradation.upscale_bicubic(picture, scale), **methods}
    results = {}
    for method_name, method in all_methods.items():
        if warm_up:
            method(compressed)
        started = time.perf_counter()
        picture = method(compressed)
        seconds = time.perf_counter() - started
        scores = score_picture(original, picture, scale)
        results[method_name] = (Score(dataset, name, scale, quality, method_name, *scores, seconds), picture)
    return Comparison(original, compressed, results)


def smallest_side(scale: int) -> int:
    """Of a picture that can be scored, in pixels."""
    return _SMALLEST_PICTURE + 3 * scale


def list_test_pictures(folder: str | os.PathLike[str], scale: int) -> list[tuple[str, pathlib.Path]]:
    """(name, file) of all pictures of a folder, checked so that a mistake shows before an hour of scoring.

    Raises:
      UserError: there is no such folder, no picture in it, or one that is broken or too small to be scored.
    """
    paths = images.list_images(folder)
    if not paths:
        raise UserError(f"no picture in {os.fspath(folder)!r}: looked for {', '.join(images.SUFFIXES)} files")
    for path in paths:
        if min(images.read_size(path)) < (least := smallest_side(scale)):
            raise UserError(f"{str(path)!r} is too small to be scored: below {least} pixels on a side")
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    if len(set(names)) < len(names):
        names = [path.relative_to(folder).as_posix() for path in paths]
    return list(zip(names, paths, strict=True))
