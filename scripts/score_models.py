"""Make all tables of a shipped model with `jpegsr evaluate`, and put them into `results/`.

    python scripts/score_models.py --data=FOLDER --model=base --scale=2 [--only=openvino --only=litert]

`FOLDER` holds the test sets Set5, Set14, B100 and Urban100, a folder each. A table that is there for these very files, from a
run that was stopped, is not made again.
"""

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

from absl import app, flags

from jpegsr import model_files, runtimes

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
JPEG = (10, 20, 30, 40)
SETS = ("Set5", "Set14", "B100")


@dataclasses.dataclass(frozen=True)
class Table:
    """One call of `jpegsr evaluate`.

    Attributes:
      runtime: what runs the model.
      datasets: names of the test sets.
      qualities: of the JPEGs, 0 for clean.
      options: further flags.
    """

    runtime: str
    datasets: tuple[str, ...] = SETS
    qualities: tuple[int, ...] = JPEG
    options: tuple[str, ...] = ()


# By what follows MODEL_xSCALE in the name of the results' folder.
TABLES = {
    "": Table("tensorflow", qualities=(0, 5, 10, 20, 30, 40, 50, 70, 90, 100)),
    "openvino": Table("openvino"),
    "litert": Table("litert"),
    "urban100_openvino": Table("openvino", ("Urban100",)),
    "self_ensemble": Table("tensorflow", ("Set5", "Set14"), options=("--self_ensemble",)),
    "self_ensemble_openvino": Table("openvino", ("B100", "Urban100"), options=("--self_ensemble",)),
}
FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "folder of the test sets", required=True)
flags.DEFINE_string("model", "base", "shipped name")
flags.DEFINE_integer("scale", 2, "2, 3 or 4")
flags.DEFINE_multi_enum("only", list(TABLES), list(TABLES), "tables to make, by the end of their names; of the main one: none")


def arguments_of(name: str, table: Table) -> list[str]:
    """Of `jpegsr`, in a folder in which the paths, which the results name, are short."""
    return [
        "evaluate",
        "--nocontact_sheets",
        f"--model={FLAGS.model}",
        f"--scale={FLAGS.scale}",
        f"--runtime={table.runtime}",
        *table.options,
        f"--qualities={','.join(map(str, table.qualities))}",
        f"--datasets={','.join(f'{dataset}={dataset}' for dataset in table.datasets)}",
        f"--output_dir=results/{name}",
    ]


def is_made(name: str, table: Table) -> bool:
    """Whether the table is there, made by the same call from the same files; `results.md` is written last."""
    folder = RESULTS / name
    if not (folder / "results.md").is_file():
        return False
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    files = runtimes.checksums(model_files.find(FLAGS.model, FLAGS.scale), table.runtime)
    is_same_call = results["command"] == f"jpegsr {shlex.join(arguments_of(name, table))}"
    return is_same_call and results["models"][FLAGS.model]["files"] == files


def make(name: str, table: Table) -> None:
    """Call `jpegsr evaluate`."""
    with tempfile.TemporaryDirectory() as workspace:
        for dataset in table.datasets:
            (pathlib.Path(workspace) / dataset).symlink_to((pathlib.Path(FLAGS.data) / dataset).resolve())
        (pathlib.Path(workspace) / "results").symlink_to(RESULTS)
        command = arguments_of(name, table)
        print("jpegsr", *command, flush=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "jpegsr.cli.main", *command], cwd=workspace, check=True, env=environment)


def main(_: list[str]) -> None:
    for ending in FLAGS.only:
        name = "_".join(filter(None, [f"{FLAGS.model}_x{FLAGS.scale}", ending]))
        if not is_made(name, TABLES[ending]):
            make(name, TABLES[ending])
        print(f"results/{name} is there")


if __name__ == "__main__":
    app.run(main)
