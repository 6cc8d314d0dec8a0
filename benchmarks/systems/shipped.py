"""The package's own models at x2: in float32 on TensorFlow, and in int8 on OpenVINO (extra `fast`)."""

import dataclasses
import functools
import io

import numpy as np

from jpegsr import images
from jpegsr.enhancement import Enhancer


@dataclasses.dataclass(frozen=True)
class ShippedModel:
    """(content of a JPEG or PNG, scale) -> uint8 `[scale * H, scale * W, 3]`."""

    model: str
    runtime: str

    def __call__(self, file: bytes, scale: int) -> np.ndarray:
        return self._enhancer(scale).enhance(images.read_rgb(io.BytesIO(file)))  # type: ignore[return-value]

    @functools.cache  # noqa: B019  the systems live as long as the program
    def _enhancer(self, scale: int) -> Enhancer:
        return Enhancer(self.model, scale, self.runtime)

    @property
    def num_parameters(self) -> int:
        from jpegsr import models
        from jpegsr.model_files import config_of

        return models.build_joint(config_of(self.model, 2)).count_params()


SYSTEMS = {
    "jpegsr base": ShippedModel("base", "tensorflow"),
    "jpegsr base, int8": ShippedModel("base", "openvino"),
    "jpegsr fast": ShippedModel("fast", "tensorflow"),
    "jpegsr fast, int8": ShippedModel("fast", "openvino"),
}
