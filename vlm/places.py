"""Places in words: a 3 x 3 grid over the picture, from "upper left" to "lower right"."""

from __future__ import annotations

from collections.abc import Sequence

ROWS = ("upper", "centre", "lower")
COLUMNS = ("left", "centre", "right")


def _name(row: int, column: int) -> str:
    return "centre" if row == column == 1 else f"{ROWS[row]} {COLUMNS[column]}"


PLACES: tuple[str, ...] = tuple(_name(row, column) for row in range(3) for column in range(3))
"""The nine places, row by row: upper left, upper centre, upper right, centre left, centre, ..., lower right."""


def cell_of_place(place: str) -> tuple[int, int]:
    """Row and column (0 to 2 each) of one of `PLACES`; raises `ValueError` for any other word."""
    if place not in PLACES:
        raise ValueError(f"{place!r} is no place; use one of: {', '.join(PLACES)}.")
    return divmod(PLACES.index(place), 3)


def place_of_point(x: float, y: float, width: float, height: float) -> str:
    """The place of a point in a picture of `width` x `height` (same units; points outside count to the nearest cell)."""
    column = min(2, max(0, int(3 * x / width)))
    row = min(2, max(0, int(3 * y / height)))
    return _name(row, column)


def place_of_box(box: Sequence[float], width: float, height: float) -> str:
    """The place of the middle of a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box
    return place_of_point((x0 + x1) / 2, (y0 + y1) / 2, width, height)
