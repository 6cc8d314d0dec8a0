"""Fill the table of docs/results.md that shows what `--self_ensemble` brings, so that it never differs from the results.

python scripts/render_self_ensemble.py
"""

import json
import pathlib

from jpegsr.images import write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"
MODELS = ("base_x2", "base_x3", "base_x4", "fast_x2")
# Test set -> how the folders end that hold its scores without a self-ensemble, and with one.
FOLDERS = {
    "Set5": ("", "_self_ensemble"),
    "Set14": ("", "_self_ensemble"),
    "B100, int8": ("_openvino", "_self_ensemble_openvino"),
    "Urban100, int8": ("_urban100_openvino", "_self_ensemble_openvino"),
}
QUALITIES = (10, 20, 30, 40)
BEGIN, END = "<!-- self-ensembles, by scripts/render_self_ensemble.py -->", "<!-- end of self-ensembles -->"


def _psnr_by_quality(folder: str, dataset: str, method: str) -> dict[int, float]:
    averages = json.loads((ROOT / "results" / folder / "results.json").read_text(encoding="utf-8"))["averages"]
    return {row["quality"]: row["psnr_y"] for row in averages if (row["dataset"], row["method"]) == (dataset, method)}


def table() -> str:
    """PSNR-Y with a self-ensemble, and in brackets how much that is above the score without one."""
    lines = [f"| PSNR-Y (dB) | {' | '.join(f'Q{quality}' for quality in QUALITIES)} |", f"|---{'|---' * len(QUALITIES)}|"]
    for model in MODELS:
        for label, endings in FOLDERS.items():
            dataset, method = label.partition(",")[0], model.partition("_")[0]
            without, ensemble = (_psnr_by_quality(model + ending, dataset, method) for ending in endings)
            cells = [f"{ensemble[quality]:.2f} ({ensemble[quality] - without[quality]:+.2f})" for quality in QUALITIES]
            lines.append(f"| {model.replace('_', ' ')}, {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def render() -> str:
    """The page with its table made anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    write_text(PAGE, render())
