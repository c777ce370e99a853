"""What a detection run found: figures over draws and categories, as JSON and as a report in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sage_ad.evaluation.reports.calibration import FalseAlarm, calibrate, check_rate
from sage_ad.evaluation.reports.metrics import average_precision, bootstrap_mean, decisions, image_auroc, macro
from sage_ad.evaluation.reports.tables import bullet_list, markdown_table
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER

SHOTS = (0, 1, 2, 4, 8)
DRAWS = 3


@dataclass(frozen=True)
class DetectSettings:
    """What is measured.

    Attributes:
        shots: good images that each test image is compared with; 0 is zero-shot.
        seeds: one draw of references each.
        false_alarm: rate for which a threshold is calibrated on good training images; None calibrates none.
        encoders: names of visual encoders; the first gives the report's figures, the others stand beside it.
        device: "auto", "cpu" or "cuda".
        tile: "auto", "off" or a side in pixels (`sage_ad.vlm.evidence.tiles`).
    """

    shots: int = 1
    seeds: tuple[int, ...] = tuple(range(DRAWS))
    false_alarm: float | None = None
    encoders: tuple[str, ...] = (DEFAULT_ENCODER,)
    device: str = "auto"
    tile: int | str = "auto"

    def __post_init__(self) -> None:
        if self.shots not in SHOTS:
            raise InputError(f"The number of references is one of {', '.join(map(str, SHOTS))}, not {self.shots}.")
        if not self.seeds or not self.encoders:
            raise InputError("At least one seed and one encoder are needed.")
        if self.false_alarm is not None:
            check_rate(self.false_alarm)

    @property
    def columns(self) -> dict[str, str]:
        """What is measured side by side: encoders by name; the name is "sage" where there is one."""
        return {"sage" if len(self.encoders) == 1 else encoder: encoder for encoder in self.encoders}


@dataclass
class Cell:
    """One category under one draw with one encoder.

    Attributes:
        method: its name in `DetectSettings.columns`.
        images: per test image {"id", "image", "references", "defect", "anomalous", "score", "threshold", "verdict",
            "confidence"}.
        normals: scores of good images for calibration.
        held_out: ids of the test images on which a calibrated threshold is measured.
        references: ids of the references that were drawn.
        normal: how many good images there are to test, scored or not.
        anomalous: how many defective ones.
        notes: what a reader of the figures must know.
        problems: (path, reason) of what was found broken while measuring.
    """

    category: str
    seed: int
    method: str
    images: list[dict[str, Any]] = field(default_factory=list)
    normals: list[float] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    normal: int = 0
    anomalous: int = 0
    pixel_auroc: float | None = None
    aupro: float | None = None
    seconds_per_image: float | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """The figures of the report for this cell."""
        labels = [row["anomalous"] for row in self.images]
        scores = [row["score"] for row in self.images]
        called = decisions(labels, [row["verdict"] == "anomalous" for row in self.images])
        return {
            "image_auroc": image_auroc(labels, scores),
            "image_ap": average_precision(labels, scores),
            "f1": called.f1,
            "overkill": called.overkill,
            "miss": called.miss,
            "pixel_auroc": self.pixel_auroc,
            "aupro": self.aupro,
            "normal": self.normal,
            "anomalous": self.anomalous,
            "seconds_per_image": self.seconds_per_image,
        }


HEAD = ("AUROC", "+-", "AP", "F1", "overkill", "miss", "pixel AUROC", "AUPRO", "good", "bad", "s")
FIGURES = ("image_auroc", "image_ap", "f1", "overkill", "miss", "pixel_auroc", "aupro")


@dataclass
class DetectReport:
    """All cells of a run; `to_json` and `to_markdown` are what the user sees."""

    dataset: str
    settings: DetectSettings
    categories: list[str]
    cells: list[Cell]
    notes: list[str]
    problems: list[str]

    def of(self, method: str, category: str) -> list[Cell]:
        """The cells of a category, one a draw."""
        return [cell for cell in self.cells if (cell.method, cell.category) == (method, category)]

    def figures(self, method: str) -> dict[str, dict[str, Any]]:
        """Per category, the mean over draws of each figure."""
        return {name: _over_draws(self.of(method, name), np.mean) for name in self.categories}

    def spread(self, method: str) -> dict[str, dict[str, Any]]:
        """Per category, the standard deviation over draws of each figure."""
        keys = (*FIGURES, "seconds_per_image")
        return {
            name: {key: value for key, value in _over_draws(self.of(method, name), np.std).items() if key in keys}
            for name in self.categories
        }

    def false_alarm(self, method: str) -> dict[str, Any]:
        """Per category, the calibrated threshold and what it does on held-out images; empty if none was asked for."""
        rate = self.settings.false_alarm
        if rate is None:
            return {}
        return {name: _false_alarm(self.of(method, name), rate) for name in self.categories}

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints: the first method's figures, the others under "methods"."""
        first, *others = self.settings.columns
        result = {
            "dataset": self.dataset,
            "shots": self.settings.shots,
            "seeds": list(self.settings.seeds),
            **self._block(first),
            "method": first,
            "methods": {name: self._block(name) for name in others},
            "notes": self.notes,
            "problems": self.problems,
        }
        return result

    def _block(self, method: str) -> dict[str, Any]:
        figures = self.figures(method)
        block: dict[str, Any] = {
            "categories": {name: _rounded(values) for name, values in figures.items()},
            "mean": _rounded(_mean(figures)),
            "spread": {name: _rounded(values) for name, values in self.spread(method).items()},
        }
        if self.settings.false_alarm is not None:
            block["false_alarm"] = self.false_alarm(method)
        return block

    def to_markdown(self) -> str:
        """The report in Markdown: one table a method, the difference, calibration, notes and problems."""
        draws = len(self.settings.seeds)
        shots = {0: "no reference", 1: "1 reference"}.get(self.settings.shots, f"{self.settings.shots} references")
        text = f"# Detection on {self.dataset}, {shots}, mean of {draws} {'draw' if draws == 1 else 'draws'}\n"
        if len(self.settings.encoders) > 1:
            rows = [_line(name, _mean(self.figures(name)), None) for name in self.settings.columns]
            text += f"\n## Side by side, mean over categories\n\n{markdown_table(['encoder', *HEAD], rows)}\n"
        for method in self.settings.columns:
            text += f"\n## {method}\n\n{self._table(method)}\n"
        if len(self.settings.columns) == 2:
            text += f"\n{self._difference()}\n"
        if self.settings.false_alarm is not None:
            text += self._alarm_table()
        return text + bullet_list("Notes", self.notes) + bullet_list("Problems", self.problems)

    def _table(self, method: str) -> str:
        figures, spread = self.figures(method), self.spread(method)
        rows = [_line(name, values, spread[name]["image_auroc"]) for name, values in figures.items()]
        rows.append(_line("mean", _mean(figures), None))
        return markdown_table(["category", *HEAD], rows)

    def _difference(self) -> str:
        names = list(self.settings.columns)
        first, second = (_mean(self.figures(name)) for name in names)
        if None in (first["image_auroc"], second["image_auroc"], second["seconds_per_image"]):
            return f"{names[0]} against {names[1]}: no category has good and defective images."
        points = 100 * (first["image_auroc"] - second["image_auroc"])
        times = first["seconds_per_image"] / max(second["seconds_per_image"], 1e-9)
        return (
            f"{names[0]} against {names[1]}: mean image AUROC {points:+.1f} points, at {times:.1f} times the seconds "
            "an image."
        )

    def _alarm_table(self) -> str:
        method = next(iter(self.settings.columns))
        alarms = self.false_alarm(method)
        rows = [
            [name, entry["normals"], entry["threshold"], entry["measured"], entry["miss"]]
            for name, entry in alarms.items()
        ]
        head = ["category", "normals", "threshold", "measured", "miss"]
        text = (
            f"\n## False alarms asked for: {self.settings.false_alarm:g} ({method})\n\n{markdown_table(head, rows)}\n"
        )
        refused = [f"{name}: {entry['refused']}" for name, entry in alarms.items() if entry["refused"]]
        return text + "".join(f"\n- {line}" for line in refused) + ("\n" if refused else "")


