"""A slice of the hostile corpus, and the builder and the worker behind it. `benchmarks/hostile_files.py` runs all of it."""

import os
import pathlib
import signal
import sys
import time

import pytest

# The benchmarks are programs, not a package.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))

import hostile_corpus
import hostile_seeds
import hostile_worker

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
SLICE = range(150)
SEED = 8  # its slice holds every mutation


def test_cases_depend_on_seed_and_index_alone():
    in_order = list(hostile_corpus.cases(60, SEED))
    assert [hostile_corpus.make_case(index, SEED) for index in reversed(range(60))] == in_order[::-1]
    assert all(ours != theirs for ours, theirs in zip(in_order, hostile_corpus.cases(60, SEED + 1), strict=True))


def test_2000_cases_hold_every_mutation_of_every_format_and_a_control_group():
    drawn = [hostile_corpus.draw(index, 0)[:2] for index in range(2000)]
    assert {mutation for mutation, _ in drawn} == set(hostile_corpus.MUTATIONS)
    assert {file.name for _, file in drawn} == {file.name for file in hostile_seeds.seed_files()}
    assert 60 <= sum(mutation == hostile_corpus.CONTROL for mutation, _ in drawn) <= 200


def test_names_are_unique_and_mutations_change_the_file():
    cases = list(hostile_corpus.cases(200, SEED))
    assert len({case.name for case in cases}) == len(cases)
    valid = {file.content for file in hostile_seeds.seed_files()}
    unchanged = {case.mutation for case in cases if case.content in valid}
    assert unchanged == {hostile_corpus.CONTROL, "mislabelled"}


@pytest.mark.parametrize("file", hostile_seeds.seed_files(), ids=lambda file: file.name)
def test_valid_files_are_accepted(file, tmp_path):
    path = tmp_path / f"valid{file.suffix}"
    path.write_bytes(file.content)
    assert hostile_worker.attempt(path) == ("enhanced", "")


def test_hostile_files_are_enhanced_or_refused_in_one_line(tmp_path):
    outcomes = {}
    for case in (hostile_corpus.make_case(index, SEED) for index in SLICE):
        path = tmp_path / case.name
        path.write_bytes(case.content)
        status, message = hostile_worker.attempt(path)
        outcomes[case.name] = (case.mutation, status, message)
        path.unlink()
    accepted = {name: outcome for name, outcome in outcomes.items() if outcome[1] in ("enhanced", "refused")}
    assert outcomes.keys() == accepted.keys(), {name: outcomes[name] for name in outcomes.keys() - accepted.keys()}
    assert {mutation for mutation, _, _ in outcomes.values()} == set(hostile_corpus.MUTATIONS)
    assert {status for mutation, status, _ in outcomes.values() if mutation == hostile_corpus.CONTROL} == {"enhanced"}
    assert {status for mutation, status, _ in outcomes.values() if mutation in ("empty", "noise", "text_file")} == {"refused"}


def misbehave(path: pathlib.Path) -> None:
    """In a worker's process: what the name of the file says."""
    if path.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name == "hang":
        time.sleep(60)
    if path.name == "raise":
        raise ValueError("two\nlines")


def test_worker_survives_crashes_and_hangs(tmp_path):
    worker = hostile_worker.Worker(tmp_path / "valid", timeout=1, callee=misbehave)
    names = ["fine", "crash", "raise", "hang", "fine"]
    assert [worker.run(tmp_path / name).status for name in names] == ["enhanced", "crashed", "unexpected", "hung", "enhanced"]
    worker.close()
