"""What a photo file is: its format, its size, what travels with it and, for a JPEG, how it was compressed."""

import contextlib
import dataclasses
import io
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin

from jpegsr import images, jpeg_traces, photo_metadata, photos
from jpegsr.errors import UserError, first_line
from jpegsr.jpeg_traces import EarlierJpeg

# Pillow's names of what `enhance` reads (MPO comes with JPEG). Not the others: for EPS, say, it would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
_DISPLAY_NAMES = {"MPO": "JPEG", "WEBP": "WebP"}
_SUBSAMPLINGS: dict[tuple[float, float], str] = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}
_MODE_NAMES = {
    "1": "black and white",
    "L": "gray",
    "LA": "gray with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGBA": "RGB with alpha",
    "I": "gray",
    "F": "gray, floating point",
}
_ORIENTATION, _BITS_PER_SAMPLE, _EXIF_DIRECTORY = 0x0112, 258, 0x8769
_quiet = threading.Lock()
_CROP_SIDE = 1024  # of what is searched for traces: enough of them, in a fraction of a second


@dataclasses.dataclass(frozen=True)
class JpegReport:
    """How a JPEG was compressed.

    Attributes:
      quality: libjpeg's, 1-100, or the one that is nearest to tables of another origin.
      quality_is_exact: whether all tables are libjpeg's at that quality.
      subsampling: of the chroma, "4:2:0" and the like; None for gray.
      is_progressive: whether it is sent coarse to fine, not top to bottom.
    """

    quality: int
    quality_is_exact: bool
    subsampling: str | None
    is_progressive: bool


@dataclasses.dataclass(frozen=True)
class PhotoReport:
    """What `inspect` found.

    Attributes:
      format: "JPEG", "PNG", "WebP", "TIFF", "GIF" or "BMP".
      width: in pixels, upright, that is after the EXIF orientation.
      height: likewise.
      mode: Pillow's name of the channels, as stored: "RGB", "L" (gray), "P" (palette), "CMYK", ...
      bit_depth: bits per channel, or per index of a palette, as stored.
      num_bytes: size of the file.
      has_icc_profile: whether a colour profile is embedded.
      icc_description: what the profile calls itself; None without one, or if it is damaged.
      has_exif: whether there is EXIF.
      has_xmp: whether there is XMP.
      has_alpha: whether there is transparency of any kind.
      dpi: dots per inch, horizontal and vertical as stored, or None.
      jpeg: None if it is no JPEG.
      earlier_jpeg: traces of a JPEG compression before this file was written. None: none found, which proves nothing.
    """

    format: str
    width: int
    height: int
    mode: str
    bit_depth: int
    num_bytes: int
    has_icc_profile: bool
    icc_description: str | None
    has_exif: bool
    has_xmp: bool
    has_alpha: bool
    dpi: tuple[float, float] | None
    jpeg: JpegReport | None
    earlier_jpeg: EarlierJpeg | None


