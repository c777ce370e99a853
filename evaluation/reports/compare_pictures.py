"""Pictures of a comparison: ROC, reliability, MLE by dimension, and the evidence of the best and worst cases."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_ad.evaluation.reports.finished_runs import Picture, Run, figure_at
from sage_ad.evaluation.reports.metrics import reliability
from sage_ad.vlm.errors import SageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Plot

# Okabe and Ito's colours, which colour-blind readers can distinguish too; lines also differ in their dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
INK, FAINT, RULE = "#1c1e21", "#5c636b", "#d9dce0"
DIMENSIONS = ("type", "localisation", "logic")


def pictures_of(runs: Sequence[Run]) -> tuple[list[Picture], list[str]]:
    """All pictures that the runs give, and sentences about those that could not be made."""
    pictures: list[Picture] = []
    notes: list[str] = []
    for make in (roc_picture, reliability_picture, mle_picture):
        picture = make(runs)
        if picture:
            pictures.append(picture)
    for run in runs:
        if run.kind == "judge" or not run.images:
            continue
        try:
            picture = cases_picture(run)
        except (SageError, OSError) as error:
            notes.append(f"The best and worst cases of {run.name} are not shown: {error}")
            continue
        if picture:
            pictures.append(picture)
    return pictures, notes


def _labelled(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.images if row.get("anomalous") is not None and row.get("score") is not None]


# --- plots ----------------------------------------------------------------------------------------------------------


def mean_roc(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray] | None:
    """The ROC curve averaged over categories and draws at equal false alarm rates; None if none has both states."""
    from sklearn.metrics import roc_curve

    parts: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault((row["category"], row.get("seed", 0)), []).append(row)
    grid = np.linspace(0, 1, 201)
    curves = []
    for part in parts.values():
        labels = np.array([row["anomalous"] for row in part], bool)
        if labels.all() or not labels.any():
            continue
        # Thresholds may differ between images (own references), so scores are in units of their threshold.
        scores = [row["score"] / max(row["threshold"], 1e-9) for row in part]
        false, true, _ = roc_curve(labels, scores)
        # At a vertical step the upper end counts, as in the area under the curve.
        curves.append(np.interp(grid, false, true))
    return (grid, np.mean(curves, axis=0)) if curves else None


def roc_picture(runs: Sequence[Run]) -> Picture | None:
    """ROC curves of the image scores of all runs."""
    curves = [(run.name, curve) for run in runs if (curve := mean_roc(_labelled(run)))]
    if not curves:
        return None
    plot, axes = _axes((6.4, 5.4))
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1, zorder=1)
    for number, (name, (false, true)) in enumerate(curves):
        area = float(np.trapezoid(true, false))
        axes.plot(false, true, label=f"{name} ({area:.3f})", **_style(number))
    axes.set(xlabel="share of good parts flagged", ylabel="share of defective parts found", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_aspect("equal")
    _legend(axes)
    caption = (
        "ROC of the image score, averaged over categories and draws; the area under each averaged curve in brackets."
    )
    return Picture("roc", "Receiver operating characteristic", caption, _png(plot))


def reliability_picture(runs: Sequence[Run]) -> Picture | None:
    """How often verdicts of a stated confidence were right."""
    curves = []
    for run in runs:
        rows = [row for row in _labelled(run) if row.get("confidence") is not None]
        if rows:
            right = [(row["verdict"] == "anomalous") == row["anomalous"] for row in rows]
            # Few images in many bins would draw noise.
            bins = 10 if len(rows) >= 400 else 5
            curves.append((run.name, reliability([row["confidence"] for row in rows], right, bins)))
    if not curves:
        return None
    plot, axes = _axes((6.4, 5.4))
    axes.plot([0.5, 1], [0.5, 1], color=RULE, linewidth=1, zorder=1)
    for number, (name, entries) in enumerate(curves):
        style = _style(number)
        sizes = 18 + 160 * np.array([entry.n for entry in entries]) / max(entry.n for entry in entries)
        sure, right = [entry.confidence for entry in entries], [entry.accuracy for entry in entries]
        axes.plot(sure, right, label=name, **style)
        axes.scatter(sure, right, s=sizes, color=style["color"], alpha=0.55, zorder=3, linewidths=0)
    lowest = min(entry.accuracy for _, entries in curves for entry in entries)
    axes.set(xlabel="stated confidence", ylabel="share of verdicts that were right", xlim=(0.49, 1.01))
    axes.set_ylim(min(0.45, lowest - 0.05), 1.02)
    _legend(axes)
    caption = (
        "Reliability of the confidence: on the grey line it means what it says; larger dots stand for more images."
    )
    return Picture("reliability", "Reliability of the confidence", caption, _png(plot))


def mle_picture(runs: Sequence[Run]) -> Picture | None:
    """MLE by dimension of all answer runs, with the template baseline of the first."""
    columns = [(run.name, run.figures) for run in runs if run.kind == "answer"]
    for run in runs:
        template = run.results.get("baselines", {}).get("evidence-template") if run.kind == "answer" else None
        if template:
            columns.append(("evidence-template", template))
            break
    columns = [(name, figures) for name, figures in columns if _levels(figures)]
    if not columns:
        return None
    plot, axes = _axes((6.8, 4.4))
    width = 0.8 / len(columns)
    for number, (name, figures) in enumerate(columns):
        levels = _levels(figures)
        x = np.arange(len(DIMENSIONS)) + (number - (len(columns) - 1) / 2) * width
        values = np.array([levels.get(d, (np.nan, np.nan, np.nan)) for d in DIMENSIONS])
        errors = np.array([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]])
        axes.bar(x, values[:, 0] - 1, width * 0.92, bottom=1, label=name, color=COLOURS[number % len(COLOURS)])
        axes.errorbar(x, values[:, 0], errors, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    axes.set_xticks(range(len(DIMENSIONS)), DIMENSIONS)
    axes.set(ylabel="level (1 to 5)", ylim=(1, 5.05))
    axes.grid(axis="x", visible=False)
    _legend(axes)
    caption = "MLE by dimension, the mean over answers with its bootstrap 95 % interval."
    return Picture("mle", "MLE by dimension", caption, _png(plot))


def _levels(figures: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    found = {}
    for dimension in DIMENSIONS:
        figure = figure_at(figures, f"mle.{dimension}")
        if figure and figure.get("value") is not None:
            found[dimension] = (figure["value"], figure["low"], figure["high"])
    return found


def _axes(size: tuple[float, float]) -> tuple[Plot, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    plot = Plot(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(plot)
    axes = plot.subplots()
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, length=0)
    axes.xaxis.label.set_color(FAINT)
    axes.yaxis.label.set_color(FAINT)
    for side in axes.spines.values():
        side.set_visible(False)
    return plot, axes


def _style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)], "linewidth": 2}


def _legend(axes: Axes) -> None:
    """The legend below the plot, where it hides nothing."""
    options: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 2, "frameon": False}
    axes.legend(labelcolor=INK, handlelength=3, **options)


def _png(plot: Plot) -> bytes:
    buffer = io.BytesIO()
    # Without the date and version of the writer, the same run gives the same bytes.
    plot.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


# --- best and worst cases -------------------------------------------------------------------------------------------


def pick_cases(rows: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The clearest find, the quietest good part, the worst miss, the loudest false alarm, by score over threshold."""

    def ratio(row: dict[str, Any]) -> float:
        return float(row["score"]) / max(float(row["threshold"]), 1e-9)

    bad = sorted((row for row in rows if row["anomalous"]), key=ratio)
    good = sorted((row for row in rows if not row["anomalous"]), key=ratio)
    found = [row for row in bad if row["verdict"] == "anomalous"]
    passed = [row for row in good if row["verdict"] == "normal"]
    missed = [row for row in bad if row["verdict"] == "normal"]
    alarms = [row for row in good if row["verdict"] == "anomalous"]
    cases = (
        ("Best: the clearest find", found[-1:]),
        ("Best: the quietest good part", passed[:1]),
        ("Worst: a defect that passed", missed[:1]),
        ("Worst: a good part that was flagged", alarms[-1:]),
    )
    return [(title, row) for title, rows in cases for row in rows]


