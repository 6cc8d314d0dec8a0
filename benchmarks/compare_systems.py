"""Other systems beside the models of this package: scores, seconds, memory and parameters, all measured in the same way.

    python benchmarks/compare_systems.py --datasets=Set5=Set5,Set14=Set14 [--only=shipped --only=parts_of_base]

Runs every plug-in of `benchmarks/systems` and writes `results/systems/results.csv` (every picture), `.json` and `.md`. What a
system costs is measured first, in a process of its own; one that cannot run here, or crashes, is left out with the reason.
`--only` measures some plug-ins anew and keeps what the files say of the others, as after a change of the shipped models. With
`--keep_costs` it keeps their seconds and memory, too: those of new weights for the same sizes are the same, but another
machine's cannot be compared with what stands beside them.

Finer JPEGs and clean input, on which it shows whether a network was trained on clean pictures, need no costs:

    jpegsr evaluate --model= --systems=$(grep -l ^SYSTEMS benchmarks/systems/*.py | paste -sd,) --qualities=50,90,100,0 \\
        --datasets=Set5=Set5 --nocontact_sheets --output_dir=results/systems_fine
"""

import csv
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import figures_file
import numpy as np
from absl import app, flags
from peak_memory import PeakMemory
from sample_photo import make_photo
from tqdm import tqdm

from jpegsr import degradation, evaluation, images, metrics, model_files, provenance, reports, systems
from jpegsr.errors import UserError, first_line

FLAGS = flags.FLAGS
flags.DEFINE_list("datasets", None, "NAME=FOLDER of test pictures")
flags.DEFINE_list("qualities", ["10", "20", "30"], "JPEG qualities; 0 is uncompressed")
flags.DEFINE_string("output_dir", "results/systems", "folder for the results")
flags.DEFINE_integer("rounds", 3, "how often each is timed; the median counts")
flags.DEFINE_boolean("keep_costs", False, "with --only: keep seconds and memory from the files in the output folder")
flags.DEFINE_string("cost_of", None, "internal: measure this system in this process")
FOLDER = pathlib.Path(__file__).parent / "systems"
# In the order of the tables.
PLUGINS = (
    *("scsr", "lbjsrd", "srcnn", "vdsr", "edsr_baseline", "clean_base", "parts_of_base"),
    *("waifu2x", "realcugan", "realesrgan", "span", "shipped"),
)
flags.DEFINE_multi_enum("only", [], PLUGINS, "plug-in to measure; all others keep their rows")
SCALE = 2
SIDE = 512  # pixels of the input that is timed: about a megapixel comes out
LEAST_LIKENESS = 20.0  # dB of PSNR; that of sharp results to bicubic is near 30


def all_systems() -> dict[str, tuple[pathlib.Path, systems.System]]:
    """Name -> (plug-in, system)."""
    paths = [FOLDER / f"{name}.py" for name in PLUGINS]
    return {name: (path, system) for path in paths for name, system in systems.read(path).items()}


def cost(name: str) -> dict[str, Any]:
    """What a system takes in this process, or why it cannot run."""
    _, system = all_systems()[name]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "photo.jpg"
        make_photo(path, SIDE)
        file, photo = path.read_bytes(), images.read_rgb(path)
    seconds, pictures = [], []
    try:
        with PeakMemory() as memory:
            for _ in range(FLAGS.rounds + 1):
                started = time.perf_counter()
                pictures.append(systems.apply(name, system, file, (SIDE, SIDE), SCALE))
                seconds.append(time.perf_counter() - started)
    except (UserError, ImportError) as error:
        return {"skipped": first_line(error)}
    if reason := suspicion(pictures, degradation.upscale_bicubic(photo, SCALE)):
        return {"skipped": reason}
    megapixels = (SCALE * SIDE) ** 2 / 1e6
    return {
        "skipped": None,
        "seconds_per_megapixel": round(statistics.median(seconds[1:]) / megapixels, 3),  # the first one loads and compiles
        "peak_megabytes": round(memory.peak / 1e6),
    }


