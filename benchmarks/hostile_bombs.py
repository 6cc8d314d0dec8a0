"""Small files that cost a careless reader gigabytes or minutes: each is nearly valid, or valid."""

import functools
import struct
import zlib

import numpy as np
from hostile_seeds import PNG_SIGNATURE, encoded, picture, png_chunk, png_header
from PIL import Image

_MEBIBYTE = 1 << 20
_MOST_ZEROS = 3 << 30
_ADLER_MODULUS = 65521
# Width, height, bits of a channel, PNG colour type, channels. The last two are large, but no larger than photos are.
_PNG_BOMBS = (
    (30000, 30000, 8, 2, 3),
    (30000, 30000, 1, 0, 1),
    (65500, 65500, 1, 0, 1),
    (20000, 50000, 8, 0, 1),
    (16000, 16000, 16, 6, 4),
    (9000, 9000, 16, 6, 4),
    (2**31 - 1, 1, 8, 2, 3),
    (1, 2**31 - 1, 8, 0, 1),
    (4400, 4400, 16, 6, 4),
    (4400, 4400, 8, 3, 1),
)


@functools.cache
def _deflated_mebibyte() -> bytes:
    """A mebibyte of zeros as deflate blocks that can be repeated."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(bytes(_MEBIBYTE)) + stream.flush(zlib.Z_FULL_FLUSH)


def zeros_stream(size: int) -> bytes:
    """What zlib makes of so many zeros, a thousandth in size, without compressing gigabytes."""
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = last.compress(bytes(size % _MEBIBYTE)) + last.flush()
    checksum = (size % _ADLER_MODULUS) << 16 | 1
    return b"\x78\xda" + _deflated_mebibyte() * (size // _MEBIBYTE) + end + struct.pack(">I", checksum)


def _idat(stream: bytes, piece: int) -> bytes:
    return b"".join(png_chunk(b"IDAT", stream[start : start + piece]) for start in range(0, len(stream), piece))


def zip_bomb(generator: np.random.Generator) -> bytes:
    """A PNG of one colour with absurd dimensions, or one whose data goes on long after its last row."""
    piece = int(generator.choice([8192, 65536, 1 << 30]))
    if generator.random() < 0.2:
        header, size = png_header(61, 45, 8, 2), _MEBIBYTE * int(generator.integers(100, 1500))
    else:
        width, height, depth, color_type, channels = _PNG_BOMBS[generator.integers(len(_PNG_BOMBS))]
        header = png_header(width, height, depth, color_type, bool(generator.random() < 0.2))
        header += png_chunk(b"PLTE", bytes(range(48))) if color_type == 3 else b""
        size = min(height * (1 + (width * depth * channels + 7) // 8), _MOST_ZEROS)
    return PNG_SIGNATURE + header + _idat(zeros_stream(size), piece) + png_chunk(b"IEND", b"")


def text_bomb(generator: np.random.Generator, content: bytes) -> bytes:
    """A valid PNG with many chunks of metadata that unpack to gigabytes, or with thousands of small ones."""
    kinds = {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0\0\0", b"iCCP": b"profile\0\0"}
    if generator.random() < 0.3:
        count = int(generator.integers(1000, 20000))
        added = b"".join(png_chunk(b"tEXt", b"Key%d\0" % number + b"x" * 20) for number in range(count))
    else:
        kind = list(kinds)[generator.integers(len(kinds))]
        bomb = zeros_stream(_MEBIBYTE * int(generator.integers(1, 300)))
        added = png_chunk(kind, kinds[kind] + bomb) * int(generator.integers(1, 8))
    # Before the pixels or after them: readers take both.
    place = content.index(b"IDAT" if generator.random() < 0.7 else b"IEND") - 4
    return content[:place] + added + content[place:]


def _jpeg_segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def scan_bomb(generator: np.random.Generator) -> bytes:
    """A progressive JPEG of thousands of scans, each of which makes the reader pass over the whole picture.

    A scan needs few bytes, since a single code ends the band of 32767 blocks.
    """
    side, num_scans = int(generator.integers(1000, 4400)), int(generator.integers(1000, 6000))
    num_blocks = ((side + 7) // 8) ** 2
    bits = ("0" + "1" * 14) * -(-num_blocks // 32767)
    bits += "1" * (-len(bits) % 8)
    end_of_bands = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    one_code = bytes([1] + [0] * 15)
    parts = [
        b"\xff\xd8",
        _jpeg_segment(0xDB, b"\0" + b"\1" * 64),
        _jpeg_segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
        _jpeg_segment(0xC4, b"\0" + one_code + b"\0"),
        _jpeg_segment(0xC4, b"\x10" + one_code + b"\xe0"),
        _jpeg_segment(0xDA, b"\1\1\0\0\0\0") + bytes(num_blocks // 8 + 1),
        (_jpeg_segment(0xDA, b"\1\1\0\1\x3f\0") + end_of_bands) * num_scans,
        b"\xff\xd9",
    ]
    return b"".join(parts)


def frame_bomb(generator: np.random.Generator) -> bytes:
    """A GIF of thousands of frames that opens as a large screen."""
    side, num_frames = int(generator.integers(2000, 4400)), int(generator.integers(1000, 10000))
    content = encoded(Image.fromarray(picture()).quantize(4), "GIF")
    start = content.index(b"\x2c\0\0\0\0")
    return content[:6] + struct.pack("<HH", side, side) + content[10:start] + content[start:-1] * num_frames + content[-1:]
