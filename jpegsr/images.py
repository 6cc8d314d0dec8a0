"""File <-> picture. Pictures are uint8 arrays `[H, W, 3]`, in sRGB, upright."""

import contextlib
import glob
import itertools
import os
import pathlib
import platform
import re
import struct
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import psutil
from PIL import Image, ImageOps, UnidentifiedImageError

from jpegsr.errors import UserError


def _read_umask() -> int:
    """Which permissions new files do not get. It can only be read by setting it, for all threads."""
    os.umask(mask := os.umask(0))
    return mask


_UMASK = _read_umask()
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def list_images(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """All picture files below a folder, in order of their path; `UserError` if there is no such folder."""
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"no folder {str(root)!r}: give a folder that holds {', '.join(SUFFIXES)} files")
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


Source = str | os.PathLike[str] | BinaryIO
# What Pillow's parsers raise for damaged files; other errors are ours, and must not pass for damage.
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error, EOFError,
    Image.DecompressionBombError,
)  # fmt: skip


@contextlib.contextmanager
def _opened(source: Source, name: str | None = None) -> Iterator[Image.Image]:
    """The picture, open; `UserError` names it when it cannot be read or decoded."""
    name = name or str(source)
    try:
        with Image.open(source) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"no file {name!r}") from None
    except UnidentifiedImageError:
        raise UserError(f"{name!r} is not a picture that can be read") from None
    except DAMAGE as error:
        raise UserError(f"cannot read {name!r}: {error}") from None


# The start of a scan: marker, length, number of components. A camera's or editor's progressive JPEG has some 10.
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
MAX_SCANS = 200


def refuse_scan_bomb(content: bytes, name: str) -> None:
    """`UserError` for a JPEG with so many scans that 100 KB of them keep a decoder busy for minutes."""
    if sum(1 for _ in itertools.islice(_SCAN.finditer(content), MAX_SCANS + 1)) > MAX_SCANS:
        raise UserError(f"{name!r} has more than {MAX_SCANS} scans: a file made to keep decoders busy")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A file's content; `UserError` names it if it cannot be read or is empty."""
    name = os.fspath(path)
    try:
        content = pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"no file {name!r}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from None
    if not content:
        raise UserError(f"{name!r} is empty")
    return content


def read_size(source: Source) -> tuple[int, int]:
    """(height, width) from the header alone, as stored; `UserError` if it is not a picture."""
    with _opened(source) as image:
        return image.height, image.width


def is_gray(source: Source) -> bool:
    """Whether the file stores a single channel of brightness."""
    with _opened(source) as image:
        return image.mode in ("1", "L", "LA", "I", "I;16", "F")


def read_rgb(source: Source, name: str | None = None) -> np.ndarray:
    """Decode a file to uint8 `[H, W, 3]`, turned upright by its EXIF orientation.

    Args:
      source: a path, or an open binary file.
      name: what messages call it, if not by its path.

    Raises:
      UserError: it cannot be read or decoded.
    """
    with _opened(source, name) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            # 16-bit gray: Pillow's own conversion clips at 255 instead of scaling.
            upright = Image.fromarray((np.asarray(upright, np.uint32) >> 8).astype(np.uint8))
        return np.asarray(upright.convert("RGB"))


@contextlib.contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A temporary path next to `path` that takes its place once the block has ended without an error.

    So nothing half-written ever stands under the final name. What a killed process left behind on its way to the same name
    is removed. `UserError` if the folder cannot be written.
    """
    target = pathlib.Path(path)
    # Hidden, and telling whose it is; long names are cut, as the whole has to stay below 255 bytes.
    prefix = f".{target.stem[:50]}.{platform.node()}-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent, prefix)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{prefix}{os.getpid()}-", suffix=target.suffix)
    except OSError as error:
        raise UserError(f"cannot write to folder {str(target.parent)!r}: {error.strerror}") from None
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        # mkstemp makes private files; the result gets the permissions of any other new file.
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: pathlib.Path, prefix: str) -> None:
    """Delete the temporary files with this prefix whose process has ended."""
    for path in folder.glob(f"{glob.escape(prefix)}*"):
        owner = path.name.removeprefix(prefix).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            path.unlink(missing_ok=True)


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Create a folder if needed and make sure that files can be written to it; `UserError` if not."""
    try:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to folder {os.fspath(folder)!r}: {error.strerror}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file at once or not at all."""
    with written_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_suffix(path: str | os.PathLike[str]) -> None:
    """`UserError` if pictures cannot be written under such a name."""
    if pathlib.Path(path).suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write {os.fspath(path)!r}: the name must end in {', '.join(SUFFIXES)}")


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Encode uint8 `[H, W, 3]` or `[H, W]` by the suffix of `path`: JPEG at quality 95 and 4:4:4, all else without loss."""
    check_suffix(path)
    options = {
        ".jpg": {"quality": 95, "subsampling": 0},
        ".jpeg": {"quality": 95, "subsampling": 0},
        ".webp": {"lossless": True},
    }
    try:
        with written_beside(path) as temporary:
            Image.fromarray(image).save(temporary, **options.get(pathlib.Path(path).suffix.lower(), {}))  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {os.fspath(path)!r}: {error}") from None
