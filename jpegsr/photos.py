"""Photo file <-> what the network works on, with all that has to survive: profile, metadata, transparency, depth.

`images` reads plain RGB for training and scoring; this room is for people's files. Decoding, colour management and encoding
are libvips' (pyvips).
"""

import contextlib
import dataclasses
import io
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyvips
from PIL import Image, ImageCms

from jpegsr.errors import UserError, first_line
from jpegsr.images import written_beside

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
# A progressive JPEG of a camera or editor has some 10 scans; with thousands, a file of 100 KB decodes for minutes.
_MAX_SCANS = 200
# Horizontal differences at a low level: within a tenth of the best size, at a fifth of the time.
_PNG_OPTIONS = {"compression": 2, "filter": "up"}


@dataclasses.dataclass(frozen=True)
class Photo:
    """A decoded photo, upright.

    Attributes:
      pixels: uint8 or uint16 `[H, W, 3]` in sRGB, or `[H, W, 1]` (gray).
      alpha: opacity of the same type, `[H, W, 1]`, or None.
      native: the pixels in the file's own colour space, if that is not sRGB.
      metadata: libvips field -> (type, value): EXIF, XMP, IPTC, ICC profile.
      resolution: horizontal and vertical, in pixels per millimetre.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    native: np.ndarray | None = None
    metadata: dict[str, tuple[int, Any]] = dataclasses.field(default_factory=dict)
    resolution: tuple[float, float] = (1.0, 1.0)


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
    content = source if isinstance(source, bytes) else _read_bytes(source)
    with _named_errors(name):
        image = _open(content, name)
        if image.width * image.height > max_pixels:
            raise UserError(
                f"{name!r} has {image.width}x{image.height} pixels, above --max_pixels={max_pixels}: raise that to allow it"
            )
        return _decode(image, name)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"no file {os.fspath(path)!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from None


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """What the decoders say about a file, as a `UserError` that names it."""
    try:
        yield
    except pyvips.Error as error:
        raise UserError(f"cannot read {name!r}: {_one_line(error)}") from None
    except MemoryError:
        raise UserError(f"cannot read {name!r}: not enough memory") from None


def kind_of(content: bytes) -> str | None:
    """The file format that the first bytes tell: "jpeg", "png", "webp", "tiff", "gif", "bmp", or None."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)


def _open(content: bytes, name: str) -> pyvips.Image:
    """The header, by the decoder that the content asks for, whatever the file's name is."""
    if not content:
        raise UserError(f"{name!r} is empty")
    kind = kind_of(content)
    if kind is None:
        raise UserError(f"{name!r} is not a JPEG, PNG, WebP, TIFF, GIF or BMP picture")
    if kind == "bmp":
        return _open_bmp(content, name)
    if kind == "jpeg" and content.count(b"\xff\xda") > _MAX_SCANS:
        raise UserError(f"{name!r} has more than {_MAX_SCANS} scans: a file made to keep decoders busy")
    image = pyvips.Operation.call(f"{kind}load_buffer", content, access="sequential", fail_on="error")
    if image.get_typeof("n-pages") and image.get("n-pages") > 1:
        _logger.warning("%s: only the first of its %d pages", name, image.get("n-pages"))
    if kind == "tiff":
        image = _with_tiff_exif(image, content)
    return image


def _open_bmp(content: bytes, name: str) -> pyvips.Image:
    """BMP by Pillow, as libvips does not read it."""
    try:
        with Image.open(io.BytesIO(content), formats=["BMP"]) as bitmap:
            if bitmap.width * bitmap.height > Image.MAX_IMAGE_PIXELS:  # type: ignore[operator]
                raise UserError(f"{name!r} has {bitmap.width}x{bitmap.height} pixels: too many for a BMP")
            if bitmap.mode not in ("L", "RGB", "RGBA"):
                return pyvips.Image.new_from_array(np.asarray(bitmap.convert("RGB")))
            return pyvips.Image.new_from_array(np.asarray(bitmap))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {name!r}: {first_line(error)}") from None


def _with_tiff_exif(image: pyvips.Image, content: bytes) -> pyvips.Image:
    """The picture with the EXIF of a TIFF, which libvips leaves behind."""
    try:
        with Image.open(io.BytesIO(content), formats=["TIFF"]) as tiff:
            found = tiff.getexif()
            exif = Image.Exif()
            for tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298):  # description, camera, date, people, rights
                if tag in found:
                    exif[tag] = found[tag]
            for pointer in (0x8769, 0x8825):  # the EXIF and GPS directories
                if directory := found.get_ifd(pointer):
                    exif.get_ifd(pointer).update(directory)
            if not list(exif):
                return image
            blob = exif.tobytes()
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, AttributeError, Image.DecompressionBombError) as error:
        _logger.warning("EXIF of a TIFF left out: %s", first_line(error))
        return image
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "exif-data", blob)
    return image


