"""Small valid picture files of many kinds: what `hostile_corpus` mutates, and its control group.

Most come from Pillow. What Pillow cannot write (16-bit RGB, interlaced PNG, tiled TIFF) is put together here, so that the
corpus needs nothing beyond the package's own requirements.
"""

import dataclasses
import functools
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels


@dataclasses.dataclass(frozen=True)
class SeedFile:
    """A valid file; `format` is the first word of its name."""

    name: str
    suffix: str
    content: bytes

    @property
    def format(self) -> str:
        return self.name.partition("-")[0]


def picture(height: int = 45, width: int = 61, channels: int = 3) -> np.ndarray:
    """Smooth colours with some noise, uint8 `[height, width, channels]`."""
    rows, columns = np.mgrid[:height, :width]
    waves = [120 + 80 * np.sin(rows / (5 + c) + c) + 30 * np.cos(columns / (3 + c)) for c in range(channels)]
    noise = np.random.default_rng(0).normal(0, 6, (height, width, channels))
    return np.clip(np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8)


def deep_picture(channels: int) -> np.ndarray:
    """The same with 16 bits to a channel."""
    return picture(channels=channels).astype(np.uint16) * 257


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, depth: int, color_type: int, interlaced: bool = False) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced))


def png(pixels: np.ndarray, interlaced: bool = False) -> bytes:
    """A PNG of uint8 or uint16 `[H, W, C]`, C = 1 to 4."""
    height, width, channels = pixels.shape
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = bytearray()
    for left, top, right_step, down_step in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in big_endian[top::down_step, left::right_step]:
            rows += b"\0" + row.tobytes()
    header = png_header(width, height, 8 * pixels.itemsize, _PNG_COLOR_TYPES[channels], interlaced)
    return PNG_SIGNATURE + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, order: str = "<", tile: int = 0) -> bytes:
    """A deflated RGB TIFF of uint8 or uint16 `[H, W, 3]`, in one strip or in tiles, of either byte order."""
    height, width, channels = pixels.shape
    side = tile or max(height, width)
    padded = np.pad(pixels, ((0, -height % side), (0, -width % side), (0, 0))) if tile else pixels
    ordered = padded.astype(padded.dtype.newbyteorder(order))
    corners = [(y, x) for y in range(0, height, side) for x in range(0, width, side)]
    parts = [zlib.compress(ordered[y : y + side, x : x + side].tobytes()) for y, x in corners]
    starts = np.cumsum([8] + [len(part) for part in parts])
    data = b"".join(parts)
    data += b"\0" * (-len(data) % 2)
    layout = {322: [tile], 323: [tile], 324: starts[:-1], 325: [len(part) for part in parts]}
    strip = {273: [8], 278: [height], 279: [len(data)]}
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * channels, 259: [8], 262: [2], 277: [channels]}
    tags |= layout if tile else strip
    extra_at = 8 + len(data) + 2 + 12 * len(tags) + 4
    directory, extra = struct.pack(order + "H", len(tags)), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(packed) > 4:
            packed, extra = struct.pack(order + "I", extra_at + len(extra)), extra + packed
        directory += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8 + len(data)) + data + directory + bytes(4) + extra


@functools.cache
def icc_profile() -> bytes:
    """An sRGB profile, without the time of its making."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def exif(orientation: int = 6) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "Camera"
    tags.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    tags.get_ifd(0x8825)[1] = "N"
    return tags.tobytes()


def encoded(pixels: np.ndarray | Image.Image, file_format: str, **options: object) -> bytes:
    """What Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _jpegs() -> Iterator[tuple[str, bytes]]:
    yield "baseline", encoded(picture(), "JPEG", quality=60)
    yield "progressive", encoded(picture(), "JPEG", progressive=True)
    yield "gray", encoded(picture(channels=1), "JPEG")
    yield "gray-progressive", encoded(picture(channels=1), "JPEG", progressive=True)
    yield "444", encoded(picture(), "JPEG", subsampling=0)
    # Blocks per unit are equal in number (4:2:0 and 4:1:1, 4:2:2 and 4:4:0): changing the factors keeps the file valid.
    four_two_two, four_two_zero = (encoded(picture(64, 64), "JPEG", subsampling=s) for s in (1, 2))
    yield "422", four_two_two
    yield "420", four_two_zero
    yield "440", four_two_two.replace(b"\x03\x01\x21\x00", b"\x03\x01\x12\x00")
    yield "411", four_two_zero.replace(b"\x03\x01\x22\x00", b"\x03\x01\x41\x00")
    cmyk = encoded(Image.fromarray(picture(channels=4), "CMYK"), "JPEG", quality=80)
    yield "cmyk", cmyk
    adobe = cmyk.index(b"Adobe")
    yield "ycck", cmyk[: adobe + 11] + b"\2" + cmyk[adobe + 12 :]
    yield "restarts", encoded(picture(), "JPEG", restart_marker_rows=1)
    yield "restarts-progressive", encoded(picture(), "JPEG", restart_marker_blocks=2, progressive=True)
    yield (
        "metadata",
        encoded(picture(), "JPEG", exif=exif(), icc_profile=icc_profile(), xmp=XMP, comment=b"comment", dpi=(72, 72)),
    )
    yield "tiny", encoded(picture(1, 1), "JPEG")


