import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from jpegsr import degradation, degradation_graph
from jpegsr.errors import UserError


def test_halving_weights_have_their_closed_form():
    # Keys' kernel (a = -0.5) stretched by 2 and sampled at 1/4, 3/4, 5/4 and 7/4, as in MATLAB's imresize(., 0.5).
    row = degradation.resize_matrix(32, 16)[8]
    np.testing.assert_array_equal(row[13:21], np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256)
    assert np.count_nonzero(row) == 8


def test_doubling_weights_have_their_closed_form():
    matrix = degradation.resize_matrix(16, 32)
    # Output 16 lies at input 7.75: taps 6, 7, 8, 9 at distances 1.75, 0.75, 0.25, 1.25.
    np.testing.assert_allclose(matrix[16, 6:10], [-0.0234375, 0.2265625, 0.8671875, -0.0703125], rtol=0, atol=1e-15)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_resize_reproduces_constants_and_inner_ramps(scale):
    matrix = degradation.resize_matrix(24 * scale, 24)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    ramp = matrix @ np.arange(24.0 * scale)
    np.testing.assert_allclose(ramp[4:-4], np.arange(24)[4:-4] * scale + (scale - 1) / 2, atol=1e-9)


def test_border_is_mirrored():
    # The first output of a halving reads inputs -3..4; -1 mirrors to 0, -2 to 1, -3 to 2.
    expected = np.zeros(16)
    for position, weight in zip([2, 1, 0, 0, 1, 2, 3, 4], np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256, strict=True):
        expected[position] += weight
    np.testing.assert_array_equal(degradation.resize_matrix(16, 8)[0], expected)


@pytest.mark.parametrize(
    ("scale", "size", "golden"),
    [
        (2, 6, [[87, 72, 133], [218, 102, 111], [118, 124, 166]]),
        (3, 12, [[91, 133, 168, 112], [116, 147, 145, 164], [157, 156, 108, 129], [175, 127, 102, 78]]),
        (4, 8, [[113, 133], [146, 146]]),
    ],
)
def test_downscale_golden_values(scale, size, golden):
    # Worked out apart from this code, in exact fractions: kernel, mirrored border, rounding half up after each pass.
    image = (np.arange(size * size).reshape(size, size) ** 2 * 7 % 256).astype(np.uint8)[..., None]
    assert degradation.downscale(image, scale)[..., 0].tolist() == golden


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_downscale_agrees_with_pillow_inside(photo, scale):
    image = degradation.crop_to_multiple(photo, scale)
    ours = degradation.downscale(image, scale)
    size = (ours.shape[1], ours.shape[0])
    pillow = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    difference = np.abs(ours.astype(int) - pillow)[4:-4, 4:-4]
    assert difference.max() <= 1
    assert difference.mean() < 0.2


def test_downscale_refuses_what_does_not_divide(photo):
    with pytest.raises(UserError, match="does not divide by 4"):
        degradation.downscale(photo, 4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_graph_downscale_equals_reference(photo, scale):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    for image in (noise, photo[:96, :96]):
        np.testing.assert_array_equal(
            degradation_graph.downscale(tf.constant(image), scale), degradation.downscale(image, scale)
        )


@pytest.mark.parametrize("chroma_444", [False, True])
def test_graph_jpeg_equals_libjpeg_bit_for_bit(photo, chroma_444):
    compress = tf.function(degradation_graph.jpeg)
    image = np.ascontiguousarray(photo[20:85, 30:107])  # odd sizes
    for quality in range(101):
        ours = compress(tf.constant(image), tf.constant(quality), tf.constant(chroma_444))
        np.testing.assert_array_equal(ours, degradation.jpeg(image, quality, chroma_444), err_msg=f"quality {quality}")


def test_graph_jpeg_of_gray(photo):
    gray = photo[:64, :64, :1]
    compressed = degradation_graph.jpeg(tf.constant(gray), tf.constant(30), tf.constant(False))
    np.testing.assert_array_equal(compressed, degradation.jpeg(gray, 30))


def test_jpeg_quality_orders_the_error(photo):
    errors = [np.mean((degradation.jpeg(photo, q).astype(float) - photo) ** 2) for q in (5, 10, 30, 70, 95)]
    assert errors == sorted(errors, reverse=True)
    assert degradation.jpeg(photo, 0) is photo
