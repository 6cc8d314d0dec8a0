"""Draw the figures of the documentation, docs/images/, from results/ and the shipped model; no number is typed here.

    python scripts/draw_figures.py            # needs pip install ".[notebooks]" and scikit-image

Each file carries a digest of what it was drawn from, by which a test finds a figure that is out of date.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.patheffects
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from jpegsr import model_files

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS, FOLDER = ROOT / "results", ROOT / "docs" / "images"
PUBLISHED = RESULTS / "published.json"
SYSTEMS = RESULTS / "systems" / "results.json"
MODEL = model_files.SHIPPED_FOLDER / "base_x2.keras"
WIDTH = 5.2  # inches: drawn small, so that letters are still readable on a telephone
# Okabe and Ito's colours, which all kinds of colour vision tell apart; markers differ as well.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
MODEL_STYLES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "D"), (ORANGE, "v"))
RUNTIME_MARKERS = {"tensorflow": "o", "openvino": "s", "litert": "D"}
CROP = slice(54, 150), slice(100, 196)  # an eye of the cat, in pixels of Z


def read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def is_up_to_date(path: pathlib.Path) -> bool:
    """Whether a results file tells of the weights that are shipped now, and not of earlier ones of the same name."""
    models = read(path)["models"]
    cards = {name: model_files.SHIPPED_FOLDER / f"{name}_x2.keras" for name in models}
    return bool(models) and all(
        card.is_file() and model_files.read_card(card)["sha256"] == models[name]["sha256"] for name, card in cards.items()
    )


def score_files(runtimes: tuple[str, ...] = ("tensorflow",)) -> list[pathlib.Path]:
    """The x2 scores by `jpegsr evaluate` of shipped weights with one of these runtimes, the most datasets first."""
    paths = [path for path in sorted(RESULTS.glob("*_x2*/results.json")) if _runtime(read(path)) in runtimes]
    return sorted(filter(is_up_to_date, paths), key=lambda path: -len(read(path)["averages"]))


def _runtime(scores: dict[str, Any]) -> str:
    found = re.search(r"--runtime=(\w+)", scores["command"])
    return found[1] if found else "tensorflow"


def curves(paths: list[pathlib.Path], dataset: str) -> dict[str, dict[int, float]]:
    """Method -> JPEG quality -> PSNR-Y; where files repeat each other, the first one counts."""
    found: dict[str, dict[int, float]] = {}
    for path in paths:
        for row in read(path)["averages"]:
            if row["dataset"] == dataset and row["quality"]:
                found.setdefault(row["method"], {}).setdefault(row["quality"], row["psnr_y"])
    return found


def _plot(axes: Axes, points: dict[int, float], **style: Any) -> None:
    qualities = sorted(points)
    axes.plot(qualities, [points[quality] for quality in qualities], markersize=6, linewidth=1.8, **style)


def draw_quality() -> Figure:
    """PSNR-Y against JPEG quality: a panel per test set."""
    paths, published = score_files(), read(PUBLISHED)
    datasets = ("Set5", "Set14", "B100")
    figure, panels = plt.subplots(len(datasets), 1, figsize=(WIDTH, 9.6), sharex=True, layout="constrained")
    for axes, dataset in zip(panels, datasets, strict=True):
        methods = curves(paths, dataset)
        _plot(axes, methods.pop("bicubic"), label="bicubic", color=GRAY, marker="x", linestyle="--")
        for (name, points), (color, marker) in zip(methods.items(), MODEL_STYLES, strict=False):
            _plot(axes, points, label=f"jpegsr {name}", color=color, marker=marker)
        if dataset == "Set5":
            for row, (color, marker) in zip(_best_peers(published), ((ORANGE, "^"), (GREEN, "P")), strict=True):
                points = {int(quality): value for quality, value in row["psnr_y"].items()}
                _plot(axes, points, label=row["name"], color=color, marker=marker, linestyle=":")
        paper = {int(quality): value for quality, value in published["paper"]["table_1"][dataset].items()}
        _plot(axes, paper, label="paper (other protocol)", color=PURPLE, marker="*", linestyle="-.")
        axes.set_title(dataset, loc="left")
        axes.set_ylabel("PSNR-Y (dB)")
    panels[0].legend(fontsize=10)
    panels[-1].set_xticks(sorted(methods[next(iter(methods))]))
    panels[-1].set_xlabel("JPEG quality")
    return figure


def _best_peers(published: dict[str, Any]) -> list[dict[str, Any]]:
    """The best network at quality 10, and the best one that is faster than a second per megapixel."""
    peers = published["peers"]["set5"]
    fast = [row for row in peers if row["seconds_per_megapixel"] < 1]
    return [max(rows, key=lambda row: row["psnr_y"]["10"]) for rows in (peers, fast)]


def draw_gain() -> Figure:
    """Gain over the bicubic row of the same table, which is what different protocols can be compared by."""
    paths, paper = score_files(), read(PUBLISHED)["paper"]
    figure, axes = plt.subplots(figsize=(WIDTH, 4.9), layout="constrained")
    for dataset, linestyle, marker in (("Set5", "-", "o"), ("Set14", "--", "s"), ("B100", ":", "D")):
        methods = curves(paths, dataset)
        bicubic = methods.pop("bicubic")
        for (name, points), (color, _) in zip(methods.items(), MODEL_STYLES, strict=False):
            gains = {quality: value - bicubic[quality] for quality, value in points.items()}
            _plot(axes, gains, label=f"{name}, {dataset}", color=color, marker=marker, linestyle=linestyle)
    table = paper["table_3_set5_quality_10"]
    axes.plot([10], [table["proposed"] - table["bicubic"]], "*", color=PURPLE, markersize=12, label="paper, Set5")
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted(bicubic))
    axes.set_xlabel("JPEG quality")
    axes.set_ylabel("PSNR-Y gained over bicubic (dB)")
    figure.legend(fontsize=10, loc="outside lower center", ncols=2)
    return figure


def speed_files() -> list[pathlib.Path]:
    """Timings of shipped weights by benchmarks/enhance_speed.py."""
    return [path for path in sorted(RESULTS.glob("enhance_speed*.json")) if is_up_to_date(path)]


def draw_speed() -> Figure:
    """PSNR-Y on Set5 at quality 10 against seconds per megapixel of output: models on each runtime, and other programs."""
    figure, axes = plt.subplots(figsize=(WIDTH, 5.3), layout="constrained")
    for path, (color, _) in zip(speed_files(), MODEL_STYLES, strict=False):
        timings = read(path)
        (name,) = timings["models"]
        for runtime, marker in RUNTIME_MARKERS.items():
            scores = curves(score_files((runtime,)), "Set5")
            if name not in scores:
                continue
            seconds = timings["seconds"][f"network_{runtime}"] / 4  # an input of one megapixel, four of them come out
            precision = "float32" if runtime == "tensorflow" else "int8"
            axes.plot([seconds], [scores[name][10]], marker, color=color, markersize=9, label=f"{name}, {runtime} {precision}")
    for row in read(PUBLISHED)["peers"]["set5"]:
        where = row["seconds_per_megapixel"], row["psnr_y"]["10"]
        axes.plot(*where, "o", color=GRAY, markerfacecolor="white", markersize=7)
        offset, side = ((7, 0), "left") if where[0] < 1 else ((-7, 0), "right") if where[0] < 9 else ((7, 13), "right")
        axes.annotate(row["name"], where, offset, textcoords="offset points", fontsize=9, va="center", ha=side)
    bicubic = curves(score_files(), "Set5")["bicubic"][10]
    axes.axhline(bicubic, color=GRAY, linestyle="--", linewidth=1.2)
    axes.annotate("bicubic", (1, bicubic), (-4, 4), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right")
    axes.set_xscale("log")
    axes.set_xlim(0.03, 20)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("seconds per megapixel of output, 2 CPU cores")
    axes.set_ylabel("PSNR-Y on Set5, quality 10 (dB)")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=9, loc="outside lower center", ncols=2)
    return figure


def draw_systems() -> Figure:
    """What each system gains over bicubic against the seconds it takes, and the line of those that nothing beats in both."""
    results = read(SYSTEMS)
    gains = _mean_gains(results["averages"], "Set14", (10, 20, 30))
    points = {
        name: (entry["seconds_per_megapixel"], gains[name]) for name, entry in results["systems"].items() if name in gains
    }
    figure, axes = plt.subplots(figsize=(WIDTH, 6.4), layout="constrained")
    best = [(x, y) for x, y in sorted(points.values()) if all(y >= gain for time, gain in points.values() if time <= x)]
    axes.plot(*zip(*best, strict=True), color=BLUE, linewidth=1.2, linestyle="--", drawstyle="steps-post")
    axes.axhline(0, color=GRAY, linewidth=1.2)
    numbers = {name: number for number, name in enumerate(points, 1)}
    for name, where in points.items():
        is_ours = name.startswith("jpegsr")
        label = f"{numbers[name]} {name}"
        axes.plot(*where, "o", color=BLUE if is_ours else GRAY, markerfacecolor=None if is_ours else "white", label=label)
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
        axes.annotate(str(numbers[name]), where, (5, 4), textcoords="offset points", fontsize=9, bbox=white)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("seconds per megapixel of output, 2 CPU cores")
    axes.set_ylabel("PSNR-Y over bicubic on Set14, mean of Q10-30 (dB)")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, handlelength=1)
    return figure


def _mean_gains(averages: list[dict[str, Any]], dataset: str, qualities: tuple[int, ...]) -> dict[str, float]:
    """Method -> what it gains over bicubic, in dB, on average over qualities."""
    psnr_y = {(row["quality"], row["method"]): row["psnr_y"] for row in averages if row["dataset"] == dataset}
    methods = dict.fromkeys(method for _, method in psnr_y if method != "bicubic")
    return {
        method: float(np.mean([psnr_y[quality, method] - psnr_y[quality, "bicubic"] for quality in qualities]))
        for method in methods
    }


TRAINING = RESULTS / "training_base_x2.json"


def draw_training() -> Figure:
    """The training of `base`: its loss in the three stages, and what stage joint gains on pictures kept out of training."""
    stages = read(TRAINING)["stages"]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 6.6), layout="constrained")
    begin = 0
    for (name, stage), color in zip(stages.items(), (BLUE, GREEN, VERMILION), strict=True):
        steps, losses = np.array(stage["loss"]).T
        top.plot(begin + steps, losses, color=color, linewidth=1.6, label=f"stage {name}")
        begin += steps[-1]
    top.set_ylabel("training loss (L1)")
    top.set_xlabel("steps of all stages")
    top.legend(fontsize=10)
    joint = stages["joint"]["validation_psnr_y"]
    before = {quality: points[-1][1] for quality, points in stages["sr"]["validation_psnr_y"].items()}
    for quality, (color, marker) in zip(sorted(before, key=int), MODEL_STYLES, strict=True):
        gains = {step: value - before[quality] for step, value in [[0, before[quality]], *joint[quality]]}
        _plot(bottom, gains, label=f"quality {quality}", color=color, marker=marker)
    bottom.set_ylim(bottom=0)
    bottom.set_ylabel("PSNR-Y gained since stage sr (dB)")
    bottom.set_xlabel("steps of stage joint")
    bottom.legend(fontsize=10)
    return figure


def degraded_cat() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo as X, Y and Z; uint8."""
    import skimage.data

    from jpegsr import degradation

    original = degradation.crop_to_multiple(skimage.data.chelsea(), 2)
    reduced = degradation.downscale(original, 2)
    return original, reduced, degradation.jpeg(reduced, 10)


