"""Shared fixtures: real photographs from scikit-image, and one trained tiny run for all tests that need weights."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# Before TensorFlow is imported: quiet logs, and a place of its own for TFDS, which reads the variable at import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TFDS_DATA_DIR"] = tempfile.mkdtemp(prefix="jpegsr-tfds-")

import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

from jpegsr import degradation, serving, weights
from jpegsr.cli.main import main
from jpegsr.endpoints import ServingOptions

# Two logical CPUs, so that a mirrored strategy has two replicas.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# Blocks so large that a tiny network learns to remove them in 40 steps.
TINY_FLAGS = [
    "--preset=tiny",
    "--steps=40",
    "--batch_size=8",
    "--quality=3",
    "--learning_rate=3e-3",
    "--warmup_steps=5",
    "--validate_every=20",
    "--checkpoint_every=20",
    "--deterministic",
]


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A cat with fine fur, uint8 `[300, 450, 3]` (CC0)."""
    return np.ascontiguousarray(skimage.data.chelsea()[:, :450])


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> pathlib.Path:
    """Photographs in a folder tree and several formats, each 200 x 240."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deeper").mkdir()
    sources = {"cat": skimage.data.chelsea(), "cup": skimage.data.coffee(), "astronaut": skimage.data.astronaut()}
    for name, image in sources.items():
        for i, suffix in enumerate((".png", ".webp", ".bmp")):
            part = image[40 * i : 40 * i + 200, 50 * i : 50 * i + 240]
            options = {"lossless": True} if suffix == ".webp" else {}
            Image.fromarray(part).save(folder / ("deeper" if i else ".") / f"{name}{i}{suffix}", **options)
    return folder


@pytest.fixture(scope="session")
def jpeg_file(tmp_path_factory, photo) -> pathlib.Path:
    """What a user has: a small photo at quality 20."""
    path = tmp_path_factory.mktemp("input") / "cat.jpg"
    small = degradation.downscale(degradation.crop_to_multiple(photo, 2), 2)
    path.write_bytes(degradation.encode_jpeg(small, 20))
    return path


@pytest.fixture
def album(tmp_path, photo) -> pathlib.Path:
    """Three photos in a tree, one broken file, one hidden, one text."""
    folder = tmp_path / "album"
    (folder / "deeper" / "still").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "deeper/b.png", "deeper/still/c.webp")):
        Image.fromarray(photo[i * 20 : i * 20 + 30, :40]).save(folder / name)
    (folder / "deeper" / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / ".hidden.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, photo_folder) -> pathlib.Path:
    """The folder of a run of preset tiny through all three stages."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", f"--data={photo_folder}", f"--output_dir={folder}", "--holdout_every=5", *TINY_FLAGS]) == 0
    return folder


@pytest.fixture(scope="session")
def served_model(tmp_path_factory, tiny_run) -> pathlib.Path:
    """The tiny run as a SavedModel, `FOLDER/1`, which takes tiles of 48 x 48 by threes; to be copied, not changed."""
    path = tmp_path_factory.mktemp("served") / "1"
    serving.write_saved_model(weights.load(str(tiny_run)), path, ServingOptions(tile_size=48, tile_batch=3))
    return path


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; skips where there is none."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: on Debian, `apt-get install chromium`")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program, args=flags) as browser:
        yield browser


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """This Python on other arguments, in a process of its own; fails with the output shown."""
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result
