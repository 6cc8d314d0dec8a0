"""`jpegsr batch` on Beam's local runner: what goes in, what comes out, and what poisonous files, kills and full disks leave."""

import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

import apache_beam as beam
import google_crc32c
import numpy as np
import poisoned_process
import psutil
import pytest
import tensorflow as tf
from PIL import Image

from jpegsr import batch, beam_files, beam_inference, files
from jpegsr.beam_inference import PhotoHandler
from jpegsr.cli.main import main

FAST = "--runtime=openvino"


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Path below a folder -> content, for all files but the dead-letter table."""
    files_below = (path for path in folder.rglob("*") if path.is_file() and path.name != "dead_letters.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below}


def dead_letters(path: pathlib.Path) -> list[tuple[str, str, str]]:
    """(input's file name, stage, reason) of each row."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(pathlib.Path(row["input"]).name, row["stage"], row["reason"]) for row in rows]


def test_results_are_those_of_enhance_and_are_made_once(album, tmp_path, capsys):
    expected = tmp_path / "expected"
    assert main(["enhance", str(album), f"--output_dir={expected}", FAST]) == 1
    out = tmp_path / "out"
    command = ["batch", f"--photos={album}", f"--output_dir={out}", FAST]
    capsys.readouterr()
    assert main(command) == 1
    assert contents(out) == contents(expected)
    assert sorted(contents(out)) == ["a.png", "deeper/b.png", "deeper/still/c.png"]
    output = capsys.readouterr().out
    assert output.startswith("3 done, 0 skipped, 1 failed")
    assert "megapixels" in output
    ((name, stage, reason),) = dead_letters(out / "dead_letters.jsonl")
    assert (name, stage) == ("broken.jpg", "decode")
    assert "cannot read" in reason

    # Again: what is there stays, what failed is tried anew.
    before = (out / "a.png").stat().st_mtime_ns
    shutil.copy(album / "a.jpg", album / "deeper" / "broken.jpg")
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("1 done, 3 skipped, 0 failed")
    assert (out / "a.png").stat().st_mtime_ns == before
    assert dead_letters(out / "dead_letters.jsonl") == []
    assert main([*command, "--overwrite"]) == 0
    assert (out / "a.png").stat().st_mtime_ns > before
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "dead_letters.jsonl", "deeper"]  # nothing unfinished


