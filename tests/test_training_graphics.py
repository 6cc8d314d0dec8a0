"""The pictures that `scripts/draw_training_graphics.py` writes to train on."""

import pathlib
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).parent.parent / "scripts"))

import training_graphics


def test_pictures_are_a_function_of_seed_and_index():
    first, again, other_seed, other_index = (training_graphics.picture(*key) for key in ((1, 3), (1, 3), (2, 3), (1, 4)))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() not in (other_seed.tobytes(), other_index.tobytes())


def test_every_kind_is_large_enough_and_has_edges():
    random = np.random.default_rng(5)
    for kind in training_graphics.KINDS:
        canvas = training_graphics.Canvas(random, unit=2)
        kind(canvas)
        luma = np.asarray(canvas.image.reduce(2).convert("L"), np.float32)
        assert min(luma.shape) >= 320
        # A step of 20 levels from one pixel to the next, on one in a hundred of them.
        assert np.mean(np.abs(np.diff(luma, axis=1)) > 20) > 0.01, kind.__name__


def test_ink_differs_from_paper():
    canvas = training_graphics.Canvas(np.random.default_rng(6), unit=1)
    for _ in range(50):
        paper, ink = canvas.contrasting_colors()
        assert abs(np.subtract(paper, ink) @ (0.3, 0.59, 0.11)) > 80
