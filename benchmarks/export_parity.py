"""Every exported format beside Keras: levels of difference, PSNR lost on test pictures, bytes, seconds.

    python benchmarks/export_parity.py --pictures=Set5 --output=results/export_parity.json --page=docs/export.md

Exports a shipped model in all formats, runs each with its own runtime on the CPU, and puts the table between the two marks in
the page. The test pictures are reduced and compressed as `jpegsr evaluate` does it.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import figures_file
import numpy as np
import tensorflow as tf
from absl import app, flags
from sample_photo import make_photo

from jpegsr import degradation, evaluation, exporting, images, inference, weights
from jpegsr.endpoints import ServingOptions
from jpegsr.exporting import Format, Precision, Upscale
from jpegsr.images import write_text
from jpegsr.inference import FixedTiles, Tiling
from jpegsr.pixels import to_levels, to_unit
from jpegsr.weights import TrainedModel

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "base", "shipped name")
flags.DEFINE_string("pictures", None, "folder of test pictures, PSNR is measured on", required=True)
flags.DEFINE_list("qualities", ["10", "20", "30", "40"], "JPEG qualities")
flags.DEFINE_integer("rounds", 5, "how often each format is timed; the medians count")
flags.DEFINE_string("output", None, "JSON file to write")
flags.DEFINE_string("page", None, "Markdown page that gets the table")
MARKS = ("<!-- parity table: made by benchmarks/export_parity.py -->", "<!-- end of the parity table -->")
# Tiles that the smaller test pictures hold, and those of the default export, which are timed.
SMALL_TILES = ServingOptions(tile_size=112, tile_batch=8)
TILES = ServingOptions()
SCALE = 2
SPEED_SIDE = 2 * TILES.tile_size  # pixels of the input that is timed


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A format to measure: its rows' names, what runs test pictures, what runs the timed picture, and its files."""

    name: str
    runtime: str
    upscale: Upscale
    timed: Callable[[np.ndarray], object]
    folder: pathlib.Path


def tile_runner(folder: pathlib.Path, trained: TrainedModel, options: ServingOptions) -> Upscale:
    """`upscale_tiles` over whole pictures, cut as the remote client cuts them."""
    model = tf.saved_model.load(str(folder))
    count, side = options.tile_batch, options.tile_size
    config = trained.config

    def run(pixels: np.ndarray) -> np.ndarray:
        padded = np.zeros((count, side, side, 3), np.uint8)
        padded[: len(pixels)] = to_levels(pixels)
        return to_unit(model.signatures["upscale_tiles"](tiles=tf.constant(padded))["upscaled"].numpy()[: len(pixels)])

    tiling = Tiling(config.scale, config.receptive_radius, config.alignment, 1, FixedTiles(side, count))
    return lambda picture: inference.apply(run, picture, tiling)


def one_call(folder: pathlib.Path) -> Callable[[np.ndarray], object]:
    """`upscale_tiles` of the default export on the quarters of the timed picture, overlapping nowhere."""
    model = tf.saved_model.load(str(folder))
    side = TILES.tile_size

    def run(picture: np.ndarray) -> object:
        rows = [picture[top : top + side] for top in (0, side)]
        tiles = np.stack([row[:, left : left + side] for row in rows for left in (0, side)])
        return model.signatures["upscale_tiles"](tiles=tf.constant(tiles))["upscaled"].numpy()

    return run


def keras_candidate(trained: TrainedModel) -> Candidate:
    signature = [tf.TensorSpec((1, None, None, 3), tf.float32)]
    function = tf.function(lambda pixels: trained.model(pixels, training=False)["upscaled"], signature, autograph=False)

    def upscale(picture: np.ndarray) -> np.ndarray:
        return to_levels(function(tf.constant(to_unit(picture[None]))).numpy()[0])

    return Candidate("Keras", "TensorFlow", upscale, upscale, trained.path)


def candidates(trained: TrainedModel, folder: pathlib.Path) -> list[Candidate]:
    """All formats, exported below a folder."""
    made = [keras_candidate(trained)]
    formats: list[tuple[str, str, Format, Precision]] = [
        ("SavedModel, `upscale`", "TensorFlow", "saved_model", "float32"),
        ("ONNX", "ONNX Runtime", "onnx", "float32"),
        ("OpenVINO", "OpenVINO", "openvino", "float32"),
        ("OpenVINO, int8", "OpenVINO", "openvino", "int8"),
        ("LiteRT", "LiteRT", "litert", "float32"),
        ("LiteRT, int8", "LiteRT", "litert", "int8"),
    ]
    for name, runtime, kind, precision in formats:
        path = exporting.export(trained, folder / kind, kind, precision)
        upscale = exporting.open_exported(path, kind)
        made.append(Candidate(name, runtime, upscale, upscale, path))
    for precision in exporting.PRECISIONS["saved_model"]:
        small = exporting.export(trained, folder / "tiles", "saved_model", precision, SMALL_TILES)
        path = exporting.export(trained, folder / "tiles", "saved_model", precision, TILES)
        name = f"SavedModel, `upscale_tiles`, {precision}"
        made.append(Candidate(name, "XLA", tile_runner(small, trained, SMALL_TILES), one_call(path), path))
    return made


