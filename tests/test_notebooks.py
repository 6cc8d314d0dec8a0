"""The notebooks are stored without results, point to this repository, and run from top to bottom without a network."""

import os
import pathlib
import re
import shutil
import sys

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INSTALL = re.compile(r'if "google\.colab" in sys\.modules')


def repository() -> str:
    """Where mkdocs.yml says that the source code is."""
    return re.search(r"repository: &repository (\S+)", (ROOT / "mkdocs.yml").read_text())[1]


def executed(name: str, tmp_path: pathlib.Path, monkeypatch) -> tuple[nbformat.NotebookNode, str]:
    """The notebook after all its cells have run in a copy of the folders that it uses, and the text that they gave."""
    for folder in ("notebooks", "samples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(tmp_path / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return notebook, "".join(output.get("text", "") for output in outputs)


def num_pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum(bool({"image/png", "image/jpeg"} & set(output.get("data", {}))) for output in outputs)


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["evaluate_and_export", "quickstart", "train"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_results(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_badge_and_installation_name_the_repository(path):
    notebook = nbformat.read(path, as_version=4)
    owner_and_name = repository().removeprefix("https://github.com/")
    badge = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{path.name}"
    assert f"]({badge})" in notebook.cells[0].source
    (cell,) = [cell.source for cell in notebook.cells if INSTALL.search(cell.source)]
    assert re.findall(r"https://\S+", cell) == [repository()]
    # But for imports, all of it depends on Colab.
    lines = [line for line in cell.splitlines() if line and not line.startswith(("import ", " "))]
    assert len(lines) == 1
    assert INSTALL.match(lines[0])


def test_quickstart(tmp_path, monkeypatch):
    notebook, text = executed("quickstart", tmp_path, monkeypatch)
    assert re.search(r"quality: +25\n", text)
    assert re.search(r"the network runs on \w+", text)
    assert num_pictures(notebook) == 2


def test_train(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_STEPS", "40")
    notebook, text = executed("train", tmp_path, monkeypatch)
    assert "exit status -9" in text
    assert re.search(r"checkpoints\n(  ckpt-\d+ of stage car\n)+(  ckpt-\d+ of stage sr\n)+", text)
    assert re.search(r"stage sr goes on at step [123]0\n", text)
    assert "joint step 40" in text
    before, after = (float(value) for value in re.findall(r"(?:bicubic|this model): ([\d.]+) dB", text))
    assert after > before
    assert num_pictures(notebook) == 2


def test_evaluate_and_export(tmp_path, monkeypatch):
    notebook, text = executed("evaluate_and_export", tmp_path, monkeypatch)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    (table,) = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:] if line]
    assert [row[1:3] for row in rows] == [[quality, name] for quality in ("Q10", "Q20", "Q40") for name in ("bicubic", "base")]
    assert all(float(base[3]) > float(bicubic[3]) for bicubic, base in zip(rows[::2], rows[1::2], strict=True))
    assert "serving_default" in text
    assert "the same answer over both: True" in text
    assert num_pictures(notebook) == 5
