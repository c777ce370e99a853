"""Places in words: which cells of the 3 x 3 grid a text points at, and how they lie to where the defect is.

Words for rows ("top", "lower", "twelve o'clock"), for columns ("left", "eastern side") and for the middle are read in
phrases; "upper left" is one cell, "left" a column of three. The right place is a set of cells too, from a place in words, a
mask, or boxes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.rubric import Fault
from sage_ad.evaluation.text.answer_parser import ParsedAnswer
from sage_ad.evaluation.text.normalise import plain, stem, word_set
from sage_ad.vlm.places import COLUMNS, PLACES, ROWS, cell_of_place, place_of_box

if TYPE_CHECKING:
    import numpy as np

Cell = tuple[int, int]
ALL_CELLS = frozenset((row, column) for row in range(3) for column in range(3))

_ROW_WORDS = {
    0: "upper top topmost uppermost north northern above highest upwards overhead",
    2: "lower bottom bottommost lowermost lowest south southern below underside foot base",
}
_COLUMN_WORDS = {
    0: "left leftmost lefthand left-hand left-side west western",
    2: "right rightmost righthand right-hand right-side east eastern",
}
_MIDDLE_WORDS = "centre center middle central centrally mid midway halfway core heart midpoint centred centered"
_CORNERS = {
    f"{row}{hyphen}{column}{ending}": (2 * down, 2 * right)
    for down, row in enumerate(("north", "south"))
    for right, column in enumerate(("west", "east"))
    for hyphen in ("", "-")
    for ending in ("", "ern")
}
_CLOCK = {
    12: (0, 1),
    1: (0, 2),
    2: (0, 2),
    3: (1, 2),
    4: (2, 2),
    5: (2, 2),
    6: (2, 1),
    7: (2, 0),
    8: (2, 0),
    9: (1, 0),
    10: (0, 0),
    11: (0, 0),
}
_NUMBERS = {
    word: number
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}
_CLOCK_PATTERN = re.compile(r"\b(\d{1,2}|[a-z]+)(?:\s*-?\s*o\s*'?\s*clock|\s*uhr)\b")
_ROW_OF = {word: row for row, words in _ROW_WORDS.items() for word in words.split()}
_COLUMN_OF = {word: column for column, words in _COLUMN_WORDS.items() for word in words.split()}
_MIDDLE = frozenset(_MIDDLE_WORDS.split())
_JOINTS = word_set(
    "- of the its and at in to on side hand corner edge , area part half third quarter quadrant section region end far "
    "very about roughly just almost near close towards toward along line extreme somewhat slightly"
)
_ENDS = r"(?:the )?(?:top|bottom|left|right|upper|lower)"
_ANCHORS = r"(?:left|right|middle|centre|center|corner|bottom|top|very|far|extreme|lower|upper)"
_PREPOSITION = (
    r"(?: (?:in|on|at|by|near|to|towards) (?:the )?(?:left|right|middle|centre|center|corner)| (?:left|right))"
)
_LEVELS = tuple(
    (re.compile(rf"(?<!way )(?<!half )(?<!way, )\b(?:{words})(?=,?{_PREPOSITION}\b)"), row)
    for words, row in (
        ("low(?: down)?|down(?: low)?|deep down", "lower"),
        ("high(?: up)?|up(?: high)?|way up", "upper"),
    )
)
"""Levels in words: "low on the right", "up in the left corner", "down left"."""
_RELATIVE = re.compile(
    rf"\b(?:just |right |directly )?(?:above|below|under|underneath|beneath|over) (?:the|a|an|its|this|that|his|her|one)"
    rf" (?!{_ANCHORS}\b)[a-z]+"
)
"""Places relative to a part of the product ("just below the head"), which say nothing about the picture."""
_HALFWAY = re.compile(r"\b(?:half|mid)-?way (?:up|down)\b")
_SPAN = re.compile(r"\bfrom (the [^,.;:]{2,40}?) (?:to|towards|into)\b")
"""From one place to another: two places, not one."""
_BETWEEN = re.compile(rf"\bbetween {_ENDS}(?: \w+)? and {_ENDS}(?: (?:edge|end|side|half))?\b")
_PREPOSITIONS = (
    "in|at|on|through|across|next|behind|above|below|under|by|where|beside|along|down|up|into|over|before|after|"
    "here|there"
)
_SIDES = "side|hand|edge|corner|half|part|end"
_NOT_PLACES = tuple(
    re.compile(pattern)
    for pattern in (
        # "right" as a judgement or an emphasis
        rf"\b(?:not|quite|all|just) right\b(?!(?: |-)(?:{_SIDES}))",
        rf"^\s*right\s*,|(?<!the )\bright (?:{_PREPOSITIONS})\b",
        r"\b(?:that is|is|are|be|looks?|seems?) right(?=[.,;!]|$)",
        r"\b(?:is|are|be|looks?|seems?|the) right(?= (?:size|colou?r|way|part|type|shape|order|one|answer|amount|place))",
        r"\b(?:is|the) right(?= (?:position|number))",
        r"\bright(?:ly)? (?:away|now|through|across|angles?|answer|verdict|where it should)\b",
        # "left" as what remains
        r"\bwhat(?: is|'s| was) left\b",
        r"\b(?:is|are|was|were|been|be|has|have) left(?= (?:out|over|off|behind|unfilled|empty|open|to)\b|[.,;!]|$)",
        r"\b(?:nothing|what|no \w+|anything) left(?= (?:out|over|off|behind|unfilled|empty|open|to)\b|[.,;!]|$)",
        r"\bleft (?:out|over|off|behind|unfilled|empty|a|an|by|some)\b",
        # "top", "above", "below", "bottom" in fixed expressions
        r"\bon top of (?:that|this|it all)\b|\bfrom top to bottom\b|\bat (?:the )?(?:bottom|heart) of (?:it|this)\b",
        r"\btop (?:quality|grade|notch|condition|shape)\b",
        r"\b(?:above|below) (?:standard|average|spec\w*|the (?:limit|standard|threshold|required))\b",
        r"\b(?:from )?(?:left to right|right to left|side to side|edge to edge)\b",
        r"\bbase (?:material|metal|line)\b|\bbaseline\b|\bmid-?(?:grey|gray|tone)\b|\bcopyright\b",
    )
)


PLACE_STEMS: frozenset[str] = frozenset(
    stem(word)
    for word in (
        *_ROW_OF,
        *_COLUMN_OF,
        *_MIDDLE,
        *_CORNERS,
        *[
            "o",
            "clock",
            "hand",
            "side",
            "corner",
            "edge",
            "area",
            "region",
            "zone",
            "half",
            "third",
            "quarter",
            "quadrant",
        ],
    )
)
"""Stems of the words that make up places."""


@dataclass(frozen=True)
class Place:
    """A place that a text points at: the words, and the cells that they cover."""

    words: str
    cells: frozenset[Cell]


def _cells(row: int | None, column: int | None) -> frozenset[Cell]:
    return frozenset(cell for cell in ALL_CELLS if row in (None, cell[0]) and column in (None, cell[1]))


def places_in(text: str) -> list[Place]:
    """The places that a text names, in order."""
    text = plain(text)
    text = _RELATIVE.sub(" | ", _BETWEEN.sub(" middle ", text))
    text = _HALFWAY.sub("halfway", _SPAN.sub(r" \1 | ", text))
    for pattern in _NOT_PLACES:
        text = pattern.sub(" | ", text)
    for pattern, level in _LEVELS:
        text = pattern.sub(level, text)
    found = [
        Place(match.group(0), frozenset({_CLOCK[hour]}))
        for match in _CLOCK_PATTERN.finditer(text)
        if (hour := _NUMBERS.get(match.group(1)) or (int(match.group(1)) if match.group(1).isdigit() else 0)) in _CLOCK
    ]
    tokens = re.findall(r"[a-z]+(?:-[a-z]+)*|\d+|[,.;|()]", _CLOCK_PATTERN.sub(" | ", text))
    tokens = [
        part
        for token in tokens
        for part in (token.split("-") if token not in _CORNERS and token not in _COLUMN_OF else [token])
    ]
    return found + _runs(tokens)


def _runs(tokens: list[str]) -> list[Place]:
    """Places from runs of place words ("top left-hand corner", "middle of the right edge")."""
    places: list[Place] = []
    row: int | None = None
    column: int | None = None
    middle = False
    said: list[str] = []

    def close() -> None:
        nonlocal row, column, middle
        if said:
            if middle and row is None and column is None:
                row = column = 1
            elif middle and row is None:
                row = 1
            elif middle and column is None:
                column = 1
            places.append(Place(" ".join(said), _cells(row, column)))
        row, column, middle = None, None, False
        said.clear()

    gap = 0
    for token in tokens:
        corner = _CORNERS.get(token)
        new_row, new_column = _ROW_OF.get(token), _COLUMN_OF.get(token)
        if corner or new_row is not None or new_column is not None or token in _MIDDLE:
            clash = (new_row is not None and row is not None) or (new_column is not None and column is not None)
            if said and (clash or corner or gap > 4):
                close()
            if corner:
                row, column = corner
            row = new_row if new_row is not None else row
            column = new_column if new_column is not None else column
            middle = middle or token in _MIDDLE
            said.append(token)
            gap = 0
        elif said and token in _JOINTS:
            gap += 1
        elif said:
            close()
    close()
    return places


def place_words(cells: frozenset[Cell]) -> str:
    """A short name of a set of cells, for reasons."""
    if not cells:
        return "no place"
    names = [place for place in PLACES if cell_of_place(place) in cells]
    for index in range(3):
        if cells == _cells(index, None):
            return f"the {'middle' if index == 1 else ROWS[index]} row"
        if cells == _cells(None, index):
            return f"the {COLUMNS[index]} side" if index != 1 else "the middle column"
    return " and ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"


def cells_of_mask(mask: np.ndarray, share: float = 0.2) -> frozenset[Cell]:
    """Cells that hold at least `share` of a mask's area (the fullest cell always counts); empty for an empty mask."""
    import numpy as np

    from sage_ad.evaluation.datasets.masks import cell_counts

    counts = cell_counts(np.asarray(mask, dtype=bool))
    if not counts.any():
        return frozenset()
    keep = (counts >= share * counts.sum()) | (counts == counts.max())
    return frozenset(divmod(int(cell), 3) for cell in np.flatnonzero(keep))


