"""Scores as files that people and programs read: CSV, JSON, Markdown tables and contact sheets."""

import csv
import dataclasses
import io
import json
import math
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jpegsr import metrics, provenance
from jpegsr.evaluation import BICUBIC, Comparison, Score
from jpegsr.images import write_image, write_text
from jpegsr.model_files import sha256
from jpegsr.systems import LoadedSystems

# A table with a column per picture is readable up to about the size of Set14.
_MAX_PICTURE_COLUMNS = 14
_SHEET_HEIGHT = 300
_CROP_SIZE = 64
_CROP_ZOOM = 4


def origin_of(
    command: str, protocol: str, models: dict[str, dict[str, Any]], plugins: LoadedSystems | None = None
) -> dict[str, Any]:
    """What a results file says of its origin: command, version, commit, protocol, each model's file and checksum.

    Systems of plug-ins are there with their file, its checksum, and, for those that were left out, the reason.
    """
    origin = {"command": command, **provenance.source(), "protocol": protocol, "models": models}
    if plugins and plugins.files:
        origin["systems"] = {
            name: {"file": path.name, "sha256": sha256(path), "skipped": plugins.skipped.get(name)}
            for name, path in plugins.files.items()
        }
    return origin


def write_csv(path: pathlib.Path, scores: list[Score]) -> None:
    """One row per picture, quality and method."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Score))
    for score in scores:
        writer.writerow(f"{v:.4f}" if isinstance(v, float) else v for v in dataclasses.astuple(score))
    write_text(path, buffer.getvalue())


def write_json(path: pathlib.Path, scores: list[Score], origin: dict[str, Any]) -> None:
    """The averages with their origin; the rows of single pictures are in the CSV."""
    averages = [
        {"dataset": dataset, "quality": quality, "method": method, **_rounded(mean_score(scores, dataset, quality, method))}
        for dataset in _unique(scores, "dataset")
        for quality in _unique(scores, "quality")
        for method in _unique(scores, "method")
    ]
    write_text(path, json.dumps({**origin, "averages": averages}, indent=2) + "\n")


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in values.items()}


def _unique(scores: list[Score], field: str) -> list:
    return list(dict.fromkeys(getattr(score, field) for score in scores))


def mean_score(scores: list[Score], dataset: str, quality: int, method: str) -> dict[str, float]:
    """The averages over a dataset of PSNR-Y, SSIM-Y, PSNR-RGB and seconds."""
    rows = [s for s in scores if (s.dataset, s.quality, s.method) == (dataset, quality, method)]
    fields = ("psnr_y", "ssim_y", "psnr_rgb", "seconds")
    return {field: float(np.mean([getattr(row, field) for row in rows])) for field in fields}


def quality_label(quality: int) -> str:
    """`Q10`, or `clean` for quality 0."""
    return f"Q{quality}" if quality else "clean"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown(scores: list[Score], origin: dict[str, Any]) -> str:
    """All tables: the summary with gains over bicubic, then the layouts of the paper's Tables 1, 2 and 3."""
    parts = [f"# Scores at x{scores[0].scale}\n", _summary(scores), _by_dataset(scores)]
    parts += [_by_picture(scores, dataset) for dataset in _unique(scores, "dataset")]
    parts += [_by_method(scores, quality) for quality in _unique(scores, "quality")]
    parts.append("## Origin\n")
    lines = [f"- {key}: {origin[key]}" for key in ("command", "version", "commit", "protocol")]
    lines += [f"- model {name}: SHA-256 {model['sha256']}" for name, model in origin["models"].items()]
    for name, system in origin.get("systems", {}).items():
        state = f"left out: {system['skipped']}" if system["skipped"] else f"SHA-256 {system['sha256']}"
        lines.append(f"- system {name} ({system['file']}): {state}")
    parts.append("\n".join(lines) + "\n")
    return "\n".join(part for part in parts if part)


def _summary(scores: list[Score]) -> str:
    rows = []
    for dataset in _unique(scores, "dataset"):
        for quality in _unique(scores, "quality"):
            bicubic = mean_score(scores, dataset, quality, BICUBIC)
            for method in _unique(scores, "method"):
                mean = mean_score(scores, dataset, quality, method)
                gain = f"{mean['psnr_y'] - bicubic['psnr_y']:+.3f}" if method != BICUBIC else ""
                figures = [f"{mean['psnr_y']:.3f}", gain, f"{mean['ssim_y']:.4f}", f"{mean['psnr_rgb']:.3f}"]
                rows.append([dataset, quality_label(quality), method, *figures, f"{mean['seconds']:.3f}"])
    return _table(["dataset", "input", "method", "PSNR-Y", "gain", "SSIM-Y", "PSNR-RGB", "seconds/picture"], rows)


def _by_dataset(scores: list[Score]) -> str:
    datasets = _unique(scores, "dataset")
    rows = [
        [method, quality_label(quality), *(f"{mean_score(scores, d, quality, method)['psnr_y']:.3f}" for d in datasets)]
        for method in _unique(scores, "method")
        for quality in _unique(scores, "quality")
    ]
    return "## PSNR-Y by dataset (as Table 1 of the paper)\n\n" + _table(["method", "input", *datasets], rows)