def inspect(path: str | os.PathLike[str], name: str | None = None) -> PhotoReport:
    """Look at a photo file; of several pages or frames, at the first.

    The whole file is decoded, so that damage is noticed. Traces of an earlier compression are searched for in the middle of
    the picture, at most 1024x1024 pixels of it; how far to trust them stands at `jpeg_traces.find_earlier_jpeg`.

    Args:
      path: of a JPEG, PNG, WebP, TIFF, GIF or BMP.
      name: what messages call it, if not by its path.

    Raises:
      UserError: it cannot be read, is none of these, is damaged, or has absurdly many pixels.
    """
    name = name or os.fspath(path)
    content = images.read_bytes(path)
    with _named_errors(name):
        try:
            opened = Image.open(io.BytesIO(content), formats=_FORMATS)
        except Image.UnidentifiedImageError:
            if photos.kind_of(content) != "tiff":
                raise
            return _inspect_odd_tiff(content, name)
    with _named_errors(name), opened as image:
        mode, jpeg = image.mode, None
        if image.format in ("JPEG", "MPO"):
            images.refuse_scan_bomb(content, name)
            jpeg = _describe_jpeg(image)
        luma = _decode_luma(image)  # also brings the metadata that PNGs have behind the pixels
        # Pillow itself turns TIFFs. Elsewhere it would also take an orientation in XMP, which viewers do not.
        turned = (
            image.format != "TIFF" and _has_exif(image) and _exif(image).get(_ORIENTATION) in photo_metadata.TURNED_BY_A_QUARTER
        )
        width, height = image.size[::-1] if turned else image.size
        icc_profile = image.info.get("icc_profile")
        table = None if jpeg is None else _luma_table(image)
        report = PhotoReport(
            format=_DISPLAY_NAMES.get(image.format or "", image.format or ""),
            width=width,
            height=height,
            mode=mode,
            bit_depth=_bit_depth(image, mode, content),
            num_bytes=len(content),
            has_icc_profile=bool(icc_profile),
            icc_description=_describe_profile(icc_profile) if icc_profile else None,
            has_exif=_has_exif(image),
            has_xmp=bool(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")),
            has_alpha=image.has_transparency_data,
            dpi=_dots_per_inch(image.info.get("dpi")),
            jpeg=jpeg,
            earlier_jpeg=None,
        )
    earlier_jpeg = None if luma is None else jpeg_traces.find_earlier_jpeg(luma, table)
    return dataclasses.replace(report, earlier_jpeg=earlier_jpeg)


def _inspect_odd_tiff(content: bytes, name: str) -> PhotoReport:
    """A TIFF with channels that Pillow knows no name for, such as 16 bits of gray with alpha, decoded as `enhance` does it."""
    photo = photos.read(content, name=name)
    height, width, num_channels = photo.pixels.shape
    is_deep = photo.pixels.dtype == np.uint16
    mode = ("L" if num_channels == 1 else "RGB") + ("" if photo.alpha is None else "A")
    levels = (photo.pixels >> 8).astype(np.uint8) if is_deep else photo.pixels
    with Image.fromarray(levels[..., 0] if num_channels == 1 else levels) as image:
        luma = _decode_luma(image)
    profile = photo.metadata.get("icc-profile-data", (0, b""))[1]
    return PhotoReport(
        format="TIFF",
        width=width,
        height=height,
        mode=mode,
        bit_depth=16 if is_deep else 8,
        num_bytes=len(content),
        has_icc_profile=bool(profile),
        icc_description=_describe_profile(profile) if profile else None,
        has_exif="exif-data" in photo.metadata,
        has_xmp="xmp-data" in photo.metadata,
        has_alpha=photo.alpha is not None,
        dpi=_dots_per_inch([25.4 * value for value in photo.resolution]) if photos.is_known(photo.resolution) else None,
        jpeg=None,
        earlier_jpeg=None if luma is None else jpeg_traces.find_earlier_jpeg(luma, None),
    )


def coarsest_quality(jpeg: bytes, fine_from: int) -> int | None:
    """The lowest quality that a JPEG file is known to have been compressed at; None if Pillow cannot read it.

    Args:
      jpeg: the file.
      fine_from: traces of an earlier, coarser compression are searched for only if the file's own quality is at least this.
    """
    try:
        # Not by `Image.open`, which has a limit of pixels of its own.
        with _named_errors("the picture"), JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg)) as image:
            report = _describe_jpeg(image)
            if report.quality < fine_from:
                return report.quality
            luma = _decode_luma(image)
            earlier = None if luma is None else jpeg_traces.find_earlier_jpeg(luma, _luma_table(image))
    except UserError:
        return None
    return min(report.quality, earlier.quality) if earlier else report.quality


def describe(report: PhotoReport) -> dict[str, str]:
    """What a report says, for people: a word on what it is about -> a few words."""
    mode = _MODE_NAMES.get(report.mode, "gray" if report.mode.startswith("I;") else report.mode)
    lines = {
        "format": f"{report.format}, progressive" if report.jpeg and report.jpeg.is_progressive else report.format,
        "size": f"{report.width}x{report.height}",
        "colour": f"{mode}, {report.bit_depth} bit{'s' if report.bit_depth > 1 else ''}",
        "bytes": f"{report.num_bytes:,}",
    }
    if report.dpi:
        lines["resolution"] = " x ".join(f"{value:g}" for value in dict.fromkeys(report.dpi)) + " dpi"
    if report.has_icc_profile:
        lines["profile"] = report.icc_description or "(cannot be read)"
    metadata = [name for name, is_there in (("EXIF", report.has_exif), ("XMP", report.has_xmp)) if is_there]
    lines["metadata"] = ", ".join(metadata) or "none"
    lines["transparency"] = "yes" if report.has_alpha else "no"
    if report.jpeg:
        lines["quality"] = f"{report.jpeg.quality}" if report.jpeg.quality_is_exact else f"about {report.jpeg.quality}"
        lines["chroma"] = report.jpeg.subsampling or "none"
    lines["earlier JPEG"] = _describe_earlier(report.earlier_jpeg, report.jpeg is not None)
    return lines


