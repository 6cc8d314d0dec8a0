"""Write docs/models.md from the cards of the shipped models, so that page and package never differ.

python scripts/render_model_cards.py
"""

import pathlib
from typing import Any

from jpegsr import model_files, models
from jpegsr.config import ModelConfig
from jpegsr.images import write_text

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "models.md"
HEAD = """# The models in the package

Made by `scripts/render_model_cards.py` from the JSON cards beside the weights, in `jpegsr/shipped`. Scores are averages over a
test set, in dB, the gain over bicubic enlargement of the same JPEG in brackets; quality 0 is uncompressed input.
"""


def render() -> str:
    """The whole page."""
    names = model_files.shipped_names()
    return "\n".join(
        [HEAD, *(_model(name, model_files.read_card(model_files.SHIPPED_FOLDER / f"{name}.keras")) for name in names)]
    )


def _model(name: str, card: dict[str, Any]) -> str:
    config = ModelConfig.from_json(card["config"])
    num_weights = models.build_joint(config).count_params()
    size = (model_files.SHIPPED_FOLDER / f"{name}.keras").stat().st_size
    hours = sum(stage["hours"] for stage in card["stages"].values())
    stages = ", ".join(f"{stage} {values['steps']:,} steps" for stage, values in card["stages"].items())
    facts = {
        "enlarges": f"{config.scale} times (its first half alone restores at the same size)",
        "parameters": f"{num_weights / 1e6:.2f} million, {size / 1e6:.1f} MB in float32",
        "network": ", ".join(f"`{key}={value}`" for key, value in card["config"].items()),
        "data": _data(card["data"]),
        "degradation": _degradation(card["data"], config.scale),
        "training": f"{stages}; {hours:.1f} hours on {card['hardware']}; commit {card['commit'][:12]}",
        "kept out of training": ", ".join(f"{quality} {value:.2f}" for quality, value in card["validation_psnr"].items())
        + " (PSNR-Y, dB)",
        "SHA-256": f"`{card['sha256']}`",
    }
    lines = [
        f"## {card['name']} x{config.scale}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items()),
    ]
    lines += ["", "**Limits**", "", *(f"- {limit}" for limit in card["limits"])]
    lines += ["", "**Recipe**", "", "```text", *card["recipe"], "```", "", *_scores(card), ""]
    return "\n".join(lines)


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
    averages = card["scores"]["averages"]
    baseline = {(row["dataset"], row["quality"]): row for row in averages if row["method"] == "bicubic"}
    lines = ["| test set | quality | PSNR-Y | SSIM-Y | PSNR-RGB |", "|---|---|---|---|---|"]
    for row in averages:
        if row["method"] == "bicubic":
            continue
        bicubic = baseline[row["dataset"], row["quality"]]
        gains = [f"{row[key]:.2f} ({row[key] - bicubic[key]:+.2f})" for key in ("psnr_y", "psnr_rgb")]
        lines.append(f"| {row['dataset']} | {row['quality']} | {gains[0]} | {row['ssim_y']:.4f} | {gains[1]} |")
    return [*lines, "", f"`{card['scores']['command']}`, commit {card['scores']['commit'][:12]}"]


if __name__ == "__main__":
    write_text(PAGE, render())
