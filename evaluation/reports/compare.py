"""Runs side by side: one table, and pictures of how they differ (Markdown, and HTML that needs no other file).

A run is a folder that `sage-eval detect`, `answer` or `judge` wrote with `--out`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_ad.evaluation.reports.finished_runs import ANSWER_FIGURES, Kind, Picture, Run, figure_at, read_runs
from sage_ad.evaluation.reports.metrics import expected_calibration_error, reliability
from sage_ad.evaluation.reports.tables import markdown_table, number
from sage_ad.evaluation.runs import output_folder
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole

MARKDOWN, HTML = "compare.md", "compare.html"
NAMES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "detect": (
        ("image AUROC", "image_auroc"),
        ("average precision", "image_ap"),
        ("F1", "f1"),
        ("overkill", "overkill"),
        ("miss", "miss"),
        ("pixel AUROC", "pixel_auroc"),
        ("AUPRO", "aupro"),
        ("seconds an image", "seconds_per_image"),
    ),
    "answer": (*ANSWER_FIGURES[:-1], ("unscored answers", "unscored.value"), ANSWER_FIGURES[-1]),
    "judge": (
        ("all pairs in order", "pairwise_all"),
        ("adjacent pairs in order", "pairwise_adjacent"),
        ("Kendall tau", "kendall_tau"),
    ),
}
TITLES: dict[Kind, str] = {"detect": "Detection", "answer": "Answers", "judge": "Judges"}


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    head: list[str]
    rows: list[list[str]]

    def to_markdown(self) -> str:
        """The table under its heading."""
        return f"## {self.title}\n\n{markdown_table(self.head, self.rows)}\n"


def tables_of(runs: Sequence[Run]) -> list[Table]:
    """One table a kind of run, and detection by category."""
    tables = []
    for kind, names in NAMES.items():
        own = [run for run in runs if run.kind == kind]
        if not own:
            continue
        rows = [[label, *(number(figure_at(run.figures, path)) for run in own)] for label, path in names]
        if kind != "judge":
            rows.append(["calibration error of the confidence", *(number(_calibration_error(run)) for run in own)])
        tables.append(Table(TITLES[kind], ["figure", *(run.name for run in own)], rows))
        if kind != "judge":
            tables.append(_by_category(kind, own))
    return tables


def _calibration_error(run: Run) -> float | None:
    sure = [row for row in run.images if row.get("confidence") is not None and row.get("anomalous") is not None]
    return expected_calibration_error(reliability([row["confidence"] for row in sure], [_right(row) for row in sure]))


def _right(row: dict[str, Any]) -> bool:
    return (row["verdict"] == "anomalous") == row["anomalous"]


def _by_category(kind: Kind, runs: Sequence[Run]) -> Table:
    key, label = ("image_auroc", "image AUROC") if kind == "detect" else ("accuracy", "accuracy")
    blocks = [_categories(run) for run in runs]
    names = sorted({name for block in blocks for name in block})
    rows = [[name, *(number(block.get(name, {}).get(key)) for block in blocks)] for name in names]
    return Table(f"{TITLES[kind]} by category: {label}", ["category", *(run.name for run in runs)], rows)


def _categories(run: Run) -> dict[str, dict[str, Any]]:
    if run.kind == "detect" and run.method != run.results.get("method"):
        return run.results["methods"][run.method]["categories"]
    return run.results.get("categories", {})


def compare(folders: Sequence[Path], out: Path | None = None) -> str:
    """Compares runs; with a folder, writes compare.md, compare.html and the pictures into it.

    Args:
        folders: folders that `sage-eval` wrote with `--out`, at least one.
        out: where the report goes; None makes no pictures.

    Returns:
        The report in Markdown.

    Raises:
        InputError: a folder is no run, or `out` cannot be written.
    """
    if not folders:
        raise InputError("There is nothing to compare; name one or more folders that sage-eval wrote with --out.")
    runs = read_runs(folders)
    tables = tables_of(runs)
    text = "# Runs side by side\n\n" + "\n".join(table.to_markdown() for table in tables)
    if out is None:
        return text
    from sage_ad.evaluation.reports.compare_pictures import pictures_of

    output_folder(out)
    pictures, notes = pictures_of(runs)
    for picture in pictures:
        (out / f"{picture.name}.png").write_bytes(picture.png)
        text += f"\n## {picture.title}\n\n![{picture.title}]({picture.name}.png)\n\n{picture.caption}\n"
    text += "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")
    write_whole(out / MARKDOWN, text)
    write_whole(out / HTML, _page(runs, tables, pictures, notes))
    return text


def _page(runs: Sequence[Run], tables: Sequence[Table], pictures: Sequence[Picture], notes: Sequence[str]) -> str:
    """The report as one HTML page; names of runs and categories are a user's, so everything is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("compare.html").render(runs=runs, tables=tables, pictures=pictures, notes=notes)
