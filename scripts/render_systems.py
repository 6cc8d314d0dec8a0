"""Fill the tables of docs/systems.md from what was measured and the paper's Table 3, so that they never differ.

python scripts/render_systems.py
"""

import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

from jpegsr.images import write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "systems.md"
RESULTS = ROOT / "results" / "systems" / "results.json"
FINE_RESULTS = ROOT / "results" / "systems_fine" / "results.json"
PUBLISHED = ROOT / "results" / "published.json"
DATASETS = ("Set5", "Set14")
QUALITIES = (10, 20, 30)
# Rows of the paper's Table 3, and what stands for them here.
PAPER_ROWS = {
    "bicubic": "bicubic",
    "SCSR": "SCSR",
    "VDSR": "VDSR, clean-trained",
    "LBJSRD": "LBJSRD",
    "proposed": "jpegsr base",
}
CLEAN_TRAINED = (
    *("SCSR", "SRCNN, clean-trained", "VDSR, clean-trained", "EDSR-baseline, clean-trained", "base's network, clean-trained"),
    "SPAN",
)
BASE, FAST = "jpegsr base", "jpegsr fast, int8"
_LEAST_LEAD = 0.005  # dB; what shows as 0.01


class Results:
    """What was measured, by name.

    Attributes:
      systems: name -> its entry, with costs, or with the reason why it was left out.
      psnr_y: (dataset, quality, name) -> dB; bicubic is one of the names. Fine qualities were measured on one dataset alone.
    """

    def __init__(self) -> None:
        results, fine_results = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, FINE_RESULTS))
        self.systems: dict[str, dict[str, Any]] = results["systems"]
        rows = results["averages"] + fine_results["averages"]
        self.psnr_y = {(row["dataset"], row["quality"], row["method"]): row["psnr_y"] for row in rows}

    @property
    def qualities_in_order(self) -> list[int]:
        """From the worst input to the best; 0 is clean."""
        return sorted({quality for _, quality, _ in self.psnr_y}, key=lambda quality: quality or 101)

    @property
    def measured(self) -> list[str]:
        return [name for name, entry in self.systems.items() if not entry["skipped"]]

    def datasets(self, quality: int) -> list[str]:
        """Those that were measured at a quality."""
        return [dataset for dataset in DATASETS if (dataset, quality, "bicubic") in self.psnr_y]

    def gain(self, dataset: str, quality: int, name: str) -> float:
        """Over bicubic, in dB."""
        return self.psnr_y[dataset, quality, name] - self.psnr_y[dataset, quality, "bicubic"]


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def _label(quality: int) -> str:
    return f"Q{quality}" if quality else "clean"


def _paper_gains() -> dict[str, float]:
    """Name here -> gain over the bicubic row of the paper's Table 3 (Set5, quality 10)."""
    table = json.loads(PUBLISHED.read_text(encoding="utf-8"))["paper"]["table_3_set5_quality_10"]
    return {PAPER_ROWS[name]: value - table["bicubic"] for name, value in table.items() if name != "bicubic"}


def scores(results: Results) -> str:
    """All systems: PSNR-Y, the gain over bicubic in brackets, and what they cost."""
    paper = _paper_gains()
    header = ["system", *(f"{dataset} {_label(quality)}" for dataset in DATASETS for quality in QUALITIES)]
    rows = []
    for name in ("bicubic", *results.measured):
        cells = []
        for dataset, quality in itertools.product(DATASETS, QUALITIES):
            value = f"{results.psnr_y[dataset, quality, name]:.2f}"
            cells.append(value if name == "bicubic" else f"{value} ({results.gain(dataset, quality, name):+.2f})")
        entry = results.systems.get(name)
        costs = (
            [f"{entry['seconds_per_megapixel']:.2f}", f"{entry['peak_megabytes']:,}", f"{entry['parameters'] / 1e6:.2f}"]
            if entry
            else ["", "", ""]
        )
        rows.append([name, *cells, f"{paper[name]:+.2f}" if name in paper else "", *costs])
    text = _table([*header, "paper: Set5 Q10", "s / megapixel", "MB", "million parameters"], rows)
    left_out = [f"- {name}: {entry['skipped']}" for name, entry in results.systems.items() if entry["skipped"]]
    return "\n".join([text, "", "Left out of this run:", "", *left_out]) if left_out else text


