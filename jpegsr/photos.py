"""Photo file <-> what the network works on, with all that has to survive: profile, metadata, transparency, depth.

`images` reads plain RGB for training and scoring; this room is for people's files. Decoding, colour management and encoding
are libvips' (pyvips).
"""

import contextlib
import dataclasses
import io
import logging
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyvips
from PIL import BmpImagePlugin

from jpegsr import colour_profiles, images, photo_metadata
from jpegsr.errors import UserError, first_line
from jpegsr.images import written_beside
from jpegsr.vips import as_array, as_image, one_line

_logger = logging.getLogger(__name__)
# libvips reports every oddity of a file; what stops it becomes an error of ours.
logging.getLogger("pyvips").addHandler(logging.NullHandler())

DEFAULT_MAX_PIXELS = 100_000_000
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp")
# What can be written: name -> suffixes, the first one being the usual.
FORMATS = {"png": (".png",), "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "webp": (".webp",), "tiff": (".tif", ".tiff")}
_MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"GIF8": "gif",
    b"BM": "bmp",
}
_JPEG_SEGMENT = 65_500  # bytes of EXIF or XMP
_LONGEST_SIDES = {"jpeg": 65_500, "webp": 16_383}


@dataclasses.dataclass(frozen=True)
class Photo:
    """A decoded photo, upright.

    Attributes:
      pixels: uint8 or uint16 `[H, W, 3]` in sRGB, or `[H, W, 1]` (gray).
      alpha: opacity of the same type, `[H, W, 1]`, or None.
      native: the pixels in the file's own colour space, if that is not sRGB.
      metadata: libvips field -> (type, value): EXIF, XMP, IPTC, ICC profile.
      resolution: horizontal and vertical, in pixels per millimetre.
      jpeg: the file, if it is a JPEG: its tables tell how much there is to restore.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    native: np.ndarray | None = None
    metadata: dict[str, tuple[int, Any]] = dataclasses.field(default_factory=dict)
    resolution: tuple[float, float] = (1.0, 1.0)
    jpeg: bytes | None = None


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """How results are encoded; `UserError` for values out of range.

    Attributes:
      jpeg_quality: 1-100.
      png_compression: 0-9; a higher level takes much longer and saves a third at most.
    """

    jpeg_quality: int = 95
    png_compression: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(f"--jpeg_quality={self.jpeg_quality} is not within 1-100")
        if not 0 <= self.png_compression <= 9:
            raise UserError(f"--png_compression={self.png_compression} is not within 0-9")

    def of(self, kind: str) -> dict[str, Any]:
        """Arguments of libvips' encoder for a format."""
        arguments: dict[str, dict[str, Any]] = {
            # Means of left and upper pixel: the best prediction for photos at little cost.
            "png": {"compression": self.png_compression, "filter": "avg"},
            "jpeg": {"Q": self.jpeg_quality, "subsample_mode": "off"},
            "webp": {"lossless": True, "effort": 2},
            "tiff": {"compression": "deflate", "predictor": "horizontal"},
        }
        return arguments[kind]


def read(source: str | os.PathLike[str] | bytes, max_pixels: int = DEFAULT_MAX_PIXELS, name: str | None = None) -> Photo:
    """Decode a photo.

    Args:
      source: a path, or the file's content.
      max_pixels: refuse larger pictures, before they are decoded.
      name: what messages call it, if not by its path.

    Raises:
      UserError: it cannot be read, is no JPEG, PNG, WebP, TIFF, GIF or BMP, is damaged, or is too large.
    """
    name = name or (os.fspath(source) if not isinstance(source, bytes) else "the picture")
    content = source if isinstance(source, bytes) else images.read_bytes(source)
    with _named_errors(name):
        image = _open(content, max_pixels, name)
        _check_pixels(image.width, image.height, max_pixels, name)
        return dataclasses.replace(_decode(image, name), jpeg=content if kind_of(content) == "jpeg" else None)


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """What the decoders say about a file, as a `UserError` that names it."""
    try:
        yield
    except pyvips.Error as error:
        raise UserError(f"cannot read {name!r}: {one_line(error)}") from None
    except MemoryError:
        raise UserError(f"cannot read {name!r}: not enough memory") from None


