"""`jpegsr enhance` on files: one, many, trees, streams; what is skipped, what fails, and what a kill leaves behind."""

import csv
import io
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jpegsr import files, images, photos
from jpegsr.cli.main import main
from jpegsr.enhancement import Enhancer
from jpegsr.errors import UserError

FAST = "--runtime=openvino"


def written(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_structure_and_its_faults_to_itself(album, tmp_path, capsys):
    out, manifest = tmp_path / "out", tmp_path / "report" / "manifest.csv"
    command = ["enhance", str(album), f"--output_dir={out}", FAST, f"--manifest={manifest}"]
    assert main(command) == 1
    assert written(out) == ["a.png", "deeper/b.png", "deeper/still/c.png"]
    output = capsys.readouterr()
    assert "3 done, 0 skipped, 1 failed" in output.out
    assert [line for line in output.err.splitlines() if "error" in line and "broken.jpg" in line]
    with open(manifest, newline="") as file:
        rows = {pathlib.Path(row["input"]).name: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.jpg": "done", "b.png": "done", "c.webp": "done", "broken.jpg": "failed",
    }  # fmt: skip
    assert float(rows["a.jpg"]["seconds"]) > 0
    assert "broken.jpg" in rows["broken.jpg"]["error"]
    expected = Enhancer("base", runtime="openvino").enhance(album / "deeper" / "b.png")
    np.testing.assert_array_equal(np.asarray(Image.open(out / "deeper" / "b.png")), expected)

    # Again: what is there stays, what failed is tried anew.
    before = (out / "a.png").stat().st_mtime_ns
    shutil.copy(album / "a.jpg", album / "deeper" / "broken.jpg")
    assert main(command) == 0
    assert "1 done, 3 skipped, 0 failed" in capsys.readouterr().out
    assert (out / "a.png").stat().st_mtime_ns == before
    assert main([*command, "--overwrite", "--jobs=3"]) == 0
    assert (out / "a.png").stat().st_mtime_ns > before


def test_patterns_several_arguments_and_equal_names(album, tmp_path):
    out = tmp_path / "out"
    pattern = str(album / "**" / "*.png")
    assert main(["enhance", pattern, str(album / "a.jpg"), f"--output_dir={out}", "--format=jpeg", FAST]) == 0
    assert written(out) == ["a.jpg", "b.jpg"]
    Image.open(album / "a.jpg").save(album / "a.png")
    assert main(["enhance", str(album / "a.jpg"), str(album / "a.png"), f"--output_dir={tmp_path / 'two'}", FAST]) == 0
    assert written(tmp_path / "two") == ["a.jpg.png", "a.png.png"]
    with pytest.raises(UserError, match="same name"):
        files.list_jobs([str(album / "a.jpg"), str(shutil.copy(album / "a.jpg", tmp_path))], str(out), ".png", "")


def test_no_photo_is_overwritten_by_the_result_of_another(tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "a.png", "b.jpg"):
        Image.fromarray(photo[:20, :30]).save(name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["enhance", "a.jpg", "a.png", "b.jpg", "--output_dir=.", "--overwrite", FAST]) == 0
    assert written(tmp_path) == ["a.jpg", "a.jpg.png", "a.png", "a.png.png", "b.jpg", "b.png"]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    for name in set(written(tmp_path)) - set(before):
        (tmp_path / name).unlink()
    # Beside the photos, and again with a pattern that meets the results.
    for _ in range(2):
        assert main(["enhance", "*.jpg", "a.png", "--format=jpeg", FAST]) == 0
        assert written(tmp_path) == ["a.jpg", "a.jpg_x2.jpg", "a.png", "a.png_x2.jpg", "b.jpg", "b_x2.jpg"]


def test_a_photo_with_the_name_of_a_result_is_told_of_and_not_lost(tmp_path, photo, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a_x2.png"):
        Image.fromarray(photo[:20, :20]).save(name)
    before = (tmp_path / "a_x2.png").read_bytes()
    assert main(["enhance", "a.png", "a_x2.png", FAST]) == 0
    assert "left out, as earlier results have such names: a_x2.png" in capsys.readouterr().err
    assert main(["enhance", "a.png", "a_x2.png", "--overwrite", FAST]) == 1
    assert "'a_x2.png' has the name of another photo's result" in capsys.readouterr().err
    assert (tmp_path / "a_x2.png").read_bytes() == before
    assert main(["enhance", "*.png", "--overwrite", FAST]) == 0  # the pattern is ours, and so is the result
    with Image.open("a_x2.png") as image:
        assert image.size == (40, 40)


def test_an_output_folder_inside_the_input_is_no_input(album):
    out = album / "out"
    assert main(["enhance", str(album), f"--output_dir={out}", FAST]) == 1
    (album / "deeper" / "broken.jpg").unlink()
    assert main(["enhance", str(album), f"--output_dir={out}", FAST]) == 0
    assert written(out) == ["a.png", "deeper/b.png", "deeper/still/c.png"]


def test_one_photo_beside_itself(album, capsys, monkeypatch):
    monkeypatch.chdir(album)
    assert main(["enhance", "a.jpg", FAST]) == 0
    assert capsys.readouterr().out.strip() == "a.jpg -> a_x2.png"
    assert main(["enhance", "a.jpg", FAST]) == 0
    assert "already there" in capsys.readouterr().out
    with Image.open("a_x2.png") as image:
        assert image.size == (80, 60)
    os.umask(mask := os.umask(0))
    assert stat.S_IMODE(os.stat("a_x2.png").st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (["--scale=1"], (40, 30)),
        (["--scale=3"], (120, 90)),
        (["--scale=4"], (160, 120)),
        (["--longest_side=100"], (100, 75)),
        (["--size=1000x45"], (60, 45)),
        (["--size=400x400"], (400, 300)),
        (["--longest_side=20"], (20, 15)),
    ],
)
def test_sizes(album, tmp_path, flags, size):
    out = tmp_path / "sized.png"
    assert main(["enhance", str(album / "a.jpg"), "-o", str(out), FAST, *flags]) == 0
    with Image.open(out) as image:
        assert image.size == size
        small = np.asarray(Image.open(album / "a.jpg").resize((20, 15), Image.Resampling.BOX)).astype(float)
        again = np.asarray(image.convert("RGB").resize((20, 15), Image.Resampling.BOX))
        assert np.abs(again - small).mean() < 6  # the same picture, not shifted or mixed up


def test_the_nearest_scale_is_taken():
    settings = files.Settings(longest_side=1000)
    assert settings.plan(300, 400)[0] == 3
    assert settings.plan(300, 1000) == (1, 300, 1000)
    assert settings.plan(100, 200) == (4, 500, 1000)


def test_streams(album):
    command = [sys.executable, "-m", "jpegsr.cli.main", "enhance", "-", FAST, "--format=webp"]
    result = subprocess.run(command, input=(album / "a.jpg").read_bytes(), capture_output=True, check=True)
    assert result.stderr == b""
    with Image.open(io.BytesIO(result.stdout)) as image:
        assert (image.format, image.size) == ("WEBP", (80, 60))
        expected = Enhancer("base", runtime="openvino").enhance(album / "a.jpg")
        np.testing.assert_array_equal(np.asarray(image), expected)
    failed = subprocess.run(command, input=b"no picture", capture_output=True, check=False)
    assert failed.returncode == 1
    assert failed.stdout == b""
    assert failed.stderr == b"jpegsr: error: 'standard input' is not a JPEG, PNG, WebP, TIFF, GIF or BMP picture\n"


def test_a_stream_overwrites_only_when_told(album, tmp_path, monkeypatch, capsys):
    target = tmp_path / "kept.png"
    target.write_text("kept")
    for extra, status in ((), 1), (("--overwrite",), 0):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((album / "a.jpg").read_bytes())))
        assert main(["enhance", "-", "-o", str(target), FAST, *extra]) == status
        assert (target.read_bytes() == b"kept") == (status == 1)
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["enhance", "-", FAST]) == 1
    assert "standard input is closed" in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback(album):
    command = f"{sys.executable} -m jpegsr.cli.main info {album}/a.jpg {album}/a.jpg {album}/a.jpg | head -c 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert b"Traceback" not in result.stderr


