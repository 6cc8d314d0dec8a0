"""Files in and out within a TensorFlow graph, against Pillow."""

import io

import numpy as np
import pytest
import pyvips
import tensorflow as tf
from PIL import Image, ImageOps

from jpegsr import encoded_pictures, images

decode = tf.function(
    lambda content: encoded_pictures.decode(content, max_pixels=10_000),
    [tf.TensorSpec((), tf.string)],
    autograph=False,
)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 4)).astype(np.uint8)
PICTURE = Image.fromarray(NOISE[..., :3])


def content(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_exif_orientation_is_applied(orientation, byte_order):
    exif = Image.Exif()
    exif.endian = byte_order
    exif[0x010E] = "a description that comes first"
    exif[0x0112] = orientation
    encoded = content(PICTURE, "JPEG", exif=exif)
    picture, is_gray = decode(encoded)
    np.testing.assert_array_equal(picture, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))))
    assert not is_gray


def test_damaged_exif_is_upright():
    good = Image.Exif()
    good[0x0112] = 6
    encoded = content(PICTURE, "JPEG", exif=good)
    start = encoded.index(b"Exif\0\0") + 6
    rng = np.random.default_rng(1)
    for _ in range(20):
        damaged = bytearray(encoded)
        damaged[start : start + 26] = rng.bytes(26)
        orientation = int(encoded_pictures.jpeg_orientation(tf.constant(bytes(damaged))))
        assert 1 <= orientation <= 8


def palette_with_a_transparent_colour() -> Image.Image:
    image = PICTURE.quantize(16)
    image.info["transparency"] = 3
    return image


@pytest.mark.parametrize(
    ("image", "kind", "tolerance"),
    [
        (PICTURE, "JPEG", 0),
        (PICTURE, "PNG", 0),
        (PICTURE.convert("L"), "JPEG", 0),
        (PICTURE.convert("L"), "PNG", 0),
        (PICTURE.convert("1"), "PNG", 0),
        (PICTURE.convert("P"), "PNG", 0),
        (palette_with_a_transparent_colour(), "PNG", 0),
        (PICTURE.convert("CMYK"), "JPEG", 2),  # inks are mixed with another rounding
        (Image.fromarray(NOISE), "PNG", 1),  # opacity too
        (Image.fromarray(NOISE[..., :2]), "PNG", 1),
    ],
    ids=lambda value: getattr(value, "mode", str(value)),
)
def test_kinds_of_pictures(image, kind, tolerance):
    encoded = content(image, kind)
    picture, is_gray = decode(encoded)
    with Image.open(io.BytesIO(encoded)) as opened:
        expected = Image.new("RGBA", image.size, "white")
        expected.alpha_composite(opened.convert("RGBA"))
        assert bool(is_gray) == (opened.mode in ("L", "LA", "1"))
    difference = np.abs(picture.numpy().astype(int) - np.asarray(expected.convert("RGB")))
    assert difference.max() <= tolerance


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_become_eight(bits):
    levels = (np.arange(1200).reshape(30, 40) % 2**bits * (255 // (2**bits - 1))).astype(np.uint8)
    encoded = pyvips.Image.new_from_array(levels).copy(interpretation="b-w").pngsave_buffer(bitdepth=bits)
    assert encoded[24:26] == bytes([bits, 0])
    np.testing.assert_array_equal(decode(encoded)[0].numpy()[..., 1], levels)


def test_sixteen_bits_become_eight():
    deep = Image.fromarray(np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16))
    picture, is_gray = decode(content(deep, "PNG"))
    assert is_gray
    assert np.abs(picture.numpy()[..., 0] - np.asarray(deep) / 257).max() <= 1


def scan_bomb() -> bytes:
    progressive = content(PICTURE, "JPEG", progressive=True)
    first = progressive.index(b"\xff\xda")
    second = progressive.index(b"\xff\xda", first + 2)
    return progressive[:second] + progressive[first:second] * 300 + progressive[second:]


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty"),
        (b"not a picture" * 9, "neither JPEG nor PNG"),
        (content(PICTURE, "GIF"), "neither JPEG nor PNG"),
        (content(PICTURE, "JPEG")[:400], "JPEG"),
        (content(PICTURE, "PNG")[:200], "PNG"),
        (content(Image.new("L", (200, 200)), "JPEG"), "200x200 pixels, more than the 10000"),
        (content(Image.new("L", (200, 201)), "PNG"), "200x201 pixels, more than the 10000"),
        (content(PICTURE, "PNG")[:16] + b"\0\1\0\0\0\1\0\0" + content(PICTURE, "PNG")[24:], "65536x65536 pixels"),
        (content(PICTURE, "PNG")[:16] + bytes(8) + content(PICTURE, "PNG")[24:], "0x0 pixels"),
        (scan_bomb(), "more than 200 scans"),
    ],
)
def test_what_cannot_be_used_is_an_invalid_argument(encoded, reason):
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        decode(encoded)


def test_what_follows_a_jpeg_is_no_scan():
    """Phones append films, others their raw data; there the two bytes of a scan's marker stand by chance."""
    trailer = np.random.default_rng(0).bytes(16_000_000)
    assert trailer.count(b"\xff\xda") > images.MAX_SCANS
    assert decode(content(PICTURE, "JPEG") + trailer)[0].shape == (40, 30, 3)


@pytest.mark.parametrize(
    ("shape", "scale", "image_format", "fits"),
    [
        ((16, 65_500), 1, "jpeg", True),
        ((16, 16_376), 4, "jpeg", False),
        ((16, 65_500), 4, "png", True),
        ((7_000, 7_000), 4, "png", False),
    ],
)
def test_formats_have_limits(shape, scale, image_format, fits):
    def check():
        return encoded_pictures.check_encodable(tf.zeros((*shape, 3), tf.uint8), scale, image_format)

    if fits:
        assert check().shape == (*shape, 3)
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="does not fit into"):
            check()


@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_encoding(image_format, is_gray):
    smooth = np.asarray(PICTURE.resize((60, 80), Image.Resampling.BICUBIC))
    pixels = np.repeat(smooth[..., :1], 3, axis=2) if is_gray else smooth
    encoded = encoded_pictures.encode(tf.constant(pixels), tf.constant(is_gray), image_format, 98).numpy()
    image = Image.open(io.BytesIO(encoded))
    assert (image.format, image.mode) == (image_format.upper(), "L" if is_gray else "RGB")
    difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels)
    assert difference.max() == 0 if image_format == "png" else 0 < difference.mean() < 2
