import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jpegsr import degradation, metrics


def test_psnr_and_ssim_agree_with_scikit_image(photo):
    degraded = degradation.jpeg(photo, 20)
    reference, image = metrics.luma(photo), metrics.luma(degraded)
    assert metrics.psnr(photo, degraded) == pytest.approx(peak_signal_noise_ratio(photo, degraded), abs=1e-9)
    expected = structural_similarity(
        reference, image, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert metrics.ssim(reference, image) == pytest.approx(expected, abs=1e-6)


def test_psnr_closed_form():
    flat = np.full((8, 8), 100, np.uint8)
    assert metrics.psnr(flat, flat + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert metrics.psnr(flat, flat) == math.inf


def test_luma_range_is_studio():
    extremes = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(metrics.luma(extremes), [[16, 235]])


def test_crop_border():
    assert metrics.crop_border(np.zeros((10, 12, 3)), 2).shape == (6, 8, 3)
    assert metrics.crop_border(np.zeros((4, 12, 3)), 2).shape == (4, 12, 3)
