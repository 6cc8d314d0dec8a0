"""The pictures that `scripts/draw_training_graphics.py` writes to train on."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parent.parent / "scripts"))

import training_facades
import training_graphics


@pytest.mark.parametrize("picture", [training_graphics.picture, training_facades.picture])
def test_pictures_are_a_function_of_seed_and_index(picture):
    first, again, other_seed, other_index = (picture(*key) for key in ((1, 3), (1, 3), (2, 3), (1, 4)))
    assert 320 <= first.width < 640
    assert 320 <= first.height < 560
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


@pytest.mark.parametrize("kind", [training_facades.bricks, training_facades.stripes, training_facades.window_grid])
def test_what_is_on_a_wall_repeats(kind):
    wall = training_facades.Wall(np.random.default_rng(7), (1200, 900))
    kind(wall)
    luma = np.asarray(wall.image.convert("L"), np.float32)
    edges = [np.abs(np.diff(luma, axis=1 - axis)).mean(axis=axis) for axis in (0, 1)]
    # In the mean over columns or rows, edges come back after some distance.
    lines = [line for line in edges if line.std() > 0.3]
    likeness = [max(np.corrcoef(line[:-step], line[step:])[0, 1] for step in range(6, 300)) for line in lines]
    assert max(likeness) > 0.9


def test_a_tilted_wall_covers_what_its_mask_says():
    wall = training_facades.Wall(np.random.default_rng(8), (300, 240))
    front, mask = training_facades._tilted(wall.image, np.random.default_rng(9))
    covered = np.asarray(mask) > 0
    assert 0.3 < covered.mean() < 1
    assert np.asarray(front)[~covered].max() == 0
    inside = covered[2:-2, 2:-2] & covered[:-4, 2:-2] & covered[4:, 2:-2] & covered[2:-2, :-4] & covered[2:-2, 4:]
    assert (np.asarray(front)[2:-2, 2:-2][inside] == wall.color).all()


def test_ink_differs_from_paper():
    canvas = training_graphics.Canvas(np.random.default_rng(6), unit=1)
    for _ in range(50):
        paper, ink = canvas.contrasting_colors()
        assert abs(np.subtract(paper, ink) @ (0.3, 0.59, 0.11)) > 80
