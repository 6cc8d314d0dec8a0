"""How long `jpegsr --help` takes, in seconds and as a multiple of an empty Python program.

python benchmarks/startup.py [--output=results/startup.json]
"""

import json
import statistics
import subprocess
import sys
import time

import figures_file
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 15, "how often to run each; the medians count")
flags.DEFINE_string("output", None, "JSON file to write")


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main(_: list[str]) -> None:
    help_command, empty_command = ["jpegsr", "--help"], [sys.executable, "-c", ""]
    pairs = [(seconds(help_command), seconds(empty_command)) for _ in range(FLAGS.rounds + 1)][1:]
    help_seconds, empty_seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
    figures = {"help_seconds": round(help_seconds, 3), "help_over_empty_python": round(help_seconds / empty_seconds, 1)}
    print(json.dumps(figures, indent=2))
    if FLAGS.output:
        figures_file.write(FLAGS.output, f"median of {FLAGS.rounds} runs", figures)


if __name__ == "__main__":
    app.run(main)
