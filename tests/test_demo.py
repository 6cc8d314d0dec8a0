"""The page of `jpegsr demo`, driven in a browser: one server for all tests, in a process of its own."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import psutil
import pytest
from conftest import run_python
from PIL import Image, ImageCms

from jpegsr import degradation, demo_files, demo_work, evaluation, images, runtimes
from jpegsr.cli.main import main
from jpegsr.demo_files import Sessions
from jpegsr.enhancement import Enhancer
from jpegsr.errors import UserError

pytest.importorskip("gradio")
pytest.importorskip("openvino")
ROOT = pathlib.Path(__file__).parent.parent
MAX_MEGABYTES = 2
PATIENCE = 30_000  # milliseconds; the machine may be busy


def start_server(folder: pathlib.Path, *flags: str) -> tuple[subprocess.Popen, str]:
    """(process, address) of a server whose temporary files lie in the folder."""
    command = [sys.executable, "-m", "jpegsr.cli.main", "demo", "--port=0", "--runtime=openvino", *flags]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert "http://127.0.0.1:" in line, line
    return process, re.search(r"http://\S+", line)[0]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary):
    process, url = start_server(temporary, f"--max_megabytes={MAX_MEGABYTES}", "--max_pixels=4000000")
    yield process, url
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not list(temporary.iterdir())  # nothing stays behind


@pytest.fixture(scope="module")
def requested() -> list[str]:
    """What the pages of all tests asked for."""
    return []


@pytest.fixture(scope="module")
def profile(browser):
    """Of one person, whose browser keeps what pages are made of."""
    with contextlib.closing(browser.new_context(accept_downloads=True)) as profile:
        yield profile


@pytest.fixture
def new_page(browser, profile, server, requested):
    """A function that opens the page, on request as another person, and waits until it can be used."""
    with contextlib.ExitStack() as stack:

        def new(is_somebody_else: bool = False):
            context = profile
            if is_somebody_else:
                context = stack.enter_context(contextlib.closing(browser.new_context(accept_downloads=True)))
            page = stack.enter_context(contextlib.closing(context.new_page()))
            page.set_default_timeout(PATIENCE)
            page.on("request", lambda request: requested.append(request.url))
            page.on("websocket", lambda socket: requested.append(socket.url))
            page.goto(server[1])
            page.get_by_role("button", name="Enhance", exact=True).wait_for()
            return page

        yield new


@pytest.fixture(scope="module")
def photo_file(tmp_path_factory) -> pathlib.Path:
    """A small JPEG with EXIF and a colour profile."""
    path = tmp_path_factory.mktemp("photo") / "my photo.jpg"
    picture = images.read_rgb(ROOT / "samples" / "cat.jpg")[40:88, 60:124]
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(path, quality=20, exif=exif, icc_profile=profile)
    return path


def upload(page, path: pathlib.Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)
    page.locator(".facts, .message").first.wait_for()


def enhance(page) -> None:
    page.get_by_role("button", name="Enhance", exact=True).click()
    wait_for_result(page)


def wait_for_result(page) -> None:
    page.get_by_text("of which the network took").wait_for()
    wait_until(lambda: divider(page) == 50)


def download(page, target: pathlib.Path) -> tuple[str, bytes]:
    """(name, content) of the file that the page offers."""
    with page.expect_download() as expected:
        page.get_by_role("button", name="Download ").click()
    expected.value.save_as(target)
    return expected.value.suggested_filename, target.read_bytes()


def wait_until(condition, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def divider(page) -> float | None:
    """Where the second picture begins, in percent; None before it is loaded."""
    style = page.locator(".comparison:visible img").nth(1).get_attribute("style")
    match = re.search(r"inset\(0px 0px 0px ([\d.]+)%\)", style)
    return float(match[1]) if match else None


def test_download_is_what_enhance_writes(new_page, photo_file, tmp_path):
    page = new_page()
    upload(page, photo_file)
    facts = page.locator(".facts").inner_text()
    assert "my photo.jpg" in facts
    assert re.search(r"JPEG quality\s+20\n", facts)
    assert re.search(r"size\s+48x64\n", facts)  # upright
    assert "EXIF" in facts
    page.get_by_role("radio", name="3x").check()
    page.get_by_role("radio", name="TIFF").check()
    page.get_by_label("number input for Strength").fill("0.7")
    page.get_by_label("number input for Strength").blur()
    enhance(page)
    name, content = download(page, tmp_path / "downloaded.tif")
    assert name == "my photo_x3.tif"
    expected = tmp_path / "expected.tif"
    flags = ["--scale=3", "--strength=0.7", "--runtime=openvino"]
    assert main(["enhance", str(photo_file), "-o", str(expected), *flags]) == 0
    assert content == expected.read_bytes()
    # Another format and strength, without another upload.
    page.get_by_role("radio", name="WebP").check()
    page.get_by_role("radio", name="1x").check()
    page.get_by_role("button", name="Enhance", exact=True).click()
    page.get_by_role("button", name="Download my photo_x1.webp").wait_for()
    _, content = download(page, tmp_path / "downloaded.webp")
    expected = expected.with_suffix(".webp")
    assert main(["enhance", str(photo_file), "-o", str(expected), "--scale=1", *flags[1:]]) == 0
    assert content == expected.read_bytes()
    with Image.open(expected) as webp:
        assert webp.getexif()[0x010F] == "A camera"
        assert webp.info["icc_profile"]


def test_before_and_after_can_be_compared_by_the_pixel(new_page):
    page = new_page()
    page.get_by_role("button", name="sample photo coffee.jpg").click()
    page.get_by_text("JPEG quality").wait_for()
    enhance(page)
    pictures = page.locator(".comparison:visible img")
    alternatives = [pictures.nth(i).get_attribute("alt") for i in (0, 1)]
    assert alternatives == ["left of the divider", "right of the divider"]
    assert divider(page) == 50
    handle = page.locator(".comparison:visible [data-testid=slider] .icon-wrap")
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 100, box["y"], steps=5)
    page.mouse.up()
    assert 25 < divider(page) < 45
    # Each pixel of the result is 4x4 on the screen.
    page.get_by_role("radio", name="4:1").check()
    page.get_by_label("number input for Across").fill("0")
    page.get_by_label("number input for Across").blur()
    coffee = images.read_rgb(ROOT / "samples" / "coffee.jpg")
    result = Enhancer("base", 2, "openvino").enhance(coffee)
    expected = demo_work.detail(result, 4, 0, 0.5)

    def shown() -> np.ndarray:
        address = pictures.nth(1).get_attribute("src")
        with urllib.request.urlopen(address) as response:
            return images.read_rgb(response, "detail")

    wait_until(lambda: np.array_equal(shown(), expected))
    assert pictures.nth(1).evaluate("image => [image.clientWidth, image.naturalWidth]") == [768, 768]


def test_bad_uploads_are_messages_and_the_page_goes_on(new_page, photo_file, tmp_path):
    page = new_page()
    bad = {"text.jpg": b"<b>no picture</b>", "broken.jpg": photo_file.read_bytes()[:-300], "empty.png": b""}
    header = b"\0\0\0\rIHDR" + (30000).to_bytes(4) * 2 + b"\x08\2\0\0\0"
    bad["bomb.png"] = b"\x89PNG\r\n\x1a\n" + header + b"\0\0\0\0" * 3
    words = {"text.jpg": "not a JPEG", "broken.jpg": "premature end", "empty.png": "is empty", "bomb.png": ""}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        page.locator("input[type=file]").first.set_input_files(tmp_path / name)
        message = page.get_by_role("alert").filter(has_text=name)
        message.wait_for()
        assert words[name] in message.inner_text()
        assert "/" not in message.inner_text()  # no path of the server
        page.get_by_role("button", name="Remove Image").click()
        message.wait_for(state="detached")
    (tmp_path / "large.jpg").write_bytes(bytes((MAX_MEGABYTES << 20) + 1))
    page.locator("input[type=file]").first.set_input_files(tmp_path / "large.jpg")
    page.get_by_text("exceed the maximum allowed size").wait_for()
    page.get_by_role("button", name="Enhance", exact=True).click()
    page.get_by_role("alert").filter(has_text="choose a photo first").wait_for()
    upload(page, photo_file)
    enhance(page)
    assert page.get_by_role("alert").filter(has_text="photo").count() == 0


@pytest.mark.parametrize("kind", ["one pixel", "CMYK", "animated", "16 bits", "too large at this scale"])
def test_odd_photos(kind, tmp_path):
    models = demo_work.Models(["base"], "openvino")
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    picture, options, name = Image.fromarray(noise), {}, "odd.png"
    if kind == "one pixel":
        picture = picture.crop((0, 0, 1, 1))
    elif kind == "CMYK":
        picture, name = picture.convert("CMYK"), "odd.jpg"
    elif kind == "animated":
        options, name = {"save_all": True, "append_images": [picture.rotate(180)]}, "odd.gif"
    elif kind == "16 bits":
        picture = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    picture.save(tmp_path / name, **options)
    most = 24 * 32 if kind.startswith("too large") else 10_000
    progress = []

    def run() -> demo_work.Enhanced:
        wish = demo_work.Wish("base", 2)
        return demo_work.enhance(
            tmp_path / name, name, wish, models, tmp_path, most, lambda done, total: progress.append((done, total))
        )

    demo_work.look(tmp_path / name, name, most)
    if kind.startswith("too large"):
        with pytest.raises(UserError, match=r"64x48 pixels.*lower the scale"):
            run()
        return
    result = run()
    assert progress == [(0, 1), (1, 1)]
    assert result.after.dtype == np.uint8
    assert result.after.shape == result.before.shape == (2 * picture.height, 2 * picture.width, 3)
    assert [note for note in result.notes if "first of its 2 pages" in note] == result.notes
    assert len(result.notes) == (kind == "animated")


def test_two_people_at_once_get_their_own_results(new_page, photo_file, tmp_path):
    other_file = tmp_path / photo_file.name  # of the same name
    Image.open(photo_file).rotate(90, expand=True).save(other_file, quality=20)
    pages = {photo_file: new_page(), other_file: new_page(is_somebody_else=True)}
    for path, page in pages.items():
        upload(page, path)
    for page in pages.values():
        page.get_by_role("button", name="Enhance", exact=True).click()
    for i, (path, page) in enumerate(pages.items()):
        wait_for_result(page)
        _, content = download(page, tmp_path / f"{i}.png")
        expected = tmp_path / f"expected{i}.png"
        assert main(["enhance", str(path), "-o", str(expected), "--runtime=openvino"]) == 0
        assert content == expected.read_bytes()


def test_main_flow_by_keyboard(new_page, photo_file, tmp_path):
    page = new_page()

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            focus = page.locator("button:focus, input:focus")
            if focus.count() and name in focus.evaluate("element => `${element.ariaLabel} ${element.innerText}`"):
                return
        raise AssertionError(f"Tab does not lead to {name}")

    page.on("filechooser", lambda chooser: chooser.set_files(photo_file))
    tab_to("Drop Image Here")
    page.keyboard.press("Enter")
    page.locator(".facts").wait_for()
    tab_to("Paste from clipboard")
    tab_to("Enhance")
    page.keyboard.press("Enter")
    wait_for_result(page)
    tab_to("range slider for Divider")
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    wait_until(lambda: 40 < divider(page) < 50)  # 42 % of a picture that does not fill the width
    tab_to("Download")
    with page.expect_download() as expected:
        page.keyboard.press("Enter")
    assert expected.value.suggested_filename == "my photo_x2.png"


def test_make_it_worse_scores_as_evaluate_does(new_page):
    page = new_page()
    page.get_by_role("tab", name="Make it worse").click()
    page.get_by_role("button", name="sample photo cat_clean.jpg").click()
    page.get_by_role("img", name="the photo that was chosen").wait_for()  # else "choose a photo first"
    page.get_by_label("number input for JPEG quality").fill("30")
    page.get_by_label("number input for JPEG quality").blur()
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("row", name=re.compile("^bicubic")).wait_for()
    original = degradation.crop_to_multiple(images.read_rgb(ROOT / "samples" / "cat_clean.jpg"), 2)
    compressed = degradation.jpeg(degradation.downscale(original, 2), 30)
    results = {"bicubic": degradation.upscale_bicubic(compressed, 2)}
    for name in demo_work.Models(demo_work.shipped_models()).with_scale(2):
        results[name] = Enhancer(name, 2, "openvino").enhance(compressed)
    assert len(results) >= 2
    for name, picture in results.items():
        psnr, ssim, _ = evaluation.score_picture(original, picture, 2)
        cells = page.get_by_role("row", name=re.compile(f"^{name} ")).inner_text()
        assert f"{psnr:.2f}" in cells
        assert f"{ssim:.4f}" in cells
        source = page.get_by_role("img", name=f"errors of {name}", exact=True).get_attribute("src")
        with urllib.request.urlopen(urllib.parse.urljoin(page.url, source)) as response:
            errors = images.read_rgb(response, "errors")
        assert np.array_equal(errors, demo_work.error_map(original, picture))
    page.get_by_label("First picture").click()
    page.get_by_role("option", name="original").click()
    first = page.locator(".comparison:visible img").first

    def shown() -> np.ndarray:
        with urllib.request.urlopen(first.get_attribute("src")) as response:
            return images.read_rgb(response, "first")

    wait_until(lambda: np.array_equal(shown(), original))


def test_files_go_with_the_page(new_page, photo_file, temporary):
    page, other = new_page(), new_page()
    for each in (page, other):
        upload(each, photo_file)
    enhance(page)

    def names() -> set[str]:
        # Not by `rglob`, which fails where a folder goes while it looks.
        return {name for _, _, files in os.walk(temporary) for name in files}

    assert {"my photo.jpg", "my photo_x2.png"} <= names()
    page.close()
    wait_until(lambda: "my photo_x2.png" not in names())
    enhance(other)  # which has uploaded the same file
    other.close()
    wait_until(lambda: not names())


def status_of(url: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None) -> int:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, parts.path, body, headers or {})
        return connection.getresponse().status


def test_server_fetches_nothing_and_bounds_requests(server, temporary):
    _, url = server
    api = f"{url.rstrip('/')}/gradio_api"
    assert status_of(f"{api}/file=http://example.com/a.png") == 403
    assert status_of(f"{api}/file=/etc/passwd") == 403
    too_large = {"Content-Length": str((MAX_MEGABYTES << 20) + 200_000), "Content-Type": "multipart/form-data; boundary=x"}
    assert status_of(f"{api}/upload", "POST", too_large) == 413
    assert status_of(f"{api}/upload", "POST", {"Transfer-Encoding": "chunked"}, b"0\r\n\r\n") == 411
    assert status_of(url) == 200


def test_photos_are_files_and_no_addresses(server, photo_file):
    """What a page never sends: an address, and a file that nobody uploaded, said to be one or not."""
    _, url = server
    with urllib.request.urlopen(f"{url}config") as response:
        config = json.load(response)
    look = next(d for d in config["dependencies"] if d["targets"][0][1] == "change" and len(d["outputs"]) > 5)
    meta = {"meta": {"_type": "gradio.FileData"}}
    photos = [{"path": path, **meta} for path in ("http://127.0.0.1:9/a.png", "https://example.com/a.png", "/etc/passwd")]
    for data in (*photos, {"path": str(photo_file)}):
        body = {"data": [data], "fn_index": look["id"], "session_hash": "somebody"}
        request = urllib.request.Request(
            f"{url}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()
        with urllib.request.urlopen(f"{url}gradio_api/queue/data?session_hash=somebody", timeout=20) as events:
            completed = next(line for line in events if b"process_completed" in line)
        is_refused_by_gradio = json.loads(completed.removeprefix(b"data: "))["success"] is False
        assert is_refused_by_gradio == ("meta" in data)
        assert is_refused_by_gradio or b"neither an upload nor a sample" in completed
    assert photo_file.is_file()


def test_no_request_leaves_the_machine(server, new_page, requested):
    process, url = server
    page = new_page()
    page.get_by_role("tab", name="Make it worse").click()
    hosts = {urllib.parse.urlsplit(address).netloc for address in requested if not address.startswith(("data:", "blob:"))}
    assert hosts == {urllib.parse.urlsplit(url).netloc}
    assert len(requested) > 20
    content = page.content()
    assert "googleapis" not in content
    assert "cdn" not in content.lower()
    remote = {c.raddr.ip for c in psutil.Process(process.pid).net_connections() if c.raddr}
    assert remote <= {"127.0.0.1", "::1"}
    assert {c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}


def test_taken_port_is_one_line(server, capsys):
    port = urllib.parse.urlsplit(server[1]).port
    assert main(["demo", f"--port={port}", "--runtime=openvino"]) == 1
    assert f"cannot listen at 127.0.0.1, port {port} (Address already in use)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--models=none_such", "no model 'none_such'"),
        ("--port=70000", "port 70000 is not within"),
        ("--max_pixels=0", "max_pixels 0 is not above zero"),
    ],
)
def test_wrong_flags_are_one_line(flag, words, capsys):
    assert main(["demo", flag]) == 1
    assert words in capsys.readouterr().err


def test_without_gradio_it_says_what_to_install():
    program = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "gradio":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "gradio" else find_spec(name, package)
from jpegsr.cli.main import main
assert main(["demo"]) == 1
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stderr == "jpegsr: error: `jpegsr demo` needs Gradio: pip install 'jpegsr[web]'\n"


def test_samples_come_with_an_installed_package(tmp_path):
    run_python(str(ROOT / "setup.py"), "-q", "build", f"--build-base={tmp_path}")
    built = next(tmp_path.rglob("jpegsr/demo.py")).parent / "samples"
    names = {path.name for path in built.iterdir()}
    assert {"coffee.jpg", "cat.jpg", "cat_clean.jpg"} <= names
    assert names == {path.name for path in demo_files.samples_folder().iterdir()}


def test_models_are_those_of_the_package():
    models = demo_work.Models(demo_work.shipped_models())
    assert "base" in models.names
    assert models.scales("base") == [1, 2, 3, 4]
    assert models.default_scale("base") == 2
    with pytest.raises(UserError, match="no model '/etc'"):
        models.scales("/etc")
    with pytest.raises(UserError, match="no weights for scale 7"):
        models.network("base", 7)


def test_details_stay_within_the_picture():
    picture = np.arange(100 * 300 * 3, dtype=np.int64).astype(np.uint8).reshape(100, 300, 3)
    assert np.array_equal(demo_work.detail(picture, 0, 0.5, 0.5), picture)
    assert np.array_equal(demo_work.detail(picture, 1, 1, 1), picture)  # smaller than the screen
    corner = demo_work.detail(picture, 8, 1, 1)
    assert np.array_equal(corner[::8, ::8], picture[-72:, -96:])
    large = np.zeros((2000, 4000, 3), np.uint8)
    height, width = demo_work.detail(large, 0, 0.5, 0.5).shape[:2]
    assert height * width <= 2_010_000
    assert abs(width - 2 * height) <= 1


def test_make_it_worse_refuses_what_cannot_be_scored(tmp_path):
    models = demo_work.Models(["base"], "openvino")
    Image.new("RGB", (16, 40)).save(tmp_path / "a.png")
    arguments = (models, 10_000, lambda model: None)
    for quality, scale, words in ((20, 2, "too small to be scored"), (0, 2, "quality 0"), (20, 1, "enlarges 1 times")):
        with pytest.raises(UserError, match=words):
            demo_work.make_worse(tmp_path / "a.png", "a.png", quality, scale, *arguments)


def test_sessions_forget_and_stop(tmp_path):
    sessions = Sessions(tmp_path)
    with sessions.work("a", "enhance") as (session, stop):
        (session.new_folder("enhance") / "result.png").write_bytes(b"1")
        sessions.end("a")  # the page is closed while the work goes on
        assert stop.is_set()
        (session.new_folder("enhance") / "result.png").write_bytes(b"2")
    assert not session.folder.exists()
    assert sessions.get("a") is not session
    uploads = [tmp_path / name for name in ("nobody's.png", "forgotten.png", "in use.png")]
    for path in uploads:
        path.write_bytes(b"3")
        os.utime(path, (0, 0))
    forgotten, in_use = sessions.get("forgotten"), sessions.get("in use")
    for path, session in zip(uploads[1:], (forgotten, in_use), strict=True):
        path.touch()
        assert session.photo(path) == path
    stop = forgotten.begin("enhance")
    forgotten.last_used = 0
    os.utime(uploads[2], (0, 0))
    sessions.get("new")
    assert [path.exists() for path in uploads] == [False, False, True]
    assert stop.is_set()
    sessions.end_all()
    assert not list(tmp_path.rglob("*.png"))


def test_sessions_begin_while_files_of_others_go(tmp_path):
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for folder in [tmp_path / f"{i}" / "deeper" for i in range(50)]:
                folder.mkdir(parents=True)
                shutil.rmtree(folder.parent)

    with contextlib.ExitStack() as stack:
        others = threading.Thread(target=come_and_go)
        others.start()
        stack.callback(others.join)
        stack.callback(ended.set)
        sessions = Sessions(tmp_path)
        started = time.monotonic()
        while time.monotonic() - started < 1:
            sessions.get("a")
            sessions.end("a")


def test_new_work_of_a_tab_calls_off_the_old_and_no_other(tmp_path):
    session = Sessions(tmp_path).get("a")
    first, other = session.begin("enhance"), session.begin("worse")
    second = session.begin("enhance")
    assert (first.is_set(), second.is_set(), other.is_set()) == (True, False, False)
    session.call_off("worse")
    assert (second.is_set(), other.is_set()) == (False, True)


def test_no_other_file_of_the_machine_is_let_in_or_deleted(tmp_path):
    sessions = Sessions(tmp_path / "served")
    private = tmp_path / "private.jpg"
    private.write_bytes(b"1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "link.jpg").symlink_to(private)
    session = sessions.get("a")
    for path in (private, tmp_path / "served" / ".." / "private.jpg", tmp_path / "served" / "link.jpg"):
        with pytest.raises(UserError, match="neither an upload nor a sample"):
            session.photo(path)
    sample = demo_files.samples_folder() / "cat.jpg"
    assert session.photo(sample).samefile(sample)
    sessions.end_all()
    assert private.exists()
    assert sample.exists()


def test_folders_of_killed_servers_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_files.tempfile, "tempdir", str(tmp_path))
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    left_behind = tmp_path / f"{demo_files._PREFIX}{gone.stdout.strip()}-abc"
    left_behind.mkdir()
    with demo_files.temporary_folder() as folder, demo_files.temporary_folder():
        assert folder.is_dir()
        assert not left_behind.exists()
    assert not list(tmp_path.iterdir())


def test_runtimes_are_known_beforehand():
    assert demo_work.Models(["base"], "openvino").runtime_names() == {"openvino"}
    assert demo_work.Models(["base"], "tensorflow").runtime_names() == {"tensorflow"}
    assert "litert" in runtimes.RUNTIMES