def test_names_that_are_no_utf8(album, tmp_path, capsysbinary):
    name = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(album / "a.jpg", tmp_path / name)
    manifest = tmp_path / "manifest.csv"
    assert main(["enhance", str(tmp_path / name), f"--output_dir={tmp_path / 'out'}", FAST, f"--manifest={manifest}"]) == 0
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"caf\xe9.png"]
    assert b"caf\xe9.jpg" in manifest.read_bytes()
    # Read here, as a worker of pytest-xdist cannot hand such a name on.
    assert b"caf\xe9.jpg" in capsysbinary.readouterr().out


def test_folders_may_be_named_in_any_way(album, monkeypatch):
    """Absolute or relative, above or within each other: photos are found, results are not taken for photos."""
    (album / "deeper" / "broken.jpg").unlink()
    monkeypatch.chdir(album.parent)
    (album.parent / "base").mkdir()  # not the model of that name
    assert main(["enhance", "album", "--output_dir=.", FAST]) == 0
    assert pathlib.Path("deeper/b.png").is_file()
    for _ in range(2):
        assert main(["enhance", str(album), "--output_dir=album/out", FAST]) == 0
        assert written(album / "out") == ["a.png", "deeper/b.png", "deeper/still/c.png"]


def test_a_pattern_that_reaches_into_the_results_does_not_take_them_for_photos(album, monkeypatch):
    (album / "deeper" / "broken.jpg").unlink()
    monkeypatch.chdir(album.parent)
    for pattern, out in (("album/deeper/**", "album/deeper/out"), ("*/*.jpg", "results")):
        manifests = []
        for _ in range(2):
            assert main(["enhance", pattern, f"--output_dir={out}", FAST, "--format=jpeg", "--manifest=list.csv"]) == 0
            manifests.append(pathlib.Path("list.csv").read_text())
        assert manifests[1].count("skipped") == manifests[0].count("done") > 0
        assert "done" not in manifests[1]
        assert main(["enhance", f"{out}/*", f"--output_dir={out}", FAST, "--format=webp"]) == 0  # which asks for them


