"""`jpegsr batch` on this machine: two workers against one, what a photo costs besides itself, and what kills leave behind.

    python benchmarks/beam_batch.py [--photos=200] [--rounds=3] [--kills=20] [--output=results/beam_batch.json]

Each worker's network has one thread. Throughput is that from the first result to the last, so that start-up does not count.
The overhead is what passes besides decoding, network and encoding: writing, looking what is there, reading, Beam, and the way
to the process of the network and back.
A kill is a SIGKILL of all processes at a random moment of a run.
"""

import itertools
import json
import logging
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, ClassVar

import figures_file
from absl import app, flags
from PIL import Image
from sample_photo import SAMPLE, make_photo

from jpegsr import batch, beam_files, beam_inference, beam_options, files

FLAGS = flags.FLAGS
flags.DEFINE_integer("photos", 200, "mixed small photos for the throughput")
flags.DEFINE_integer("rounds", 3, "of throughput and overhead; the medians count")
flags.DEFINE_integer("kills", 20, "how often a run is killed")
flags.DEFINE_string("output", None, "JSON file to write")
_SHORT_SIDES, _LONG_SIDES = (96, 240), (128, 400)  # pixels, from and to
_MEGAPIXEL_PHOTOS = 8
_KILLED_PHOTOS = 24
_WORKERS = 2


def make_photos(folder: pathlib.Path, count: int) -> None:
    """Crops of a sample photo in all sizes, upright and lying, as JPEGs of all qualities."""
    chooser = random.Random(0)
    sample = Image.open(SAMPLE).convert("RGB")
    folder.mkdir()
    for i in range(count):
        size = [chooser.randint(*_LONG_SIDES), chooser.randint(*_SHORT_SIDES)]
        chooser.shuffle(size)
        width, height = (min(length, longest) for length, longest in zip(size, sample.size, strict=True))
        left, top = chooser.randint(0, sample.width - width), chooser.randint(0, sample.height - height)
        picture = sample.crop((left, top, left + width, top + height))
        picture.save(folder / f"{i:04}.jpg", quality=chooser.randint(10, 90))


def command(source: pathlib.Path, target: pathlib.Path, num_workers: int) -> list[str]:
    workers = ["--threads_per_worker=1", "--direct_running_mode=multi_processing", f"--direct_num_workers={num_workers}"]
    return [sys.executable, "-m", "jpegsr.cli.main", "batch", f"--photos={source}", f"--output_dir={target}", *workers]


def throughput(source: pathlib.Path, target: pathlib.Path, num_workers: int) -> float:
    """Megapixels per second, of inputs, from the first result to the last."""
    subprocess.run(command(source, target, num_workers), check=True, capture_output=True)
    times = {path.stem: path.stat().st_mtime for path in target.glob("*.png")}
    first = min(times, key=lambda name: times[name])
    megapixels = 0.0
    for path in source.iterdir():
        if path.stem != first:
            with Image.open(path) as image:
                megapixels += image.width * image.height / 1e6
    return megapixels / (max(times.values()) - times[first])


def measure_throughput(folder: pathlib.Path) -> dict[str, Any]:
    source = folder / "mixed"
    make_photos(source, FLAGS.photos)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for i in range(FLAGS.rounds):
        for num_workers, seen in rates.items():
            seen.append(throughput(source, folder / f"mixed_{i}_{num_workers}", num_workers))
    medians = {num_workers: statistics.median(seen) for num_workers, seen in rates.items()}
    return {
        "photos": FLAGS.photos,
        "megapixels_per_second": {f"{num_workers}_workers": round(rate, 4) for num_workers, rate in medians.items()},
        "two_workers_over_one": round(medians[2] / medians[1], 2),
    }


class TimedEnhancer(beam_inference.IsolatedEnhancer):
    """Notes when it ended with each photo, and what decoding, network and encoding took of the time."""

    times: ClassVar[list[tuple[float, float]]] = []

    def enhance(self, *arguments: Any) -> Any:
        result = super().enhance(*arguments)
        assert isinstance(result, beam_inference.Enhanced), result
        self.times.append((time.perf_counter(), sum(result.seconds.values())))
        return result


