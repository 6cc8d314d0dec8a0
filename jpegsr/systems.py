"""Upscalers from outside this package beside its own models: the plug-ins of `jpegsr evaluate --systems=FILE,...`.

A plug-in is a Python file with a dictionary `SYSTEMS`, from the name that tables show to a callable:

    SYSTEMS = {"mine": upscale}  # upscale(file: bytes, scale: int) -> uint8 [scale * H, scale * W, 3]

It is given the file as a user has it, since some systems read a JPEG's own tables: a JPEG, or a PNG where nothing is
compressed. Its folder is searched for the modules it imports, as if it was run by `python FILE`. Where a system cannot run (a
missing package, a scale it lacks) it raises `UserError` or `ImportError` at its first call, and is left out with that reason.
"""

import dataclasses
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable

import numpy as np

from jpegsr import degradation
from jpegsr.errors import UserError, first_line

# (content of a JPEG or PNG file, scale) -> the enlarged picture, uint8 [scale * H, scale * W, 3].
System = Callable[[bytes, int], np.ndarray]
# Large enough for the blocks and windows of any system, and no multiple of them.
_PROBE_SIZE = (36, 44)


class WrongResultError(UserError):
    """A system ran, but what it gave is no enlarged picture."""


@dataclasses.dataclass(frozen=True)
class LoadedSystems:
    """What a list of plug-ins holds.

    Attributes:
      systems: name -> a system that has enlarged one small picture.
      skipped: name -> why that one cannot run here.
      files: name -> the plug-in it comes from, for both.
    """

    systems: dict[str, System]
    skipped: dict[str, str]
    files: dict[str, pathlib.Path]


def load(paths: Iterable[str], scale: int, only: Collection[str] = ()) -> LoadedSystems:
    """The systems of several plug-ins, each tried on a small picture.

    Args:
      paths: of the plug-ins.
      scale: that the systems are tried at.
      only: names of the systems that are wanted; none is all.

    Raises:
      UserError: a file is missing, needs a package that is missing to be read at all, has no `SYSTEMS`, repeats a name, or
        gives something else than a picture of the right size; or no file has a system that is wanted.
    """
    found: dict[str, tuple[pathlib.Path, System]] = {}
    for path in map(pathlib.Path, paths):
        for name, system in read(path).items():
            if name in found:
                raise UserError(f"{str(path)!r} and {str(found[name][0])!r} both have a system {name!r}: rename one")
            found[name] = (path, system)
    if unknown := sorted({*only} - {*found}):
        raise UserError(f"no system {unknown[0]!r}: there are {', '.join(map(repr, found)) or 'none'}")
    height, width = _PROBE_SIZE
    ramp = np.add.outer(4 * np.arange(height), np.arange(width)).astype(np.uint8)
    probe = degradation.encode(np.repeat(ramp[..., None], 3, axis=2), quality=50)
    loaded = LoadedSystems({}, {}, {})
    for name, (path, system) in found.items():
        if only and name not in only:
            continue
        loaded.files[name] = path
        try:
            apply(name, system, probe, (height, width), scale)
            loaded.systems[name] = system
        except WrongResultError:
            raise
        except (UserError, ImportError) as error:
            loaded.skipped[name] = first_line(error)
    return loaded


def read(path: pathlib.Path) -> dict[str, System]:
    """The `SYSTEMS` of one plug-in, not yet tried; errors as in `load`."""
    if not path.is_file():
        raise UserError(f"no file {str(path)!r}: --systems takes Python files")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(f"jpegsr_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise UserError(f"cannot load {str(path)!r}: {first_line(error)}") from None
    found = getattr(module, "SYSTEMS", None)
    if not isinstance(found, dict) or not found or not all(callable(system) for system in found.values()):
        raise UserError(f"{str(path)!r} has no SYSTEMS, a dictionary from names to callables (file, scale) -> picture")
    return found


def apply(name: str, system: System, file: bytes, size: tuple[int, int], scale: int) -> np.ndarray:
    """Run a system on a file whose picture has `size` (height, width), and check what comes back.

    Raises:
      WrongResultError: it is not uint8 `[scale * height, scale * width, 3]`.
    """
    picture = system(file, scale)
    expected = (size[0] * scale, size[1] * scale, 3)
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != expected:
        got = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise WrongResultError(f"system {name!r} gave {got} where uint8 {list(expected)} is expected")
    return picture
