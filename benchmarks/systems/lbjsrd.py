"""LBJSRD: joint super-resolution and deblocking by sparse coding (Kang et al. 2015, reference [10] of the paper).

The enlarged luma is split into a low- and a high-frequency part. Patches of the latter are coded over two dictionaries at once,
one learnt from pictures without compression and one from the artifacts of JPEGs (morphological component analysis); the second
part of the code is dropped, and the first one, over a coupled dictionary, gives the high frequencies of the large picture.

Deviations, where the publication's text was not at hand and its abstract and project page leave it open: a Gaussian splits the
frequencies; artifact patches are differences of a JPEG and its original at qualities 10 to 30, where the publication sorts
patches of JPEGs into those with and without blocking; both dictionaries are learnt from T91 and none from the picture itself.
"""

import dataclasses

import numpy as np
import sparse_patches

SIZE, STEP = 8, 4
NUM_ATOMS = 512
NUM_ARTIFACT_ATOMS = 256
PENALTY = 0.15
QUALITIES = (10, 20, 30)  # of the JPEGs that artifacts are learnt from
_SIGMA = 2.0  # of the Gaussian, in pixels of the enlargement
_LEAST_NORM = 4.0  # patches with less in them, half a level per pixel, have no high frequencies


def split(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[H, W]` -> its low and its high frequencies, which add up to it."""
    from scipy.ndimage import gaussian_filter

    low = gaussian_filter(plane, _SIGMA)
    return low, plane - low


def enlarge(bicubic: np.ndarray, clean: np.ndarray, artifact: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The picture behind a bicubic enlargement `[H, W]`.

    Args:
      bicubic: luma in levels.
      clean: dictionary of pictures, `[K, 64]`.
      artifact: dictionary of what JPEG adds to them, `[J, 64]`.
      high: coupled to `clean`, `[K, 64]`.
    """
    smooth, detail = split(bicubic)
    # What is coded by atoms of artifacts contributes nothing.
    both = np.concatenate([clean, artifact])
    wanted = np.concatenate([high, np.zeros_like(artifact)])
    patches = sparse_patches.translate(sparse_patches.cut(detail, SIZE, STEP), both, wanted, PENALTY, _LEAST_NORM)
    return smooth + sparse_patches.assemble(patches, bicubic.shape, SIZE, STEP)


@dataclasses.dataclass(frozen=True)
class Lbjsrd:
    """(content of a JPEG or PNG, scale) -> uint8 `[scale * H, scale * W, 3]`."""

    def __call__(self, file: bytes, scale: int) -> np.ndarray:
        found = sparse_patches.read_dictionaries("lbjsrd", scale)
        dictionaries = (found["clean"], found["artifact"], found["high"])
        return sparse_patches.upscale_luma(file, scale, lambda _, bicubic: enlarge(bicubic, *dictionaries))

    @property
    def num_parameters(self) -> int:
        return sum(array.size for array in sparse_patches.read_dictionaries("lbjsrd", 2).values())


SYSTEMS = {"LBJSRD": Lbjsrd()}
