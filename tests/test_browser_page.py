"""The static page, built by its script and driven in a browser: its results are those of Python, and nothing leaves it."""

import contextlib
import functools
import http.server
import io
import json
import pathlib
import shutil
import subprocess
import threading

import numpy as np
import pytest
from conftest import run_python
from PIL import Image

from jpegsr import degradation, inference, runtimes

ROOT = pathlib.Path(__file__).parent.parent
# What the page's own meta element says is no rule for its worker; this is, for both.
POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:"
TILE_PIXELS = 104 * 104


class _Handler(http.server.SimpleHTTPRequestHandler):
    headers_sent: tuple[tuple[str, str], ...] = ()

    def end_headers(self):
        for name, value in (("Content-Security-Policy", POLICY), *self.headers_sent):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        pass


class _IsolatedHandler(_Handler):
    headers_sent = (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page, with tiles so small that a small photo has several."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine: on Debian, `apt-get install nodejs npm`")
    ping = [npm, "ping", "--fetch-retries=0", "--fetch-timeout=10000"]
    if subprocess.run(ping, capture_output=True, check=False).returncode:
        pytest.skip("npm does not reach its registry, where the page's runtime comes from")
    folder = tmp_path_factory.mktemp("page")
    run_python(str(ROOT / "scripts/build_browser_page.py"), f"--output_dir={folder}", f"--tile_pixels={TILE_PIXELS}")
    return folder


@contextlib.contextmanager
def _served(folder, handler):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def address(folder):
    with _served(folder, _Handler) as address:
        yield address


@pytest.fixture
def page(browser, address):
    """The page in a window of its own; fails if anything but the page's own files, or what it holds, was asked for."""
    with _opened(browser, address) as page:
        yield page


@contextlib.contextmanager
def _opened(browser, address):
    page = browser.new_page()
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    yield page
    page.close()
    assert errors == []
    assert len(requests) >= 5
    assert [url for url in requests if not url.startswith((address, f"blob:{address}"))] == []


@pytest.fixture(scope="module")
def settings(folder):
    return json.loads((folder / "model.json").read_text())


@pytest.fixture(scope="module")
def in_python(settings):
    """(picture, strength, scale of the result) -> the result of the same model with the same tiles in Python."""
    model, _, scale = settings["name"].rpartition(" x")

    def enhance(picture: np.ndarray, strength: float = 1.0, result_scale: int = int(scale)) -> np.ndarray:
        network = runtimes.load(model, result_scale, "litert")
        tiling = inference.Tiling(network.scale, network.overlap, network.alignment, TILE_PIXELS)
        assert len(tiling.groups(*tiling.shape(*picture.shape[:2]))) >= 4
        return inference.apply(lambda pixels: network.run(pixels, strength), picture, tiling)

    return enhance


@pytest.fixture(scope="module")
def small(photo):
    """Blocky, and with an odd height."""
    return degradation.jpeg(np.ascontiguousarray(photo[60:191, 100:260]), 20)