def _describe_earlier(earlier: EarlierJpeg | None, is_jpeg: bool) -> str:
    if earlier is None:
        return "no traces found"
    if earlier.row or earlier.column:
        place = f"cropped or moved since: its grid begins at row {earlier.row}, column {earlier.column}"
    else:
        place = "saved again on the same grid" if is_jpeg else "not cropped or moved since"
    return f"about quality {earlier.quality}, {place}"


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """What Pillow says about a file, as a `UserError` that names it; its warnings, say of odd EXIF, are kept quiet."""
    try:
        # What is done with warnings is a matter of the whole process: two threads would put back each other's state.
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Image.UnidentifiedImageError:
        raise UserError(f"{name!r} is not a JPEG, PNG, WebP, TIFF, GIF or BMP picture") from None
    except MemoryError:
        raise UserError(f"cannot read {name!r}: not enough memory") from None
    except images.DAMAGE as error:
        raise UserError(f"cannot read {name!r}: {first_line(error)}") from None


def _exif(image: Image.Image) -> Mapping[int, Any]:
    """What can be read of the EXIF: a photo is not lost for damage to that."""
    try:
        return image.getexif()
    except images.DAMAGE:
        return {}


def _has_exif(image: Image.Image) -> bool:
    if image.format == "TIFF":  # whose own tags Pillow takes for EXIF
        return _EXIF_DIRECTORY in _exif(image)
    return "exif" in image.info or "Raw profile type exif" in image.info


def _describe_jpeg(image: Any) -> JpegReport:
    # `layer` holds (identifier, horizontal and vertical sampling factor, table) of each component.
    tables = dict.fromkeys(component[3] for component in image.layer[:3])
    quality, is_exact = jpeg_traces.estimate_quality(np.array([image.quantization[i] for i in tables][:2]).reshape(-1, 8, 8))
    factors = [component[1:3] for component in image.layer]
    return JpegReport(quality, is_exact, _subsampling(factors), bool(image.info.get("progressive")))


def _subsampling(factors: list[tuple[int, int]]) -> str | None:
    """The usual name of sampling factors (horizontal, vertical) per component, or the factors if there is none."""
    if len(factors) == 1:
        return None
    luma, chroma = factors[:2]
    ratios = (luma[0] / chroma[0], luma[1] / chroma[1])
    if factors[1] == factors[2] and ratios in _SUBSAMPLINGS:
        return _SUBSAMPLINGS[ratios]
    return ", ".join(f"{horizontal}x{vertical}" for horizontal, vertical in factors)


def _decode_luma(image: Any) -> np.ndarray | None:
    """Decode the whole picture; uint8 `[H, W]` of its middle, cut at multiples of 8, or None where no traces can be read."""
    is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and _stores_luma(image):
        image.draft("L", image.size)  # as stored, at full size
    image.load()
    if (is_jpeg and not _stores_luma(image)) or image.mode in ("F", "LAB"):
        return None
    left, top = (max(0, side - _CROP_SIDE) // 16 * 8 for side in image.size)
    middle = image.crop((left, top, min(left + _CROP_SIDE, image.width), min(top + _CROP_SIDE, image.height)))
    if middle.mode.startswith("I"):
        # 16-bit gray: Pillow's own conversion clips at 255 instead of scaling.
        return (np.asarray(middle).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
    return np.asarray(middle.convert("L"))


def _stores_luma(image: Any) -> bool:
    """Whether a JPEG's first component is luma: not so for CMYK, nor for RGB, which two kinds of marks tell."""
    identifiers = bytes(component[0] for component in image.layer)
    return len(identifiers) in (1, 3) and identifiers != b"RGB" and image.info.get("adobe_transform") != 0


def _luma_table(image: Any) -> np.ndarray:
    """The steps of a JPEG's first component, `[8, 8]` (Pillow gives them in natural order)."""
    return np.array(image.quantization[image.layer[0][3]]).reshape(8, 8)


def _bit_depth(image: Any, mode: str, content: bytes) -> int:
    """Bits per channel. Pillow takes 16-bit colour for 8-bit, so ask the file where it says."""
    if image.format == "PNG" and content[12:16] == b"IHDR":
        return content[24]
    if image.format == "TIFF":
        return max(np.atleast_1d(image.tag_v2.get(_BITS_PER_SAMPLE, 1)).tolist())
    return 1 if mode == "1" else 8


def _describe_profile(icc_profile: bytes) -> str | None:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        return " ".join(ImageCms.getProfileDescription(profile).split()) or None
    except (ImageCms.PyCMSError, OSError):
        return None


def _dots_per_inch(dpi: Any) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (round(float(value), 2) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    is_known = (horizontal, vertical) != (1.0, 1.0)  # what Pillow says of a TIFF that does not tell
    return (
        (horizontal, vertical) if is_known and min(horizontal, vertical) > 0 and math.isfinite(horizontal + vertical) else None
    )