def _over_draws(cells: Sequence[Cell], over: Callable[[list[float]], Any]) -> dict[str, Any]:
    figures = [cell.figures() for cell in cells]
    result: dict[str, Any] = {}
    for key in figures[0]:
        values = [entry[key] for entry in figures if entry[key] is not None]
        if key in ("normal", "anomalous"):
            result[key] = max(values)
        else:
            result[key] = float(over(values)) if values else None
    return result


def _mean(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean over categories of each figure, of those that have it; counts are summed."""
    result: dict[str, Any] = {key: macro(values[key] for values in figures.values()) for key in FIGURES}
    result["normal"] = sum(values["normal"] for values in figures.values())
    result["anomalous"] = sum(values["anomalous"] for values in figures.values())
    result["seconds_per_image"] = macro(values["seconds_per_image"] for values in figures.values())
    return result


def _line(name: str, values: dict[str, Any], spread: float | None) -> list[Any]:
    return [
        name,
        values["image_auroc"],
        spread,
        *(values[key] for key in FIGURES[1:]),
        values["normal"],
        values["anomalous"],
        values["seconds_per_image"],
    ]


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}


def _false_alarm(cells: Sequence[Cell], rate: float) -> dict[str, Any]:
    """Calibration of one category: the draws' thresholds averaged, their false alarms pooled by image."""
    results: list[FalseAlarm] = []
    alarms: dict[str, list[float]] = {}
    misses: list[float] = []
    for cell in cells:
        held_out = set(cell.held_out)
        scores = {row["id"]: row["score"] for row in cell.images if row["id"] in held_out}
        result = calibrate(cell.normals, list(scores.values()), rate)
        results.append(result)
        if result.threshold is None:
            continue
        for name, score in scores.items():
            alarms.setdefault(name, []).append(float(score > result.threshold))
        bad = [row["score"] for row in cell.images if row["anomalous"]]
        if bad:
            misses.append(float(np.mean([score <= result.threshold for score in bad])))
    thresholds = [result.threshold for result in results if result.threshold is not None]
    measured = bootstrap_mean([float(np.mean(values)) for values in alarms.values()])
    return {
        "asked": rate,
        "normals": min((result.normals for result in results), default=0),
        "threshold": round(float(np.mean(thresholds)), 6) if thresholds else None,
        "measured": measured.to_json() if measured else None,
        "miss": round(float(np.mean(misses)), 4) if misses else None,
        "refused": next((result.refused for result in results if result.refused), None),
    }
