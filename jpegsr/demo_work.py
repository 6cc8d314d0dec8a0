"""What the page of `jpegsr demo` does with a photo: enhance it, or make it worse and compare what models get back.

Needs no Gradio. Pictures to look at are uint8 `[H, W, 3]` in sRGB, upright, on white where the photo is transparent.
"""

import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jpegsr import degradation, evaluation, files, inspection, metrics, model_files, photos, runtimes, vips
from jpegsr.enhancement import Enhancer
from jpegsr.errors import UserError
from jpegsr.inference import Progress
from jpegsr.photos import Photo

# Longer sides are cut to their middle before pictures are compared: SSIM takes seconds per megapixel.
COMPARED_SIDE = 768
ERROR_GAIN = 8
# Pixels of the screen that a detail is shown on, and of the largest picture that is sent to a page as a whole.
DETAIL_WIDTH, DETAIL_HEIGHT = 768, 576
_MOST_SENT_PIXELS = 2_000_000


def shipped_models() -> list[str]:
    """The names of the models in the package, without their scales."""
    return list(dict.fromkeys(name.rpartition("_x")[0] for name in model_files.shipped_names()))


class Models:
    """The models that a page offers; their networks are loaded when first needed. Thread-safe.

    Args:
      names: as in `Enhancer`.
      runtime: as in `Enhancer`.
      device: as in `Enhancer`.

    Raises:
      UserError: there is no such model.
    """

    def __init__(self, names: Sequence[str], runtime: str = "auto", device: str | None = None):
        self.names = list(dict.fromkeys(names))
        self._runtime, self._device = runtime, device
        self._scales = {name: files.Settings(name).scales() for name in self.names}
        self._networks: dict[tuple[str, int], runtimes.Network] = {}
        self._lock = threading.Lock()

    def scales(self, name: str) -> list[int]:
        """What a model offers; `UserError` if it is none of these models."""
        if name not in self.names:
            raise UserError(f"no model {name!r} here: choose one of {', '.join(self.names)}")
        return self._scales[name]

    def default_scale(self, name: str) -> int:
        """2, or the largest that a model offers instead."""
        return 2 if 2 in self.scales(name) else self.scales(name)[-1]

    def with_scale(self, scale: int) -> list[str]:
        """The models that enlarge so many times."""
        return [name for name in self.names if scale in self._scales[name]]

    def runtime_names(self) -> set[str]:
        """What executes the models: "tensorflow", "openvino" or "litert"; `UserError` if that cannot be."""
        weights = [model_files.find(name, scale) for name in self.names for scale in self._scales[name]]
        return {runtimes.choose(self._runtime, path, self._device) for path in weights}

    def network(self, name: str, scale: int) -> runtimes.Network:
        """The network of a model; `UserError` if it is not there."""
        if scale not in self.scales(name):
            raise UserError(f"{name} has no weights for scale {scale}: choose {', '.join(map(str, self.scales(name)))}")
        with self._lock:
            if (name, scale) not in self._networks:
                self._networks[name, scale] = runtimes.load(name, scale, self._runtime, self._device)
            return self._networks[name, scale]


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be done with a photo; `strength` as in `Enhancer`, `kind` one of `photos.FORMATS`."""

    model: str
    scale: int
    strength: float = 1.0
    kind: str = "png"

    def __post_init__(self) -> None:
        if self.kind not in list(photos.FORMATS):
            raise UserError(f"no format {self.kind!r}: choose one of {', '.join(photos.FORMATS)}")


@dataclasses.dataclass(frozen=True)
class Enhanced:
    """What came of it.

    Attributes:
      path: the file, that of `jpegsr enhance` with the same settings, byte for byte.
      before: the photo, enlarged by bicubic interpolation.
      after: the result.
      facts: on the result, as words.
      notes: what was left out or changed, a sentence each.
    """

    path: pathlib.Path
    before: np.ndarray
    after: np.ndarray
    facts: dict[str, str]
    notes: list[str]


def look(path: pathlib.Path, name: str, max_pixels: int) -> dict[str, str]:
    """What `jpegsr info` tells of a photo, which messages call `name`; errors as in `photos.read`."""
    photos.read(path.read_bytes(), max_pixels, name)  # what cannot be enhanced is refused here, in the same words
    facts = inspection.describe(inspection.inspect(path, name))
    quality = {"JPEG quality": facts.pop("quality")} if "quality" in facts else {}
    note = {"note": "browsers do not show TIFF; the result will be seen"} if facts["format"] == "TIFF" else {}
    return quality | facts | note


def enhance(
    path: pathlib.Path, name: str, wish: Wish, models: Models, folder: pathlib.Path, max_pixels: int, progress: Progress
) -> Enhanced:
    """Enhance a photo as `jpegsr enhance` does.

    Args:
      path: of the photo.
      name: what messages and the result call it.
      wish: what is to be done.
      models: to choose from.
      folder: where the file is written.
      max_pixels: of the photo and of the result.
      progress: as in `Enhancer.enhance`; first with no tile done.

    Raises:
      UserError: the photo cannot be read, is too large, or the wish cannot be fulfilled.
    """
    started = time.perf_counter()
    network = models.network(wish.model, wish.scale)
    settings = files.Settings(network, wish.scale, strength=wish.strength, max_pixels=max_pixels)
    with _warnings_of_this_thread() as notes:
        photo = photos.read(path.read_bytes(), max_pixels, name)
        _, height, width = settings.plan(*photo.pixels.shape[:2])
        if height * width > max_pixels:
            raise UserError(f"the result would have {width}x{height} pixels, above --max_pixels={max_pixels}: lower the scale")
        target = folder / f"{pathlib.Path(name).stem[:100]}_x{wish.scale}{photos.FORMATS[wish.kind][0]}"
        photos.check_size(target, height, width)
        in_network = time.perf_counter()
        enhancers = files.Enhancers(settings)
        progress(0, enhancers.get(wish.scale).num_tiles(*photo.pixels.shape[:2]))
        result = enhancers.enhance(photo, name, progress)
        in_network = time.perf_counter() - in_network
        photos.write(target, result, photo, settings.encoder)
    seconds = time.perf_counter() - started
    precision = "float32" if network.runtime == "tensorflow" else "int8"
    facts = {
        "size": f"{width}x{height}",
        "bytes": f"{target.stat().st_size:,}",
        "model": f"{wish.model} x{wish.scale} on {network.runtime} ({precision})",
        "seconds": f"{seconds:.2f}, of which the network took {in_network:.2f}",
    }
    before = vips.resize(_rgb(photo), width, height, "cubic")
    return Enhanced(target, before, _rgb(result), facts, notes)


def make_worse(
    path: pathlib.Path, name: str, quality: int, scale: int, models: Models, max_pixels: int, progress: Callable[[str], None]
) -> evaluation.Comparison:
    """Reduce and compress a photo, as in `jpegsr evaluate`, and score what each model that has the scale makes of it.

    Args:
      path: of the photo; of a large one only the middle is taken.
      name: what messages call it.
      quality: of the JPEG, 1-100.
      scale: 2, 3 or 4.
      models: to compare.
      max_pixels: of the photo.
      progress: told the name of the model whose turn it is; what it raises ends the work.

    Raises:
      UserError: the photo cannot be read, is too large or too small, or quality and scale are not among these.
    """
    if quality not in range(1, 101):
        raise UserError(f"quality {quality} is not within 1-100")
    if scale == 1 or not models.with_scale(scale):
        raise UserError(f"no model here enlarges {scale} times")
    picture = _rgb(photos.read(path.read_bytes(), max_pixels, name))
    top, left = (max(side - COMPARED_SIDE, 0) // 2 for side in picture.shape[:2])
    picture = picture[top : top + COMPARED_SIDE, left : left + COMPARED_SIDE]
    if min(picture.shape[:2]) < (least := evaluation.smallest_side(scale)):
        raise UserError(f"{name!r} is too small to be scored: below {least} pixels on a side")
    original = np.ascontiguousarray(degradation.crop_to_multiple(picture, scale))

    def method(model: str) -> evaluation.Method:
        def run(compressed: np.ndarray) -> np.ndarray:
            progress(model)
            return enhancer.enhance(compressed)  # type: ignore[return-value]

        enhancer = Enhancer(models.network(model, scale))
        return run

    methods = {model: method(model) for model in models.with_scale(scale)}
    compressed = degradation.jpeg(degradation.downscale(original, scale), quality)
    return evaluation.compare(methods, original, compressed, quality, "", name)


def error_map(original: np.ndarray, result: np.ndarray) -> np.ndarray:
    """`ERROR_GAIN` times the error in luma of two pictures: black where they agree."""
    error = np.abs(metrics.luma(original) - metrics.luma(result))
    return np.repeat(np.clip(ERROR_GAIN * error, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def detail(picture: np.ndarray, zoom: int, across: float, down: float) -> np.ndarray:
    """What a page shows of a picture.

    Args:
      picture: `[H, W, 3]`.
      zoom: screen pixels per pixel, by repetition; 0 for the whole picture, reduced if that is large.
      across: the middle of the detail, from 0 (left) to 1.
      down: likewise, from 0 (top).
    """
    height, width = picture.shape[:2]
    if zoom == 0:
        factor = min((_MOST_SENT_PIXELS / (height * width)) ** 0.5, 1.0)
        small = [max(round(side * factor), 1) for side in (width, height)]
        return vips.resize(picture, *small) if factor < 1 else picture
    rows, columns = min(DETAIL_HEIGHT // zoom, height), min(DETAIL_WIDTH // zoom, width)
    top = min(max(round(down * height - rows / 2), 0), height - rows)
    left = min(max(round(across * width - columns / 2), 0), width - columns)
    part = picture[top : top + rows, left : left + columns]
    return np.ascontiguousarray(part.repeat(zoom, axis=0).repeat(zoom, axis=1))


def as_png(picture: np.ndarray) -> bytes:
    """A file to be sent to a page nearby: quickly made, not small."""
    return vips.as_image(picture).pngsave_buffer(compression=1)


def _rgb(photo: Photo) -> np.ndarray:
    image = vips.as_image(photo.pixels)
    if photo.alpha is not None:
        highest = 65535.0 if image.format == "ushort" else 255.0
        image = image.bandjoin(vips.as_image(photo.alpha)).flatten(background=highest, max_alpha=highest)
    if image.format == "ushort":
        image = (image / 257).rint().cast("uchar")
    pixels = vips.as_array(image)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


@contextlib.contextmanager
def _warnings_of_this_thread() -> Iterator[list[str]]:
    """What this package logs within the block, in this thread: the page has no stderr to show it."""
    messages: list[str] = []
    thread = threading.get_ident()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage()) if record.thread == thread else None  # type: ignore[method-assign]
    logger = logging.getLogger("jpegsr")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
