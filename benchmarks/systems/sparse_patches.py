"""What SCSR and LBJSRD share: patches of a luma plane, sparse codes over a dictionary, and files of dictionaries.

Planes are float64 `[H, W]` (or `[H, W, C]`) of levels on the 0-255 scale. A dictionary has an atom of norm 1 per row. Codes are
L1-sparse: scikit-learn's coordinate descent minimises 1/2 |x - code D|^2 + penalty |code|_1.
"""

import functools
import io
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from jpegsr import degradation, images, metrics
from jpegsr.errors import UserError

WEIGHTS_FOLDER = pathlib.Path(__file__).parent / "weights"
# Luma is coded in studio range, where white is 219 levels above black; RGB is that much steeper.
_RGB_PER_LUMA = 255 / 219
_CODED_AT_ONCE = 8192
_MAX_ITERATIONS = 30
_RIDGE = 1e-3


def starts(length: int, size: int, step: int) -> np.ndarray:
    """Where patches begin along an axis: every `step` pixels, the last one at the end."""
    return np.unique(np.append(np.arange(0, length - size + 1, step), length - size))


def cut(plane: np.ndarray, size: int, step: int) -> np.ndarray:
    """All patches of `[H, W]` or `[H, W, C]`, row by row: `[N, size * size * C]`."""
    windows = np.lib.stride_tricks.sliding_window_view(plane, (size, size), axis=(0, 1))
    chosen = windows[np.ix_(starts(plane.shape[0], size, step), starts(plane.shape[1], size, step))]
    return chosen.reshape(-1, int(np.prod(chosen.shape[2:])))


def assemble(patches: np.ndarray, shape: tuple[int, int], size: int, step: int) -> np.ndarray:
    """The plane whose patches these are, `[N, size * size]` in the order of `cut`; where they overlap, their mean."""
    rows, columns = starts(shape[0], size, step), starts(shape[1], size, step)
    grid = patches.reshape(len(rows), len(columns), size, size)
    total, count = np.zeros(shape), np.zeros(shape)
    for y in range(size):
        for x in range(size):
            # No pixel twice within a pair of (y, x), as starts differ.
            total[np.ix_(rows + y, columns + x)] += grid[:, :, y, x]
            count[np.ix_(rows + y, columns + x)] += 1
    return total / count


def encode(samples: np.ndarray, dictionary: np.ndarray, penalty: float) -> np.ndarray:
    """Sparse codes `[N, K]` of samples `[N, F]` of norm 1 over `[K, F]`."""
    from sklearn.decomposition import sparse_encode
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # Of many small products; threads wait for each other longer than they work.
    with threadpool_limits(1), warnings.catch_warnings():
        # A code that is still a little off is good enough, and far sooner there.
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        return sparse_encode(samples, dictionary, algorithm="lasso_cd", alpha=penalty, max_iter=_MAX_ITERATIONS)


def translate(samples: np.ndarray, dictionary: np.ndarray, coupled: np.ndarray, penalty: float, least: float) -> np.ndarray:
    """What samples `[N, F]` are in terms of the coupled dictionary: their codes over `[K, F]`, times `[K, G]`.

    Samples are coded at norm 1, and the result has their contrast again; those of a norm below `least` give zeros.
    """
    norms = np.linalg.norm(samples, axis=1, keepdims=True)
    result = np.zeros((len(samples), coupled.shape[1]))
    chosen = np.flatnonzero(norms >= least)
    for first in range(0, len(chosen), _CODED_AT_ONCE):
        rows = chosen[first : first + _CODED_AT_ONCE]
        result[rows] = encode(samples[rows] / norms[rows], dictionary, penalty) @ coupled * norms[rows]
    return result


def learn(samples: np.ndarray, num_atoms: int, penalty: float) -> np.ndarray:
    """A dictionary `[K, F]` for samples `[N, F]`, of which each is seen a few times at norm 1."""
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    learner = MiniBatchDictionaryLearning(
        num_atoms, alpha=penalty, fit_algorithm="cd", batch_size=512, max_iter=4, max_no_improvement=None, random_state=0
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        return learner.fit(samples / np.linalg.norm(samples, axis=1, keepdims=True)).components_


def couple(seen: np.ndarray, wanted: np.ndarray, dictionary: np.ndarray, penalty: float) -> np.ndarray:
    """The dictionary `[K, G]` that turns codes of `seen`, `[N, F]` over `[K, F]`, into `wanted`, `[N, G]`: least squares."""
    norms = np.linalg.norm(seen, axis=1, keepdims=True)
    codes = encode(seen / norms, dictionary, penalty)
    # An atom that is hardly used gets a small answer.
    ridge = _RIDGE * len(codes) / len(dictionary) * np.eye(len(dictionary))
    return np.linalg.solve(codes.T @ codes + ridge, codes.T @ (wanted / norms))


@functools.cache
def read_dictionaries(name: str, scale: int) -> dict[str, np.ndarray]:
    """Dictionaries that `train_dictionaries.py` wrote, float64; `UserError` where there are none."""
    path = WEIGHTS_FOLDER / f"{name}_x{scale}.npz"
    if not path.is_file():
        raise UserError(f"it has no dictionaries for scale {scale} yet: learn them with train_dictionaries.py")
    with np.load(path) as stored:
        return {key: stored[key].astype(np.float64) for key in stored.files}


def upscale_luma(file: bytes, scale: int, enlarge: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Bicubic for colour, something better for luma.

    Args:
      file: content of a JPEG or PNG.
      scale: how much to enlarge.
      enlarge: (luma, its bicubic enlargement, both in levels of 16-235) -> the better enlargement.

    Returns:
      uint8 `[scale * H, scale * W, 3]`.
    """
    picture = images.read_rgb(io.BytesIO(file))
    bicubic = degradation.upscale_bicubic(picture, scale)
    luma = metrics.luma(bicubic)
    gain = (enlarge(metrics.luma(picture), luma) - luma) * _RGB_PER_LUMA
    return np.clip(np.rint(bicubic + gain[..., None]), 0, 255).astype(np.uint8)
