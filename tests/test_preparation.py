import itertools
import json
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import run_python
from PIL import Image

from jpegsr import data, degradation, preparation, prepared
from jpegsr.cli.main import main
from jpegsr.config import DataConfig, PreparationConfig
from jpegsr.errors import DamagedDataError, UserError

SMALL = PreparationConfig(size=96, overlap=16, holdout_every=3, pictures_per_shard=2)


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory, photo_folder) -> pathlib.Path:
    """The nine photographs: six to train on in three shards, three held out in two; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("prepared")
    preparation.prepare([str(photo_folder)], folder, SMALL, workers=2)
    return folder


@pytest.fixture
def own_folder(prepared_folder, tmp_path) -> pathlib.Path:
    folder = tmp_path / "prepared"
    folder.mkdir()
    for path in prepared_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def make_sampler(location, **settings) -> data.PatchSampler:
    settings = {"patch_size": 24, "holdout_every": 3, **settings}
    return data.PatchSampler(DataConfig(sources=((str(location), 0.0),), **settings), 2)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("shape", "size", "overlap"), [((200, 240), 96, 16), ((97, 96), 96, 95), ((300, 451), 128, 0)])
def test_sub_images_cover_the_picture_and_overlap(shape, size, overlap):
    rows, columns = np.indices(shape, dtype=np.int64)
    place = np.stack([rows, columns, rows], axis=-1)
    parts = preparation.cut(place, size, overlap)
    assert {part.shape for part in parts} == {(size, size, 3)}
    assert len({(int(i), int(j)) for part in parts for i, j in part[..., :2].reshape(-1, 2)}) == shape[0] * shape[1]
    for axis in (0, 1):
        starts = sorted({int(part[0, 0, axis]) for part in parts})
        assert all(second - first <= size - overlap for first, second in itertools.pairwise(starts))
    assert len(parts) == np.prod([1 + -(-(extent - size) // (size - overlap)) for extent in shape])


def test_folder_holds_what_the_index_says_and_the_pictures_pixels(prepared_folder, photo_folder):
    plan, shards = prepared.read_index(prepared_folder)
    assert [(shard.name[:5], shard.num_records) for shard in shards] == [("train", 18)] * 3 + [("valid", 2), ("valid", 1)]
    assert {path.name for path in prepared_folder.iterdir()} == {"index.json", *(shard.name for shard in shards)}
    assert plan.config == SMALL
    folder = make_sampler(photo_folder)
    training = folder.caches[0].source
    expected = [part for index in range(6) for part in preparation.cut(training.read(index), SMALL.size, SMALL.overlap)]
    sampler = make_sampler(f"prepared:{prepared_folder}")
    source = sampler.caches[0].source
    assert len(source.names) == len(expected) == 54
    for index, part in enumerate(expected):
        np.testing.assert_array_equal(source.read(index), part)
    assert shards[1].first_picture == training.names[2]
    assert source.names[18] == "train-00001.array_record[0]"
    # Validation is on the very pictures that a run on the folder keeps out.
    for ours, theirs in zip(
        data.validation_images(sampler.validation_sources, 101, 2),
        data.validation_images(folder.validation_sources, 101, 2),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_patches_are_a_function_of_the_index_on_both_paths(prepared_folder):
    sampler, uncached = (make_sampler(f"prepared:{prepared_folder}", cache_megabytes=size) for size in (64, 0))
    batch = next(iter(data.patch_dataset(sampler, 24, first_index=5)))
    for number in reversed(range(24)):
        for from_graph, reference in zip(batch, uncached.patch(5 + number), strict=True):
            np.testing.assert_array_equal(from_graph[number], reference)
    assert len({uncached.name(index) for index in range(600)}) == 54


def test_png_holds_the_same_pixels_in_less_space(prepared_folder, photo_folder, tmp_path):
    assert main(
        ["prepare", f"--data={photo_folder}", f"--output_dir={tmp_path}", "--encoding=png", "--size=96", "--overlap=16",
         "--holdout_every=3", "--pictures_per_shard=50"]
    ) == 0  # fmt: skip
    raw, png = (data.open_source(f"prepared:{folder}", 80) for folder in (prepared_folder, tmp_path))
    for index in range(54):
        np.testing.assert_array_equal(raw.read(index), png.read(index))
    sizes = [
        sum(s.num_bytes for s in prepared.read_index(folder)[1] if s.name[0] == "t") for folder in (tmp_path, prepared_folder)
    ]
    assert sizes[0] < 0.9 * sizes[1]


def test_preparation_killed_at_random_ends_with_the_same_files(prepared_folder, photo_folder, tmp_path):
    command = [sys.executable, "-m", "jpegsr.cli.main", "prepare", f"--data={photo_folder}", f"--output_dir={tmp_path}"]
    command += ["--size=96", "--overlap=16", "--holdout_every=3", "--pictures_per_shard=2", "--workers=1"]
    dice = random.Random(20261124)
    were_unfinished = []
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "index.json").exists():
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.03))
        process.kill()
        process.wait()
        were_unfinished.append(not prepared.read_index(tmp_path)[1])
    assert any(were_unfinished), "every kill came too late to test anything"
    # As a kill leaves it that comes while a line is being written.
    if not prepared.read_index(tmp_path)[1]:
        with (tmp_path / "finished.jsonl").open("a") as file:
            file.write('\n{"name": "train-000')
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*.array_record")}
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert contents(tmp_path) == contents(prepared_folder)
    noted = [path for path, time_ns in kept.items() if path.stat().st_mtime_ns == time_ns]
    assert len(noted) >= len(kept) - 1, "only the shard that was finished but not noted is made again"


def test_damaged_shard_stops_training_with_one_line_and_is_made_again(
    own_folder, prepared_folder, photo_folder, tmp_path, capfd
):
    shard = own_folder / "train-00001.array_record"
    content = bytearray(shard.read_bytes())
    for place in range(1000, len(content) - 70_000, 20_000):
        content[place] ^= 1
    shard.write_bytes(content)
    flags = ["--preset=tiny", "--stage=car", "--steps=20", "--holdout_every=3", f"--output_dir={tmp_path / 'run'}"]
    assert main(["train", f"--data=prepared:{own_folder}", *flags]) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(errors) == 1
    assert str(shard) in errors[0]
    assert "jpegsr prepare" in errors[0]
    preparation.prepare([str(photo_folder)], own_folder, SMALL, workers=1)
    assert contents(own_folder) == contents(prepared_folder)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_missing_or_cut_shard_is_named_before_training(damage, own_folder):
    shard = own_folder / "train-00002.array_record"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DamagedDataError, match="train-00002"):
        make_sampler(f"prepared:{own_folder}")


def test_what_does_not_fit_is_one_line(own_folder, photo_folder, tmp_path):
    with pytest.raises(UserError, match=r"patches take 128.*--size=128"):
        make_sampler(f"prepared:{own_folder}", patch_size=48)
    with pytest.raises(UserError, match="prepared with --holdout_every=3"):
        make_sampler(f"prepared:{own_folder}", holdout_every=5)
    with pytest.raises(UserError, match="no prepared data"):
        make_sampler(f"prepared:{photo_folder}")
    with pytest.raises(UserError, match="prepared already"):
        preparation.prepare([f"prepared:{own_folder}"], tmp_path / "again", SMALL, workers=1)
    with pytest.raises(UserError, match=r"begun otherwise \(overlap 16 is now 17\)"):
        preparation.prepare([str(photo_folder)], own_folder, PreparationConfig(96, 17, "raw", 3, 2), workers=1)
    with pytest.raises(UserError, match="num_pictures 9 is now 6"):
        preparation.prepare([str(photo_folder / "deeper")], own_folder, SMALL, workers=1)
    index = json.loads((own_folder / "index.json").read_text())
    (own_folder / "index.json").write_text(json.dumps({**index, "shards": []}))
    with pytest.raises(UserError, match="not finished"):
        make_sampler(f"prepared:{own_folder}")
    (own_folder / "index.json").write_text("{")
    with pytest.raises(UserError, match="not the index"):
        make_sampler(f"prepared:{own_folder}")
    for settings in ({"overlap": 256}, {"size": 0}, {"holdout_every": 1}):
        with pytest.raises(UserError):
            PreparationConfig(**settings)


def test_sub_images_too_small_to_be_reduced_are_told_of(prepared_folder, photo_folder, caplog):
    make_sampler(f"prepared:{prepared_folder}")
    make_sampler(photo_folder, scale_augmentation=0.5)
    assert "too small for --scale_augmentation" not in caplog.text
    make_sampler(f"prepared:{prepared_folder}", scale_augmentation=0.5)  # patches take 80 of the 96 pixels
    assert "96 pixels a side are too small for --scale_augmentation=0.5: prepare them with --size=160" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--data"),
        (["--data=a@2,b@1", "--output_dir=c"], "weights are for training"),
        (["--data=nowhere", "--output_dir=c"], "nowhere"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *flags]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.iterdir())


def test_broken_pictures_are_named_and_counted(tmp_path, photo, capsys):
    source = tmp_path / "photos"
    source.mkdir()
    Image.fromarray(photo).save(source / "good.png")
    whole = degradation.encode_jpeg(photo, 90)
    (source / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    flags = ["--size=128", "--holdout_every=0", f"--data={source}", f"--output_dir={tmp_path / 'out'}"]
    assert main(["prepare", *flags]) == 0
    output, messages = capsys.readouterr()
    assert "1 pictures could not be decoded" in output
    assert messages.count("truncated.jpg") == 1
    (source / "good.png").unlink()
    assert main(["prepare", *flags[:3], f"--output_dir={tmp_path / 'nothing'}"]) == 1
    assert "could be decoded" in capsys.readouterr().err


def test_full_disk_is_one_line_and_leaves_no_partial_file(photo_folder, tmp_path):
    def limit_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [
        sys.executable,
        "-m",
        "jpegsr.cli.main",
        "prepare",
        f"--data={photo_folder}",
        f"--output_dir={tmp_path}",
        "--size=96",
    ]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_files, timeout=120, check=False)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line and "prepare:" not in line]
    assert len(errors) == 1
    assert "train-00000.array_record" in errors[0]
    assert {path.name for path in tmp_path.iterdir()} == {"index.json"}


def test_reading_needs_no_tensorflow(prepared_folder):
    program = """
