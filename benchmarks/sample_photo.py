"""A photo of any size for the benchmarks, from those in the repository."""

import pathlib

import numpy as np
from PIL import Image

SAMPLE = pathlib.Path(__file__).parent.parent / "samples" / "coffee.jpg"


def make_photo(path: pathlib.Path, side: int = 1000) -> None:
    """A picture with the statistics of a photo at this size: the sample, mirrored side by side, not enlarged."""
    sample = np.asarray(Image.open(SAMPLE).convert("RGB"))
    tile = np.concatenate([sample, sample[:, ::-1]], axis=1)
    tile = np.concatenate([tile, tile[::-1]], axis=0)
    repeats = [-(-side // length) for length in tile.shape[:2]]
    Image.fromarray(np.tile(tile, (*repeats, 1))[:side, :side]).save(path, quality=75)