def measure(candidate: Candidate, keras: Candidate, scale: int, qualities: list[int]) -> dict[str, Any]:
    """Differences in levels and PSNR-Y lost, over the test pictures."""
    differences, lost = [], {}
    for quality in qualities:
        losses = []
        for path in images.list_images(FLAGS.pictures):
            original = degradation.crop_to_multiple(images.read_rgb(path), scale)
            compressed = degradation.jpeg(degradation.downscale(original, scale), quality)
            expected, result = keras.upscale(compressed), candidate.upscale(compressed)
            differences.append(np.abs(expected.astype(int) - result).ravel())
            scores = [evaluation.score_picture(original, picture, scale)[0] for picture in (expected, result)]
            losses.append(scores[0] - scores[1])
        lost[f"quality {quality}"] = round(float(np.mean(losses)), 4)
    every = np.concatenate(differences)
    return {"largest_level": int(every.max()), "mean_level": round(float(every.mean()), 4), "psnr_y_lost": lost}


def size_on_disk(candidate: Candidate) -> int:
    """Bytes of the model's files, without record and warm-up requests."""
    if candidate.folder.is_file():
        return candidate.folder.stat().st_size
    files = (path for path in candidate.folder.rglob("*") if path.is_file() and path.parent.name != "assets.extra")
    return sum(path.stat().st_size for path in files)


def time_all(made: list[Candidate]) -> list[float]:
    """Median seconds per megapixel of input; in each round all formats run once, so that a slow minute hits all of them."""
    with tempfile.TemporaryDirectory() as folder:
        make_photo(pathlib.Path(folder) / "photo.jpg", SPEED_SIDE)
        picture = images.read_rgb(pathlib.Path(folder) / "photo.jpg")
    times: list[list[float]] = [[] for _ in made]
    for number in range(FLAGS.rounds + 1):
        for candidate, seconds in zip(made, times, strict=True):
            started = time.perf_counter()
            candidate.timed(picture)
            if number:  # the first round compiles
                seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) * 1e6 / SPEED_SIDE**2 for seconds in times]


def table(rows: list[dict[str, Any]], qualities: list[int]) -> str:
    heads = ["format", "run by", "largest difference", "mean difference", *(f"PSNR-Y lost, Q{q}" for q in qualities)]
    lines = [" | ".join(["", *heads, "MB", "s per megapixel", ""]).strip(), "|" + "---|" * (len(heads) + 2)]
    for row in rows:
        # Zero is added to what is rounded, as -0.000 is no figure.
        lost = [f"{round(row['psnr_y_lost'][f'quality {quality}'], 3) + 0.0:.3f}" for quality in qualities]
        levels = [str(row["largest_level"]), f"{row['mean_level']:.3f}"]
        cells = [
            row["format"],
            row["runtime"],
            *levels,
            *lost,
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['seconds_per_megapixel']:.2f}",
        ]
        lines.append(" | ".join(["", *cells, ""]).strip())
    return "\n".join(lines)


def put_on_page(page: pathlib.Path, text: str) -> None:
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    write_text(page, f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def main(_: list[str]) -> None:
    trained = weights.load(FLAGS.model, SCALE)
    qualities = [int(quality) for quality in FLAGS.qualities]
    with tempfile.TemporaryDirectory() as name:
        made = candidates(trained, pathlib.Path(name))
        speeds = time_all(made)
        rows = [
            {
                "format": candidate.name,
                "runtime": candidate.runtime,
                **measure(candidate, made[0], SCALE, qualities),
                "bytes": size_on_disk(candidate),
                "seconds_per_megapixel": round(speed, 3),
            }
            for candidate, speed in zip(made, speeds, strict=True)
        ]
    text = table(rows, qualities)
    print(text)
    if FLAGS.output:
        what = f"{FLAGS.model} x{SCALE}, {pathlib.Path(FLAGS.pictures).name}, input of {SPEED_SIDE}x{SPEED_SIDE} timed"
        figures_file.write(FLAGS.output, what, {"weights_sha256": trained.checksum, "rows": rows})
    if FLAGS.page:
        put_on_page(pathlib.Path(FLAGS.page), text)


if __name__ == "__main__":
    app.run(main)