def _pngs() -> Iterator[tuple[str, bytes]]:
    palette = Image.fromarray(picture()).quantize(16)
    yield "rgb", png(picture())
    yield "rgba", png(picture(channels=4))
    yield "gray", png(picture(channels=1))
    yield "gray-alpha", png(picture(channels=2))
    yield "palette", encoded(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    yield "bits", encoded(Image.fromarray(picture(channels=1)[..., 0] > 120), "PNG")
    yield "rgb16", png(deep_picture(3))
    yield "rgba16", png(deep_picture(4))
    yield "gray16", png(deep_picture(1))
    yield "interlaced", png(picture(), interlaced=True)
    yield "interlaced16", png(deep_picture(4), interlaced=True)
    yield "metadata", encoded(picture(), "PNG", exif=exif(), icc_profile=icc_profile(), dpi=(72, 72))


def _webps() -> Iterator[tuple[str, bytes]]:
    frames = [Image.fromarray(picture() + shift) for shift in (0, 9, 18)]
    yield "lossy", encoded(picture(), "WEBP", quality=60)
    yield "lossless", encoded(picture(), "WEBP", lossless=True)
    yield "alpha", encoded(picture(channels=4), "WEBP", quality=60)
    yield "animated", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50)
    yield "metadata", encoded(picture(), "WEBP", exif=exif(), icc_profile=icc_profile(), xmp=XMP)


def _tiffs() -> Iterator[tuple[str, bytes]]:
    rgb = Image.fromarray(picture())
    yield "plain", encoded(rgb, "TIFF")
    yield "deflate", tiff(picture())
    yield "deep", tiff(deep_picture(3))
    yield "deep-big-endian", tiff(deep_picture(3), ">")
    yield "tiled", tiff(picture(), tile=16)
    yield "tiled-deep", tiff(deep_picture(3), tile=32)
    yield "gray16", encoded(Image.fromarray(deep_picture(1)[..., 0]), "TIFF")
    yield "lzw", encoded(rgb, "TIFF", compression="tiff_lzw")
    yield "jpeg", encoded(rgb, "TIFF", compression="jpeg")
    yield "fax", encoded(Image.fromarray(picture(channels=1)[..., 0] > 120), "TIFF", compression="group4")
    yield "pages", encoded(rgb, "TIFF", save_all=True, append_images=[rgb.rotate(90), rgb.convert("L")])
    yield "big", encoded(rgb, "TIFF", big_tiff=True)
    yield "metadata", encoded(rgb, "TIFF", icc_profile=icc_profile(), compression="tiff_deflate", dpi=(72, 72))


def _others() -> Iterator[tuple[str, bytes]]:
    frames = [Image.fromarray(picture() + shift).quantize(32) for shift in (0, 9, 18)]
    yield "bmp-rgb", encoded(picture(), "BMP")
    yield "bmp-palette", encoded(frames[0], "BMP")
    yield "bmp-rgba", encoded(picture(channels=4), "BMP")
    yield "bmp-bits", encoded(Image.fromarray(picture(channels=1)[..., 0] > 120), "BMP")
    yield "gif-still", encoded(frames[0], "GIF")
    yield "gif-animated", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


@functools.cache
def seed_files() -> tuple[SeedFile, ...]:
    """All of them, in a fixed order."""
    files = [SeedFile(f"jpeg-{name}", ".jpg", content) for name, content in _jpegs()]
    files += [SeedFile(f"png-{name}", ".png", content) for name, content in _pngs()]
    files += [SeedFile(f"webp-{name}", ".webp", content) for name, content in _webps()]
    files += [SeedFile(f"tiff-{name}", ".tif", content) for name, content in _tiffs()]
    files += [SeedFile(name, f".{name[:3]}", content) for name, content in _others()]
    return tuple(files)
