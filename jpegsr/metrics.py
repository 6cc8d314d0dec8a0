"""PSNR and SSIM as super-resolution papers report them: per picture, in float64, on 8-bit levels."""

import numpy as np

# BT.601 studio range: the luma of an RGB picture in 0-255 lies in 16-235.
_LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
_LUMA_OFFSET = 16.0


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 studio-range luma, not rounded: uint8 `[H, W, 3]` -> float64 `[H, W]` in 16-235."""
    return image.astype(np.float64) @ _LUMA_WEIGHTS + _LUMA_OFFSET


def crop_border(image: np.ndarray, border: int) -> np.ndarray:
    """Without `border` pixels at each side; a picture too small for that stays whole."""
    if border == 0 or min(image.shape[:2]) <= 2 * border:
        return image
    return image[border:-border, border:-border]


def psnr(reference: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all values, for a peak of 255; infinite for equal pictures."""
    error = np.mean((np.asarray(reference, np.float64) - np.asarray(image, np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def _gaussian_filter(image: np.ndarray) -> np.ndarray:
    """11-tap Gaussian of standard deviation 1.5 along both axes, without the border it cannot fill."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    for axis in (0, 1):
        image = np.lib.stride_tricks.sliding_window_view(image, 11, axis=axis) @ taps
    return image


def ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two single-channel pictures `[H, W]` of levels 0-255, at least 11x11."""
    x, y = (np.asarray(picture, np.float64) for picture in (reference, image))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _gaussian_filter(x), _gaussian_filter(y)
    variance_x = _gaussian_filter(x * x) - mean_x**2
    variance_y = _gaussian_filter(y * y) - mean_y**2
    covariance = _gaussian_filter(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))
