"""The degradation of `degradation` as TensorFlow graph operations, for use inside `tf.data`.

Same names, same levels. Pictures are uint8 `[H, W, C]` tensors; `jpeg` takes sizes that are unknown when the graph is traced,
`downscale` needs a square of known size, as training patches are.
"""

import tensorflow as tf

from jpegsr.degradation import ROUNDING_GUARD, resize_matrix

# The slow, exact inverse transform is the one that libjpeg (hence Pillow) uses; TensorFlow's default is not.
_DCT_METHOD = "INTEGER_ACCURATE"


def _round_to_levels(values: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(tf.floor(values + (0.5 + ROUNDING_GUARD)), 0.0, 255.0)


def downscale(image: tf.Tensor, scale: int) -> tf.Tensor:
    """S H X: antialiased bicubic of a square uint8 `[H, H, C]` of static size -> `[H / scale, H / scale, C]`."""
    size = image.shape[0]
    weights = tf.constant(resize_matrix(size, size // scale))
    rows = _round_to_levels(tf.einsum("oh,hwc->owc", weights, tf.cast(image, tf.float64)))
    columns = tf.einsum("ow,hwc->hoc", weights, rows)
    return tf.cast(_round_to_levels(columns), tf.uint8)


def _jpeg_444(image: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    """4:4:4 has no operation that takes the quality as a tensor, so each quality is a branch of its own."""

    def branch(fixed_quality: int):
        return lambda: tf.io.encode_jpeg(image, quality=fixed_quality, chroma_downsampling=False)

    encoded = tf.switch_case(quality - 1, [branch(fixed_quality) for fixed_quality in range(1, 101)])
    return tf.io.decode_jpeg(encoded, channels=image.shape[-1], dct_method=_DCT_METHOD)


def jpeg(image: tf.Tensor, quality: tf.Tensor, chroma_444: tf.Tensor) -> tf.Tensor:
    """C: compress and decompress uint8 `[H, W, C]`.

    Args:
      image: the picture; C must be static, 1 or 3.
      quality: int32 scalar, 1-100, or 0 for no compression.
      chroma_444: bool scalar, full-resolution chroma instead of 4:2:0.
    """

    def compress() -> tf.Tensor:
        return tf.cond(
            chroma_444,
            lambda: _jpeg_444(image, quality),
            lambda: tf.image.adjust_jpeg_quality(image, quality, dct_method=_DCT_METHOD),
        )

    degraded = tf.cond(quality == 0, lambda: image, compress)
    return tf.ensure_shape(degraded, image.shape)
