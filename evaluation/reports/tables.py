"""Tables of figures in Markdown, readable as they stand on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ABSENT = "-"


def number(value: Any, digits: int = 3) -> str:
    """A figure as a table shows it: `{"value", "low", "high"}`, a number, or "-" for what is absent."""
    if value is None:
        return ABSENT
    if isinstance(value, dict):
        if value.get("value") is None:
            return ABSENT
        return f"{value['value']:.{digits}f} ({value['low']:.{digits}f}-{value['high']:.{digits}f})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return str(value)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table with aligned columns: the first column to the left, figures to the right."""
    cells = [[_escape(str(cell)) for cell in head]] + [[_escape(number(cell)) for cell in row] for row in rows]
    width = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width[i]) if i == 0 else cell.rjust(width[i]) for i, cell in enumerate(row)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(width)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _escape(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def bullet_list(title: str, lines: Sequence[str], limit: int = 50) -> str:
    """A heading with its points; empty if there are none. Beyond `limit` the rest is counted, not hidden."""
    if not lines:
        return ""
    shown = [f"- {' '.join(line.split())}" for line in lines[:limit]]
    if len(lines) > limit:
        shown.append(f"- ... and {len(lines) - limit} more (all of them in results.json)")
    return f"\n## {title}\n\n" + "\n".join(shown) + "\n"
