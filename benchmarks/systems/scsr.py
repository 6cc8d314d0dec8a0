"""SCSR: super-resolution by sparse coding (Yang, Wright, Huang, Ma 2010, reference [9] of the paper).

Patches of 5x5 pixels of the bicubic enlargement, described by first and second derivatives, are coded over a dictionary; the
same codes over the coupled dictionary give the detail. Patches overlap and are averaged; then back-projection makes the result
agree with the input when it is reduced again (section III-B). Dictionaries are learnt on T91, the publication's own pictures.

Deviations: as in Zeyde et al. (2010), the coupled dictionary holds the difference to bicubic, not the patch without its mean,
and is fitted to the codes of the first one by least squares, not learnt in one go with it (learnt so, it explained next to
nothing of the detail); patches start at every third pixel and are coded independently of each other; smooth ones stay bicubic;
there are 512 atoms, where the publication has up to 1024.
"""

import dataclasses

import numpy as np
import sparse_patches

from jpegsr import degradation

SIZE, STEP = 5, 3
NUM_ATOMS = 512
PENALTY = 0.15  # lambda in the publication's experiments
# Below this norm of a patch's derivatives there is no edge in it: 100 values of about six levels.
_LEAST_NORM = 60.0
_NUM_BACK_PROJECTIONS = 10


def describe(enlarged: np.ndarray) -> np.ndarray:
    """Derivatives of a plane `[H, W]` along both axes, first and second order (section III-C): `[H, W, 4]`."""
    padded = np.pad(enlarged, 2, mode="reflect")
    middle = slice(2, -2)
    rows, columns = padded[:, middle], padded[middle]
    return np.stack(
        [
            columns[:, 3:-1] - columns[:, 1:-3],
            rows[3:-1] - rows[1:-3],
            columns[:, 4:] + columns[:, :-4] - 2 * columns[:, middle],
            rows[4:] + rows[:-4] - 2 * rows[middle],
        ],
        axis=-1,
    )


def resize(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """MATLAB's bicubic `imresize` of `[H, W]` without rounding."""
    return degradation.resize_matrix(plane.shape[0], height) @ plane @ degradation.resize_matrix(plane.shape[1], width).T


def back_project(enlarged: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Correct an enlargement, step by step, until it reduces to the luma that it was made from."""
    for _ in range(_NUM_BACK_PROJECTIONS):
        enlarged = enlarged + resize(luma - resize(enlarged, *luma.shape), *enlarged.shape)
    return enlarged


def enlarge(luma: np.ndarray, bicubic: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A better enlargement of a luma plane than the bicubic one, with coupled dictionaries `[K, 100]` and `[K, 25]`."""
    features = sparse_patches.cut(describe(bicubic), SIZE, STEP)
    details = sparse_patches.translate(features, low, high, PENALTY, _LEAST_NORM)
    detail = sparse_patches.assemble(details, bicubic.shape, SIZE, STEP)
    return back_project(bicubic + detail, luma)


@dataclasses.dataclass(frozen=True)
class Scsr:
    """(content of a JPEG or PNG, scale) -> uint8 `[scale * H, scale * W, 3]`."""

    def __call__(self, file: bytes, scale: int) -> np.ndarray:
        found = sparse_patches.read_dictionaries("scsr", scale)
        return sparse_patches.upscale_luma(file, scale, lambda *planes: enlarge(*planes, found["low"], found["high"]))

    @property
    def num_parameters(self) -> int:
        return sum(array.size for array in sparse_patches.read_dictionaries("scsr", 2).values())


SYSTEMS = {"SCSR": Scsr()}
