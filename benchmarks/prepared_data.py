"""How much faster patches come from prepared data than from whole PNG files, through the same pipeline, with nothing cached.

    python benchmarks/prepared_data.py --data=FOLDER[,FOLDER] [--output=results/prepared_data.json]

Each folder's pictures are written as PNG files, and those prepared in both encodings. The figures are patches per second of
`patch_dataset` (preset base) over all three, in turn, the medians of several rounds. The files are in the memory of the
operating system by then, so it is the work on them that is compared.
"""

import dataclasses
import json
import pathlib
import statistics
import tempfile
import time

import figures_file
from absl import app, flags

from jpegsr import images, preparation
from jpegsr.config import PreparationConfig, training_preset
from jpegsr.data import PatchSampler, patch_dataset

FLAGS = flags.FLAGS
flags.DEFINE_list("data", None, "folders of training pictures, each measured on its own", required=True)
flags.DEFINE_integer("max_pictures", 100, "of each folder, as many")
flags.DEFINE_integer("batches", 20, "batches to time")
flags.DEFINE_integer("rounds", 3, "how often to measure each in turn; the medians count")
flags.DEFINE_string("output", None, "JSON file to write")


def rate(location: str, cache_megabytes: int = 0) -> float:
    """Patches per second."""
    preset = training_preset("base")
    config = dataclasses.replace(preset.data, sources=((location, 0.0),), holdout_every=0, cache_megabytes=cache_megabytes)
    sampler = PatchSampler(config, preset.model.scale)
    if cache_megabytes:
        for index in range(len(sampler.caches[0].source.names)):
            sampler.caches[0].get(index)
    batches = iter(patch_dataset(sampler, preset.stage.batch_size))
    # Those drawn ahead while the pipeline starts must not count.
    for _ in range(8):
        next(batches)
    started = time.perf_counter()
    for _ in range(FLAGS.batches):
        next(batches)
    return FLAGS.batches * preset.stage.batch_size / (time.perf_counter() - started)


def measure(folder: pathlib.Path, workspace: pathlib.Path) -> dict:
    paths = images.list_images(folder)[: FLAGS.max_pictures]
    for path in paths:
        images.write_image(workspace / "png" / f"{path.stem}.png", images.read_rgb(path))
    folders = {"png_files": workspace / "png", "prepared_raw": workspace / "raw", "prepared_png": workspace / "png_shards"}
    for name, encoding in (("prepared_raw", "raw"), ("prepared_png", "png")):
        config = PreparationConfig(encoding=encoding, holdout_every=0)
        preparation.prepare([str(folders["png_files"])], folders[name], config, workers=2)
    locations = {name: str(path) if name == "png_files" else f"prepared:{path}" for name, path in folders.items()}
    rates: dict[str, list[float]] = {name: [] for name in locations}
    for _ in range(FLAGS.rounds):
        for name, location in locations.items():
            rates[name].append(rate(location))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    megabytes = {name: sum(file.stat().st_size for file in path.iterdir()) / 1e6 for name, path in folders.items()}
    return {
        "pictures": len(paths),
        "megabytes": {name: round(value, 1) for name, value in megabytes.items()},
        "patches_per_second": {name: round(value, 1) for name, value in medians.items()},
        "patches_per_second_png_files_cached": round(rate(locations["png_files"], cache_megabytes=8000), 1),
        "times_png_files": {name: round(value / medians["png_files"], 2) for name, value in medians.items()},
    }


def main(_: list[str]) -> None:
    figures = {}
    for folder in map(pathlib.Path, FLAGS.data):
        with tempfile.TemporaryDirectory() as workspace:
            figures[folder.name] = measure(folder, pathlib.Path(workspace))
        print(json.dumps({folder.name: figures[folder.name]}, indent=2))
    if FLAGS.output:
        protocol = f"{FLAGS.batches} batches, median of {FLAGS.rounds} rounds, cache off"
        figures_file.write(FLAGS.output, protocol, figures)


if __name__ == "__main__":
    app.run(main)
