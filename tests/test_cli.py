import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import run_python
from PIL import Image

from jpegsr.cli.main import main

SUBCOMMANDS = ("enhance", "evaluate", "export", "train")


def error_line(capsys, arguments: list[str]) -> tuple[int, str]:
    """(exit status, the one line on stderr) of a command that must fail."""
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse
        status = int(stop.code)
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(lines)
    return status, lines[-1]


def test_help_imports_nothing_heavy():
    program = """
import sys
from jpegsr.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"tensorflow", "keras", "numpy", "PIL", "tensorflow_datasets"} & set(sys.modules)
assert not heavy, heavy
"""
    assert "enhance" in run_python("-c", program).stdout


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_subcommand_help_has_examples_and_its_flags(subcommand, capsys):
    with pytest.raises(SystemExit) as stop:
        main([subcommand, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "--model" in text or "--preset" in text


def test_train_py_is_jpegsr_train(capsys):
    script = run_python("train.py", "--help").stdout
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert sorted(script.split()) == sorted(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--preset=huge", "--data=x", "--output_dir=y"], "unknown preset 'huge'"),
        (["train", "--output_dir=y"], "--data"),
        (["train", "--data=x"], "--output_dir"),
        (["train", "--data=nowhere", "--output_dir=y", "--preset=tiny"], "no folder 'nowhere'"),
        (["train", "--data=x@much", "--output_dir=y"], "'much' is not a weight"),
        (["train", "--data=x", "--output_dir=y", "--quality=30-10"], "quality 30-10"),
        (["train", "--data=x", "--output_dir=y", "--quality=low"], "--quality"),
        (["train", "--data=x", "--output_dir=y", "--scale=7"], "scale 7"),
        (["enhance", "nothing.jpg"], "no file 'nothing.jpg'"),
        (["evaluate", "--output_dir=y"], "--datasets"),
        (["evaluate", "--datasets=Set5", "--output_dir=y"], "NAME=FOLDER"),
        (["evaluate", "--datasets=Set5=nowhere", "--output_dir=y"], "no folder 'nowhere'"),
        (["evaluate", "--datasets=Set5=x", "--output_dir=y", "--qualities=10,200"], "200"),
        (["export", "--output_dir=y", "--model=none_such"], "no model 'none_such'"),
        (["export", "--output_dir=y", "--scale=9"], "no weights for scale 9"),
        (["export"], "--output_dir"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, line = error_line(capsys, arguments)
    assert status == 1
    assert line.startswith("jpegsr: error: ")
    assert words in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["paint"], ["train", "--steps=many"], ["train", "--stage=last"], ["enhance"]])
def test_wrong_flags_exit_with_2(arguments, capsys):
    status, line = error_line(capsys, arguments)
    assert status == 2
    assert "error" in line


def test_enhance_refuses_what_is_no_picture(tmp_path, capsys):
    (tmp_path / "letter.jpg").write_text("Dear reader,")
    status, line = error_line(capsys, ["enhance", str(tmp_path / "letter.jpg"), "-o", str(tmp_path / "out.png")])
    assert status == 1
    assert "letter.jpg' is not a picture" in line
    assert [path.name for path in tmp_path.iterdir()] == ["letter.jpg"]


def test_enhance_refuses_an_output_that_cannot_be_written(jpeg_file, tiny_run, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    status, line = error_line(
        capsys, ["enhance", str(jpeg_file), "-o", str(tmp_path / "file" / "out.png"), f"--model={tiny_run}"]
    )
    assert (status, "cannot write" in line) == (1, True)
    status, line = error_line(capsys, ["enhance", str(jpeg_file), "-o", str(tmp_path / "out.gif"), f"--model={tiny_run}"])
    assert (status, "must end in" in line) == (1, True)
    for command in (["train", "--preset=tiny", "--data=x"], ["export", f"--model={tiny_run}"]):
        assert error_line(capsys, [*command, f"--output_dir={tmp_path / 'file' / 'run'}"])[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_damaged_and_foreign_weights_are_refused(tiny_run, tmp_path, jpeg_file, capsys):
    weights, card = tiny_run / "joint" / "best.keras", tiny_run / "joint" / "best.json"
    copy = tmp_path / "model.keras"
    command = ["enhance", str(jpeg_file), "-o", str(tmp_path / "out.png"), f"--model={copy}"]
    copy.write_bytes(weights.read_bytes())
    assert "no model card" in error_line(capsys, command)[1]
    (tmp_path / "model.json").write_text(card.read_text())
    copy.write_bytes(weights.read_bytes()[:-10])
    assert "SHA-256" in error_line(capsys, command)[1]
    copy.write_bytes(weights.read_bytes())
    assert "enlarges 2 times, not 3" in error_line(capsys, [*command, "--scale=3"])[1]
    (tmp_path / "model.json").write_text("{}")
    assert "not a model card" in error_line(capsys, command)[1]
    assert "only been through stage car" in error_line(capsys, [*command[:-1], f"--model={tiny_run / 'car'}"])[1]
    assert not (tmp_path / "out.png").exists()


def test_no_chatter_on_stderr(jpeg_file, tiny_run, tmp_path):
    command = [
        sys.executable,
        "-m",
        "jpegsr.cli.main",
        "enhance",
        str(jpeg_file),
        "-o",
        str(tmp_path / "out.png"),
        f"--model={tiny_run}",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stderr == ""
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (300, 450, 3)
