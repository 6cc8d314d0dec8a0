"""What the page of `jpegsr demo` looks like, and what its controls do. Needs Gradio.

Gradio's own reading of inputs is passed by (`preprocess=False`), as it would open whatever was uploaded. So what arrives is
what a browser sent, except that Gradio has made sure that files are uploaded ones or samples; all else is checked here.
"""

import contextlib
import dataclasses
import html
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
import numpy as np

from jpegsr import demo_files, demo_work, files, photos
from jpegsr.demo_files import Session, Sessions
from jpegsr.demo_work import Models, Wish
from jpegsr.errors import UserError
from jpegsr.evaluation import BICUBIC, Comparison

_logger = logging.getLogger(__name__)
_ZOOMS = [("whole picture", 0), ("1:1", 1), ("2:1", 2), ("4:1", 4), ("8:1", 8)]
# No more than this many photos are decoded, enhanced or encoded at a time, over all pages.
_NUM_AT_WORK = 2
_INTRODUCTION = """# jpegsr
Small, blocky JPEGs in, clean pictures at 1, 2, 3 or 4 times the size out. Photos stay on this machine and are deleted when
the page is closed."""

CSS = """
.gradio-container { max-width: 1400px !important; }
.facts { width: 100%; border-collapse: collapse; }
.facts caption { text-align: left; font-weight: 600; padding: 4px 0; }
.facts th, .facts td { text-align: left; padding: 2px 12px 2px 0; border-bottom: 1px solid var(--border-color-primary); }
.facts th { font-weight: 400; color: var(--body-text-color-subdued); }
.facts td { overflow-wrap: anywhere; }
.facts .figures th, .facts .figures td { white-space: nowrap; }
.message { border-left: 4px solid var(--color-accent); padding: 6px 12px; overflow-wrap: anywhere; }
.comparison img { image-rendering: pixelated; }
"""
# Gradio leaves the pictures of an ImageSlider without alternative texts.
HEAD = """<script>
new MutationObserver(() => {
  for (const slider of document.querySelectorAll(".comparison")) {
    slider.querySelectorAll("img").forEach((image, i) => { image.alt = image.alt || (i ? "right picture" : "left picture"); });
  }
}).observe(document, { childList: true, subtree: true });
</script>"""


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
    gr.Examples([[str(folder / name)] for name in samples if (folder / name).is_file()], photo, label="Sample photos")
    return photo


def _chosen(photo: Any, session: Session) -> tuple[pathlib.Path, str]:
    """(path, name) of what a photo input holds."""
    if not photo:
        raise UserError("choose a photo first: drop one, paste one, or click on a sample")
    path = pathlib.Path(photo["path"])
    if not path.is_file():
        raise UserError("the photo is no longer here: upload it again")
    if path.parent != demo_files.samples_folder():
        session.uploads.add(path)
    return path, pathlib.Path(photo.get("orig_name") or path.name).name


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


