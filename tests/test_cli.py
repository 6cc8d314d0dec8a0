import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import run_python
from PIL import Image

from jpegsr import model_files
from jpegsr.cli.main import main

ROOT = pathlib.Path(__file__).parent.parent
SUBCOMMANDS = ("batch", "demo", "enhance", "evaluate", "export", "info", "quantize", "remote", "train")


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
    script = run_python(str(ROOT / "train.py"), "--help").stdout
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
        (["train", "--data=a@2,b", "--output_dir=y"], "a weight above zero"),
        (["train", "--data=a@-1", "--output_dir=y"], "a weight above zero"),
        (["train", "--data=x", "--output_dir=y", "--holdout_every=1"], "holdout_every 1"),
        (["train", "--data=x", "--output_dir=y", "--scale=0"], "scale 0"),
        (["train", "--data=x", "--output_dir=y", "--learning_rate=0"], "learning_rate 0"),
        (["train", "--data=x", "--output_dir=y", "--validate_every=0"], "validate_every 0"),
        (["train", "--data=x", "--output_dir=y", "--learning_rate=nan"], "learning_rate nan"),
        (["train", "--data=x", "--output_dir=y", "--seed=4294967296"], "seed 4294967296"),
        (["train", "--data=x", "--output_dir=y", "--quality=30-10"], "quality 30-10"),
        (["train", "--data=x", "--output_dir=y", "--quality=low"], "--quality"),
        (["train", "--data=x", "--output_dir=y", "--scale=7"], "scale 7"),
        (["enhance", "nothing.jpg"], "no file 'nothing.jpg'"),
        (["evaluate", "--output_dir=y"], "--datasets"),
        (["evaluate", "--datasets=Set5", "--output_dir=y"], "NAME=FOLDER"),
        (["evaluate", "--datasets=Set5=nowhere", "--output_dir=y"], "no folder 'nowhere'"),
        (["evaluate", "--datasets=a=x,a=y", "--output_dir=y"], "names 'a' twice"),
        (["evaluate", "--datasets=Set5=x", "--output_dir=y", "--qualities=10,200"], "200"),
        (["export", "--output_dir=y", "--model=none_such"], "no model 'none_such'"),
        (["export", "--output_dir=y", "--scale=9"], "scale 9 is not one of 2, 3, 4"),
        (["quantize", "--data=x"], "--model"),
        (["quantize", "--model=base", "--data=x", "--runtimes=onnx"], "'onnx'"),
        (["info", "nothing.jpg"], "nothing.jpg"),
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
    assert "letter.jpg' is not a JPEG" in line
    assert [path.name for path in tmp_path.iterdir()] == ["letter.jpg"]


def test_outputs_that_cannot_be_written_are_refused(jpeg_file, photo_folder, tiny_run, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    status, line = error_line(
        capsys, ["enhance", str(jpeg_file), "-o", str(tmp_path / "file" / "out.png"), f"--model={tiny_run}"]
    )
    assert (status, "cannot write" in line) == (1, True)
    status, line = error_line(capsys, ["enhance", str(jpeg_file), "-o", str(tmp_path / "out.gif"), f"--model={tiny_run}"])
    assert (status, "must end in" in line) == (1, True)
    for command in (["train", "--preset=tiny", f"--data={photo_folder}"], ["export", f"--model={tiny_run}"]):
        status, line = error_line(capsys, [*command, f"--output_dir={tmp_path / 'file' / 'run'}"])
        assert (status, "cannot write to folder" in line) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_evaluate_tells_models_of_one_name_apart(tiny_run, photo_folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run / "joint", copy)
    arguments = [
        f"--datasets=photos={photo_folder}",
        "--qualities=10",
        "--nocontact_sheets",
        f"--output_dir={tmp_path / 'out'}",
    ]
    assert main(["evaluate", f"--model={tiny_run},{copy}", *arguments]) == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [average["method"] for average in report["averages"]] == ["bicubic", str(tiny_run), str(copy)]
    assert error_line(capsys, ["evaluate", f"--model={copy},{copy}", *arguments])[0] == 1


def test_a_path_is_no_name_of_a_shipped_model(tiny_run, tmp_path):
    best = next(path for stage in ("joint", "sr", "car") if (path := tiny_run / stage / "best.keras").is_file())
    run = tmp_path / "mine"
    run.mkdir()
    shutil.copy(best, run / "best.keras")
    shutil.copy(best, tmp_path / "mine_x2.keras")
    assert model_files.find(str(run)) == run / "best.keras"
    assert model_files.shipped_scales(str(run)) == []


def test_missing_scales_are_named(monkeypatch, tmp_path, capsys):
    shutil.copy(model_files.find("base", 2), tmp_path)
    shutil.copy(model_files.card_path(model_files.find("base", 2)), tmp_path)
    monkeypatch.setattr(model_files, "SHIPPED_FOLDER", tmp_path)
    assert "no weights for scale 4: there are base_x2" in error_line(capsys, ["export", "--output_dir=y", "--scale=4"])[1]


def test_only_training_runs_on_jax(jpeg_file):
    command = [sys.executable, "-m", "jpegsr.cli.main", "enhance", str(jpeg_file), "--runtime=tensorflow"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "KERAS_BACKEND": "jax"})
    assert result.returncode == 1
    assert result.stderr.startswith("jpegsr: error: KERAS_BACKEND is 'jax'")


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
    assert "has no weights for scale 3: there are 1, 2" in error_line(capsys, [*command, "--scale=3"])[1]
    (tmp_path / "model.json").write_text("{}")
    assert "not a model card" in error_line(capsys, command)[1]
    for refused in (command[:-1], ["export", f"--output_dir={tmp_path / 'out'}"]):
        assert "only been through stage car" in error_line(capsys, [*refused, f"--model={tiny_run / 'car'}"])[1]
    for runtime in ("openvino", "litert"):  # whose files of a shipped model that restores alone are there
        restoring = model_files.find("base", 1)
        flags = [*command[:-1], f"--model={restoring}", f"--runtime={runtime}"]
        assert "only been through stage car" in error_line(capsys, flags)[1]
    assert "a training run, or base or fast" in error_line(capsys, [*command[:-1], "--model=base_x2"])[1]
    (tmp_path / "model.json").write_text(card.read_text().replace("sha256", "checksum"))
    assert "not a model card" in error_line(capsys, command)[1]
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino", "litert"])
def test_no_chatter_on_stderr(jpeg_file, tmp_path, runtime):
    command = [sys.executable, "-m", "jpegsr.cli.main", "enhance", str(jpeg_file), "-o", str(tmp_path / "out.png")]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run([*command, f"--runtime={runtime}"], capture_output=True, text=True, check=True, env=environment)
    assert result.stderr == ""
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (300, 450, 3)
