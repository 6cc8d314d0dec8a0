"""What the page of `jpegsr demo` looks like, and what its controls do. Needs Gradio.

Gradio's own reading of inputs is passed by (`preprocess=False`), as it would open whatever was uploaded. So what arrives is
what a browser, or any other program, sent, and is checked here.
"""

import contextlib
import html
import logging
import pathlib
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
import numpy as np

from jpegsr import demo_files, demo_work, files
from jpegsr.demo_files import Session, Sessions
from jpegsr.demo_viewer import Viewer
from jpegsr.demo_work import Models, Wish
from jpegsr.errors import UserError
from jpegsr.evaluation import BICUBIC, Comparison

_logger = logging.getLogger(__name__)
# No more than this many photos are decoded, enhanced or encoded at a time, over all pages.
_NUM_AT_WORK = 2
_INTRODUCTION = """# jpegsr
Small, blocky JPEGs in, clean pictures at 1, 2, 3 or 4 times the size out. Photos stay on this machine and are deleted when
the page is closed."""

THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800"
)
CSS = """
.gradio-container { max-width: 1400px !important; }
.line:has(.prose:empty):has(> .hide) { display: none; }
.progress { min-height: 80px; }
.message { border-left: 4px solid var(--color-accent); padding: 6px 12px; overflow-wrap: anywhere; }
.prose .facts { width: 100%; border: 0; border-collapse: collapse; }
.prose .facts caption { text-align: left; font-weight: 600; padding: 4px 0; overflow-wrap: anywhere; }
.prose .facts tr { border: 0; border-bottom: 1px solid var(--border-color-primary); }
.prose .facts :is(th, td) {
  border: 0; padding: 3px 12px 3px 0; text-align: left; vertical-align: top; font-weight: 400; color: var(--body-text-color);
}
.prose .facts th { white-space: nowrap; }
.prose .facts td { overflow-wrap: anywhere; }
.prose .facts.scores td { overflow-wrap: normal; }
.prose .facts thead th { font-weight: 600; }
.maps { display: flex; flex-wrap: wrap; gap: 12px; }
.maps figure { flex: 1 1 260px; max-width: 802px; margin: 0; }
.maps img { width: 100%; margin: 0 !important; }
"""
# Gradio leaves the pictures of sliders and samples without alternative texts.
HEAD = """<script>
function describe(image) {
  const sliders = image.closest(".comparison")?.querySelectorAll("img");
  const name = decodeURIComponent(image.src.split("/").pop());
  image.alt = sliders ? (image === sliders[0] ? "left of the divider" : "right of the divider") : `sample photo ${name}`;
}
new MutationObserver(() => {
  document.querySelectorAll(".comparison img[alt=''], .gallery-item img[alt='']").forEach(describe);
}).observe(document, { childList: true, subtree: true });
</script>"""
# As a default value, it is how Gradio knows that a function tells of its progress.
_PROGRESS = gr.Progress()
# Of events that are answered at once, and of those that wait for the network.
_QUICK: dict[str, Any] = {"preprocess": False, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
_AT_WORK: dict[str, Any] = {
    "preprocess": False,
    "concurrency_id": "network",
    "concurrency_limit": _NUM_AT_WORK,
    "api_visibility": "private",
}
_KINDS = [("PNG", "png"), ("JPEG", "jpeg"), ("WebP", "webp"), ("TIFF", "tiff")]


def build(models: Models, sessions: Sessions, max_pixels: int) -> gr.Blocks:
    """The application, ready to be launched with `CSS` and `HEAD`.

    Args:
      models: to offer.
      sessions: keep what is uploaded and made.
      max_pixels: of photos and results.
    """
    with gr.Blocks(title="jpegsr", analytics_enabled=False) as blocks:
        gr.Markdown(_INTRODUCTION)
        with gr.Tab("Enhance"):
            _EnhanceTab(models, sessions, max_pixels)
        with gr.Tab("Make it worse"):
            _WorseTab(models, sessions, max_pixels)

        def end(request: gr.Request) -> None:
            sessions.end(request.session_hash)

        blocks.unload(end)
    return blocks


def _photo_input(label: str, samples: list[str]) -> gr.Image:
    """Where a photo is dropped, pasted or chosen, and samples to choose from."""
    photo = gr.Image(
        label=label,
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=260,
        buttons=[],
        alt_text="the photo that was chosen",
    )
    move = photo.async_move_resource_to_block_cache

    async def move_files_alone(path: Any) -> str | None:
        demo_files.refuse_address(path)
        return await move(path)

    photo.async_move_resource_to_block_cache = move_files_alone
    folder = demo_files.samples_folder()
    if found := [[str(folder / name)] for name in samples if (folder / name).is_file()]:
        gr.Examples(found, photo, label="Sample photos")
    return photo


def _chosen(photo: Any, session: Session) -> tuple[pathlib.Path, str]:
    """(path, name) of what a photo input holds."""
    if not photo:
        raise UserError("choose a photo first: drop one, paste one, or click on a sample")
    path = session.photo(pathlib.Path(photo["path"]))
    return path, pathlib.Path(photo.get("orig_name") or path.name).name


def _lines() -> tuple[gr.HTML, gr.HTML]:
    """Where messages and progress are shown; they take room only while there is something to show."""
    return gr.HTML(elem_classes="line"), gr.HTML(elem_classes="line progress")


@contextlib.contextmanager
def _told(answer: dict[Any, Any], message: gr.HTML) -> Iterator[None]:
    """Put what goes wrong within the block into the answer to the page."""
    try:
        yield
    except files.StoppedError:
        answer[message] = _message("Stopped.")
    except UserError as error:
        answer[message] = _message(str(error))
    except Exception as error:  # the page goes on, and so do other people's
        _logger.exception("a request to the page failed")
        answer[message] = _message(files.reason(error, "the photo"))


def _message(text: str) -> str:
    return f'<p class="message" role="alert">{html.escape(" ".join(text.split()))}</p>' if text else ""


def _facts(caption: str, facts: Mapping[str, str]) -> str:
    rows = "".join(f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(v)}</td></tr>' for k, v in facts.items())
    return f'<table class="facts"><caption>{html.escape(caption)}</caption>{rows}</table>'


class _EnhanceTab:
    """The tab "Enhance"; its methods answer events."""

    def __init__(self, models: Models, sessions: Sessions, max_pixels: int):
        self._models, self._sessions, self._max_pixels = models, sessions, max_pixels
        name = models.names[0]
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                photo = _photo_input("Photo: drop, paste or click to choose", ["coffee.jpg", "cat.jpg"])
                model = gr.Dropdown(models.names, value=name, label="Model")
                scale = gr.Radio(**self._scales(name))
                strength = gr.Slider(0, 1, 1, step=0.05, label="Strength of the artifact removal")
                kind = gr.Radio(_KINDS, value="png", label="Format of the download")
                with gr.Row():
                    run = gr.Button("Enhance", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=80)
            with gr.Column(scale=2, min_width=300):
                self._message, self._progress = _lines()
                with gr.Column(visible=False) as self._result:
                    self._viewer = Viewer.make("enhance", "Before (bicubic) and after")
                    self._download = gr.DownloadButton("Download the result", variant="primary")
                with gr.Row():
                    with gr.Column(min_width=260):
                        self._outcome = gr.HTML()
                    with gr.Column(min_width=260):
                        self._facts = gr.HTML()
        outputs = [self._message, self._progress, self._result, self._viewer.slider, self._viewer.zoom, self._viewer.divider]
        outputs += [self._download, self._outcome, self._facts]
        photo.change(self._look, photo, outputs, preprocess=False, show_progress="hidden", api_visibility="private")
        model.change(lambda name: gr.Radio(**self._scales(name)), model, scale, **_QUICK)
        work = run.click(
            self._enhance,
            [photo, model, scale, strength, kind],
            outputs,
            show_progress_on=self._progress,
            **_AT_WORK,
        )
        stop.click(_stopper(sessions, "enhance"), None, self._message, cancels=work, **_QUICK)
        self._viewer.show_on([], sessions, [gr.State("before"), gr.State("after")])

    def _scales(self, model: str) -> dict[str, Any]:
        scales = self._models.scales(model)
        choices = [(f"{scale}x", scale) for scale in scales]
        return {"choices": choices, "value": self._models.default_scale(model), "label": "Scale (1x: artifact removal alone)"}

    def _look(self, photo: Any, request: gr.Request) -> dict[Any, Any]:
        answer = {self._message: "", self._facts: "", self._outcome: "", self._result: gr.Column(visible=False)}
        with _told(answer, self._message):
            if photo:
                path, name = _chosen(photo, self._sessions.get(request.session_hash))
                answer[self._facts] = _facts(name, demo_work.look(path, name, self._max_pixels))
        return answer

    def _enhance(
        self, photo: Any, model: Any, scale: Any, strength: Any, kind: Any, request: gr.Request, progress: Any = _PROGRESS
    ) -> dict[Any, Any]:
        answer: dict[Any, Any] = {self._message: ""}
        with _told(answer, self._message), self._sessions.work(request.session_hash, "enhance") as (session, stop):

            def advance(done: int, total: int) -> None:
                _go_on_unless(stop)
                progress((done, total), desc=f"Tile {min(done + 1, total)} of {total}", unit="tiles")

            progress(0, desc="Reading")
            path, name = _chosen(photo, session)
            wish = Wish(model, scale, strength, kind)
            folder = session.new_folder("enhance")
            result = demo_work.enhance(path, name, wish, self._models, folder, self._max_pixels, advance)
            _go_on_unless(stop)  # else this result would take the place of a newer one
            session.keep("enhance", {"before": result.before, "after": result.after})
            notes = {"note" if i == 0 else f"note {i + 1}": note for i, note in enumerate(result.notes)}
            answer |= {
                self._result: gr.Column(visible=True),
                self._viewer.slider: self._viewer.shown(session, "before", "after", slider_position=50),
                self._viewer.zoom: 0,
                self._viewer.divider: 50,
                self._download: gr.DownloadButton(f"Download {result.path.name}", value=str(result.path)),
                self._outcome: _facts(result.path.name, result.facts | notes),
            }
        return answer


class _WorseTab:
    """The tab "Make it worse"; its methods answer events."""

    def __init__(self, models: Models, sessions: Sessions, max_pixels: int):
        self._models, self._sessions, self._max_pixels = models, sessions, max_pixels
        scales = sorted({scale for name in models.names for scale in models.scales(name)} - {1})
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                photo = _photo_input("Clean photo: drop, paste or click to choose", ["cat_clean.jpg"])
                quality = gr.Slider(1, 100, 15, step=1, label="JPEG quality")
                scale = gr.Radio([(f"{scale}x", scale) for scale in scales], value=scales[0], label="Scale")
                with gr.Row():
                    run = gr.Button("Compare", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=80)
            with gr.Column(scale=2, min_width=300):
                self._message, self._progress = _lines()
                with gr.Column(visible=False) as self._result:
                    self._scores = gr.HTML()
                    with gr.Row():
                        self._first = gr.Dropdown(label="First picture", min_width=140)
                        self._second = gr.Dropdown(label="Second picture", min_width=140)
                    self._viewer = Viewer.make("worse", "The two pictures")
                    self._maps = gr.HTML()
        outputs = [self._message, self._progress, self._result, self._scores, self._first, self._second]
        outputs += [self._viewer.slider, self._viewer.zoom, self._viewer.divider, self._maps]
        photo.change(self._take, photo, self._message, preprocess=False, show_progress="hidden", api_visibility="private")
        work = run.click(
            self._compare,
            [photo, quality, scale],
            outputs,
            show_progress_on=self._progress,
            **_AT_WORK,
        )
        stop.click(_stopper(sessions, "worse"), None, self._message, cancels=work, **_QUICK)
        self._viewer.show_on([self._first.input, self._second.input], sessions, [self._first, self._second])

    def _take(self, photo: Any, request: gr.Request) -> dict[Any, Any]:
        answer: dict[Any, Any] = {self._message: ""}
        with _told(answer, self._message):
            if photo:
                _chosen(photo, self._sessions.get(request.session_hash))
        return answer

    def _compare(self, photo: Any, quality: Any, scale: Any, request: gr.Request, progress: Any = _PROGRESS) -> dict[Any, Any]:
        answer: dict[Any, Any] = {self._message: ""}
        with _told(answer, self._message), self._sessions.work(request.session_hash, "worse") as (session, stop):

            def advance(model: str) -> None:
                _go_on_unless(stop)
                names = self._models.with_scale(scale)
                progress((names.index(model), len(names)), desc=f"Model {model}", unit="models")

            progress(0, desc="Reading")
            path, name = _chosen(photo, session)
            comparison = demo_work.make_worse(path, name, quality, scale, self._models, self._max_pixels, advance)
            _go_on_unless(stop)
            answer |= self._answer(comparison, session)
        return answer

    def _answer(self, comparison: Comparison, session: Session) -> dict[Any, Any]:
        original, compressed = comparison.original, comparison.compressed
        results = {name: picture for name, (_, picture) in comparison.results.items()}
        maps = {f"errors of {name}": demo_work.error_map(original, picture) for name, picture in results.items()}
        scale = len(original) // len(compressed)
        enlarged = compressed.repeat(scale, axis=0).repeat(scale, axis=1)
        pictures = {"original": original, "JPEG": enlarged, **results, **maps}
        session.keep("worse", pictures)
        first, second = BICUBIC, list(results)[1]
        return {
            self._result: gr.Column(visible=True),
            self._scores: _scores(comparison),
            self._first: gr.Dropdown(list(pictures), value=first),
            self._second: gr.Dropdown(list(pictures), value=second),
            self._viewer.slider: self._viewer.shown(session, first, second, slider_position=50),
            self._viewer.zoom: 0,
            self._viewer.divider: 50,
            self._maps: _figures(maps, session.new_folder("worse")),
        }


def _figures(pictures: Mapping[str, np.ndarray], folder: pathlib.Path) -> str:
    """Difference maps side by side, with their names below."""
    figures = ""
    for i, (name, picture) in enumerate(pictures.items()):
        (folder / f"{i}.png").write_bytes(demo_work.as_png(picture))
        source, name = html.escape(urllib.parse.quote(f"{folder}/{i}.png")), html.escape(name)
        figures += f'<figure><img src="gradio_api/file={source}" alt="{name}"><figcaption>{name}</figcaption></figure>'
    explanation = f"{demo_work.ERROR_GAIN} times the difference from the original in brightness; black is none."
    return f'<div class="maps">{figures}</div><p>{explanation}</p>'


def _stopper(sessions: Sessions, tab: str) -> Callable[..., str]:
    def stop(request: gr.Request) -> str:
        sessions.get(request.session_hash).call_off(tab)
        return _message("Stopped.")

    return stop


def _go_on_unless(stop: threading.Event) -> None:
    if stop.is_set():
        raise files.StoppedError


def _scores(comparison: Comparison) -> str:
    """The scores as a table that a narrow screen has room for."""
    original, compressed = comparison.original, comparison.compressed
    bicubic = comparison.results[BICUBIC][0].psnr_y
    rows = ""
    for name, (score, _) in comparison.results.items():
        gain = "" if name == BICUBIC else f" ({score.psnr_y - bicubic:+.2f})"
        figures = (f"{score.psnr_y:.2f}{gain}", f"{score.ssim_y:.4f}", f"{score.psnr_rgb:.2f}")
        rows += f'<tr><th scope="row">{html.escape(name)}</th>' + "".join(f"<td>{figure}</td>" for figure in figures) + "</tr>"
    quality = comparison.results[BICUBIC][0].quality
    caption = (
        f"{original.shape[1]}x{original.shape[0]} pixels, reduced to {compressed.shape[1]}x{compressed.shape[0]} "
        f"and saved as JPEG of quality {quality}"
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("method", "PSNR-Y (dB)", "SSIM-Y", "PSNR-RGB"))
    head = f"<caption>{caption}</caption><thead><tr>{head}</tr></thead>"
    return f'<table class="facts scores">{head}<tbody>{rows}</tbody></table>'