def kind_of(content: bytes) -> str | None:
    """The file format that the first bytes tell: "jpeg", "png", "webp", "tiff", "gif", "bmp", or None."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)


def _check_pixels(width: int, height: int, max_pixels: int, name: str) -> None:
    if width * height > max_pixels:
        raise UserError(f"{name!r} has {width}x{height} pixels, above --max_pixels={max_pixels}: raise that to allow it")


def _open(content: bytes, max_pixels: int, name: str) -> pyvips.Image:
    """The header, by the decoder that the content asks for, whatever the file's name is."""
    if not content:
        raise UserError(f"{name!r} is empty")
    kind = kind_of(content)
    if kind is None:
        raise UserError(f"{name!r} is not a JPEG, PNG, WebP, TIFF, GIF or BMP picture")
    if kind == "bmp":
        return _open_bmp(content, max_pixels, name)
    if kind == "jpeg":
        images.refuse_scan_bomb(content, name)
    image = pyvips.Operation.call(f"{kind}load_buffer", content, access="sequential", fail_on="error")
    if image.get_typeof("n-pages") and image.get("n-pages") > 1:
        _logger.warning("%s: only the first of its %d pages", name, image.get("n-pages"))
    if kind == "tiff":
        image = photo_metadata.with_tiff_exif(image, content)
    return image


def _open_bmp(content: bytes, max_pixels: int, name: str) -> pyvips.Image:
    """BMP by Pillow, as libvips does not read it."""
    try:
        # Not by `Image.open`, which has a limit of pixels of its own.
        with BmpImagePlugin.BmpImageFile(io.BytesIO(content)) as bitmap:
            _check_pixels(bitmap.width, bitmap.height, max_pixels, name)
            mode = {"1": "L"}.get(bitmap.mode, bitmap.mode)
            image = pyvips.Image.new_from_array(np.asarray(bitmap.convert(mode if mode in ("L", "RGB", "RGBA") else "RGB")))
            dpi = bitmap.info.get("dpi", (25.4, 25.4))
            return image.copy(xres=dpi[0] / 25.4, yres=dpi[1] / 25.4)
    except images.DAMAGE as error:
        raise UserError(f"cannot read {name!r}: {first_line(error)}") from None


def _decode(image: pyvips.Image, name: str) -> Photo:
    metadata = {
        field: (image.get_typeof(field), image.get(field))
        for field in image.get_fields()
        if field in ("exif-data", "xmp-data", "iptc-data", "icc-profile-data")
    }
    whole = image.copy_memory()
    resolution = (image.xres, image.yres)
    if whole.get_typeof("orientation") and (orientation := whole.get("orientation")) != 1:
        whole = whole.autorot().copy_memory()
        photo_metadata.turn_upright(metadata)
        if orientation in photo_metadata.TURNED_BY_A_QUARTER:
            resolution = resolution[::-1]
    if whole.format not in ("uchar", "ushort"):
        raise UserError(f"{name!r} has samples of type {whole.format}: only 8 and 16 bits are supported")
    colour, alpha = _split_alpha(whole, name)
    srgb = colour
    if colour.interpretation == "cmyk" or "icc-profile-data" in metadata:
        srgb = colour_profiles.to_srgb(colour, metadata, name)
    elif colour.bands == 3 and colour.interpretation not in ("srgb", "rgb", "rgb16", "multiband"):
        srgb = colour.colourspace("rgb16" if colour.format == "ushort" else "srgb")
    if colour.interpretation == "cmyk":
        # What comes back is RGB, for which the ink profile says nothing.
        metadata.pop("icc-profile-data", None)
    photo_metadata.drop_unwritable(metadata, colour.bands, name)
    is_converted = srgb is not colour and "icc-profile-data" in metadata
    return Photo(
        pixels=_gray_if_gray(as_array(srgb), colour.bands),
        alpha=None if alpha is None else as_array(alpha),
        native=as_array(colour) if is_converted else None,
        metadata=metadata,
        resolution=resolution,
    )


def _split_alpha(whole: pyvips.Image, name: str) -> tuple[pyvips.Image, pyvips.Image | None]:
    """(colour of 1, 3 or 4 bands, alpha or None)."""
    num_colours = {"b-w": 1, "grey16": 1, "cmyk": 4}.get(whole.interpretation, 1 if whole.bands < 3 else 3)
    if whole.bands < num_colours:
        raise UserError(f"{name!r} has {whole.bands} channels for {whole.interpretation} colour")
    colour = whole.extract_band(0, n=num_colours) if whole.bands > num_colours else whole
    alpha = whole.extract_band(num_colours) if whole.bands > num_colours else None
    return colour.copy(interpretation=whole.interpretation), alpha