def _png(picture: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return {"name": "small.photo.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def _enhance(page) -> np.ndarray:
    """Click, wait, download."""
    page.get_by_role("button", name="Enhance").click()
    page.locator("#download:visible, #alert:visible").wait_for()
    assert page.locator("#alert").inner_text() == ""
    with page.expect_download() as download:
        page.get_by_role("link", name="Download PNG").click()
    assert download.value.suggested_filename.startswith("small.photo_x")
    return np.asarray(Image.open(download.value.path()))


def _assert_near(result: np.ndarray, expected: np.ndarray):
    assert result.shape == (*expected.shape[:2], 4)
    assert (result[..., 3] == 255).all()
    difference = np.abs(result[..., :3].astype(int) - expected)
    assert difference.max() <= 2


def test_results_are_those_of_python(page, small, in_python):
    page.locator("#file").set_input_files(_png(small))
    _assert_near(_enhance(page), in_python(small))
    assert page.locator("#after").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [320, 262]
    assert "160 × 131 pixels before (left), 320 × 262 pixels after" in page.locator("#caption").inner_text()

    page.get_by_label("Same size").check()
    page.get_by_label("Artifact removal").fill("50")
    halfway = _enhance(page)
    _assert_near(halfway, in_python(small, 0.5, 1))
    assert np.abs(halfway[..., :3].astype(int) - small).max() > 2


def test_gray_stays_gray_and_transparent_transparent(page, small, in_python):
    gray = small[..., :1]
    page.locator("#file").set_input_files(_png(gray[..., 0]))
    _assert_near(_enhance(page), in_python(gray))

    # The colours of what is transparent are white here, and the visible part is dark: no light may leak over its edge.
    cut_out = np.full((*small.shape[:2], 4), (255, 255, 255, 0), np.uint8)
    cut_out[30:100, 40:120] = (*(20, 40, 60), 255)
    page.locator("#file").set_input_files(_png(cut_out))
    result = _enhance(page)
    assert not result[:50, :, 3].any()
    assert (result[64:196, 84:236, 3] == 255).all()
    visible = result[result[..., 3] > 128]
    assert np.abs(visible[:, :3].astype(int) - (20, 40, 60)).max() < 12


def test_orientation_is_applied(page, small):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    Image.fromarray(small).save(buffer, "jpeg", exif=exif)
    page.locator("#file").set_input_files({"name": "small.photo.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()})
    result = _enhance(page)
    assert result.shape == (320, 262, 4)
    upright = np.rot90(small, -1).repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(result[..., :3].astype(int) - upright).mean() < 12


def test_unreadable_and_too_large_files_give_a_message(page, small, in_python):
    def wait_for_alert(text: str):
        page.get_by_role("alert").filter(has_text=text).wait_for()

    page.locator("#file").set_input_files(_png(small))
    for name, content in {"no.png": b"", "text.png": b"not a picture", "half.png": _png(small)["buffer"][:99]}.items():
        page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
        wait_for_alert(f"{name} is no picture that this browser can read")
    page.locator("#file").set_input_files(_png(np.zeros((4001, 4000), np.uint8)))
    wait_for_alert("4000 × 4001 pixels: this page takes 16 megapixels at most")
    _assert_near(_enhance(page), in_python(small))  # the former photo is still there
    assert page.get_by_role("alert").is_hidden()

    page.locator("#file").set_input_files(_png(np.zeros((2001, 2000), np.uint8)))
    wait_for_alert("a photo may have 4 megapixels")
    assert page.get_by_label("2 times as large").is_disabled()
    assert page.get_by_label("Same size").is_checked()


def test_photos_may_be_dropped_and_pasted(page, small):
    give = """([type, name, levels]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(levels)], name));
        const options = {dataTransfer: transfer, clipboardData: transfer, bubbles: true};
        document.body.dispatchEvent(type === "paste" ? new ClipboardEvent(type, options) : new DragEvent(type, options));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, f"by_{kind}.png", list(_png(small)["buffer"])])
        page.locator("#caption").filter(has_text=f"by_{kind}.png: 160 × 131 pixels").wait_for()


def test_photo_chosen_before_the_page_has_its_settings_is_taken(browser, address, small):
    held = []
    page = browser.new_page()
    page.route("**/model.json", lambda route: held.append(route))
    page.goto(address)
    page.locator("#file").set_input_files(_png(small))
    page.wait_for_function("() => document.querySelector('#file').files.length === 0")  # it was heard
    assert page.locator("#settings").is_hidden()
    held[0].continue_()
    page.locator("#caption").filter(has_text="small.photo.png: 160 × 131 pixels").wait_for()
    assert page.get_by_label("2 times as large").is_enabled()
    page.close()


def test_page_without_settings_says_so(browser, address, small):
    page = browser.new_page()
    page.route("**/model.json", lambda route: route.fulfill(status=404))
    page.goto(address)
    page.get_by_role("alert").filter(has_text="model.json cannot be loaded (404").wait_for()
    page.locator("#file").set_input_files(_png(small))
    page.wait_for_function("() => document.querySelector('#file').files.length === 0")
    assert "model.json cannot be loaded" in page.get_by_role("alert").inner_text()
    page.close()


def test_cancel_leaves_the_page_ready(page, small, in_python):
    page.locator("#file").set_input_files(_png(np.tile(small, (10, 10, 1))))
    page.get_by_role("button", name="Enhance").click()
    page.wait_for_function("bar => 0 < bar.value && bar.value < bar.max", arg=page.locator("#progress").element_handle())
    page.keyboard.press("Enter")  # the button has the focus
    assert page.get_by_role("status").inner_text() == "Cancelled"
    assert page.locator("#done").is_hidden()
    page.locator("#file").set_input_files(_png(small))
    _assert_near(_enhance(page), in_python(small))


def test_keyboard_alone_is_enough(page, small):
    page.locator("#sample").focus()
    page.keyboard.press("Enter")
    page.get_by_label("2 times as large").wait_for()  # hidden until the photo is there
    page.get_by_label("2 times as large").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Same size").is_checked()
    page.get_by_role("button", name="Enhance").focus()
    page.keyboard.press("Enter")
    split = page.get_by_role("slider", name="Where the photo")
    split.wait_for()
    page.get_by_text("Done in").wait_for()
    before = page.locator("#after").evaluate("image => getComputedStyle(image).clipPath")
    page.keyboard.press("ArrowRight")  # the result has the focus
    assert split.input_value() == "51"
    assert page.locator("#after").evaluate("image => getComputedStyle(image).clipPath") != before


def test_threads_where_the_server_allows_them(browser, folder, small, in_python):
    with _served(folder, _IsolatedHandler) as address, _opened(browser, address) as page:
        page.locator("#file").set_input_files(_png(small))
        result = _enhance(page)
        num_threads = page.evaluate("navigator.hardwareConcurrency")
        if num_threads > 1:
            assert page.get_by_role("status").inner_text().endswith(f"on {num_threads} threads")
    _assert_near(result, in_python(small))
