"""`index.csv`: what a collection of sets knows of an image beyond its folder (its mask's kind, its own reference)."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_ad.evaluation.datasets.sample import MaskKind, Split

INDEX_NAME = "index.csv"
COLUMNS = frozenset({"path", "category", "split", "defect"})
"""An index.csv without these columns is some other table and is left alone."""


@dataclass(frozen=True)
class IndexRow:
    """One row: paths are absolute, `mask_kind` is None where the row names no mask."""

    image: Path
    category: str
    split: Split
    defect: str
    mask: Path | None
    mask_kind: MaskKind | None
    reference: Path | None
    meta: dict[str, Any]


def find_index(root: Path) -> Path | None:
    """The nearest index.csv in the folder or above it that lists images (has `COLUMNS`), or None."""
    folder = root.resolve()
    for place in (folder, *folder.parents):
        candidate = place / INDEX_NAME
        if candidate.is_file() and _is_ours(candidate):
            return candidate
    return None


def _is_ours(path: Path) -> bool:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return set(next(csv.reader(stream), [])) >= COLUMNS
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read_index(path: Path, below: Path) -> tuple[dict[Path, IndexRow], list[str]]:
    """Rows about images below a folder, by the image's absolute path, and what is wrong with the table, in words."""
    rows: dict[Path, IndexRow] = {}
    faults: list[str] = []
    base, below = path.parent.resolve(), below.resolve()
    with path.open(newline="", encoding="utf-8-sig") as stream:
        for number, raw in enumerate(csv.DictReader(stream), start=2):
            if not raw.get("path") or raw.get("defect") is None:
                faults.append(f"line {number} is cut short or names no path")
                continue
            image = base / raw["path"]
            if not image.is_relative_to(below):
                continue
            row, fault = _row(base, image, raw)
            rows[image] = row
            if fault:
                faults.append(f"line {number}: {fault}")
    return rows, faults


def _row(base: Path, image: Path, raw: dict[str, str]) -> tuple[IndexRow, str | None]:
    fault = None
    kind: MaskKind | None = None
    if raw.get("mask_kind") in ("pixel", "box"):
        kind = "pixel" if raw["mask_kind"] == "pixel" else "box"
    elif raw.get("mask_kind"):
        fault = f"mask_kind is {raw['mask_kind']!r} and should be 'pixel' or 'box'"
    try:
        meta = json.loads(raw["meta"]) if raw.get("meta") else {}
    except ValueError:
        meta, fault = {}, "meta is no JSON"
    row = IndexRow(
        image=image,
        category=raw["category"],
        split="train" if raw["split"] == "train" else "test",
        defect=raw["defect"],
        mask=base / raw["mask"] if raw.get("mask") else None,
        mask_kind=kind,
        reference=base / raw["reference"] if raw.get("reference") else None,
        meta=meta if isinstance(meta, dict) else {},
    )
    return row, fault