def cells_of_regions(regions: Sequence[Any], image_size: tuple[int, int] | None, most: int = 3) -> frozenset[Cell]:
    """Cells of the middles of the first `most` regions (best first; plain boxes need `image_size`).

    Regions that stand out less than half as much as the first are left out.
    """
    cells = set()
    first = next((score for region in regions if (score := getattr(region, "score", None)) is not None), None)
    for region in list(regions)[:most]:
        score = getattr(region, "score", None)
        if score is not None and first is not None and first > 0 and score < 0.5 * first:
            continue
        place = getattr(region, "place", None)
        if place is None:
            box = getattr(region, "box", region)
            if image_size is None:
                continue
            place = place_of_box(box, *image_size)
        if place in PLACES:
            cells.add(cell_of_place(place))
    return frozenset(cells)


def cells_of_words(place: str | None) -> frozenset[Cell]:
    """Cells of a place in words; empty when no place word is in it."""
    if not place:
        return frozenset()
    cells: set[Cell] = set()
    for found in places_in(place):
        cells |= found.cells
    return frozenset(cells) if cells != ALL_CELLS else frozenset()


def distance(one: frozenset[Cell], other: frozenset[Cell]) -> int:
    """The fewest king's moves from one set of cells to the other (0: they share a cell)."""
    return min(max(abs(a[0] - b[0]), abs(a[1] - b[1])) for a in one for b in other)


