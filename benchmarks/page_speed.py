"""Seconds from the click to the picture, for a photo of 0.25 megapixels enlarged twice: `jpegsr demo` and the static page.

    python benchmarks/page_speed.py [--rounds=3] [--output=results/page_speed.json]

Both pages are driven in headless Chromium on this machine. Each figure is of a page that has just been opened: the first result
counts, with all that is only then loaded or compiled. Needs the extra web, playwright, Chromium, and npm for the static page.
"""

import contextlib
import functools
import http.server
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import figures_file
from absl import app, flags
from playwright.sync_api import Browser, Page, sync_playwright
from sample_photo import make_photo

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 3, "times that each page is opened")
flags.DEFINE_string("output", None, "JSON file to write")
ROOT = pathlib.Path(__file__).parent.parent
MODELS = ("base", "fast")
SIDE = 500  # pixels
BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextlib.contextmanager
def demo(model: str) -> Iterator[str]:
    """The address of `jpegsr demo` with one model."""
    command = [sys.executable, "-m", "jpegsr.cli.main", "demo", "--port=0", f"--models={model}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield re.search(r"http://\S+", server.stdout.readline())[0]
        finally:
            server.terminate()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        # With these, LiteRT.js uses all cores (docs/browser.md).
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Requests are not worth a line each."""


@contextlib.contextmanager
def static_page(model: str) -> Iterator[str]:
    """The address of the page that `scripts/build_browser_page.py` makes for a model."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, str(ROOT / "scripts/build_browser_page.py"), f"--output_dir={folder}", f"--model={model}"]
        subprocess.run(build, check=True, capture_output=True)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()


def use_demo(page: Page, photo: pathlib.Path) -> float:
    """Seconds until the page of `jpegsr demo` shows its result."""
    button = page.get_by_role("button", name="Enhance", exact=True)
    button.wait_for()
    page.locator("input[type=file]").first.set_input_files(photo)
    page.locator(".facts").first.wait_for()
    started = time.perf_counter()
    button.click()
    page.get_by_text("of which the network took").wait_for()
    return time.perf_counter() - started


def use_static_page(page: Page, photo: pathlib.Path) -> float:
    """Seconds until the static page offers its result."""
    page.locator("input[type=file]").set_input_files(photo)
    button = page.get_by_role("button", name="Enhance")
    page.locator("button:has-text('Enhance'):not([disabled])").wait_for()
    started = time.perf_counter()
    button.click()
    page.locator("#download:visible, #alert:visible").wait_for()
    seconds = time.perf_counter() - started
    if alert := page.locator("#alert").inner_text():
        sys.exit(alert)
    return seconds


def measure(browser: Browser, photo: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Page -> model -> seconds of each round."""
    pages = {"demo": (demo, use_demo), "static page": (static_page, use_static_page)}
    if shutil.which("npm") is None:
        del pages["static page"]
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in pages}
    for name, (served, use) in pages.items():
        for model in MODELS:
            with served(model) as address:
                for _ in range(FLAGS.rounds):
                    with contextlib.closing(browser.new_context()) as profile, contextlib.closing(profile.new_page()) as page:
                        page.goto(address)
                        seconds[name].setdefault(model, []).append(round(use(page, photo), 2))
            print(name, model, seconds[name][model], flush=True)
    return seconds


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photo = pathlib.Path(folder) / "photo.jpg"
        make_photo(photo, SIDE)
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        version, seconds = browser.version, measure(browser, photo)
        browser.close()
    if FLAGS.output:
        what = f"from the click to the first result of a page just opened, {SIDE}x{SIDE} pixels, x2, Chromium {version}"
        figures_file.write(FLAGS.output, what, {"seconds": seconds}, MODELS)


if __name__ == "__main__":
    app.run(main)
