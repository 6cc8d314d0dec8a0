"""Which code made a file: version and commit."""

import functools
import pathlib
import subprocess

import jpegsr


def source() -> dict[str, str]:
    """The version of this package and the commit of its checkout, marked `-dirty` where files were changed since.

    Changes in `results/` don't count: programs write there, and a row of tables would mark all but its first. A program that
    works for long calls it when it starts, too: the checkout may change, and what counts is what it imported.
    """
    return {"version": jpegsr.__version__, "commit": _commit() or "unknown (not a git checkout)"}


@functools.cache
def _commit() -> str | None:
    """None unless git tracks this very file: an enclosing repository may be anybody's."""
    here = pathlib.Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = [*git, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results"]
        is_dirty = bool(subprocess.run(changes, capture_output=True, check=True).stdout)
        return f"{head}-dirty" if is_dirty else head
    except (OSError, subprocess.CalledProcessError):
        return None
