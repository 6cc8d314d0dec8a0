"""Commands and code of the README and the pages run, or say why not; the site builds and loads nothing from elsewhere."""

import contextlib
import dataclasses
import functools
import html.parser
import http.server
import importlib
import io
import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from jpegsr import model_files
from jpegsr.cli import train
from jpegsr.cli.main import main
from jpegsr.config import MODEL_PRESETS

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A block of code, and above it, if it is not to be run here, what it needs for that.
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<needs>[^\n]+) -->\n)?(?:^<!-- [^\n]* -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SCRIPTS = {"train.py": "train", "export.py": "export"}
NEVER_ENDING = ("demo",)  # commands that serve until they are stopped


@dataclasses.dataclass(frozen=True)
class Block:
    place: str
    language: str
    code: str
    needs: str | None


def blocks(path: pathlib.Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        place = f"{path.name}:{text.count(chr(10), 0, match.start('code'))}"
        found.append(Block(place, match["language"], match["code"], match["needs"]))
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE)), f"{path.name} has a block that was not understood"
    return found


def lines(code: str) -> list[str]:
    """The commands of a bash block, each on one line."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command in a line of bash, parted by |, &&, ; and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set("();<>|&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def jpegsr_arguments(command: list[str]) -> list[str] | None:
    """What follows `jpegsr` in a command, or `python train.py` as `train`; None for other programs."""
    for i, word in enumerate(command):
        if word == "jpegsr":
            return command[i + 1 :]
        if word == "python" and command[i + 1] in SCRIPTS:
            return [SCRIPTS[command[i + 1]], *command[i + 2 :]]
    return None


def check_flags(arguments: list[str], monkeypatch) -> None:
    """Have the command's own parser accept the arguments, without running the command."""

    def stop_before_work(namespace) -> int:
        if arguments[0] == "train":
            train.read_config()
        if namespace.other_arguments:
            from jpegsr import beam_options

            beam_options.parse(namespace.other_arguments)
        return 0

    with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        if not arguments[0].startswith("-"):
            patch.setattr(importlib.import_module(f"jpegsr.cli.{arguments[0]}"), "run", stop_before_work)
        try:
            status = main(arguments)
        except SystemExit as stop:  # --help and --version end so
            status = stop.code
    assert status == 0


@pytest.mark.parametrize("path", [*PAGES, ROOT / "serving" / "README.md"], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_parsers_accept_every_command(path, monkeypatch):
    for block in blocks(path):
        assert block.language in ("bash", "python", "text"), block.place
        if block.language == "bash":
            for line in lines(block.code):
                for arguments in filter(None, map(jpegsr_arguments, simple_commands(line))):
                    check_flags(arguments, monkeypatch)


def test_a_wrong_flag_is_found(monkeypatch, capsys):
    line = "cat a.jpg | jpegsr enhance - --longest_sides=100 > b.png"
    (arguments,) = filter(None, map(jpegsr_arguments, simple_commands(line)))
    assert arguments == ["enhance", "-", "--longest_sides=100"]
    with pytest.raises(AssertionError):
        check_flags(arguments, monkeypatch)
    with pytest.raises(AssertionError):
        check_flags(["train", "--data=photos", "--quality=high"], monkeypatch)
    assert "--longest_sides" in capsys.readouterr().err


@pytest.fixture
def place_to_work(tmp_path, monkeypatch, served_model) -> pathlib.Path:
    """What the blocks expect to be there: photos, and an export, here of a tiny model."""
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    shutil.copytree(ROOT / "samples", tmp_path / "album", ignore=shutil.ignore_patterns("*.md"))
    shutil.copy(ROOT / "samples" / "cat.jpg", tmp_path / "photo.jpg")
    shutil.copytree(served_model, tmp_path / "exported" / "base" / "1")
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_line(line: str) -> None:
    """Run a command: in this process, which has TensorFlow loaded, if it is one of jpegsr alone."""
    commands = simple_commands(line)
    arguments = jpegsr_arguments(commands[0])
    assert not arguments or arguments[0] not in NEVER_ENDING, f"`{line}` would not end: mark it"
    if len(commands) == 1 and arguments and not arguments[0].startswith("-"):
        assert main(arguments) == 0, line
        return
    command = ["bash", "-euo", "pipefail", "-c", line]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, (line, result.stderr)


PAGES_THAT_RUN = [path for path in PAGES if any(block.needs is None and block.language != "text" for block in blocks(path))]


@pytest.mark.parametrize("path", PAGES_THAT_RUN, ids=lambda path: path.name)
def test_blocks_without_a_mark_run(path, place_to_work):
    for block in blocks(path):
        if block.needs is not None:
            continue
        if block.language == "python":
            exec(compile(block.code, block.place, "exec"), {})
        elif block.language == "bash":
            for line in lines(block.code):
                run_line(line)


def test_most_pages_have_something_that_runs():
    names = {path.name for path in PAGES_THAT_RUN}
    assert {"README.md", "install.md", "enhance.md", "evaluate.md", "train.md", "export.md", "api.md"} <= names


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """The built site; --strict makes every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


class Tags(html.parser.HTMLParser):
    """Collects links, and what a browser loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif tag == "link":
            if not {"canonical", "prev", "next"} & set(values.get("rel", "").split()):
                self.loads.append(values.get("href", ""))
        else:
            self.loads += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]
        self.loads += re.findall(r"url\(([^)]*)\)", values.get("style", ""))