def suspicion(pictures: list[np.ndarray], bicubic: np.ndarray) -> str | None:
    """Why pictures that one system made of one file cannot be right, or None: some programs are silently wrong on a CPU."""
    if any(np.abs(picture.astype(int) - pictures[0]).max() > 1 for picture in pictures):
        return "it gave different pictures for the same file"
    if (likeness := metrics.psnr(bicubic, pictures[0])) < LEAST_LIKENESS:
        return f"its picture is a wrong one, only {likeness:.1f} dB near the bicubic enlargement"
    return None


def cost_in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--cost_of={name}", f"--rounds={FLAGS.rounds}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(result.stderr, file=sys.stderr)
        return {"skipped": f"its process ended with status {result.returncode}"}
    return json.loads(result.stdout.splitlines()[-1])


def describe(name: str, path: pathlib.Path, kept: dict[str, Any] | None) -> dict[str, Any]:
    """The entry of a system in results.json, with the costs of an earlier one, if given."""
    entry = {"file": path.name, "sha256": model_files.sha256(path), "commit": provenance.source()["commit"]}
    if kept is None:
        return {**entry, **cost_in_a_process(name)}
    return {**kept, **entry, "costs_commit": kept.get("costs_commit", kept["commit"])}


def score(chosen: dict[str, systems.System], datasets: dict[str, str]) -> list[evaluation.Score]:
    qualities = [int(quality) for quality in FLAGS.qualities]
    num_pictures = sum(len(evaluation.list_test_pictures(folder, SCALE)) for folder in datasets.values())
    comparisons = evaluation.evaluate({}, datasets, SCALE, qualities, chosen)
    rows = tqdm(comparisons, total=num_pictures * len(qualities), unit="picture")
    return [score for comparison in rows for score, _ in comparison.results.values()]


def read_scores(path: pathlib.Path) -> list[evaluation.Score]:
    """What `reports.write_csv` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    types = evaluation.Score.__annotations__
    return [evaluation.Score(**{key: types[key](value) for key, value in row.items()}) for row in rows]


def costs_table(entries: dict[str, dict[str, Any]]) -> str:
    lines = ["## Costs\n", "| system | parameters | seconds per megapixel | peak memory, MB |", "|---|---|---|---|"]
    for name, entry in entries.items():
        if not entry["skipped"]:
            seconds, memory = entry["seconds_per_megapixel"], entry["peak_megabytes"]
            lines.append(f"| {name} | {entry['parameters']:,} | {seconds:.2f} | {memory:,} |")
    return "\n".join(lines) + "\n"


def main(_: list[str]) -> None:
    if FLAGS.cost_of:
        print(json.dumps(cost(FLAGS.cost_of)))
        return
    if FLAGS.keep_costs and not FLAGS.only:
        raise app.UsageError("--keep_costs needs --only")
    datasets = dict(value.split("=", 1) for value in FLAGS.datasets)
    folder = pathlib.Path(FLAGS.output_dir)
    known = all_systems()
    measured = [name for name, (path, _) in known.items() if path.stem in (FLAGS.only or PLUGINS)]
    entries, scores = {}, []
    if FLAGS.only:
        entries = json.loads((folder / "results.json").read_text(encoding="utf-8"))["systems"]
        scores = [row for row in read_scores(folder / "results.csv") if row.method not in (*measured, evaluation.BICUBIC)]
    for name in tqdm(measured, desc="costs", unit="system"):
        entries[name] = describe(name, known[name][0], entries[name] if FLAGS.keep_costs else None)
    entries = {name: entries[name] for name in known}
    chosen = {name: known[name][1] for name in measured if not entries[name]["skipped"]}
    scores += score(chosen, datasets)
    for name, system in chosen.items():  # which knows them once it is loaded
        entries[name]["parameters"] = system.num_parameters  # type: ignore[attr-defined]
    scores = sorted(scores, key=lambda row: [evaluation.BICUBIC, *known].index(row.method))
    protocol = f"{' '.join((evaluation.__doc__ or '').split())} Costs: input of {SIDE}x{SIDE}, median of {FLAGS.rounds} rounds."
    origin = {**figures_file.origin(protocol, ("base", "fast"), SCALE), "systems": entries}
    reports.write_csv(folder / "results.csv", scores)
    reports.write_json(folder / "results.json", scores, origin)
    images.write_text(folder / "results.md", costs_table(entries) + "\n" + reports.markdown(scores, origin))


if __name__ == "__main__":
    app.run(main)