def measure_overhead(folder: pathlib.Path) -> dict[str, Any]:
    """What passes from one result to the next besides decoding, network and encoding."""
    beam_inference.IsolatedEnhancer = TimedEnhancer  # type: ignore[misc]
    source = folder / "megapixel"
    source.mkdir()
    for i in range(_MEGAPIXEL_PHOTOS):
        make_photo(source / f"{i}.jpg")
    archive = batch.Archive("photos", beam_files.as_pattern(str(source)), str(folder / "enlarged"))
    settings = files.Settings(overwrite=True)
    whole, besides = [], []
    for _ in range(FLAGS.rounds):
        TimedEnhancer.times.clear()
        report = batch.run(archive, settings, beam_options.parse([]), str(folder / "dead_letters.jsonl"))
        assert report.done == _MEGAPIXEL_PHOTOS
        pairs = list(itertools.pairwise(TimedEnhancer.times))
        whole.append(statistics.mean(following[0] - one[0] for one, following in pairs))
        besides.append(statistics.mean(following[0] - one[0] - following[1] for one, following in pairs))
    seconds, overhead = statistics.median(whole), statistics.median(besides)
    return {
        "seconds_per_photo_of_a_megapixel": round(seconds, 3),
        "overhead_seconds": round(overhead, 4),
        "overhead_percent": round(100 * overhead / seconds, 2),
    }


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Results by name, and whatever else lies there."""
    below = (path for path in folder.rglob("*") if path.is_file() and path.name != "dead_letters.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in below}


def kill_once(source: pathlib.Path, target: pathlib.Path, seconds: float) -> bool:
    """Start, or go on with, a run and kill it after some seconds; whether it was still at it."""
    run = subprocess.Popen(
        command(source, target, _WORKERS), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        run.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        return True


def measure_kills(folder: pathlib.Path) -> dict[str, Any]:
    """Kill runs; each time a run gets to its end, compare what is there with an undisturbed one, and begin anew."""
    source, expected_folder = folder / "killed", folder / "undisturbed"
    make_photos(source, _KILLED_PHOTOS)
    started = time.monotonic()
    subprocess.run(command(source, expected_folder, _WORKERS), check=True, capture_output=True)
    duration, expected = time.monotonic() - started, contents(expected_folder)
    chooser = random.Random(0)
    counts = dict.fromkeys(("kills", "kills_with_results_to_come", "finished_runs", "lost", "doubled", "partial", "redone"), 0)
    while counts["kills"] < FLAGS.kills or counts["finished_runs"] == 0:
        target = folder / f"killed_{counts['finished_runs']}"
        present: dict[str, int] = {}
        while True:
            is_last = counts["kills"] == FLAGS.kills
            was_killed = kill_once(source, target, 600 if is_last else chooser.uniform(0, duration))
            results = {name: content for name, content in contents(target).items() if not name.startswith(".unfinished")}
            times = {name: (target / name).stat().st_mtime_ns for name in results}
            counts["partial"] += sum(content != expected.get(name) for name, content in results.items())
            counts["redone"] += sum(times.get(name) != time_before for name, time_before in present.items())
            present = times
            if not was_killed:
                break
            counts["kills"] += 1
            counts["kills_with_results_to_come"] += len(results) < len(expected)
        counts["finished_runs"] += 1
        counts["lost"] += len(expected.keys() - contents(target).keys())
        counts["doubled"] += len(contents(target).keys() - expected.keys())
    return {"photos": _KILLED_PHOTOS, "workers": _WORKERS, **counts, "photos_under_way_at_a_kill_at_most": _WORKERS}


def main(_: list[str]) -> None:
    logging.getLogger().setLevel(logging.CRITICAL)  # as the command does
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        figures = {
            "cores": os.cpu_count(),
            "throughput": measure_throughput(folder),
            "overhead": measure_overhead(folder),
            "kills": measure_kills(folder),
        }
    print(json.dumps(figures, indent=2))
    if FLAGS.output:
        protocol = f"base x2, runtime auto, FnApiRunner; medians of {FLAGS.rounds} rounds, PNG results"
        figures_file.write(FLAGS.output, protocol, figures)


if __name__ == "__main__":
    app.run(main)
