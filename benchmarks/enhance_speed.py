"""What `jpegsr enhance` costs here: runtimes against each other, the whole way against the bare network, start-up.

    python benchmarks/enhance_speed.py [--model=base] [--output=results/enhance_speed.json]

The photo has one megapixel and is a JPEG; it is made from the bundled ones. All figures are medians of rounds in which every
candidate runs once, so that a slow minute hits all of them.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import figures_file
from absl import app, flags
from sample_photo import make_photo

from jpegsr import photos, runtimes
from jpegsr.enhancement import Enhancer
from jpegsr.pixels import to_unit

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "how often to run each; the medians count")
flags.DEFINE_string("model", "base", "name of a shipped model")
flags.DEFINE_string("output", None, "JSON file to write")
RUNTIMES = ("tensorflow", "openvino", "litert")


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def end_to_end(enhancer: Enhancer, source: pathlib.Path, target: pathlib.Path) -> None:
    photo = photos.read(source)
    photos.write(target, enhancer.enhance_photo(photo), photo)


def measure(folder: pathlib.Path) -> dict[str, float]:
    """Seconds of each candidate."""
    source = folder / "photo.jpg"
    make_photo(source)
    pixels = to_unit(photos.read(source).pixels[None])
    candidates: dict[str, Callable[[], object]] = {}
    for name in RUNTIMES:
        network = runtimes.load(FLAGS.model, 2, name)
        enhancer = Enhancer(FLAGS.model, 2, name)
        candidates[f"network_{name}"] = lambda network=network: network.run(pixels, 1.0)
        for suffix in ("png", "jpg"):
            target = folder / f"{name}.{suffix}"
            candidates[f"file_{name}_{suffix}"] = lambda e=enhancer, t=target: end_to_end(e, source, t)
    for call in candidates.values():
        call()  # compile
    rounds = [{name: seconds(call) for name, call in candidates.items()} for _ in range(FLAGS.rounds)]
    return {name: statistics.median(times[name] for times in rounds) for name in candidates}


def start_up(folder: pathlib.Path) -> float:
    """Seconds of the whole command on a small photo, process start included."""
    small = folder / "small.jpg"
    make_photo(small, 128)
    command = [sys.executable, "-m", "jpegsr.cli.main", "enhance", str(small), "-o", str(folder / "small.png")]
    run = [*command, f"--model={FLAGS.model}", "--runtime=openvino", "--overwrite"]
    return statistics.median(seconds(lambda: subprocess.run(run, check=True, capture_output=True)) for _ in range(FLAGS.rounds))


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        times = measure(pathlib.Path(name))
        figures = {
            "seconds": {key: round(value, 3) for key, value in times.items()},
            "end_to_end_over_network": {
                f"{runtime}_{suffix}": round(times[f"file_{runtime}_{suffix}"] / times[f"network_{runtime}"], 3)
                for runtime in RUNTIMES
                for suffix in ("png", "jpg")
            },
            "times_faster_than_tensorflow": {
                runtime: round(times["network_tensorflow"] / times[f"network_{runtime}"], 2) for runtime in RUNTIMES[1:]
            },
            "command_on_a_small_photo_openvino_seconds": round(start_up(pathlib.Path(name)), 3),
        }
    print(json.dumps(figures, indent=2))
    if FLAGS.output:
        protocol = f"median of {FLAGS.rounds} rounds, {FLAGS.model} x2"
        figures_file.write(FLAGS.output, protocol, figures, [FLAGS.model])


if __name__ == "__main__":
    app.run(main)