def sample_pictures() -> dict[str, np.ndarray]:
    """One photo through degradation and model, cut to the same part: X, Y, Z, what CAR and what SR make of it; uint8."""
    from jpegsr import weights
    from jpegsr.pixels import to_levels, to_unit

    original, reduced, compressed = degraded_cat()
    outputs = weights.load("base", 2).model(to_unit(compressed[None]), training=False)
    rows, columns = CROP
    large = slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop)
    return {
        "X": original[large],
        "Y": reduced[CROP],
        "Z": compressed[CROP],
        "Y_hat": np.asarray(to_levels(outputs["restored"])[0])[CROP],
        "X_hat": np.asarray(to_levels(outputs["upscaled"])[0])[large],
    }


def draw_method() -> Figure:
    """The degradation Z = C S H X, the two networks that undo it, and what each stage compares."""
    pictures = sample_pictures()
    height = 5.0
    figure = plt.figure(figsize=(WIDTH, height))
    side = 1.34  # of a picture, in inches
    left, middle, right = 0.05, 1.93, WIDTH - side - 0.05
    top, bottom = height - side - 0.35, 0.42
    center = (top + bottom) / 2
    places = {"X": (left, top), "Y": (middle, top), "Z": (right, center), "Y_hat": (middle, bottom), "X_hat": (left, bottom)}
    names = {"X": "X, the original", "Y": "Y, reduced", "Z": "Z, the JPEG", "Y_hat": "Ŷ, restored", "X_hat": "X̂, the result"}
    for key, (x, y) in places.items():
        axes = figure.add_axes((x / WIDTH, y / height, side / WIDTH, side / height))
        axes.imshow(pictures[key], interpolation="nearest")
        axes.set_axis_off()
        rows, columns = pictures[key].shape[:2]
        above = key in ("X", "Y")
        caption = f"{names[key]}\n{columns} x {rows}"
        figure.text(
            (x + side / 2) / WIDTH, (y + (side + 0.04 if above else -0.04)) / height, caption,
            ha="center", va="bottom" if above else "top", fontsize=11, linespacing=1.05,
        )  # fmt: skip
    half = side / 2
    _arrow(figure, (left + side, top + half), (middle, top + half), "S H", BLUE, (0, 0.13))
    _arrow(figure, (middle + side, top + half), (right + half, center + side), "C", BLUE, (0.2, 0.12))
    _arrow(figure, (right + half, center - 0.42), (middle + side, bottom + half - 0.2), "CAR", VERMILION, (0.3, -0.12))
    _arrow(figure, (middle, bottom + half), (left + side, bottom + half), "SR", VERMILION, (0, 0.13))
    for x, label in ((left, "compared in\nstages sr, joint"), (middle, "compared in\nstages car, joint")):
        _arrow(figure, (x + half, top - 0.02), (x + half, bottom + side + 0.02), label, GRAY, (0, 0), "<->")
    return figure