def pointed_faults(parsed: ParsedAnswer, right: frozenset[Cell]) -> list[Fault]:
    """Faults of the places at which an answer points, held against the right cells (none when these are not known).

    What is said to be in order ("the upper left is clean") points at nothing.
    """
    if not right:
        return []
    gold = place_words(right)
    bad = {claim.clause for claim in parsed.asserted("bad")}
    bad |= {
        claim.clause for claim in parsed.claims if claim.stance == "bad" and claim.scope == "part" and not claim.excused
    }
    clear = {
        claim.clause
        for claim in parsed.claims
        if (claim.stance == "good" and not claim.by_similarity) or claim.scope != "part"
    } - bad
    pointed = [
        place for number, clause in enumerate(parsed.clauses) if number not in clear for place in places_in(clause.text)
    ]
    if not pointed:
        return [Fault.of("no-place", gold=gold)]
    hits = [place for place in pointed if _covers(place, right)]
    misses = [place for place in pointed if not _covers(place, right)]
    if hits and misses:
        return [Fault.of("mixed-place", named=misses[0].words, gold=gold)]
    if hits:
        return (
            []
            if any(_is_exact(place, right) for place in hits)
            else [Fault.of("coarse-place", named=hits[0].words, gold=gold)]
        )
    nearest = min(misses, key=lambda place: distance(place.cells, right))
    name = "beside-place" if distance(nearest.cells, right) <= 1 else "wrong-place"
    return [Fault.of(name, named=nearest.words, gold=gold), Fault.of("false-place", named=nearest.words)]


def _covers(place: Place, right: frozenset[Cell]) -> bool:
    """Whether a place and the right cells mean the same region; a row and a column that cross in a corner do not."""
    return 2 * len(place.cells & right) >= min(len(place.cells), len(right))


def _is_exact(place: Place, right: frozenset[Cell]) -> bool:
    """Whether a place says as much as can be said: "top" is exact for the upper centre, not for the upper left."""
    if len(place.cells) <= max(1, len(right)):
        return True
    row, column = next(iter(right))
    one_cell = len(right) == 1
    return (
        one_cell
        and len(place.cells) == 3
        and ((place.cells == _cells(row, None) and column == 1) or (place.cells == _cells(None, column) and row == 1))
    )


def region_of_words(place: str | None) -> list[tuple[int, int, int, int]] | None:
    """A box in the middle of the first place that the words name, in a picture of 300 x 300; None without a place."""
    cells = sorted(cells_of_words(place))
    if not cells:
        return None
    row, column = cells[len(cells) // 2]
    return [(100 * column + 30, 100 * row + 30, 100 * column + 70, 100 * row + 70)]
