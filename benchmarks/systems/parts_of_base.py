"""The networks of the shipped `base` put together otherwise: what it gains by training them together.

CAR is the one that restores at the same size (`scale=1`), trained alone in stage `car`; SR is the second half of the x2 model,
which with strength 0 gets the JPEG as it is.
"""

import functools
import io
from collections.abc import Callable

import numpy as np

from jpegsr import degradation, images
from jpegsr.enhancement import Enhancer


@functools.cache
def _enhance(scale: int, strength: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    return Enhancer("base", scale, "tensorflow", strength=strength).enhance  # type: ignore[return-value]


class _Part:
    """(content of a JPEG or PNG, scale) -> uint8 `[scale * H, scale * W, 3]`."""

    def __init__(self, upscale: Callable[[np.ndarray, int], np.ndarray], networks: tuple[str, ...]):
        self._upscale = upscale
        self._networks = networks

    def __call__(self, file: bytes, scale: int) -> np.ndarray:
        return self._upscale(images.read_rgb(io.BytesIO(file)), scale)

    @property
    def num_parameters(self) -> int:
        from jpegsr import models
        from jpegsr.model_files import config_of

        joint = models.build_joint(config_of("base", 2))
        return sum(joint.get_layer(name).count_params() for name in self._networks)


def _car_then_bicubic(picture: np.ndarray, scale: int) -> np.ndarray:
    return degradation.upscale_bicubic(_enhance(1)(picture), scale)


def _bicubic_then_car(picture: np.ndarray, scale: int) -> np.ndarray:
    return _enhance(1)(degradation.upscale_bicubic(picture, scale))


def _sr_without_car(picture: np.ndarray, scale: int) -> np.ndarray:
    return _enhance(scale, 0.0)(picture)


SYSTEMS = {
    "base's CAR, then bicubic": _Part(_car_then_bicubic, ("car",)),
    "bicubic, then base's CAR": _Part(_bicubic_then_car, ("car",)),
    "base's SR without CAR": _Part(_sr_without_car, ("sr",)),
}