def _drop_unwritable(metadata: dict[str, tuple[int, Any]], num_bands: int, name: str) -> None:
    """Leave out damaged metadata, with which no file could be written: libpng checks what it is given."""
    for field, (kind, value) in list(metadata.items()):
        image = _image(np.zeros((1, 1, 1 if num_bands == 1 else 3), np.uint8))
        image.set_type(kind, field, value)
        try:
            image.pngsave_buffer()
        except pyvips.Error:
            _logger.warning("%s: damaged metadata left out: %s", name, field)
            del metadata[field]


def _decode(image: pyvips.Image, name: str) -> Photo:
    metadata = {
        field: (image.get_typeof(field), image.get(field))
        for field in image.get_fields()
        if field in ("exif-data", "xmp-data", "iptc-data", "icc-profile-data")
    }
    whole = image.copy_memory()
    if whole.get_typeof("orientation") and whole.get("orientation") != 1:
        whole = whole.autorot().copy_memory()
    if whole.format not in ("uchar", "ushort"):
        raise UserError(f"{name!r} has samples of type {whole.format}: only 8 and 16 bits are supported")
    colour, alpha = _split_alpha(whole, name)
    srgb = colour
    if colour.interpretation == "cmyk" or "icc-profile-data" in metadata:
        srgb = _to_srgb(colour, metadata, name)
    elif colour.bands == 3 and colour.interpretation not in ("srgb", "rgb", "rgb16", "multiband"):
        srgb = colour.colourspace("rgb16" if colour.format == "ushort" else "srgb")
    if colour.interpretation == "cmyk":
        # What comes back is RGB, for which the ink profile says nothing.
        metadata.pop("icc-profile-data", None)
    _drop_unwritable(metadata, colour.bands, name)
    is_converted = srgb is not colour and "icc-profile-data" in metadata
    return Photo(
        pixels=_gray_if_gray(_array(srgb), colour.bands),
        alpha=None if alpha is None else _array(alpha),
        native=_array(colour) if is_converted else None,
        metadata=metadata,
        resolution=(image.xres, image.yres),
    )


def _split_alpha(whole: pyvips.Image, name: str) -> tuple[pyvips.Image, pyvips.Image | None]:
    """(colour of 1, 3 or 4 bands, alpha or None)."""
    num_colours = {"b-w": 1, "grey16": 1, "cmyk": 4}.get(whole.interpretation, 1 if whole.bands < 3 else 3)
    if whole.bands < num_colours:
        raise UserError(f"{name!r} has {whole.bands} channels for {whole.interpretation} colour")
    colour = whole.extract_band(0, n=num_colours) if whole.bands > num_colours else whole
    alpha = whole.extract_band(num_colours) if whole.bands > num_colours else None
    return colour.copy(interpretation=whole.interpretation), alpha


def _to_srgb(colour: pyvips.Image, metadata: dict[str, tuple[int, Any]], name: str) -> pyvips.Image:
    """Through the embedded profile; an unusable one is dropped with a message."""
    depth = 16 if colour.format == "ushort" else 8
    profile = metadata.get("icc-profile-data", (0, b""))[1]
    if profile:
        space, description = _describe_profile(profile)
        if description.lower().startswith("srgb") and space == "RGB" and colour.bands == 3:
            return colour
        try:
            if {"GRAY": 1, "RGB": 3, "CMYK": 4}.get(space) != colour.bands:
                raise UserError(f"it is for {space or 'unknown'} colours")
            srgb = colour.icc_transform("srgb", embedded=True, depth=depth, black_point_compensation=True).copy_memory()
        except (pyvips.Error, UserError) as error:
            _logger.warning("%s: colour profile left out: %s", name, _one_line(error))
            del metadata["icc-profile-data"]
        else:
            if colour.interpretation != "cmyk" and not _is_reversible(metadata["icc-profile-data"], colour):
                _logger.warning("%s: its colour profile is for reading alone: the result is in sRGB", name)
                del metadata["icc-profile-data"]
            return srgb
    if colour.interpretation == "cmyk":
        return colour.icc_transform("srgb", input_profile="cmyk", depth=depth).copy_memory()
    return colour


def _is_reversible(profile: tuple[int, Any], colour: pyvips.Image) -> bool:
    """Whether colours can be brought back into a profile; those of some scanners go one way."""
    sample = np.zeros((1, 1, colour.bands), np.uint16 if colour.format == "ushort" else np.uint8)
    try:
        _through(_image(sample), profile).copy_memory()
    except pyvips.Error:
        return False
    return True


