"""Pictures and files, end to end: load a model once, enhance arrays and photos with it."""

import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np

from jpegsr import images, inference, runtimes, weights
from jpegsr.errors import UserError


@functools.lru_cache(maxsize=4)
def _load(model: str, scale: int | None) -> tuple[weights.TrainedModel, inference.Network]:
    trained = weights.load(model, scale)
    if trained.card.get("stage", "joint") == "car":
        raise UserError(f"{str(trained.path)!r} has only been through stage car: train the stages sr and joint first")
    return trained, runtimes.tensorflow_network(trained)


def enhance(image: np.ndarray, scale: int | None = None, model: str = "base") -> np.ndarray:
    """Remove the compression artifacts of a picture and enlarge it.

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
    image = np.asarray(image)
    is_gray = image.ndim == 2
    if image.dtype != np.uint8 or not (is_gray or (image.ndim == 3 and image.shape[2] == 3)) or image.size == 0:
        raise ValueError(f"expected uint8 [H, W, 3] or [H, W], got {image.dtype} {list(image.shape)}")
    trained, network = _load(model, scale)
    rgb = np.repeat(image[..., None], 3, axis=2) if is_gray else image
    result = inference.apply(network, rgb, trained.config, trained.config.scale)
    return np.rint(result.mean(axis=2)).astype(np.uint8) if is_gray else result


def enhancer(model: str, scale: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """`enhance` with a model fixed and already loaded."""
    _load(model, scale)
    return functools.partial(enhance, scale=scale, model=model)


def enhance_file(
    input_path: str | os.PathLike[str], output_path: str | os.PathLike[str], scale: int | None = None, model: str = "base"
) -> tuple[int, int]:
    """Enhance one photo file into another, whose suffix decides the format; gray stays gray.

    Returns:
      (height, width) of the result.
    """
    if pathlib.Path(output_path).suffix.lower() not in images.SUFFIXES:
        raise UserError(f"cannot write {os.fspath(output_path)!r}: the name must end in {', '.join(images.SUFFIXES)}")
    picture = images.read_rgb(input_path)
    if images.is_gray(input_path):
        picture = np.ascontiguousarray(picture[..., 0])
    result = enhance(picture, scale, model)
    images.write_image(output_path, result)
    return result.shape[0], result.shape[1]