def _by_picture(scores: list[Score], dataset: str) -> str:
    own = [score for score in scores if score.dataset == dataset]
    pictures = _unique(own, "image")
    if len(pictures) > _MAX_PICTURE_COLUMNS:
        return ""
    values = {(s.method, s.quality, s.image): s.psnr_y for s in own}
    rows = []
    for method in _unique(own, "method"):
        for quality in _unique(own, "quality"):
            line = [values[method, quality, picture] for picture in pictures]
            rows.append([method, quality_label(quality), *(f"{value:.3f}" for value in [*line, np.mean(line)])])
    return f"## PSNR-Y on {dataset} (as Table 2)\n\n" + _table(["method", "input", *pictures, "average"], rows)


def _by_method(scores: list[Score], quality: int) -> str:
    methods = _unique(scores, "method")
    rows = [
        [dataset, *(f"{mean_score(scores, dataset, quality, method)['psnr_y']:.3f}" for method in methods)]
        for dataset in _unique(scores, "dataset")
    ]
    return f"## PSNR-Y by method, {quality_label(quality)} (as Table 3)\n\n" + _table(["dataset", *methods], rows)


class ContactSheet:
    """One picture's originals and results as rows of a sheet, like the paper's Figures 2-4."""

    def __init__(self) -> None:
        self._rows: list[Image.Image] = []

    def add(self, comparison: Comparison) -> None:
        """A row: original, JPEG, then each method, with the most detailed part enlarged below."""
        original = comparison.original
        quality = next(iter(comparison.results.values()))[0].quality
        scale = original.shape[0] // comparison.compressed.shape[0]
        enlarged = comparison.compressed.repeat(scale, axis=0).repeat(scale, axis=1)
        label = "JPEG, " + quality_label(quality) if quality else "uncompressed"
        cells = [("original", original), (label, enlarged)]
        cells += [(f"{name}, {score.psnr_y:.2f} dB", picture) for name, (score, picture) in comparison.results.items()]
        top, left = most_detailed(original, _CROP_SIZE)
        drawn = [_cell(caption, picture, top, left) for caption, picture in cells]
        self._rows.append(_joined(drawn, axis=1))

    def save(self, path: pathlib.Path) -> None:
        write_image(path, np.asarray(_joined(self._rows, axis=0)))


def most_detailed(image: np.ndarray, size: int) -> tuple[int, int]:
    """(top, left) of the size x size part whose luma varies most, for uint8 `[H, W, 3]`."""
    y = metrics.luma(image)
    detail = np.abs(np.diff(y, axis=0))[:, :-1] + np.abs(np.diff(y, axis=1))[:-1]
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    height, width = (min(size, side) for side in detail.shape)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(np.argmax(windows), windows.shape)
    return int(top), int(left)


def _cell(caption: str, picture: np.ndarray, top: int, left: int) -> Image.Image:
    """The picture at the sheet's height, the part at (top, left) enlarged below it, and the caption."""
    whole = Image.fromarray(picture)
    part = whole.crop((left, top, min(left + _CROP_SIZE, whole.width), min(top + _CROP_SIZE, whole.height)))
    part = part.resize((part.width * _CROP_ZOOM, part.height * _CROP_ZOOM), Image.Resampling.NEAREST)
    zoom = _SHEET_HEIGHT / whole.height
    whole = whole.resize((round(whole.width * zoom), _SHEET_HEIGHT), Image.Resampling.LANCZOS)
    marker = [round(value * zoom) for value in (left, top, left + _CROP_SIZE, top + _CROP_SIZE)]
    ImageDraw.Draw(whole).rectangle(marker, outline=(255, 220, 0), width=2)
    cell = Image.new("RGB", (max(whole.width, part.width), whole.height + part.height + 34), "white")
    cell.paste(whole, ((cell.width - whole.width) // 2, 0))
    cell.paste(part, ((cell.width - part.width) // 2, whole.height + 4))
    middle_bottom = (cell.width / 2, cell.height - 8)
    ImageDraw.Draw(cell).text(middle_bottom, caption, "black", ImageFont.load_default(15), anchor="ms")
    return cell


def _joined(pictures: list[Image.Image], axis: int) -> Image.Image:
    """Side by side (axis 1) or stacked (axis 0), with a gap."""
    gap = 8
    widths, heights = [p.width for p in pictures], [p.height for p in pictures]
    if axis == 1:
        size = (sum(widths) + gap * (len(pictures) - 1), max(heights))
    else:
        size = (max(widths), sum(heights) + gap * (len(pictures) - 1))
    sheet = Image.new("RGB", size, "white")
    position = 0
    for picture in pictures:
        sheet.paste(picture, (position, 0) if axis == 1 else (0, position))
        position += (picture.width if axis == 1 else picture.height) + gap
    return sheet
