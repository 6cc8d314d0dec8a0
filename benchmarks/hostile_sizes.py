"""Declares other dimensions in the header of a valid picture file, whatever its pixels are.

The header stays well formed (a PNG's checksum is right again), so that a reader is tempted to allocate what it says.
"""

import re
import struct
from collections.abc import Callable

from hostile_seeds import PNG_SIGNATURE, png_chunk


def with_size(content: bytes, file_format: str, width: int, height: int) -> bytes:
    """The file with another width and height in its header, cut to the bits that the format has for them."""
    return _WRITERS[file_format](content, width, height)


def _replaced(content: bytes, start: int, data: bytes) -> bytes:
    return content[:start] + data + content[start + len(data) :]


def _jpeg(content: bytes, width: int, height: int) -> bytes:
    frame = re.search(rb"\xff[\xc0-\xc2]\x00.\x08", content, re.DOTALL)
    assert frame
    return _replaced(content, frame.end(), struct.pack(">HH", height & 0xFFFF, width & 0xFFFF))


def _png(content: bytes, width: int, height: int) -> bytes:
    start = len(PNG_SIGNATURE)
    data = struct.pack(">II", width, height) + content[start + 16 : start + 21]
    return _replaced(content, start, png_chunk(b"IHDR", data))


def _bmp(content: bytes, width: int, height: int) -> bytes:
    return _replaced(content, 18, struct.pack("<II", width, height))


def _gif(content: bytes, width: int, height: int) -> bytes:
    """Both the screen and the first frame, which begins at (0, 0)."""
    size = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    return _replaced(_replaced(content, 6, size), content.index(b"\x2c\0\0\0\0") + 5, size)


def _webp(content: bytes, width: int, height: int) -> bytes:
    kind = content[12:16]
    if kind == b"VP8X":
        limit = (1 << 24) - 1
        data = ((width - 1) & limit).to_bytes(3, "little") + ((height - 1) & limit).to_bytes(3, "little")
        return _replaced(content, 24, data)
    limit = (1 << 14) - 1
    if kind == b"VP8L":
        other_bits = int.from_bytes(content[21:25], "little") >> 28
        packed = (width - 1) & limit | ((height - 1) & limit) << 14 | other_bits << 28
        return _replaced(content, 21, struct.pack("<I", packed))
    return _replaced(content, 26, struct.pack("<HH", width & limit, height & limit))


def _tiff(content: bytes, width: int, height: int) -> bytes:
    """In the first directory, of a classic TIFF or a BigTIFF."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = struct.unpack_from(order + "H", content, 2)[0] == 43
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, 8 if is_big else 4)
    count_format, entry_size = ("Q", 20) if is_big else ("H", 12)
    (count,) = struct.unpack_from(order + count_format, content, start)
    first = start + struct.calcsize(order + count_format)
    for entry in range(first, first + count * entry_size, entry_size):
        (tag,) = struct.unpack_from(order + "H", content, entry)
        if tag in (256, 257):
            one_long = struct.pack(order + ("HQI" if is_big else "HII"), 4, 1, width if tag == 256 else height)
            content = _replaced(content, entry + 2, one_long)
    return content


_WRITERS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "jpeg": _jpeg,
    "png": _png,
    "bmp": _bmp,
    "gif": _gif,
    "webp": _webp,
    "tiff": _tiff,
}