@dataclasses.dataclass(frozen=True)
class _Viewer:
    """Two pictures on top of each other, a divider that shows the one or the other, and a look at their pixels.

    Attributes:
      tab: whose pictures of the session are shown.
      slider, zoom, across, down, divider: its controls.
    """

    tab: str
    slider: gr.ImageSlider
    zoom: gr.Radio
    across: gr.Slider
    down: gr.Slider
    divider: gr.Slider

    @classmethod
    def make(cls, tab: str, label: str) -> "_Viewer":
        slider = gr.ImageSlider(
            label=label, interactive=False, max_height=640, buttons=["fullscreen"], elem_classes="comparison", format="png"
        )
        divider = gr.Slider(0, 100, 50, step=1, label="Divider: left of it the first picture, right of it the second (%)")
        zoom = gr.Radio(_ZOOMS, value=0, label="Zoom (screen pixels per pixel); the mouse wheel zooms, too")
        with gr.Row(visible=False) as place:
            across = gr.Slider(0, 100, 50, step=1, label="Detail from left to right (%)", min_width=140)
            down = gr.Slider(0, 100, 50, step=1, label="Detail from top to bottom (%)", min_width=140)
        divider.input(None, divider, slider, js="(position) => ({ slider_position: position, __type__: 'update' })")
        zoom.change(lambda zoom: gr.Row(visible=bool(zoom)), zoom, place, queue=False, show_progress="hidden")
        return cls(tab, slider, zoom, across, down, divider)

    def show_on(self, events: list[Any], sessions: Sessions, names: list[Any]) -> None:
        """Show what the controls, and `names` of the first and second picture, stand for, whenever one of them is moved."""

        def show(first: str, second: str, zoom: int, across: float, down: float, request: gr.Request) -> Any:
            return self.shown(sessions.get(request.session_hash), first, second, zoom, across, down)

        gr.on(
            [self.zoom.input, self.across.input, self.down.input, *events],
            show,
            [*names, self.zoom, self.across, self.down],
            self.slider,
            preprocess=False,
            queue=False,
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )

    def shown(
        self, session: Session, first: str, second: str, zoom: int = 0, across: float = 50, down: float = 50
    ) -> tuple[str, str] | None:
        """Files of what is to be seen of two pictures; None if they are no longer there."""
        pictures = session.pictures.get(self.tab, {})
        if zoom not in dict(_ZOOMS).values() or first not in pictures or second not in pictures:
            return None
        details = [demo_work.detail(pictures[name], zoom, across / 100, down / 100) for name in (first, second)]
        first_path, second_path = (session.write_detail(demo_work.as_png(detail)) for detail in details)
        return first_path, second_path


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
                kind = gr.Radio([(kind.upper(), kind) for kind in photos.FORMATS], value="png", label="Format of the download")
                with gr.Row():
                    run = gr.Button("Enhance", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=80)
            with gr.Column(scale=2, min_width=300):
                self._message = gr.HTML(elem_id="enhance_message")
                self._progress = gr.HTML(elem_id="enhance_progress")
                with gr.Column(visible=False) as self._result:
                    self._viewer = _Viewer.make("enhance", "Before (bicubic) and after")
                    self._download = gr.DownloadButton("Download the result", variant="primary")
                self._outcome = gr.HTML()
                self._facts = gr.HTML()
        outputs = [self._message, self._progress, self._result, self._viewer.slider, self._viewer.zoom, self._viewer.divider]
        outputs += [self._download, self._outcome, self._facts]
        quick = {"preprocess": False, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
        photo.change(self._look, photo, outputs, preprocess=False, show_progress="hidden", api_visibility="private")
        model.change(lambda name: gr.Radio(**self._scales(name)), model, scale, **quick)
        work = run.click(
            self._enhance,
            [photo, model, scale, strength, kind],
            outputs,
            preprocess=False,
            concurrency_id="network",
            concurrency_limit=_NUM_AT_WORK,
            show_progress_on=self._progress,
            api_visibility="private",
        )
        stop.click(_stopper(sessions), None, self._message, cancels=work, **quick)
        self._viewer.show_on([], sessions, [gr.State("before"), gr.State("after")])

    def _scales(self, model: str) -> dict[str, Any]:
        scales = self._models.scales(model)
        choices = [(f"{scale}x" if scale > 1 else "1x (artifacts only)", scale) for scale in scales]
        return {"choices": choices, "value": 2 if 2 in scales else scales[-1], "label": "Scale"}

    def _look(self, photo: Any, request: gr.Request) -> dict[Any, Any]:
        answer = {self._message: "", self._facts: "", self._outcome: "", self._result: gr.Column(visible=False)}
        with _told(answer, self._message):
            if photo:
                path, name = _chosen(photo, self._sessions.get(request.session_hash))
                answer[self._facts] = _facts(f"The photo {name}", demo_work.look(path, name, self._max_pixels))
        return answer

    def _enhance(
        self, photo: Any, model: Any, scale: Any, strength: Any, kind: Any, request: gr.Request, progress: Any = gr.Progress()
    ) -> dict[Any, Any]:
        answer: dict[Any, Any] = {self._message: ""}
        with _told(answer, self._message), self._sessions.work(request.session_hash) as session:

            def advance(done: int, total: int) -> None:
                if session.stop.is_set():
                    raise files.StoppedError
                progress((done, total), desc=f"Tile {done} of {total}", unit="tiles")

            progress(0, desc="Reading")
            path, name = _chosen(photo, session)
            wish = Wish(model, scale, strength, kind)
            folder = session.new_folder("enhance")
            result = demo_work.enhance(path, name, wish, self._models, folder, self._max_pixels, advance)
            session.keep("enhance", {"before": result.before, "after": result.after})
            notes = {"note" if i == 0 else f"note {i + 1}": note for i, note in enumerate(result.notes)}
            answer |= {
                self._result: gr.Column(visible=True),
                self._viewer.slider: gr.ImageSlider(self._viewer.shown(session, "before", "after"), slider_position=50),
                self._viewer.zoom: 0,
                self._viewer.divider: 50,
                self._download: gr.DownloadButton(f"Download {result.path.name}", value=str(result.path)),
                self._outcome: _facts(f"The result {result.path.name}", result.facts | notes),
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
                    run = gr.Button("Make it worse, and compare", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=80)
            with gr.Column(scale=2, min_width=300):
                self._message = gr.HTML(elem_id="worse_message")
                self._progress = gr.HTML(elem_id="worse_progress")
                with gr.Column(visible=False) as self._result:
                    self._scores = gr.HTML()
                    with gr.Row():
                        self._first = gr.Dropdown(label="First picture", min_width=140)
                        self._second = gr.Dropdown(label="Second picture", min_width=140)
                    self._viewer = _Viewer.make("worse", "The two pictures")
                    self._errors = gr.Gallery(
                        label=f"Where they differ from the original: {demo_work.ERROR_GAIN} times the error in luma",
                        columns=3,
                        height="auto",
                        object_fit="contain",
                        buttons=["fullscreen"],
                        interactive=False,
                    )
        outputs = [self._message, self._progress, self._result, self._scores, self._first, self._second]
        outputs += [self._viewer.slider, self._viewer.zoom, self._viewer.divider, self._errors]
        quick = {"preprocess": False, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
        work = run.click(
            self._compare,
            [photo, quality, scale],
            outputs,
            preprocess=False,
            concurrency_id="network",
            concurrency_limit=_NUM_AT_WORK,
            show_progress_on=self._progress,
            api_visibility="private",
        )
        stop.click(_stopper(sessions), None, self._message, cancels=work, **quick)
        self._viewer.show_on([self._first.input, self._second.input], sessions, [self._first, self._second])

    def _compare(
        self, photo: Any, quality: Any, scale: Any, request: gr.Request, progress: Any = gr.Progress()
    ) -> dict[Any, Any]:
        answer: dict[Any, Any] = {self._message: ""}
        with _told(answer, self._message), self._sessions.work(request.session_hash) as session:

            def advance(model: str) -> None:
                if session.stop.is_set():
                    raise files.StoppedError
                names = self._models.with_scale(scale)
                progress((names.index(model), len(names)), desc=f"Model {model}", unit="models")

            progress(0, desc="Reading")
            path, name = _chosen(photo, session)
            comparison = demo_work.make_worse(path, name, quality, scale, self._models, self._max_pixels, advance)
            answer |= self._answer(comparison, session)
        return answer

    def _answer(self, comparison: Comparison, session: Session) -> dict[Any, Any]:
        original, compressed = comparison.original, comparison.compressed
        results = {name: picture for name, (_, picture) in comparison.results.items()}
        scale = len(original) // len(compressed)
        enlarged = compressed.repeat(scale, axis=0).repeat(scale, axis=1)
        session.keep("worse", {"original": original, "JPEG": enlarged, **results})
        first, second = BICUBIC, list(results)[1]
        names = ["original", "JPEG", *results]
        return {
            self._result: gr.Column(visible=True),
            self._scores: _scores(comparison),
            self._first: gr.Dropdown(names, value=first),
            self._second: gr.Dropdown(names, value=second),
            self._viewer.slider: gr.ImageSlider(self._viewer.shown(session, first, second), slider_position=50),
            self._viewer.zoom: 0,
            self._viewer.divider: 50,
            self._errors: self._error_maps(original, results, session.new_folder("worse")),
        }

    def _error_maps(
        self, original: np.ndarray, results: Mapping[str, np.ndarray], folder: pathlib.Path
    ) -> list[tuple[str, str]]:
        maps = []
        for i, (name, picture) in enumerate(results.items()):
            (folder / f"{i}.png").write_bytes(demo_work.as_png(demo_work.error_map(original, picture)))
            maps.append((str(folder / f"{i}.png"), name))
        return maps


def _stopper(sessions: Sessions) -> Callable[..., str]:
    def stop(request: gr.Request) -> str:
        sessions.get(request.session_hash).stop.set()
        return _message("Stopped.")

    return stop


def _scores(comparison: Comparison) -> str:
    """The scores as a table that a narrow screen has room for."""
    original, compressed = comparison.original, comparison.compressed
    bicubic = comparison.results[BICUBIC][0].psnr_y
    rows = ""
    for name, (score, _) in comparison.results.items():
        gain = "" if name == BICUBIC else f" ({score.psnr_y - bicubic:+.2f})"
        figures = (f"{score.psnr_y:.2f}{gain}", f"{score.ssim_y:.4f}", f"{score.seconds:.2f}")
        rows += f'<tr><th scope="row">{html.escape(name)}</th>' + "".join(f"<td>{figure}</td>" for figure in figures) + "</tr>"
    quality = comparison.results[BICUBIC][0].quality
    caption = (
        f"{original.shape[1]}x{original.shape[0]} pixels, reduced to {compressed.shape[1]}x{compressed.shape[0]} "
        f"and saved as JPEG of quality {quality}"
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("method", "PSNR (dB)", "SSIM", "seconds"))
    return (
        f'<table class="facts"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f'<tbody class="figures">{rows}</tbody></table>'
    )
