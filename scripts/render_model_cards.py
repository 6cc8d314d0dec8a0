"""Write docs/models.md and the README's tables of scores from the cards of the shipped models, so that they never differ.

python scripts/render_model_cards.py
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jpegsr import model_files, models
from jpegsr.config import ModelConfig
from jpegsr.images import write_text

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
README = ROOT / "README.md"
# What the README has beside x2: the network of `base` that never saw a JPEG, and the best program that can be installed.
BESIDE = ROOT / "results" / "beside_base_x2" / "results.json"
# A test set whose size leaves out the slower runtimes: label -> folder of results. What is in bold is of the package.
URBAN100 = {
    "waifu2x cunet, noise 3": "beside_base_x2_urban100",
    "**jpegsr `fast`**, int8": "fast_x2_urban100_openvino",
    "**jpegsr `base`**, int8": "base_x2_urban100_openvino",
}
JPEG_QUALITIES = (10, 20, 30, 40)
# The README's tables stand between these two lines.
BEGIN, END = "<!-- scores, by scripts/render_model_cards.py -->", "<!-- end of scores -->"
HEAD = """# The models in the package

Made by `scripts/render_model_cards.py` from the JSON cards beside the weights, in `jpegsr/shipped`. Scores are averages over a
test set, in dB, the gain over bicubic enlargement of the same JPEG in brackets; quality 0 is uncompressed input.
"""


def render() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_model(name, card) for name, card in _shipped_cards().items())])


def _shipped_cards(scale: int | None = None) -> dict[str, dict[str, Any]]:
    """Name -> card of the models in the package, of one scale or of all."""
    names = [name for name in model_files.shipped_names() if scale is None or name.endswith(f"_x{scale}")]
    return {name: model_files.read_card(model_files.SHIPPED_FOLDER / f"{name}.keras") for name in names}


def _model(name: str, card: dict[str, Any]) -> str:
    config = ModelConfig.from_json(card["config"])
    restores = card["stage"] == "car"
    num_weights = (models.build_car if restores else models.build_joint)(config).count_params()
    size = (model_files.SHIPPED_FOLDER / f"{name}.keras").stat().st_size
    hours = sum(stage["hours"] for stage in card["stages"].values())
    stages = ", ".join(f"{stage} {values['steps']:,} steps" for stage, values in card["stages"].items())
    facts = {
        "enlarges": "not: CAR alone, for `--scale=1`" if restores else f"{config.scale} times",
        "parameters": f"{num_weights / 1e6:.2f} million, {size / 1e6:.1f} MB in float32"
        + (", with those of an SR that is not used" if restores else ""),
        "network": ", ".join(f"`{key}={value}`" for key, value in card["config"].items()),
        "data": _data(card["data"]),
        "degradation": _degradation(card["data"], config.scale),
        "training": f"{stages}; {hours:.1f} hours on {card['hardware']}; commit {_short(card['commit'])}",
        "kept out of training": ", ".join(f"{quality} {value:.2f}" for quality, value in card["validation_psnr"].items())
        + " (PSNR-Y, dB)",
        "SHA-256": f"`{card['sha256']}`",
    }
    lines = [
        f"## {name.replace('_', ' ')}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items()),
    ]
    lines += ["", "**Limits**", "", *(f"- {limit}" for limit in card["limits"])]
    lines += ["", "**Recipe**", "", "```text", *card["recipe"], "```", "", *_scores(card), ""]
    return "\n".join(lines)


def _short(commit: str) -> str:
    """Twelve digits, and `-dirty` where the tree was."""
    digits, dash, state = commit.partition("-")
    return digits[:12] + dash + state


def _data(data: dict[str, Any]) -> str:
    total = sum(weight for _, weight in data["sources"])
    shares = ", ".join(f"{name} ({weight / total:.0%} of the patches)" for name, weight in data["sources"])
    return (
        f"{shares}; every {data['holdout_every']}th picture kept out; patches of {data['patch_size']} pixels before enlargement"
    )


def _degradation(data: dict[str, Any], scale: int) -> str:
    low, high = data["quality"]
    return (
        f"bicubic reduction by {scale}, JPEG of quality {low}-{high} (evenly on a log scale), "
        f"{data['clean_share']:.0%} not compressed, {data['double_share']:.0%} compressed twice, "
        f"{data['chroma_444_share']:.0%} with 4:4:4 colour, "
        f"{data['shifted_share']:.0%} cut anywhere in the block grid"
    )


def _scores(card: dict[str, Any]) -> list[str]:
    origin = f"`{card['scores']['command']}`, commit {_short(card['scores']['commit'])}"
    if "rows" in card["scores"]:
        lines = [f"{card['scores']['protocol']}:", "", "| JPEG | quality | PSNR-Y | PSNR-RGB |", "|---|---|---|---|"]
        for row in card["scores"]["rows"]:
            lines.append(f"| {row['way']} | {row['quality']} | {row['psnr_y']:+.2f} | {row['psnr_rgb']:+.2f} |")
        return [*lines, "", origin]
    averages = card["scores"]["averages"]
    baseline = {(row["dataset"], row["quality"]): row for row in averages if row["method"] == "bicubic"}
    lines = ["| test set | quality | PSNR-Y | SSIM-Y | PSNR-RGB |", "|---|---|---|---|---|"]
    for row in averages:
        if row["method"] == "bicubic":
            continue
        bicubic = baseline[row["dataset"], row["quality"]]
        gains = [f"{row[key]:.2f} ({row[key] - bicubic[key]:+.2f})" for key in ("psnr_y", "psnr_rgb")]
        lines.append(f"| {row['dataset']} | {row['quality']} | {gains[0]} | {row['ssim_y']:.4f} | {gains[1]} |")
    return [*lines, "", origin]


def render_readme() -> str:
    """The README with its tables made anew."""
    before, _, rest = README.read_text().partition(BEGIN)
    others = json.loads(BESIDE.read_text())["averages"]
    tables = [
        _score_table("x2", [2], ("Set5", "Set14", "B100"), (0, *JPEG_QUALITIES), others),
        _urban100_table(),
        _score_table("x3 and x4", [3, 4], ("Set5", "Set14"), JPEG_QUALITIES),
    ]
    return before + BEGIN + "\n" + "\n".join(tables) + END + rest.partition(END)[2]


def _urban100_table() -> str:
    """PSNR-Y of bicubic enlargement and of some others on Urban100 at x2."""
    lines = _heads("x2 Urban100", JPEG_QUALITIES)
    for label, folder in URBAN100.items():
        averages = json.loads((ROOT / "results" / folder / "results.json").read_text())["averages"]
        methods = dict.fromkeys(row["method"] for row in averages)
        bicubic, scores = (_psnr_by_quality(averages, "Urban100", method) for method in methods)  # which comes first
        if len(lines) == 2:
            lines.append(_bicubic_row("Urban100", bicubic, JPEG_QUALITIES))
        lines.append(_gains_row("Urban100", label, scores, bicubic, JPEG_QUALITIES))
    return "\n".join(lines) + "\n"


def _heads(title: str, qualities: Sequence[int]) -> list[str]:
    heads = ["clean" if quality == 0 else f"Q{quality}" for quality in qualities]
    return [f"| PSNR-Y (dB), {title} | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]


def _bicubic_row(head: str, bicubic: dict[int, float], qualities: Sequence[int]) -> str:
    return f"| {head}, bicubic | {' | '.join(f'{bicubic[quality]:.2f}' for quality in qualities)} |"


def _gains_row(head: str, label: str, scores: dict[int, float], bicubic: dict[int, float], qualities: Sequence[int]) -> str:
    number = "**{:.2f}**" if label.startswith("**") else "{:.2f}"
    cells = [number.format(scores[q]) + f" ({scores[q] - bicubic[q]:+.2f})" for q in qualities]
    return f"| {head}, {label} | {' | '.join(cells)} |"


def _score_table(
    title: str, scales: list[int], datasets: Sequence[str], qualities: Sequence[int], others: Sequence[dict[str, Any]] = ()
) -> str:
    """PSNR-Y of bicubic enlargement, of `others` (averages of an evaluation) and of all models at some scales."""
    lines = _heads(title, qualities)
    for scale in scales:
        cards = sorted(_shipped_cards(scale).values(), key=lambda card: card["name"], reverse=True)
        rows = {name: (name, others) for name in dict.fromkeys(row["method"] for row in others) if name != "bicubic"}
        rows |= {f"**jpegsr `{card['name']}`**": (card["name"], card["scores"]["averages"]) for card in cards}
        for dataset in datasets:
            head = dataset if len(scales) == 1 else f"x{scale} {dataset}"
            bicubic = _psnr_by_quality(cards[0]["scores"]["averages"], dataset, "bicubic")
            lines.append(_bicubic_row(head, bicubic, qualities))
            for label, (method, averages) in rows.items():
                lines.append(_gains_row(head, label, _psnr_by_quality(averages, dataset, method), bicubic, qualities))
    return "\n".join(lines) + "\n"


def _psnr_by_quality(averages: Sequence[dict[str, Any]], dataset: str, method: str) -> dict[int, float]:
    return {row["quality"]: row["psnr_y"] for row in averages if (row["dataset"], row["method"]) == (dataset, method)}


if __name__ == "__main__":
    write_text(PAGE, render())
    write_text(README, render_readme())