import sys
sys.modules["tensorflow"] = None
from jpegsr.config import DataConfig
from jpegsr.data import PatchSampler
sampler = PatchSampler(DataConfig(sources=((sys.argv[1], 0.0),), patch_size=24, holdout_every=3), 2)
assert sampler.patch(0).hr.shape == (48, 48, 3)
"""
    run_python("-c", program, f"prepared:{prepared_folder}", KERAS_BACKEND="jax")


class JpegsrMorePhotos(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set of local arrays; one of them is too small."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": tfds.features.Image()}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(4):
            yield i, {"image": np.random.default_rng(i).integers(0, 256, (160 if i else 60, 128, 3), dtype=np.uint8)}


def test_tfds_name_is_prepared(tmp_path):
    location = "tfds:jpegsr_more_photos"
    shards = preparation.prepare([location], tmp_path, PreparationConfig(size=96, overlap=0, holdout_every=0), workers=2)
    assert [(shard.num_records, shard.num_skipped) for shard in shards] == [(3 * 4, 1)]
    originals = data.open_source(location, 96)
    pictures = [originals.read(index) for index in range(4)]
    expected = {part.tobytes() for picture in pictures if len(picture) > 96 for part in preparation.cut(picture, 96, 0)}
    source = data.open_source(f"prepared:{tmp_path}", 96)
    assert {source.read(index).tobytes() for index in range(12)} == expected
