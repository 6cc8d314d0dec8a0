"""What becomes of thousands of truncated, mislabelled, fuzzed and otherwise hostile picture files.

    python benchmarks/hostile_files.py [--cases=2000] [--seed=0] [--output=results/hostile_files.json] [--keep=FOLDER]

Each file must be enhanced or refused in one line that names it; a valid one must be enhanced. Exit status 1 if any was not.
"""

import collections
import pathlib
import queue
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import figures_file
from absl import app, flags
from hostile_corpus import CONTROL, Case, make_case
from hostile_seeds import seed_files
from hostile_worker import BLOATED_BYTES, MAX_PIXELS, Outcome, Worker
from tqdm import tqdm

FLAGS = flags.FLAGS
flags.DEFINE_integer("cases", 2000, "how many files to try", lower_bound=1)
flags.DEFINE_integer("first", 0, "index of the first, to repeat a part of a run", lower_bound=0)
flags.DEFINE_integer("seed", 0, "which corpus")
flags.DEFINE_integer("workers", 2, "how many at a time", lower_bound=1)
flags.DEFINE_float("timeout", 20, "seconds after which a file counts as hung")
flags.DEFINE_string("output", None, "JSON file to write")
flags.DEFINE_string("keep", None, "folder for the files that were neither enhanced nor refused")
_CLEAN = ("enhanced", "refused")
_STATUSES = (*_CLEAN, "unexpected", "crashed", "hung", "bloated")
Results = list[tuple[Case, Outcome]]


def judged(case: Case, outcome: Outcome) -> Outcome:
    """The outcome, unexpected where a valid file was refused."""
    if case.mutation == CONTROL and outcome.status == "refused":
        return Outcome("unexpected", f"a valid file was refused: {outcome.message}", outcome.seconds, outcome.grown_bytes)
    return outcome


def try_cases(folder: pathlib.Path) -> tuple[Results, float]:
    """All cases with their outcomes, contents dropped, and how long they took together."""
    valid = folder / "valid.jpg"
    valid.write_bytes(seed_files()[0].content)
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for _ in range(FLAGS.workers):
        idle.put(Worker(valid, FLAGS.timeout))

    def try_case(index: int) -> tuple[Case, Outcome]:
        case = make_case(index, FLAGS.seed)
        path = folder / case.name
        path.write_bytes(case.content)
        worker = idle.get()
        try:
            outcome = judged(case, worker.run(path))
        finally:
            idle.put(worker)
            path.unlink()
        if FLAGS.keep and outcome.status not in _CLEAN:
            (pathlib.Path(FLAGS.keep) / case.name).write_bytes(case.content)
        return Case(case.name, case.suffix, case.mutation, b""), outcome

    started = time.perf_counter()
    with ThreadPoolExecutor(FLAGS.workers) as threads:
        indices = range(FLAGS.first, FLAGS.first + FLAGS.cases)
        results = list(tqdm(threads.map(try_case, indices), total=FLAGS.cases, disable=not sys.stderr.isatty()))
    for _ in range(FLAGS.workers):
        idle.get().close()
    return results, time.perf_counter() - started


def figures_of(results: Results, seconds: float) -> dict[str, object]:
    """What the results file says."""
    by_mutation: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case, outcome in results:
        by_mutation[case.mutation][outcome.status] += 1
    totals = sum(by_mutation.values(), collections.Counter())
    slowest_case, slowest = max(results, key=lambda result: result[1].seconds)
    largest_case, largest = max(results, key=lambda result: result[1].grown_bytes)
    printed = {case.name: outcome.stderr for case, outcome in results if outcome.stderr}
    warned = [name for name, text in printed.items() if "Warning: " in text]
    return {
        "cases": len(results),
        "statuses": {status: totals[status] for status in _STATUSES},
        "by_mutation": {mutation: dict(sorted(counts.items())) for mutation, counts in sorted(by_mutation.items())},
        "seconds": round(seconds, 1),
        "slowest": {"name": slowest_case.name, "seconds": round(slowest.seconds, 2)},
        "largest_memory": {"name": largest_case.name, "megabytes": round(largest.grown_bytes / 1e6)},
        # No failure, but more than the one line that a user is to see: warnings of Python, and what decoders print in C.
        "printed_on_stderr": {
            "python_warnings": {"cases": len(warned), "examples": warned[:5]},
            "decoders": {"cases": len(printed) - len(warned), "examples": sorted(set(printed) - set(warned))[:5]},
        },
        "not_clean": [
            {"name": case.name, "mutation": case.mutation, "status": outcome.status, "message": outcome.message}
            for case, outcome in results
            if outcome.status not in _CLEAN
        ],
    }


def print_table(figures: dict) -> None:
    rows = [*figures["by_mutation"].items(), ("all", figures["statuses"])]
    print(f"{'mutation':18}" + "".join(f"{status:>12}" for status in _STATUSES))
    for mutation, counts in rows:
        print(f"{mutation:18}" + "".join(f"{counts.get(status, 0):12}" for status in _STATUSES))
    print(f"{figures['cases']} cases in {figures['seconds']} s; slowest {figures['slowest']}, {figures['largest_memory']}")


def main(_: list[str]) -> None:
    if FLAGS.keep:
        pathlib.Path(FLAGS.keep).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        results, seconds = try_cases(pathlib.Path(folder))
    figures = figures_of(results, seconds)
    print_table(figures)
    if FLAGS.output:
        protocol = (
            f"seed {FLAGS.seed}, {MAX_PIXELS} pixels at most, hung after {FLAGS.timeout:.0f} s, "
            f"bloated from {BLOATED_BYTES / 1e6:.0f} MB"
        )
        figures_file.write(FLAGS.output, protocol, figures)
    if figures["not_clean"]:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