def cases_picture(run: Run) -> Picture | None:
    """Evidence pictures of the best and worst cases of a run, one below the other; evidence is measured again.

    Raises:
        InputError: an image is gone.
    """
    from PIL import Image, ImageDraw, ImageFont

    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings
    from sage_ad.vlm.evidence.visualize import evidence_picture
    from sage_ad.vlm.images import load_image

    cases = pick_cases(_labelled(run))
    if not cases:
        return None
    extractor = EvidenceExtractor(EvidenceSettings() if run.method in (None, "sage") else EvidenceSettings(run.method))
    panels = []
    for title, row in cases:
        test = load_image(Path(row["image"] if run.kind == "detect" else row["file"]))
        references = [load_image(Path(path)) for path in row.get("references", [])]
        bank = extractor.prepare(references) if references else None
        panels.append(
            (f"{title} ({row['category']})", evidence_picture(test, references, extractor.extract(test, bank)))
        )
    head = 40
    sheet = Image.new("RGB", (max(p.width for _, p in panels), sum(p.height + head for _, p in panels)), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for title, panel in panels:
        draw.text((12, y + 10), title, fill=INK, font=ImageFont.load_default(20))
        sheet.paste(panel, (0, y + head))
        y += head + panel.height
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    safe = "".join(letter if letter.isalnum() else "-" for letter in run.name).strip("-")
    caption = (
        "By score over threshold; colours are absolute: clear below the threshold, dark red at twice the threshold."
    )
    return Picture(f"cases-{safe}", f"Best and worst cases of {run.name}", caption, buffer.getvalue())
