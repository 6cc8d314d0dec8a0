"""Colour profiles (ICC): from a file's colours to sRGB, for the network, and back."""

import io
import logging
from typing import Any

import numpy as np
import pyvips
from PIL import ImageCms

from jpegsr.errors import UserError
from jpegsr.vips import as_image, one_line

_logger = logging.getLogger(__name__)
# A libvips metadata field: (type, value).
Field = tuple[int, Any]


def to_srgb(colour: pyvips.Image, metadata: dict[str, Field], name: str) -> pyvips.Image:
    """A file's colours in sRGB, by its profile; CMYK without one by a usual press profile.

    Args:
      colour: without alpha. Returned as it is, if it is sRGB.
      metadata: of the file; a profile that cannot be used for the result is dropped from it, with a message.
      name: what messages call the file.
    """
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
            _logger.warning("%s: colour profile left out: %s", name, one_line(error))
            del metadata["icc-profile-data"]
        else:
            if colour.interpretation != "cmyk" and not _is_reversible(metadata["icc-profile-data"], colour):
                _logger.warning("%s: its colour profile is for reading alone: the result is in sRGB", name)
                del metadata["icc-profile-data"]
            return srgb
    if colour.interpretation == "cmyk":
        return colour.icc_transform("srgb", input_profile="cmyk", depth=depth).copy_memory()
    return colour


def from_srgb(image: pyvips.Image, native: np.ndarray, srgb: np.ndarray, profile: Field) -> pyvips.Image:
    """A result back in the colours of the file that it was made from, with what sRGB could not hold of them.

    What the original lost on its way to sRGB and back (colours outside sRGB, rounding) is enlarged by itself and added.

    Args:
      image: the result, in sRGB.
      native: the original in the file's own colours, `[H, W, 1 or 3]`.
      srgb: the original as it went into the network.
      profile: of the file.
    """
    original = as_image(native)
    lost = original.cast("int") - _through(as_image(srgb), profile).cast("int")
    scale = (image.width / original.width, image.height / original.height)
    if scale != (1.0, 1.0):
        lost = lost.cast("float").resize(scale[0], vscale=scale[1], kernel="cubic")
    result = _through(image, profile) + lost
    return result.rint().cast(original.format).copy(interpretation=original.interpretation)


def _is_reversible(profile: Field, colour: pyvips.Image) -> bool:
    """Whether colours can be brought back into a profile; those of some scanners go one way."""
    sample = np.zeros((1, 1, colour.bands), np.uint16 if colour.format == "ushort" else np.uint8)
    try:
        _through(as_image(sample), profile).copy_memory()
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


def _through(image: pyvips.Image, profile: Field) -> pyvips.Image:
    """From sRGB, `[H, W, 1 or 3]`, to the profile's colours, of the same depth."""
    depth = 16 if image.format == "ushort" else 8
    if image.bands == 1:
        image = image.bandjoin([image, image]).copy(interpretation="rgb16" if depth == 16 else "srgb")
    connection = image.icc_import(input_profile="srgb", black_point_compensation=True).copy()
    connection.set_type(profile[0], "icc-profile-data", profile[1])
    return connection.icc_export(depth=depth, black_point_compensation=True)
