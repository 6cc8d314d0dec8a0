"""benchmarks/wake_channels.py: what does not work starts anew, what works is left alone."""

import pathlib
import subprocess
import sys

import numpy as np

from jpegsr import models, weights
from jpegsr.config import MODEL_PRESETS

PROGRAM = pathlib.Path(__file__).parent.parent / "benchmarks" / "wake_channels.py"


def test_a_resting_channel_starts_anew_and_the_network_does_what_it_did(photo, photo_folder, tmp_path):
    config = MODEL_PRESETS["tiny"]
    joint = models.build_joint(config)
    for part in ("car", "sr"):
        output = joint.get_layer(part).get_layer("last" if part == "car" else "subpixel")
        output.set_weights([np.random.default_rng(1).normal(size=value.shape) * 0.1 for value in output.get_weights()])
    block = joint.get_layer("sr").get_layer("block0_conv1")
    kernel, bias = block.get_weights()
    bias[3] = -100
    block.set_weights([kernel, bias])
    weights.save(tmp_path / "before.keras", joint, config, {"name": "resting", "stage": "joint"})

    # Only what is never above zero, so that nothing at all may change.
    flags = [f"--model={tmp_path / 'before.keras'}", f"--output={tmp_path / 'after.keras'}", "--threshold=1e-9"]
    command = [sys.executable, PROGRAM, f"--data={photo_folder}", *flags]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)

    assert "SR woken: {'block0': 1}" in result.stdout
    after = weights.load(str(tmp_path / "after.keras")).model
    pixels = photo[None, :40, :60].astype(np.float32) / 255
    before_output, after_output = joint(pixels), after(pixels)
    np.testing.assert_allclose(after_output["upscaled"], before_output["upscaled"], atol=1e-6)
    woken_kernel, woken_bias = after.get_layer("sr").get_layer("block0_conv1").get_weights()
    working = np.arange(len(bias)) != 3
    np.testing.assert_array_equal(woken_kernel[..., working], kernel[..., working])
    np.testing.assert_array_equal(woken_bias[working], bias[working])
    assert abs(woken_bias[3]) < 10
