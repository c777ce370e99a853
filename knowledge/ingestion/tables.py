"""Knows: what the columns of a defect table mean, and how a row of it becomes statements that stand alone.

People keep such knowledge in two shapes: one sentence a row (column "fact", "text" or "description"), or a defect
catalogue or FMEA sheet with one column a question ("defect", "cause", "effect", "detection"). Both are read here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_ad.knowledge.facts import KINDS, Kind
from sage_ad.knowledge.text.resources import resource

_LEAD: dict[Kind, str] = {
    "appearance": "appearance",
    "cause": "cause",
    "consequence": "consequence",
    "normal-variation": "still normal",
    "inspection": "inspection",
}


@functools.cache
def _synonyms() -> dict[str, Kind]:
    """Kind by any of its names."""
    questions = resource("columns.yaml")["questions"]
    return {name: kind for kind in KINDS for name in (kind, *questions[kind])}


@dataclass(frozen=True)
class Statement:
    """What one cell of a table says.

    Attributes:
        text: the cell, led by its subject where the cell alone would not tell ("Micro-crack, cause: hail").
        kind: the kind that its column or the column "kind" names; None when neither does.
        products: names from a product column.
        defects: names from a defect column.
        column: heading of the column that it came from.
    """

    text: str
    kind: Kind | None = None
    products: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    column: str = ""


@dataclass(frozen=True)
class Columns:
    """Which column of a table plays which part; headings as they are written there."""

    text: str | None = None
    kind: str | None = None
    file: str | None = None
    products: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    questions: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the table says anything that could be a fact."""
        return bool(self.text or self.questions)


def recognise_columns(headings: Sequence[str]) -> Columns:
    """Finds the part that each column plays by its heading (any case, spaces or underscores)."""
    names = {heading: re.sub(r"[\W_]+", "_", str(heading).strip().lower()).strip("_") for heading in headings}

    words = resource("columns.yaml")

    def first(part: str) -> str | None:
        return next((heading for word in words[part] for heading, name in names.items() if name == word), None)

    questions = {heading: _synonyms()[name] for heading, name in names.items() if name in _synonyms()}
    return Columns(
        text=first("text"),
        kind=first("kind"),
        file=first("file"),
        products=tuple(heading for heading, name in names.items() if name in words["product"]),
        defects=tuple(heading for heading, name in names.items() if name in words["defect"]),
        questions=questions,
    )


def row_statements(row: Mapping[str, Any], columns: Columns) -> list[Statement]:
    """Turns one row into statements; an empty list when every column that could say something is empty."""
    products = _names(row, columns.products)
    defects = _names(row, columns.defects)
    subject = ", ".join((*products[:1], *defects[:1])) or _first_cell(row, columns)
    statements = []
    if columns.text and (text := _cell(row.get(columns.text))):
        kind = _kind(_cell(row.get(columns.kind))) if columns.kind else None
        statements.append(Statement(text, kind, products, defects, columns.text))
    for heading, kind in columns.questions.items():
        if text := _cell(row.get(heading)):
            statements.append(Statement(_led(text, subject, kind), kind, products, defects, heading))
    return statements


def _led(text: str, subject: str, kind: Kind) -> str:
    """A cell of a catalogue ("hail impact") with the subject that only its row tells."""
    words = re.findall(r"\w{3,}", subject.lower())
    if not subject or (words and all(word in text.lower() for word in words)):
        return text
    return f"{subject[:1].upper()}{subject[1:]}, {_LEAD[kind]}: {text}"


def _first_cell(row: Mapping[str, Any], columns: Columns) -> str:
    """The row's own name, when no column is called product or defect: its first cell, if that is short."""
    used = {columns.text, columns.kind, columns.file, *columns.questions}
    cells = [_cell(value) for heading, value in row.items() if heading not in used]
    return cells[0] if cells and 2 < len(cells[0]) <= 60 and not cells[0].isdigit() else ""


def _names(row: Mapping[str, Any], headings: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for heading in headings:
        value = row.get(heading)
        parts = value if isinstance(value, (list, tuple)) else re.split(r"[;|]", _cell(value))
        found.extend(name for part in parts if (name := _cell(part)) and len(name) <= 80)
    return tuple(dict.fromkeys(found))


def _kind(value: str) -> Kind | None:
    return _synonyms().get(value.lower().strip()) or _synonyms().get(re.sub(r"[\W_]+", "_", value.lower()).strip("_"))


def _cell(value: Any) -> str:
    """A cell as one line of text; numbers, nothing and nested values say nothing alone."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def heading_kind(heading: str) -> Kind | None:
    """The kind of fact that a heading or label names ("Causes", "How to inspect"); None for any other."""
    words = re.findall(r"[a-z]+", heading.lower())
    for size in (3, 2, 1):
        for start in range(len(words) - size + 1):
            if kind := _synonyms().get("_".join(words[start : start + size])):
                return kind if len(words) <= 5 else None
    return None