def tags(path: pathlib.Path) -> Tags:
    found = Tags()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def test_site_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    loads = {load for page in pages for load in tags(page).loads}
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        loads |= {load.strip("'\" ") for load in re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", text) for load in load if load}
    assert any("stylesheets/extra.css" in load for load in loads)
    assert [load for load in loads if re.match(r"(https?:)?//", load)] == []


def test_links_lead_to_files_of_the_repository(site):
    repository = re.search(r"repository: &repository (\S+)", (ROOT / "mkdocs.yml").read_text())[1]
    links = {link.partition("#")[0] for page in site.rglob("*.html") for link in tags(page).links}
    inside = {link.removeprefix(repository) for link in links if link.startswith(repository + "/")}
    assert "/blob/main/results/enhance_speed.json" in inside
    for link in inside:
        kind, _, path = link.removeprefix("/").split("/", 2)
        assert (ROOT / path).is_dir() if kind == "tree" else (ROOT / path).is_file(), link
    for page in site.rglob("*.html"):
        for link in tags(page).links:
            if not re.match(r"[a-z]+:|#|/|$", link):
                target = page.parent / link.partition("#")[0]
                assert (target / "index.html").is_file() or target.is_file(), (page, link)


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_pages_fit_a_telephone_and_ask_no_other_host(site, browser):
    asked: list[str] = []
    with served(site) as address:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: asked.append(request.url))
        for name in ("", "results/", "export/", "models/", "api/"):
            page.goto(address + name)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
            pictures = "Array.from(document.images).filter(image => !image.naturalWidth || image.width > 390).length"
            assert page.evaluate(pictures) == 0, name
        page.locator("label[for=__search]:visible").first.click()
        page.locator("input[name=query]").press_sequentially("receptive")
        page.locator(".md-search-result__item").first.wait_for(timeout=20_000)
        page.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def test_api_page_is_made_from_docstrings(site):
    text = re.sub(r"<[^>]+>", "", (site / "api" / "index.html").read_text(encoding="utf-8"))
    assert "An instance may be used from several threads" in text
    assert "JPEG qualities 1-100, or 0 for uncompressed" in text


@pytest.fixture(scope="module")
def figures() -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "draw_figures.py"))


def test_figures_are_those_of_the_results(figures):
    for name in figures["FIGURES"]:
        assert figures["stored_digest"](name) == figures["digest"](name), f"{name} is out of date: run scripts/draw_figures.py"


def test_pictures_are_small_and_shown():
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size < 300_000, path.name
        assert f"images/{path.name})" in text, path.name


def test_figure_of_the_receptive_field_agrees_with_the_sizes(figures):
    radius = model_files.config_of("base", 2).receptive_radius
    values = figures["influence"](radius + 2)
    assert values[2:-2, 2:-2].max() > 0
    values[2:-2, 2:-2] = 0
    assert values.max() == 0


def test_page_of_the_method_has_the_sizes_of_base():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    sizes = MODEL_PRESETS["base"]
    assert sizes == model_files.config_of("base", 2)
    assert f"| {sizes.car_num_layers} of {sizes.car_num_filters} in residual groups, none, at half resolution |" in text
    assert f"| width {sizes.sr_num_filters}, {sizes.sr_num_residual_blocks} groups, added" in text
    assert sizes.car_stride == 2


def test_published_scores_name_their_source_and_agree_with_each_other():
    published = json.loads((ROOT / "results" / "published.json").read_text())
    assert published["paper"]["source"]
    assert published["peers"]["source"]
    for quality, pictures in published["paper"]["table_2_set5"].items():
        mean = sum(pictures.values()) / len(pictures)
        assert published["paper"]["table_1"]["Set5"][quality] == pytest.approx(mean, abs=0.002)
