"""The server of `jpegsr demo`: a page on this machine that works without any network. Needs the extra `web`.

What the page looks like is in `demo_page`, what is done with photos in `demo_work`, the matter of files in `demo_files`.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

from jpegsr import demo_files
from jpegsr.config import DemoConfig
from jpegsr.demo_work import Models
from jpegsr.errors import UserError

_FIRST_PORT, _NUM_PORTS = 7860, 100
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Forms have more in them than the file.
_FORM_BYTES = 100_000


@contextlib.contextmanager
def served(models: Models, config: DemoConfig) -> Iterator[str]:
    """Serve the page within the block, whose value is its address.

    Everything temporary is removed at the end. To be used once in a process, before Gradio is imported.

    Raises:
      UserError: the address or port cannot be had.
    """
    port = _free_port(config.host, config.port)
    with demo_files.temporary_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        # Gradio looks at its own page when it starts, not through a proxy.
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), *_LOOPBACK]))
        sessions = demo_files.Sessions(folder)
        blocks = _build(models, config, sessions)
        try:
            yield _launch(blocks, config, port)
        finally:
            sessions.end_all()
            blocks.close(verbose=False)


def _build(models: Models, config: DemoConfig, sessions: demo_files.Sessions) -> Any:
    import gradio as gr

    from jpegsr import demo_page

    gr.set_static_paths([demo_files.samples_folder()])
    blocks = demo_page.build(models, sessions, config.max_pixels)
    return blocks.queue(max_size=config.max_waiting)


def _launch(blocks: Any, config: DemoConfig, port: int) -> str:
    from starlette.middleware import Middleware

    from jpegsr import demo_page

    max_bytes = config.max_megabytes << 20
    _, url, _ = blocks.launch(
        server_name=f"[{config.host}]" if ":" in config.host else config.host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=config.open_browser,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=max_bytes,
        state_session_capacity=1000,
        app_kwargs={"middleware": [Middleware(demo_files.Bounds, max_bytes=max_bytes + _FORM_BYTES)]},
        theme=demo_page.THEME,
        css=demo_page.CSS,
        head=demo_page.HEAD,
    )
    return url


def _free_port(host: str, port: int | None) -> int:
    """The port to listen at."""
    candidates = range(_FIRST_PORT, _FIRST_PORT + _NUM_PORTS) if port is None else [port]
    for candidate in candidates:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.create_server(address[:2], family=family) as server:
                return server.getsockname()[1]
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (")[0]
    raise UserError(f"cannot listen at {host}, port {candidates[-1]} ({reason}): choose another --host or --port")
