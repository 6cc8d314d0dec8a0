"""EXIF, XMP and IPTC of people's photos, where they cannot be carried over as they are."""

import io
import logging
import re
import struct
from typing import Any

import numpy as np
import pyvips
from PIL import Image, TiffImagePlugin

from jpegsr import images
from jpegsr.errors import first_line
from jpegsr.vips import as_image

_logger = logging.getLogger(__name__)
Metadata = dict[str, tuple[int, Any]]  # libvips field -> (type, value)
TURNED_BY_A_QUARTER = (5, 6, 7, 8)  # EXIF orientations for which width and height change places
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)[2-8]""")


def turn_upright(metadata: Metadata) -> None:
    """Leave out what a picture that has been turned upright would contradict: EXIF's thumbnail, and the orientation in XMP.

    EXIF's own orientation libvips sets right.
    """
    if "exif-data" in metadata:
        kind, value = metadata["exif-data"]
        metadata["exif-data"] = kind, _without_thumbnail(bytes(value))
    if "xmp-data" in metadata:
        kind, value = metadata["xmp-data"]
        metadata["xmp-data"] = kind, _XMP_ORIENTATION.sub(rb"\g<1>1", bytes(value))


def _without_thumbnail(exif: bytes) -> bytes:
    """EXIF whose first directory, of the picture, leads to no second one, of the thumbnail; damaged EXIF as it is."""
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return exif
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (num_entries,) = struct.unpack_from(f"{order}H", exif, start + offset)
    except struct.error:
        return exif
    place = start + offset + 2 + 12 * num_entries
    return exif[:place] + bytes(4) + exif[place + 4 :] if place + 4 <= len(exif) else exif


def with_tiff_exif(image: pyvips.Image, content: bytes) -> pyvips.Image:
    """The picture with the EXIF of a TIFF, which libvips leaves behind."""
    try:
        with TiffImagePlugin.TiffImageFile(io.BytesIO(content)) as tiff:
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
    except images.DAMAGE as error:
        _logger.warning("EXIF of a TIFF left out: %s", first_line(error))
        return image
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "exif-data", blob)
    return image


def drop_unwritable(metadata: Metadata, num_bands: int, name: str) -> None:
    """Leave out damaged metadata, with which no file could be written: libpng checks what it is given."""
    for field, (kind, value) in list(metadata.items()):
        image = as_image(np.zeros((1, 1, 1 if num_bands == 1 else 3), np.uint8))
        image.set_type(kind, field, value)
        try:
            image.pngsave_buffer()
        except pyvips.Error:
            _logger.warning("%s: damaged metadata left out: %s", name, field)
            del metadata[field]
