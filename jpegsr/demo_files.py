"""What the page of `jpegsr demo` keeps on disk and lets in: temporary files, sample photos, bounds on requests.

All that is uploaded and made lies in one folder, which goes when the server ends. Before that a session's files go when its
page is closed, and whatever is left of any session when it is old.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import platform
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import numpy as np
import psutil

from jpegsr.errors import UserError

_PREFIX = f"jpegsr-demo.{platform.node()}-"
_KEPT_SECONDS = 4 * 3600.0
# A detail that has been replaced on the page may still be on its way there.
_NUM_KEPT_DETAILS = 4


def samples_folder() -> pathlib.Path:
    """Where the sample photos lie: in an installed package within it, in a clone beside it."""
    package = pathlib.Path(__file__).parent
    within, beside = package / "samples", package.parent / "samples"
    return beside if beside.is_dir() and not within.is_dir() else within


@contextlib.contextmanager
def temporary_folder() -> Iterator[pathlib.Path]:
    """A folder that is there within the block. What killed servers on this machine left behind is removed."""
    for path in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{psutil.Process().pid}-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclasses.dataclass
class Session:
    """A page that is open in somebody's browser.

    Attributes:
      folder: for its files alone, under a name that nobody guesses, in the server's folder.
      uploads: files that were uploaded to it, which other sessions may share.
      pictures: tab -> name -> what can be looked at there, uint8 `[H, W, 3]`, mapped from disk.
      last_used: when anything was asked for.
    """

    folder: pathlib.Path
    uploads: set[pathlib.Path] = dataclasses.field(default_factory=set)
    pictures: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    last_used: float = dataclasses.field(default_factory=time.time)
    _details: collections.deque[pathlib.Path] = dataclasses.field(default_factory=collections.deque)
    _stops: dict[str, threading.Event] = dataclasses.field(default_factory=dict)

    def photo(self, path: pathlib.Path) -> pathlib.Path:
        """Let a photo in: an upload, which is this session's from now on, or a sample.

        Raises:
          UserError: it is gone, or it is some other file of this machine, which a page never asks for, but a program may.
        """
        path = path.resolve()
        is_sample = path.parent == samples_folder().resolve()
        if not is_sample and self.folder.parent.resolve() not in path.parents:
            raise UserError("the photo is neither an upload nor a sample")
        if not path.is_file():
            raise UserError("the photo is no longer here: upload it again")
        if not is_sample:
            self.uploads.add(path)
        return path

    def begin(self, tab: str) -> threading.Event:
        """Call off what a tab is at, for something new. The event is set when that is to be called off in its turn."""
        self.call_off(tab)
        return self._stops.setdefault(tab, threading.Event())

    def call_off(self, *tabs: str) -> None:
        """Set the events of what these tabs are at, of all tabs without any."""
        for tab in tabs or list(self._stops):
            if stop := self._stops.pop(tab, None):
                stop.set()

    def new_folder(self, tab: str) -> pathlib.Path:
        """For the next result of a tab; the one before goes."""
        shutil.rmtree(self.folder / tab, ignore_errors=True)
        folder = self.folder / tab / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder

    def keep(self, tab: str, pictures: dict[str, np.ndarray]) -> None:
        """Put pictures where a tab finds them; those that it had before go."""
        folder = self.folder / f"{tab}_pictures"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mapped = {}
        for i, (name, picture) in enumerate(pictures.items()):
            np.save(folder / f"{i}.npy", picture)
            mapped[name] = np.load(folder / f"{i}.npy", mmap_mode="r")
        self.pictures[tab] = mapped

    def write_detail(self, content: bytes) -> str:
        """A PNG file for the page, under a new name each time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{secrets.token_hex(8)}.png"
        path.write_bytes(content)
        self._details.append(path)
        while len(self._details) > 2 * _NUM_KEPT_DETAILS:
            self._details.popleft().unlink(missing_ok=True)
        return str(path)


class Sessions:
    """The pages that are open. Thread-safe.

    Args:
      folder: for the files of all of them.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def get(self, key: str | None) -> Session:
        """The session that a browser calls by this key; a new one if there is none, or no longer."""
        with self._lock:
            if (session := self._sessions.get(key or "")) is None:
                self._remove_old()
                session = self._sessions[key or ""] = Session(self._folder / secrets.token_hex(16))
            session.last_used = time.time()
            return session

    def end(self, key: str | None) -> None:
        """Call off what a session is at, and delete its files but for uploads that others have as well."""
        with self._lock:
            self._end(key or "")

    def end_all(self) -> None:
        """Do so with all of them."""
        with self._lock:
            for key in list(self._sessions):
                self._end(key)

    def _end(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is None:
            return
        session.call_off()
        shared = set().union(*(other.uploads for other in self._sessions.values()))
        for path in session.uploads - shared:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another file may lie there
                path.parent.rmdir()
        shutil.rmtree(session.folder, ignore_errors=True)

    @contextlib.contextmanager
    def work(self, key: str | None, tab: str) -> Iterator[tuple[Session, threading.Event]]:
        """For work of a tab that writes files: should the page be closed meanwhile, they go when the work ends.

        The value is the session, and the event that is set when the work is called off.
        """
        session = self.get(key)
        try:
            yield session, session.begin(tab)
        finally:
            with self._lock:
                is_open = any(other is session for other in self._sessions.values())
            if not is_open:
                shutil.rmtree(session.folder, ignore_errors=True)

    def _remove_old(self) -> None:
        """End sessions that nobody closed, and delete uploads that broke off or that no page asked anything for."""
        latest = time.time() - _KEPT_SECONDS
        for key in [key for key, session in self._sessions.items() if session.last_used < latest]:
            self._end(key)
        in_use = {path for session in self._sessions.values() for path in session.uploads}
        folders = {session.folder for session in self._sessions.values()}
        # Not by `rglob`, which fails where another session's folder goes while it looks.
        paths = (pathlib.Path(folder, name) for folder, _, names in os.walk(self._folder) for name in names)
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                is_kept = path in in_use or not folders.isdisjoint(path.parents)
                if not is_kept and path.stat().st_mtime < latest:
                    path.unlink()


_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Bounds:
    """ASGI middleware that turns away requests that are too large, and those that make the server fetch an address.

    Args:
      app: behind it.
      max_bytes: of a request's body.
    """

    def __init__(self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]], max_bytes: int):
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, reason = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reason.encode()})

    def _refusal(self, scope: _Scope) -> tuple[int, str] | None:
        """(HTTP status, why), if the request is turned away."""
        if "file=http" in scope["path"] or "proxy=" in scope["path"]:
            return 403, "this server fetches nothing"
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "a length is needed"
        if int(length) > self._max_bytes:
            return 413, f"more than {self._max_bytes} bytes"
        return None


def refuse_address(path: Any) -> None:
    """`UserError` for what is no file: left to itself, the server would download it."""
    if "://" in str(path):
        raise UserError("give a file, not an address")