@pytest.mark.parametrize(
    "flags",
    [
        ["--tile_size=256", "--strength=0.5", "--format=tiff"],
        ["--scale=3", "--format=jpeg", "--jpeg_quality=80"],
        ["--longest_side=333", "--format=webp"],
        ["--scale=1", "--runtime=tensorflow"],
    ],
)
def test_settings_are_those_of_enhance(photo, tmp_path, flags):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo[:, :, 0]).save(tmp_path / "in" / "gray.jpg", quality=30)
    Image.fromarray(photo).save(tmp_path / "in" / "colour.jpg", quality=30, dpi=(300, 300), exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    assert main(["enhance", str(tmp_path / "in"), f"--output_dir={tmp_path / 'expected'}", FAST, *flags]) == 0
    assert main(["batch", f"--photos={tmp_path}/in/*.jpg", f"--output_dir={tmp_path / 'out'}", FAST, *flags]) == 0
    assert len(contents(tmp_path / "out")) == 2
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_file_list(album, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = os.fsencode(album) + b"/caf\xe9.jpg"  # a name from an old disk
    shutil.copy(album / "a.jpg", odd)
    shutil.copy(album / "deeper" / "b.png", album / "a.png")
    lines = [b"album/a.jpg", b"", b"album/a.jpg", b"album/a.png", b"album/gone.jpg", odd, b"../" + os.fsencode(tmp_path.name)]
    (tmp_path / "list.txt").write_bytes(b"\r\n".join(lines))
    assert main(["batch", "--file_list=list.txt", "--output_dir=out", FAST, "--dead_letters=letters/failed.jsonl"]) == 1
    whole = os.fsdecode(odd).lstrip("/").removesuffix(".jpg")
    assert sorted(contents(tmp_path / "out")) == sorted(["album/a.jpg.png", "album/a.png.png", f"{whole}.png"])
    gone, folder = dead_letters(tmp_path / "letters" / "failed.jsonl")[::-1]
    assert gone[1:] == ("read", "cannot read 'album/gone.jpg': No such file or directory")
    assert "Is a directory" in folder[2]


def test_a_result_does_not_overwrite_its_photo(album, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(album)
    before = contents(album)
    (tmp_path / "list.txt").write_text("a.jpg\n")
    arguments = [f"--file_list={tmp_path}/list.txt", "--output_dir=.", "--format=jpeg", "--overwrite"]
    assert main(["batch", *arguments, f"--dead_letters={tmp_path}/failed.jsonl", FAST]) == 1
    assert contents(album) == before
    assert "its own result" in dead_letters(tmp_path / "failed.jsonl")[0][2]


def record(content: bytes) -> bytes:
    """A record of a TFRecord, damaged in no way."""

    def masked(part: bytes) -> bytes:
        checksum = google_crc32c.value(part)
        return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def test_tfrecords(album, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    pictures = [(album / name).read_bytes() for name in ("a.jpg", "deeper/b.png")]
    with tf.io.TFRecordWriter(str(shards / "one.tfrecord")) as writer:
        for picture in (*pictures, b"no picture"):
            writer.write(picture)
    flipped = bytearray(record(pictures[0]))
    flipped[100] ^= 1
    (shards / "two.tfrecord").write_bytes(bytes(flipped) + record(pictures[1]) + b"\x01" * 40 + record(pictures[0]))
    (shards / "cut.tfrecord").write_bytes(record(pictures[1]) + record(pictures[0])[:-7])
    out = tmp_path / "out"
    assert main(["batch", f"--tfrecord={shards}/*.tfrecord", f"--output_dir={out}", FAST]) == 1
    assert main(["enhance", str(album / "a.jpg"), str(album / "deeper/b.png"), f"--output_dir={tmp_path}/expected", FAST]) == 0
    first, second = (contents(tmp_path / "expected")[name] for name in ("a.png", "b.png"))
    assert contents(out) == {
        "one.tfrecord/00000000.png": first,
        "one.tfrecord/00000001.png": second,
        "two.tfrecord/00000001.png": second,
        "cut.tfrecord/00000000.png": second,
    }
    assert [(name, stage) for name, stage, _ in dead_letters(out / "dead_letters.jsonl")] == [
        ("cut.tfrecord#1", "read"), ("one.tfrecord#2", "decode"), ("two.tfrecord", "list"), ("two.tfrecord#0", "read"),
    ]  # fmt: skip


def test_no_result_takes_the_place_of_another(album, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("x.jpg", "x.jpg.png", "x.png"):
        shutil.copy(album / "a.jpg", tmp_path / "in" / name)
    assert main(["batch", f"--photos={tmp_path}/in", f"--output_dir={tmp_path}/out", FAST]) == 0
    assert sorted(contents(tmp_path / "out")) == ["x.jpg.png", "x.jpg.png.png", "x.png.png"]
    monkeypatch.chdir(album)
    (tmp_path / "list.txt").write_text("a.jpg\n../album/deeper/../a.jpg\n./a.jpg\n")
    assert main(["batch", f"--file_list={tmp_path}/list.txt", f"--output_dir={tmp_path}/listed", FAST]) == 1
    failed = dead_letters(tmp_path / "listed" / "dead_letters.jsonl")
    assert all("would have the name of that of" in reason for _, _, reason in failed)
    assert len(failed) + len(contents(tmp_path / "listed")) == 3


def test_results_among_shards_are_no_shards(album, tmp_path, capsys):
    shards = tmp_path / "shards"
    shards.mkdir()
    with tf.io.TFRecordWriter(str(shards / "one.tfrecord")) as writer:
        writer.write((album / "a.jpg").read_bytes())
    for summary in ("1 done, 0 skipped", "0 done, 1 skipped"):
        assert main(["batch", f"--tfrecord={shards}", f"--output_dir={shards}/out", FAST]) == 0
        assert summary in capsys.readouterr().out
    assert main(["batch", f"--tfrecord={shards}", f"--output_dir={shards}", FAST]) == 1
    assert "among the files" in capsys.readouterr().err


def test_an_output_folder_inside_the_input_is_no_input(album):
    (album / "deeper" / "broken.jpg").unlink()
    for _ in range(2):
        assert main(["batch", f"--photos={album}/**", f"--output_dir={album}/out", FAST]) == 0
        assert sorted(contents(album / "out")) == ["a.png", "deeper/b.png", "deeper/still/c.png"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--direct_num_wrkers=2"], "Apache Beam has a flag --direct_num_wrkers"),
        (["--direct_num_workers=two"], "invalid int value: 'two'"),
        (["--runner=Sprinter"], "cannot use --runner=Sprinter"),
        (["album"], "what is 'album'"),
        (["--photos=nothing*"], "no file matches"),
        (["--photos=album/*.txt"], "no picture in"),
        (["--photos=moon://album/*"], "Unable to get filesystem"),
        (["--file_list=list.txt"], "name the photos with one of"),
        (["--output_dir="], "--output_dir"),
        (["--output_dir=album"], "among the files"),
        (["--output_dir=album/a.jpg"], "cannot write to folder"),
        (["--output_dir=out[1]"], "which Apache Beam takes for a pattern"),
        (["--dead_letters=album/a.jpg/failed"], "cannot write to folder"),
        (["--model=none_such"], "no model 'none_such'"),
        (["--scale=7"], "no weights for scale 7"),
        (["--threads_per_worker=0"], "0 threads"),
        (["--size=2"], "WIDTHxHEIGHT"),
    ],
)
def test_mistakes_are_one_line(album, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(album.parent)
    before = contents(album)
    assert main(["batch", "--photos=album", "--output_dir=out", FAST, *flags]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert [words in line for line in lines] == [True]
    assert lines[0].startswith("jpegsr: error: ")
    assert contents(album) == before


def test_a_missing_extra_is_named():
    program = """
import sys
sys.modules["apache_beam"] = None
from jpegsr.cli.main import main
sys.exit(main(["batch", "--photos=x", "--output_dir=y"]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "jpegsr: error: `jpegsr batch` needs Apache Beam: pip install 'jpegsr[batch]'\n"


def test_unwritable_results_are_rows(album, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "deeper").write_text("in the way")
    assert main(["batch", f"--photos={album}", f"--output_dir={out}", FAST]) == 1
    assert sorted(contents(out)) == ["a.png", "deeper"]
    stages = {name: stage for name, stage, _ in dead_letters(out / "dead_letters.jsonl")}
    assert stages == {"b.png": "write", "c.webp": "write", "broken.jpg": "decode"}


def test_a_full_disk_stops_the_run(album, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(out)], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs a file system of its own")
    try:
        assert main(["batch", f"--photos={album}", f"--output_dir={out}", FAST]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "No space left on device: stopped" in line
        assert all(len(content) == 0 or name.endswith(".png") for name, content in contents(out).items())
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_a_photo_that_crashes_its_process_is_a_row(album, tmp_path, monkeypatch):
    monkeypatch.setattr(beam_inference, "be_enhancer", poisoned_process.be_crashing_enhancer)
    shutil.copy(album / "a.jpg", album / "deeper" / "poison.jpg")
    out = tmp_path / "out"
    assert main(["batch", f"--photos={album}", f"--output_dir={out}", FAST]) == 1
    assert sorted(contents(out)) == ["a.png", "deeper/b.png", "deeper/still/c.png"]
    rows = dead_letters(out / "dead_letters.jsonl")
    assert [(name, stage) for name, stage, _ in rows] == [("broken.jpg", "decode"), ("poison.jpg", "enhance")]
    assert "was ended by SIGSEGV" in rows[1][2]


class SharingHandler(PhotoHandler):
    """As on a GPU."""

    def share_model_across_processes(self) -> bool:
        return True


def test_a_model_can_be_shared_by_processes(album, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "PhotoHandler", SharingHandler)
    archive = batch.Archive("photos", beam_files.as_pattern(str(album)), str(tmp_path / "out"))
    settings = files.Settings(runtime="openvino")
    report = batch.run(archive, settings, beam.options.pipeline_options.PipelineOptions([]), str(tmp_path / "failed.jsonl"))
    assert (report.done, report.failed) == (3, 1)
    assert report.seconds["network"] > 0
    assert len(contents(tmp_path / "out")) == 3


def test_process_beside_ends_quietly_where_the_worker_went_while_the_model_loaded():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    settings = files.Settings(model="fast", runtime="openvino")
    process = context.Process(target=beam_inference.be_enhancer, args=(theirs, settings, "photos"))
    process.start()
    ours.close()
    theirs.close()
    process.join(60)
    assert process.exitcode == 0


def start(arguments: list[str], out: pathlib.Path, num_results: int) -> subprocess.Popen:
    """The command in a session of its own, when it has written some results."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jpegsr.cli.main", "batch", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.png"))) < num_results and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_killed_workers_and_killed_runs_go_on(tmp_path, photo):
    album, out = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    for i in range(24):
        Image.fromarray(np.roll(photo[:150, :225], i, axis=1)).save(album / f"{i:02}.jpg")
    command = [f"--photos={album}", f"--output_dir={out}", FAST]
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2", "--threads_per_worker=1"]

    run = start([*command, *workers], out, 2)
    processes = psutil.Process(run.pid).children(recursive=True)
    next(process for process in processes if process.name().startswith("python")).kill()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert errors.decode().strip().splitlines()[-1].startswith("jpegsr: error: a worker process has ended")

    run = start([*command, *workers], out, 6)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 6 <= len(times) < 24
    assert main(["batch", *command]) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert main(["enhance", str(album), f"--output_dir={tmp_path / 'expected'}", FAST]) == 0
    assert contents(out) == contents(tmp_path / "expected")


def test_ctrl_c(tmp_path, photo):
    (tmp_path / "album").mkdir()
    for i in range(300):  # not done before the signal is there, on any machine
        Image.fromarray(photo[:150, :225]).save(tmp_path / "album" / f"{i:03}.jpg")
    run = start([f"--photos={tmp_path}/album", f"--output_dir={tmp_path}/out", FAST], tmp_path / "out", 2)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"Traceback" not in errors
    assert 2 <= len(contents(tmp_path / "out")) < 300
