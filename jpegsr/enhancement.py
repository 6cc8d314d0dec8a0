"""Pictures and files, end to end: load a model once, enhance arrays and photos with it."""

import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np

from jpegsr import images, inference, runtimes, weights


def enhancer(trained: weights.TrainedModel) -> Callable[[np.ndarray], np.ndarray]:
    """A model as a function of pictures, with the arguments, results and errors of `enhance`. Thread-safe."""
    network = runtimes.tensorflow_network(trained)

    def run(image: np.ndarray) -> np.ndarray:
        image = np.asarray(image)
        is_gray = image.ndim == 2
        if image.dtype != np.uint8 or not (is_gray or (image.ndim == 3 and image.shape[2] == 3)) or image.size == 0:
            raise ValueError(f"expected uint8 [H, W, 3] or [H, W], got {image.dtype} {list(image.shape)}")
        rgb = np.repeat(image[..., None], 3, axis=2) if is_gray else image
        result = inference.apply(network, rgb, trained.config, trained.config.scale)
        return np.rint(result.mean(axis=2)).astype(np.uint8) if is_gray else result

    return run


@functools.lru_cache(maxsize=4)
def _cached_enhancer(path: str, scale: int | None, _checksum: str) -> Callable[[np.ndarray], np.ndarray]:
    return enhancer(weights.load(path, scale))


def enhance(image: np.ndarray, scale: int | None = None, model: str = "base") -> np.ndarray:
    """Remove the compression artifacts of a picture and enlarge it.

    The four models used last stay loaded; one whose file changes, because it is still in training, is loaded again.

    Args:
      image: uint8 `[H, W, 3]` (sRGB) or `[H, W]` (gray), levels 0-255.
      scale: 2, 3 or 4; by default that of the model.
      model: a shipped name, a `.keras` file, or the folder of a training run.

    Returns:
      uint8 `[scale * H, scale * W, 3]`, or `[scale * H, scale * W]` for gray.

    Raises:
      UserError: no such model, or none for that scale.
      ValueError: the array is not uint8 of one of these shapes.
    """
    path = weights.find(model, scale)
    return _cached_enhancer(str(path), scale, weights.read_card(path)["sha256"])(image)


def enhance_file(
    input_path: str | os.PathLike[str], output_path: str | os.PathLike[str], scale: int | None = None, model: str = "base"
) -> tuple[int, int]:
    """Enhance one photo file into another, whose suffix decides the format; gray stays gray.

    Returns:
      (height, width) of the result.
    """
    images.check_suffix(output_path)
    picture = images.read_rgb(input_path)
    if images.is_gray(input_path):
        picture = np.ascontiguousarray(picture[..., 0])
    # Before the work, not after it.
    images.require_writable(pathlib.Path(output_path).absolute().parent)
    result = enhance(picture, scale, model)
    images.write_image(output_path, result)
    return result.shape[0], result.shape[1]