def test_openvino_does_not_import_tensorflow(album, tmp_path):
    program = (
        "import sys; from jpegsr.cli.main import main;"
        f"assert main(['enhance', {str(album / 'a.jpg')!r}, '-o', {str(tmp_path / 'out.png')!r}, '{FAST}']) == 0;"
        "print([name for name in ('tensorflow', 'keras', 'jax') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["album"], "--output_dir"),
        (["album", "-o", "out.png"], "--output_dir"),
        (["album/a.jpg", "-o", "album/a.jpg"], "overwritten by its own result"),
        (["album/a.jpg", "-o", "x.png", "--output_dir=y"], "not both"),
        (["album/a.jpg", "-o", "x.png", "--format=jpeg"], "differ"),
        (["album/a.jpg", "--size=10"], "WIDTHxHEIGHT"),
        (["album/a.jpg", "--size=0x5"], "above zero"),
        (["album/a.jpg", "--scale=2", "--longest_side=9"], "one of them"),
        (["album/a.jpg", "--strength=-1"], "strength"),
        (["album/a.jpg", "--scale=5"], "scale"),
        (["album/a.jpg", "--jobs=0"], "--jobs"),
        (["album/a.jpg", "--jpeg_quality=0"], "jpeg_quality"),
        (["album/a.jpg", "--jpeg_quality=50"], "says nothing about results in png: give --format=jpeg"),
        (["album/a.jpg", "-o", "x.webp", "--png_compression=5"], "says nothing about results in webp"),
        (["album/a.jpg", "-o", "album"], "is a folder"),
        (["album/a.jpg", "--tile_size=127"], "below 128"),
        (["album/a.jpg", "--max_pixels=100", "-o", "x.png"], "above --max_pixels=100"),
        (["-", "album/a.jpg"], "- stands for one photo"),
        (["album/a.jpg", "album/deeper/b.png", "-o", "-"], "- stands for one photo"),
        (["-", "--manifest=m.csv"], "- stands for one photo"),
        (["-", "-o", "x.png", "--format=jpeg"], "differ"),
        (["album/a.jpg", "--manifest=album/a.jpg"], "is one of the photos"),
        (["album", "--output_dir=album"], "among the photos"),
        (["album/dee*", "--output_dir=out"], "only folders"),
        (["album/a.jpg", "--size=²x²"], "WIDTHxHEIGHT"),
        (["album/a.jpg", "--longest_side=30000"], "16 at most"),
        (["album/wide.png", "--scale=4", "-o", "x.webp"], "16383 pixels a side"),
        (["album/a.jpg", "--png_compression=10"], "png_compression"),
        (["x" * 300 + ".jpg"], "too long"),
        (["nothing*.jpg", "--output_dir=out"], "no file 'nothing*.jpg'"),
        (["album/notes.txt", "-o", "x.png"], "not a JPEG"),
        (["album/a.jpg", "-o", "album/a.jpg/x.png"], "cannot write"),
    ],
)
def test_mistakes_are_one_line_and_lose_nothing(album, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(album.parent)
    Image.new("L", (5000, 1)).save(album / "wide.png")
    before = {path: path.read_bytes() for path in album.rglob("*") if path.is_file()}
    assert main(["enhance", *arguments, FAST]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if "error" in line]) == 1
    assert words in lines[-1]
    assert {path: path.read_bytes() for path in album.parent.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_full_disk_is_an_error_and_leaves_nothing(photo, tmp_path, monkeypatch):
    target = tmp_path / "out.png"
    photo = photos.Photo(photo)
    monkeypatch.setattr(images.tempfile, "mkstemp", lambda **_: (os.open("/dev/null", os.O_RDONLY), "/dev/full"))
    monkeypatch.setattr(pathlib.Path, "unlink", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"cannot write '.*out.png'"):
        photos.write(target, photo, photo)
    assert not target.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_batch_leaves_no_partial_output_and_goes_on(album, tmp_path, photo, how):
    for i in range(12):
        Image.fromarray(photo).save(album / f"large{i:02}.jpg")
    (album / "deeper" / "broken.jpg").unlink()
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jpegsr.cli.main", "enhance", str(album), f"--output_dir={out}", FAST]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(out.glob("large0*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    assert b"Traceback" not in errors
    done = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    assert 0 < len(done) < 15
    times = {}
    for path in done:
        Image.open(path).load()  # complete
        times[path] = path.stat().st_mtime_ns
    assert main(["enhance", str(album), f"--output_dir={out}", FAST]) == 0
    assert len(written(out)) == 15  # and nothing hidden is left
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_unreadable_folders_are_reported(album, monkeypatch, tmp_path, capsys):
    walk = os.walk

    def with_a_closed_door(top, onerror):
        onerror(PermissionError(13, "Permission denied", str(album / "deeper")))
        yield from ((parent, [], names) for parent, _, names in list(walk(top))[:1])

    monkeypatch.setattr(os, "walk", with_a_closed_door)  # the tests may run as root, whom no folder refuses
    jobs, failures = files.list_jobs([str(album)], "out", ".png", "")
    assert [job.source.name for job in jobs] == ["a.jpg"]
    assert "cannot read folder" in failures[0].error
    assert main(["enhance", str(album), f"--output_dir={tmp_path / 'out'}", f"--manifest={tmp_path / 'm.csv'}", FAST]) == 1
    assert "error: cannot read folder" in capsys.readouterr().err
    assert "failed,,cannot read folder" in (tmp_path / "m.csv").read_text().replace("0.000", "")
