"""File <-> picture. Pictures are uint8 arrays `[H, W, 3]`, in sRGB, upright."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jpegsr.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def list_images(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """All picture files below a folder, in order of their path; `UserError` if there is no such folder."""
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"no folder {str(root)!r}: give a folder that holds {', '.join(SUFFIXES)} files")
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The picture file, open; `UserError` names the file when it cannot be read or decoded."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"no file {os.fspath(path)!r}") from None
    except UnidentifiedImageError:
        raise UserError(f"{os.fspath(path)!r} is not a picture that can be read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {os.fspath(path)!r}: {error}") from None


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) from the header alone, as stored; `UserError` if it is not a picture."""
    with _opened(path) as image:
        return image.height, image.width


def is_gray(path: str | os.PathLike[str]) -> bool:
    """Whether the file stores a single channel of brightness."""
    with _opened(path) as image:
        return image.mode in ("1", "L", "LA", "I", "I;16", "F")


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode a file to uint8 `[H, W, 3]`, turned upright by its EXIF orientation; `UserError` if that fails."""
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            # 16-bit gray: Pillow's own conversion clips at 255 instead of scaling.
            upright = Image.fromarray((np.asarray(upright, np.uint32) >> 8).astype(np.uint8))
        return np.asarray(upright.convert("RGB"))


@contextlib.contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A temporary path next to `path` that takes its place once the block has ended without an error.

    So nothing half-written ever stands under the final name. `UserError` if the folder cannot be written.
    """
    target = pathlib.Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    except OSError as error:
        raise UserError(f"cannot write to folder {str(target.parent)!r}: {error.strerror}") from None
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        # mkstemp makes private files; the result gets the permissions of any other new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Create a folder if needed and make sure that files can be written to it; `UserError` if not."""
    with written_beside(pathlib.Path(folder) / "probe") as temporary:
        temporary.touch()
    (pathlib.Path(folder) / "probe").unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file at once or not at all."""
    with written_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Encode uint8 `[H, W, 3]` or `[H, W]` by the suffix of `path`; JPEG at quality 95, 4:4:4."""
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"cannot write {os.fspath(path)!r}: the name must end in {', '.join(SUFFIXES)}")
    options = {"quality": 95, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
    with written_beside(path) as temporary:
        Image.fromarray(image).save(temporary, **options)  # type: ignore[arg-type]
