"""Two pictures on the page of `jpegsr demo`, to be compared by the pixel. Needs Gradio."""

import dataclasses
from typing import Any

import gradio as gr

from jpegsr import demo_work
from jpegsr.demo_files import Session, Sessions

_ZOOMS = [("whole picture", 0), ("1:1", 1), ("2:1", 2), ("4:1", 4), ("8:1", 8)]
_MOVE_DIVIDER = "(position) => ({ slider_position: position, __type__: 'update' })"
# Borders of the slider, on both sides together.
_SLIDER_FRAME = 2


@dataclasses.dataclass(frozen=True)
class Viewer:
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
    def make(cls, tab: str, label: str) -> "Viewer":
        slider = gr.ImageSlider(
            label=label, interactive=False, max_height=580, buttons=["fullscreen"], elem_classes="comparison", format="png"
        )
        divider = gr.Slider(0, 100, 50, step=1, label="Divider (% from the left)")
        zoom = gr.Radio(_ZOOMS, value=0, label="Zoom: screen pixels per pixel")
        with gr.Row(visible=False) as place:
            across = gr.Slider(0, 100, 50, step=1, label="Across (%)", min_width=140)
            down = gr.Slider(0, 100, 50, step=1, label="Down (%)", min_width=140)
        divider.input(None, divider, slider, js=_MOVE_DIVIDER, trigger_mode="multiple")
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        zoom.change(lambda zoom: gr.Row(visible=bool(zoom)), zoom, place, **quiet)
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
        self, session: Session, first: str, second: str, zoom: int = 0, across: float = 50, down: float = 50, **properties: Any
    ) -> gr.ImageSlider:
        """The slider with what is to be seen of two pictures, or with nothing if they are no longer there."""
        pictures = session.pictures.get(self.tab, {})
        if zoom not in dict(_ZOOMS).values() or first not in pictures or second not in pictures:
            return gr.ImageSlider(None)
        details = [demo_work.detail(pictures[name], zoom, across / 100, down / 100) for name in (first, second)]
        paths = [session.write_detail(demo_work.as_png(detail)) for detail in details]
        width = details[0].shape[1] if zoom else demo_work.DETAIL_WIDTH
        return gr.ImageSlider((paths[0], paths[1]), width=width + _SLIDER_FRAME, **properties)
