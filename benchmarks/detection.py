"""Image AUROC per category with one reference and with none, and the seconds an image.

    .venv/bin/python benchmarks/detection.py ../shared/data/dev --out runs/detection
    .venv/bin/python benchmarks/detection.py ../shared/data/dev --draws 1 --headline

Cells are kept in --out and not measured twice while data and code stay the same. `--headline` takes only the categories
that ../shared/data/README.md marks H: enough good and bad images, and no shortcut between them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HEADLINE = {
    "dev": ["solar_cell_mono", "solar_cell_poly", "screw", "pump_impeller", "fabric_02", "fabric_03"],
    "test": ["magnetic_tile", "bottle", "pavement", "powerline_insulator"],
}


def measure(data: Path, shots: int, draws: int, categories: list[str] | None, out: Path | None) -> dict[str, Any]:
    """Figures of each category, as `sage-eval detect --json` prints them."""
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.reports.detect_report import DetectSettings
    from sage_ad.evaluation.reports.detect_run import detect
    from sage_ad.evaluation.runs import Progress

    settings = DetectSettings(shots=shots, seeds=tuple(range(draws)))
    return detect(open_dataset(data, categories=categories), settings, out=out, progress=Progress()).figures("sage")


def table(runs: dict[int, dict[str, Any]]) -> str:
    """Markdown: a row a category, AUROC with and without a reference, seconds an image."""
    from sage_ad.evaluation.reports.metrics import macro
    from sage_ad.evaluation.reports.tables import markdown_table

    keys = ("image_auroc", "seconds_per_image")
    rows = [[name, *(run[name][key] for run in runs.values() for key in keys)] for name in next(iter(runs.values()))]
    mean = ["**mean**", *(macro(own[key] for own in run.values()) for run in runs.values() for key in keys)]
    head = ["category", *(title for shots in runs for title in (f"{shots} ref.: AUROC", "s/image"))]
    return markdown_table(head, [*rows, mean])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--headline", action="store_true")
    parser.add_argument("--categories", help="names with commas between them")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    categories = HEADLINE.get(arguments.data.name) if arguments.headline else None
    if arguments.categories:
        categories = arguments.categories.split(",")
    out = arguments.out
    runs = {
        shots: measure(arguments.data, shots, arguments.draws, categories, out and out / f"shots-{shots}")
        for shots in (1, 0)
    }
    print(table(runs))
    if out:
        (out / "results.json").write_text(json.dumps({str(k): v for k, v in runs.items()}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
