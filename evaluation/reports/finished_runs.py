"""Finished runs of `sage-eval`, read from their folders."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sage_ad.evaluation.runs import IMAGES, RESULTS
from sage_ad.vlm.errors import InputError

Kind = Literal["detect", "answer", "judge"]


ANSWER_FIGURES = (
    ("accuracy", "accuracy"),
    ("Acc-G", "acc_g"),
    ("SBERT similarity", "sbert"),
    ("MLE type", "mle.type"),
    ("MLE localisation", "mle.localisation"),
    ("MLE logic", "mle.logic"),
    ("MLE mean", "mle.mean"),
    ("defect named", "naming"),
    ("place touches the mask", "place"),
    ("the same, defects found", "place_found"),
    ("verdict AUROC", "verdict_auroc"),
    ("evidence AUROC", "evidence_auroc"),
    ("consistency", "consistency"),
    ("seconds an image", "seconds_per_image"),
)
"""What is told of answers, and where it stands in their results."""


@dataclass
class Run:
    """One column of the comparison.

    Attributes:
        name: unique among the columns.
        kind: which command made it.
        figures: what the rows of the table are read from.
        results: the whole results.json.
        images: rows of images.jsonl that belong to this column.
        method: "sage", or the encoder of a detection column where several were measured.
    """

    name: str
    kind: Kind
    figures: dict[str, Any]
    results: dict[str, Any]
    images: list[dict[str, Any]] = field(default_factory=list)
    method: str | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of the report with the sentence below it."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def source(self) -> str:
        """The picture as a data address, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Columns of all runs: a detection run has one for each encoder.

    Raises:
        InputError: a folder is no run; the message says which and why.
    """
    runs: list[Run] = []
    for folder in folders:
        results = _results(folder)
        kind = _kind(folder, results)
        label = _unique(folder.resolve().name, [run.name.split(" · ")[0] for run in runs])
        images = _rows(folder / IMAGES)
        if kind == "detect":
            blocks = {results.get("method", "sage"): results, **results.get("methods", {})}
            for method, block in blocks.items():
                own = [row for row in images if row.get("method") == method]
                runs.append(Run(f"{label} · {method}", kind, block["mean"], results, own, method))
        else:
            runs.append(Run(label, kind, results, results, images))
    return runs


def _results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS if folder.is_dir() else folder
    if not path.is_file():
        raise InputError(f"{folder} holds no {RESULTS}; name a folder that a sage-eval command wrote with --out.")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); run the command that wrote it again.") from None
    if not isinstance(results, dict):
        raise InputError(f"{path} is no result of sage-eval; name a folder written with --out.")
    return results


def _kind(folder: Path, results: dict[str, Any]) -> Kind:
    if "mle" in results:
        return "answer"
    if "pairwise_all" in results:
        return "judge"
    if "mean" in results and "shots" in results:
        return "detect"
    raise InputError(f"{folder} is no run of sage-eval detect, answer or judge; name a folder written with --out.")


def _unique(name: str, taken: Sequence[str]) -> str:
    number_of_same = 2
    label = name
    while label in taken:
        label, number_of_same = f"{name} ({number_of_same})", number_of_same + 1
    return label


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSON-lines file; none if it is absent (an older run), broken lines left to the next run."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); run the command that wrote it again.") from None


def figure_at(figures: dict[str, Any], path: str) -> Any:
    """The figure under a dotted path ("mle.type"), None if there is none."""
    value: Any = figures
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