def _describe_profile(profile: bytes) -> tuple[str, str]:
    """(colour space, description) of an ICC profile; empty if it is none."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return opened.profile.xcolor_space.strip(), ImageCms.getProfileDescription(opened)
    except (OSError, ImageCms.PyCMSError):
        return "", ""


def _array(image: pyvips.Image) -> np.ndarray:
    """uint8 or uint16 `[H, W, C]`."""
    return np.asarray(image.numpy()).reshape(image.height, image.width, image.bands)


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


def write(path: str | os.PathLike[str], photo: Photo, original: Photo, jpeg_quality: int = 95) -> None:
    """Encode a result by the suffix of `path`, with the profile and metadata of what it was made from.

    Args:
      path: appears complete or not at all.
      photo: pixels and alpha of the result.
      original: as read.
      jpeg_quality: of a JPEG, which has full-resolution colour (4:4:4); the other formats are lossless.

    Raises:
      UserError: the folder cannot be written, the disk is full, or the format cannot hold a picture of that size.
    """
    kind = format_of(path)
    with written_beside(path) as temporary:
        try:
            pyvips.Operation.call(
                f"{kind}save", *_prepared(photo, original, kind), str(temporary), **_options(kind, jpeg_quality)
            )
        except pyvips.Error as error:
            raise UserError(f"cannot write {os.fspath(path)!r}: {_reason(error)}") from None


def encode(photo: Photo, original: Photo, kind: str, jpeg_quality: int = 95) -> bytes:
    """The bytes of the file that `write` makes; `kind` is one of `FORMATS`."""
    try:
        return pyvips.Operation.call(f"{kind}save_buffer", *_prepared(photo, original, kind), **_options(kind, jpeg_quality))
    except pyvips.Error as error:
        raise UserError(f"cannot encode the picture: {_reason(error)}") from None


def _one_line(error: Exception) -> str:
    """What libvips says, of which the first line tells most."""
    detail = (error.detail or error.message) if isinstance(error, pyvips.Error) else str(error)
    return next((line.strip() for line in detail.splitlines() if line.strip()), "damaged")


def _reason(error: pyvips.Error) -> str:
    """The line of libvips' message on a failed write that names the cause, if one does."""
    lines = (error.detail or error.message or "").splitlines()
    return next((line.strip() for line in lines if "No space" in line or "too large" in line), _one_line(error))


def _options(kind: str, jpeg_quality: int) -> dict[str, Any]:
    options: dict[str, dict[str, Any]] = {
        "png": _PNG_OPTIONS,
        "jpeg": {"Q": jpeg_quality, "subsample_mode": "off", "optimize_coding": True},
        "webp": {"lossless": True, "effort": 2},
        "tiff": {"compression": "deflate", "predictor": "horizontal"},
    }
    return options[kind]


def _prepared(photo: Photo, original: Photo, kind: str) -> tuple[pyvips.Image]:
    """The result as libvips will encode it, computed while it is written."""
    image = _image(photo.pixels)
    if original.native is not None:
        image = _to_native(image, original)
    if photo.alpha is not None:
        image = image.bandjoin(_image(photo.alpha))
        if kind == "jpeg":
            highest = 65535.0 if image.format == "ushort" else 255.0
            image = image.flatten(background=highest, max_alpha=highest)
    if image.format == "ushort" and kind in ("jpeg", "webp"):
        is_gray = image.bands < 3
        image = (image / 257).rint().cast("uchar").copy(interpretation="b-w" if is_gray else "srgb")
    image = image.copy(xres=original.resolution[0], yres=original.resolution[1])
    for field, (kind_of_value, value) in original.metadata.items():
        image.set_type(kind_of_value, field, value)
    # libvips turns the orientation in EXIF to upright and writes the new dimensions there.
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return (image,)


def _image(pixels: np.ndarray) -> pyvips.Image:
    """The array as a picture, not copied."""
    height, width, bands = pixels.shape
    is_deep = pixels.dtype == np.uint16
    pixels = np.ascontiguousarray(pixels)
    image = pyvips.Image.new_from_memory(pixels.data, width, height, bands, "ushort" if is_deep else "uchar")
    interpretation = ("grey16" if is_deep else "b-w") if bands == 1 else ("rgb16" if is_deep else "srgb")
    return image.copy(interpretation=interpretation)


def _through(image: pyvips.Image, profile: tuple[int, Any]) -> pyvips.Image:
    """From sRGB, `[H, W, 1 or 3]`, to the profile's colours, of the same depth."""
    depth = 16 if image.format == "ushort" else 8
    if image.bands == 1:
        image = image.bandjoin([image, image]).copy(interpretation="rgb16" if depth == 16 else "srgb")
    connection = image.icc_import(input_profile="srgb", black_point_compensation=True).copy()
    connection.set_type(profile[0], "icc-profile-data", profile[1])
    return connection.icc_export(depth=depth, black_point_compensation=True)


def _to_native(image: pyvips.Image, original: Photo) -> pyvips.Image:
    """Back into the file's own colours, with what sRGB could not hold of them.

    The part of the original that its way to sRGB and back lost (colours outside sRGB, rounding) is enlarged by itself and
    added.
    """
    assert original.native is not None
    profile = original.metadata["icc-profile-data"]
    native = _image(original.native)
    lost = native.cast("int") - _through(_image(original.pixels), profile).cast("int")
    scale = (image.width / native.width, image.height / native.height)
    if scale != (1.0, 1.0):
        lost = lost.cast("float").resize(scale[0], vscale=scale[1], kernel="cubic")
    result = _through(image, profile)
    return (result + lost).rint().cast(native.format).copy(interpretation=native.interpretation)


def resize(pixels: np.ndarray, width: int, height: int, kernel: str = "lanczos3") -> np.ndarray:
    """Resample uint8 or uint16 `[H, W, C]` to an exact size; the kernel is stretched where that shrinks it."""
    image = _image(pixels)
    return _array(image.resize(width / image.width, vscale=height / image.height, kernel=kernel))
