"""JPEG and PNG content <-> pictures with TensorFlow operations alone, for graphs that are served without Python.

Content is a scalar string tensor; pictures are uint8 `[H, W, C]`, upright. Content that cannot be used raises
`tf.errors.InvalidArgumentError`, which a server passes on as INVALID_ARGUMENT or HTTP 400.
"""

from typing import Literal

import tensorflow as tf

from jpegsr.images import MAX_SCANS

ImageFormat = Literal["png", "jpeg"]
# What the encoders take: values in all, and pixels a side.
_MAX_PNG_VALUES = (1 << 31) - 1
_MAX_JPEG_SIDE = 65_500
_SHORTEST_FILE = 33  # bytes: what the header of a PNG takes
_SEGMENT = 1 << 16  # bytes of a JPEG's segment, at most
_ORIENTATION_TAG = 0x0112


def checked(value: tf.Tensor, condition: tf.Tensor, *message: str | tf.Tensor) -> tf.Tensor:
    """The value, where a scalar condition holds; else `InvalidArgumentError` with the message.

    What is computed from the returned tensor is computed after the check.
    """
    parts = [part if isinstance(part, str) else tf.strings.as_string(part) for part in message]
    with tf.control_dependencies([tf.debugging.Assert(condition, [tf.strings.join(parts)])]):
        return tf.identity(value)


def decode(content: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one JPEG or PNG.

    Transparent PNGs are laid on white, 16 bits become 8, CMYK becomes RGB, the EXIF orientation of a JPEG is applied. Colour
    profiles are ignored.

    Args:
      content: scalar string, the whole file.
      max_pixels: larger pictures are refused before they are decoded.

    Returns:
      uint8 `[H, W, 3]`, and a scalar bool: the file holds brightness alone.
    """
    content = checked(content, tf.strings.length(content) > _SHORTEST_FILE, "the picture is empty or cut off")
    is_jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    content = checked(content, is_jpeg | is_png, "the picture is neither JPEG nor PNG")
    picture, is_gray = tf.cond(is_jpeg, lambda: _decode_jpeg(content, max_pixels), lambda: _decode_png(content, max_pixels))
    return tf.ensure_shape(picture, (None, None, 3)), is_gray


def encode(picture: tf.Tensor, is_gray: tf.Tensor, image_format: ImageFormat, jpeg_quality: int = 95) -> tf.Tensor:
    """Encode uint8 `[H, W, 3]` as a PNG, or as a JPEG with full-resolution colour (4:4:4); gray pictures in one channel."""

    def encoded(pixels: tf.Tensor) -> tf.Tensor:
        if image_format == "png":
            return tf.io.encode_png(pixels, compression=1)  # as `jpegsr enhance`: higher levels take longer than the network
        return tf.io.encode_jpeg(pixels, quality=jpeg_quality, chroma_downsampling=False, optimize_size=True)

    return tf.cond(is_gray, lambda: encoded(picture[..., :1]), lambda: encoded(picture))


def check_encodable(picture: tf.Tensor, scale: int, image_format: ImageFormat) -> tf.Tensor:
    """The picture, uint8 `[H, W, 3]`, if the format can hold it `scale` times larger; before the work, not after it."""
    height, width = tf.unstack(tf.shape(picture, tf.int64)[:2] * scale)
    fits_jpeg, fits_png = tf.maximum(height, width) <= _MAX_JPEG_SIDE, height * width * 3 <= _MAX_PNG_VALUES
    is_fine = fits_jpeg if image_format == "jpeg" else fits_png
    return checked(picture, is_fine, "the result of ", width, "x", height, f" pixels does not fit into {image_format.upper()}")


def _check_size(content: tf.Tensor, height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    num_pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    message = ("the picture has ", width, "x", height, f" pixels, more than the {max_pixels} that this server takes")
    return checked(content, (num_pixels > 0) & (num_pixels <= max_pixels), *message)


def _decode_jpeg(content: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(content))
    content = _check_size(content, height, width, max_pixels)
    content = checked(content, _count_scans(content) <= MAX_SCANS, f"the picture has more than {MAX_SCANS} scans")
    # The method that gives libjpeg's own result, as other decoders and the training do.
    picture = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return _upright(picture, jpeg_orientation(content)), channels == 1


def _count_scans(content: tf.Tensor) -> tf.Tensor:
    """How often a scan starts: marker, length, number of components, as `images.refuse_scan_bomb` looks for them."""
    data = tf.io.decode_raw(content, tf.uint8)
    marker, length, count = (data[:-4] == 0xFF) & (data[1:-3] == 0xDA), data[3:-1], data[4:]
    is_length = (length >= 8) & (length <= 14) & (length % 2 == 0)
    return tf.math.count_nonzero(marker & (data[2:-2] == 0) & is_length & (count >= 1) & (count <= 4))


def _decode_png(content: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 16, 10), tf.uint8), tf.int64)
    width, height = tf.unstack(tf.reduce_sum(tf.reshape(header[:8], (2, 4)) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1))
    content = _check_size(content, height, width, max_pixels)
    bit_depth, colour_type = header[8], header[9]
    picture = tf.cond(
        # TensorFlow makes gray pictures of 1, 2 and 4 bits transparent, if it is asked for their opacity.
        (colour_type == 0) & (bit_depth < 8),
        lambda: tf.io.decode_png(content, channels=3),
        lambda: _on_white(tf.io.decode_png(content, channels=4)),
    )
    return picture, (colour_type == 0) | (colour_type == 4)


def _on_white(picture: tf.Tensor) -> tf.Tensor:
    """`[H, W, 4]` -> `[H, W, 3]`."""

    def laid() -> tf.Tensor:
        alpha = tf.cast(picture[..., 3:], tf.float32) / 255.0
        return tf.cast(tf.round(tf.cast(picture[..., :3], tf.float32) * alpha + 255.0 * (1.0 - alpha)), tf.uint8)

    return tf.cond(tf.reduce_all(picture[..., 3] == 255), lambda: picture[..., :3], laid)


def jpeg_orientation(content: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, 1-8, as a scalar int32; 1 where there is none or it is damaged.

    The segment is searched for among the first two (JFIF and EXIF, each of 64 KB at most), and its first directory among
    that segment, as EXIF demands.
    """
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, 2 * _SEGMENT), tf.uint8), tf.int32)
    # FF E1, two bytes of length, and the name of what follows.
    name = {0: 0xFF, 1: 0xE1, **dict(enumerate(b"Exif\0\0", start=4))}
    num_places = tf.size(head) - max(name)
    matches = tf.ones(tf.maximum(num_places, 0), tf.bool)
    for offset, byte in name.items():
        matches &= head[offset : offset + num_places] == byte
    found = tf.where(matches)[:1, 0]
    return tf.cond(tf.size(found) > 0, lambda: _orientation_in(head[tf.cast(found[0], tf.int32) + 10 :]), lambda: 1)