def _arrow(figure, start, end, label: str, color: str, shift: tuple[float, float], style: str = "-|>") -> None:
    """Between two places in inches, the label in its middle."""
    size = figure.get_size_inches()
    arrow = mpl.patches.FancyArrowPatch(
        tuple(start / size), tuple(end / size), transform=figure.transFigure, arrowstyle=style, mutation_scale=15,
        color=color, linewidth=2.2, shrinkA=3, shrinkB=3,
    )  # fmt: skip
    figure.add_artist(arrow)
    x, y = (np.add(start, end) / 2 + shift) / size
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if shift == (0, 0) else None
    figure.text(x, y, label, color=color, ha="center", va="center", fontsize=11, weight="bold", bbox=box, linespacing=1.05)


def influence(radius: int) -> np.ndarray:
    """How much each pixel of Z moves one pixel of the result: gradient sums, float `[2 * radius + 1, 2 * radius + 1]`."""
    import tensorflow as tf

    from jpegsr import weights
    from jpegsr.pixels import to_unit

    trained = weights.load("base", 2)
    compressed = tf.constant(to_unit(degraded_cat()[2][None]))
    row, column = (length // 2 for length in compressed.shape[1:3])
    with tf.GradientTape() as tape:
        tape.watch(compressed)
        pixel = trained.model(compressed, training=False)["upscaled"][0, 2 * row, 2 * column]
    gradient = np.abs(tape.gradient(pixel, compressed)[0].numpy()).sum(axis=-1)
    return gradient[row - radius : row + radius + 1, column - radius : column + radius + 1]


def draw_receptive_field() -> Figure:
    """Which pixels of Z one pixel of the result depends on, by gradients, inside what the model's sizes allow."""
    config = model_files.config_of("base", 2)
    radius = config.receptive_radius
    shown = radius + 6
    values = influence(shown)
    figure, axes = plt.subplots(figsize=(WIDTH, 4.3), layout="constrained")
    extent = (-shown - 0.5, shown + 0.5, shown + 0.5, -shown - 0.5)
    image = axes.imshow(values / values.max(), norm=mpl.colors.LogNorm(1e-6, 1), cmap="cividis", extent=extent)
    axes.set_facecolor("black")
    for reach, color, label in (
        (radius, "white", f"CAR and SR: {radius} pixels to each side"),
        (config.car_receptive_radius, ORANGE, f"CAR alone: {config.car_receptive_radius}"),
    ):
        corner, width = (-reach - 0.5, -reach - 0.5), 2 * reach + 1
        axes.add_patch(mpl.patches.Rectangle(corner, width, width, fill=False, edgecolor=color, linewidth=2))
        axes.annotate(
            label, (0, -reach), (0, 4), textcoords="offset points", color="white", ha="center", fontsize=10,
            path_effects=[mpl.patheffects.withStroke(linewidth=3, foreground="black")],
        )  # fmt: skip
    axes.set_xlabel("pixels of the JPEG")
    figure.colorbar(image, ax=axes, label="influence on the result, largest = 1", shrink=0.85)
    return figure


FIGURES: dict[str, tuple[Callable[[], Figure], Callable[[], list[pathlib.Path]]]] = {
    "psnr_against_quality.svg": (draw_quality, lambda: [*score_files(), PUBLISHED]),
    "gain_over_bicubic.svg": (draw_gain, lambda: [*score_files(), PUBLISHED]),
    "speed.svg": (draw_speed, lambda: [*score_files(tuple(RUNTIME_MARKERS)), *speed_files(), PUBLISHED]),
    "systems.svg": (draw_systems, lambda: [SYSTEMS]),
    "training.svg": (draw_training, lambda: [TRAINING]),
    "method.png": (draw_method, lambda: [MODEL]),
    "receptive_field.png": (draw_receptive_field, lambda: [MODEL]),
}


def digest(name: str) -> str:
    """Of the files that a figure is drawn from."""
    total = hashlib.sha256()
    for path in FIGURES[name][1]():
        total.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def stored_digest(name: str) -> str | None:
    """What `digest` was when the committed figure was drawn."""
    found = re.search(rb"drawn from ([0-9a-f]{64})", (FOLDER / name).read_bytes())
    return found[1].decode() if found else None


def save(figure: Figure, path: pathlib.Path, note: str) -> None:
    if path.suffix == ".svg":
        figure.savefig(path, metadata={"Date": None, "Description": note})
        return
    figure.savefig(path, dpi=200)
    # A palette of 256 colours is enough, at a quarter of the size.
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", note)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True, pnginfo=text)


def main() -> None:
    mpl.use("Agg")
    plt.rcParams.update({"font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "jpegsr"})
    for name, (draw, _) in FIGURES.items():
        save(draw(), FOLDER / name, f"drawn from {digest(name)}")
        print(f"docs/images/{name}: {(FOLDER / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
