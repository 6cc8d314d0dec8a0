"""What reaches the terminal."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

_lock = threading.Lock()
_depth = 0
_stderr = -1


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Within the block nothing reaches stderr, not even what libraries in C++ print on their own.

    It is the whole process' stderr: where threads meet in such blocks, the last one to leave restores it.
    """
    global _depth, _stderr
    with _lock:
        if _depth == 0:
            sys.stderr.flush()
            _stderr = os.dup(2)
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                os.dup2(_stderr, 2)
                os.close(_stderr)


def progress_bar(name: str, unit: str, total: int, initial: int = 0, is_shown: bool = True) -> tqdm:
    """A bar; in a log file it prints a line every half minute instead of several a second."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    layout = {"dynamic_ncols": True, "mininterval": interval, "disable": not is_shown}
    return tqdm(total=total, initial=initial, desc=name, unit=unit, **layout)