def _orientation_in(exif: tf.Tensor) -> tf.Tensor:
    """The orientation that a TIFF structure, int32 bytes `[N]`, names in its first directory."""
    is_little = exif[0] == ord("I")

    def number(offset: tf.Tensor | int, length: int) -> tf.Tensor:
        """The numbers at some offsets; 0 beyond the end."""
        places = tf.expand_dims(offset, -1) + tf.range(length)
        inside = (places >= 0) & (places < tf.size(exif))
        digits = tf.where(inside, tf.gather(exif, tf.where(inside, places, 0)), 0)
        weights = tf.constant([256**i for i in range(length)])
        return tf.reduce_sum(digits * tf.where(is_little, weights, weights[::-1]), axis=-1)

    directory = number(4, 4)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 512))
    values = tf.boolean_mask(number(entries + 8, 2), number(entries, 2) == _ORIENTATION_TAG)
    value = tf.reduce_max(tf.concat([[1], values[:1]], axis=0))
    return tf.where(value <= 8, value, 1)


def _upright(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo one of the eight orientations of EXIF."""
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
    # Transposed, what was up and down has become left and right.
    flips = tf.constant([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0], [0, 1], [1, 1], [1, 0]])[orientation - 1]
    axes = tf.boolean_mask([0, 1], flips == 1)
    return tf.reverse(turned, axes)