def _gray_if_gray(pixels: np.ndarray, num_native_bands: int) -> np.ndarray:
    """One channel, if the file had one: colour management makes three of it."""
    return np.ascontiguousarray(pixels[..., :1]) if num_native_bands == 1 else pixels


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a suffix stands for; `UserError` if it is none that can be written."""
    suffix = pathlib.Path(path).suffix.lower()
    for name, suffixes in FORMATS.items():
        if suffix in suffixes:
            return name
    known = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
    raise UserError(f"cannot write {os.fspath(path)!r}: the name must end in {known}")


def check_size(path: str | os.PathLike[str], height: int, width: int) -> None:
    """`UserError` if the format that `path` stands for holds no picture of this size; before the work, not after it."""
    if max(height, width) > (limit := _LONGEST_SIDES.get(format_of(path), 10_000_000)):
        raise UserError(f"cannot write {os.fspath(path)!r}: {width}x{height} is above the {limit} pixels a side of that format")


def write(path: str | os.PathLike[str], photo: Photo, original: Photo, options: EncoderOptions = EncoderOptions()) -> None:
    """Encode a result by the suffix of `path`, with the profile and metadata of what it was made from.

    Args:
      path: appears complete or not at all.
      photo: pixels and alpha of the result.
      original: as read.
      options: of the encoders. A JPEG has full-resolution colour (4:4:4); the other formats are lossless.

    Raises:
      UserError: the folder cannot be written, the disk is full, or the format cannot hold a picture of that size.
    """
    kind = format_of(path)
    with written_beside(path) as temporary:
        try:
            # By descriptor: libvips takes no names that are not UTF-8, of which old disks are full.
            with open(temporary, "r+b") as file:
                target = pyvips.Target.new_to_descriptor(file.fileno())
                image = _prepared(photo, original, kind, os.fspath(path))
                pyvips.Operation.call(f"{kind}save_target", image, target, keep=_kept(original, kind), **options.of(kind))
        except pyvips.Error as error:
            raise UserError(f"cannot write {os.fspath(path)!r}: {_reason(error)}") from None


def encode(photo: Photo, original: Photo, kind: str, options: EncoderOptions = EncoderOptions()) -> bytes:
    """The bytes of the file that `write` makes; `kind` is one of `FORMATS`."""
    try:
        image = _prepared(photo, original, kind, "the result")
        return pyvips.Operation.call(f"{kind}save_buffer", image, keep=_kept(original, kind), **options.of(kind))
    except pyvips.Error as error:
        raise UserError(f"cannot encode the picture: {_reason(error)}") from None


def _reason(error: pyvips.Error) -> str:
    """The line of libvips' message on a failed write that names the cause, if one does."""
    lines = (error.detail or error.message or "").splitlines()
    return next((line.strip() for line in lines if "No space" in line or "too large" in line), one_line(error))


def is_known(resolution: tuple[float, float]) -> bool:
    """Of files without one, libvips says 72 dpi or 1 pixel per millimetre; a BMP says 0."""
    if not all(0 < value < math.inf for value in resolution):
        return False
    return not any(math.isclose(resolution[0], unknown, rel_tol=1e-3) for unknown in (72 / 25.4, 1.0))


def _kept(original: Photo, kind: str) -> int:
    """Flags of the metadata to write: left to itself, libvips adds EXIF to photos that had none.

    In JPEG and WebP that is where it writes the resolution.
    """
    exif, xmp, iptc, icc, other = 1, 2, 4, 8, 16
    needs_exif = kind in ("jpeg", "webp") and is_known(original.resolution)
    return xmp | iptc | icc | other | (exif if "exif-data" in original.metadata or needs_exif else 0)


def _prepared(photo: Photo, original: Photo, kind: str, name: str) -> pyvips.Image:
    """The result as libvips will encode it, computed while it is written."""
    image = as_image(photo.pixels)
    if original.native is not None:
        profile = original.metadata["icc-profile-data"]
        image = colour_profiles.from_srgb(image, original.native, original.pixels, profile)
    if photo.alpha is not None:
        image = image.bandjoin(as_image(photo.alpha))
        if kind == "jpeg":
            highest = 65535.0 if image.format == "ushort" else 255.0
            image = image.flatten(background=highest, max_alpha=highest)
    if image.format == "ushort" and kind in ("jpeg", "webp"):
        is_gray = image.bands < 3
        image = (image / 257).rint().cast("uchar").copy(interpretation="b-w" if is_gray else "srgb")
    xres, yres = original.resolution if is_known(original.resolution) else (72 / 25.4, 72 / 25.4)
    image = image.copy(xres=xres, yres=yres)
    for field, (kind_of_value, value) in original.metadata.items():
        if kind == "jpeg" and field != "icc-profile-data" and len(value) > _JPEG_SEGMENT:
            _logger.warning("%s: %s of %d KB left out: JPEG takes no more than 64 KB", name, field, len(value) // 1000)
            continue
        image.set_type(kind_of_value, field, value)
    # libvips turns the orientation in EXIF to upright and writes the new dimensions there.
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return image