def orderings(results: Results) -> str:
    """Every pair of the paper's Table 3, there and here."""
    paper = {"bicubic": 0.0, **_paper_gains()}
    rows = []
    for (worse, lower), (better, higher) in itertools.combinations(sorted(paper.items(), key=lambda item: item[1]), 2):
        if worse in ("bicubic", *results.measured) and better in results.measured:
            here = results.gain("Set5", 10, better) - results.gain("Set5", 10, worse)
            rows.append([f"{better} over {worse}", f"{higher - lower:+.3f}", f"{here:+.3f}", "yes" if here > 0 else "**no**"])
    return _table(["Set5, Q10, dB", "paper", "here", "holds"], rows)


def clean_trained(results: Results) -> str:
    """Gain over bicubic of what was trained on clean pictures, and of `base`, from the worst input to the best."""
    qualities = results.qualities_in_order
    rows = []
    for name, dataset in itertools.product((*CLEAN_TRAINED, BASE), DATASETS):
        if name in results.measured:
            known = [dataset in results.datasets(quality) for quality in qualities]
            cells = [
                f"{results.gain(dataset, q, name):+.2f}" if is_known else ""
                for q, is_known in zip(qualities, known, strict=True)
            ]
            rows.append([f"{name}, {dataset}", *cells])
    return _table(["gain over bicubic, dB", *map(_label, qualities)], rows)


def _leads(results: Results, ours: str, others: list[str]) -> str:
    """By how much others are ahead of one of ours, in dB; a table of those that are, anywhere."""
    qualities = results.qualities_in_order
    rows = []
    for name in others:
        cells = []
        for quality in qualities:
            datasets = results.datasets(quality)
            leads = [results.gain(dataset, quality, name) - results.gain(dataset, quality, ours) for dataset in datasets]
            shown = [f"{lead:.2f}" if lead >= _LEAST_LEAD else "-" for lead in leads]
            cells.append(" / ".join(shown) if any(lead >= _LEAST_LEAD for lead in leads) else "")
        if any(cells):
            rows.append([name, *cells])
    return _table([f"ahead by, {' / '.join(DATASETS)}", *map(_label, qualities)], rows) if rows else "None."


def where_others_lead(results: Results) -> str:
    """What is ahead of `base`, and what is ahead of `fast` though it is not faster."""
    others = [name for name in results.measured if not name.startswith("jpegsr")]
    seconds = {name: results.systems[name]["seconds_per_megapixel"] for name in results.measured}
    slower = [name for name in others if seconds[name] >= seconds[FAST]]
    texts = [
        f"Ahead of `base` (float32, {seconds[BASE]:.2f} s per megapixel):",
        _leads(results, BASE, others),
        f"Ahead of `fast` (int8, {seconds[FAST]:.2f} s), though not faster:",
        _leads(results, FAST, slower),
    ]
    return "\n\n".join(texts)


BLOCKS: dict[str, Callable[[Results], str]] = {
    "scores": scores,
    "orderings": orderings,
    "clean-trained": clean_trained,
    "where others lead": where_others_lead,
}


def render() -> str:
    """The page with all its blocks made anew."""
    text, results = PAGE.read_text(encoding="utf-8"), Results()
    for name, make in BLOCKS.items():
        before, begin, rest = text.partition(f"<!-- {name}, by scripts/render_systems.py -->")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}{begin}\n{make(results)}\n{end}{after}"
    return text


if __name__ == "__main__":
    write_text(PAGE, render())
