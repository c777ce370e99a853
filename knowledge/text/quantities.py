"""Numbers with units in a sentence, as intervals in base units, and when two of them exclude each other."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from sage_ad.knowledge.text.resources import resource

_UNITS: dict[str, tuple[str, float]] = {
    name: (dimension, float(size))
    for dimension, sizes in resource("units.yaml").items()
    for size, names in sizes.items()
    for name in names
}
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_WORD_VALUES = {word: float(number) for number, word in enumerate(_WORDS)} | {
    "half": 0.5,
    "twenty": 20.0,
    "hundred": 100.0,
}

_NUMBER = rf"(?:\d+(?:[.,]\d+)?|(?:{'|'.join(sorted(_WORD_VALUES, key=len, reverse=True))})\b)"
_UNIT = "|".join(
    # "3 in the centre" are no inches
    "in(?! (?:the|an?|length|width|depth|height|diameter|dia|size|area|total|number|any|all|each|one)\\b)"
    if unit == "in"
    else re.escape(unit)
    for unit in sorted(_UNITS, key=len, reverse=True)
)
_ABOVE = (
    r"(?:longer|more|greater|larger|wider|deeper|higher|thicker|bigger|heavier|older|hotter|brighter) than|above|"
    r"over|exceeds?|exceeding|at least|no less than|not less than|from|minimum(?: of)?|>=?|≥|upwards of|beyond"
)
_BELOW = (
    r"(?:shorter|less|fewer|smaller|narrower|shallower|lower|thinner|lighter|younger|cooler) than|below|under|at most|"
    r"up to|no more than|not more than|maximum(?: of)?|max\.?|<=?|≤|within|less than|until"
)
_PATTERN = re.compile(
    rf"(?:(?P<above>\b(?:{_ABOVE})|>=?|≥)|(?P<below>\b(?:{_BELOW})|<=?|≤)|(?P<about>\b(?:about|around|roughly|approximately|"
    rf"approx\.?|ca\.?|nearly|some|±)))?\s*(?:(?:a|an|the)\s+)?(?<![\w.,])(?<![a-z]-)(?P<low>{_NUMBER})(?:[\s-]*(?P<unit1>{_UNIT})(?![\w²]))?"
    rf"(?:\s*(?:-|–|to|and|through)\s*(?P<high>{_NUMBER})(?:[\s-]*(?P<unit>{_UNIT})(?![\w²]))?)?(?![\w²])(?P<after>\s+or\s+(?:more|less|"
    r"longer|shorter|above|below|greater|larger|smaller|fewer|higher|lower))?"
)


_ASPECTS = {
    "depth": r"deep(?:er)?|shallow(?:er)?|depth",
    "width": r"wid(?:e|er|th)|narrow(?:er)?|broad(?:er)?|breadth",
    "height": r"high|height|tall(?:er)?",
    "thickness": r"thick(?:er|ness)?|thin(?:ner)?",
}
"""Words by which a length is one across the surface or into it; all others ("longer", "larger", "> 5 mm") tell an extent."""


@dataclass(frozen=True)
class Quantity:
    """A number of a sentence as an interval.

    Attributes:
        low: lower end in the base unit of the dimension (metres, shares of 1, degrees Celsius, seconds, ...).
        high: upper end; infinite for "more than".
        dimension: "length", "share", ...; for a bare count the word that is counted ("screws").
        bound: "above", "below" or None for a value or range; a limit is compared with a limit by its value.
        text: how it stands in the sentence.
        aspect: what of a thing a length measures, one of `_ASPECTS`; None: its extent, or no length.
    """

    low: float
    high: float
    dimension: str
    bound: Literal["above", "below"] | None
    text: str
    aspect: str | None = None

    def same_as(self, other: Quantity) -> bool:
        """Whether both say the same number of the same dimension (within 2 %)."""
        return self.dimension == other.dimension and _close(self.low, other.low) and _close(self.high, other.high)


def find_quantities(text: str) -> tuple[list[Quantity], str]:
    """Finds numbers with units, and counts ("four screws").

    Args:
        text: a sentence in lower case.

    Returns:
        The quantities, and the text with them (and the words that compare, such as "longer than") taken out.
    """
    found = []
    for match in _PATTERN.finditer(text):
        quantity = _quantity(match, text)
        if quantity is not None:
            found.append((match, quantity))
    rest = text
    for match, _ in reversed(found):
        # A counted word stays in the text: it is what the sentence is about.
        rest = rest[: match.start()] + " " + rest[match.end() :]
    return [quantity for _, quantity in found], rest


def _quantity(match: re.Match[str], text: str) -> Quantity | None:
    unit = match["unit"] or match["unit1"]
    low = _value(match["low"])
    high = _value(match["high"]) if match["high"] else low
    if unit is None:
        counted = re.match(
            r"\s+(?!or\b|and\b|of\b|to\b|than\b|in\b|is\b|are\b|side\b|another\b)([a-z]{3,})", text[match.end() :]
        )
        if counted is None or (match["low"] == "one" and not match["above"] and not match["below"]):
            return None
        dimension, factor = "count of " + counted.group(1).rstrip("s"), 1.0
    else:
        if match["low"] in {"a", "an"}:
            return None
        dimension, factor = _UNITS[unit]
    low, high = sorted((low * factor, high * factor))
    after = (match["after"] or "").split()[-1:] or [""]
    bound: Literal["above", "below"] | None = None
    if match["above"] or after[0] in {"more", "longer", "above", "greater", "larger", "higher"}:
        bound = "above" if not match["high"] else None
    elif match["below"] or after[0] in {"less", "shorter", "below", "smaller", "fewer", "lower"}:
        bound = "below" if not match["high"] else None
    if bound == "above":
        high = math.inf
    elif bound == "below":
        low, high = -math.inf, low
    aspect = _aspect(match, text) if dimension == "length" else None
    return Quantity(low, high, dimension, bound, match.group().strip(), aspect)


def aspect_of(words: str) -> str | None:
    """What of a thing words in lower case measure ("deeper than", "in depth"): "depth", "width", "height", "thickness"."""
    return next((aspect for aspect, pattern in _ASPECTS.items() if re.search(rf"\b(?:{pattern})\b", words)), None)


def _aspect(match: re.Match[str], text: str) -> str | None:
    """What a length measures, by the words in it, behind it ("0.05 mm deep", "in depth") or before it ("depth: 0.05 mm")."""
    behind = re.match(r"[\s-]*(?:in |of )?(\w+)", text[match.end() :])
    before = re.search(r"(\w+)(?: (?:of|is|are|must be|may be|in))?[\s:=]*$", text[: match.start()])
    words = (match.group(), behind[1] if behind else "", before[1] if before else "")
    return next(filter(None, map(aspect_of, words)), None)


def _value(text: str) -> float:
    return _WORD_VALUES[text] if text in _WORD_VALUES else float(text.replace(",", "."))


def conflict(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities exclude each other: disjoint intervals, or the same kind of limit at another value.

    A depth says nothing against a width.
    """
    if a.dimension != b.dimension or a.aspect != b.aspect:
        return False
    if a.bound and a.bound == b.bound:
        ours, theirs = (a.low, b.low) if a.bound == "above" else (a.high, b.high)
        return not _close(ours, theirs)
    tolerance = 0.02 * max(abs(x) for x in (a.low, a.high, b.low, b.high) if math.isfinite(x))
    return a.low > b.high + tolerance or b.low > a.high + tolerance or _touch(a, b)


def _touch(a: Quantity, b: Quantity) -> bool:
    """ "More than 5" and "less than 5" share no value although their ends meet."""
    return {a.bound, b.bound} == {"above", "below"} and (_close(a.low, b.high) or _close(b.low, a.high))


def _close(a: float, b: float) -> bool:
    return a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= 0.02 * max(abs(a), abs(b)))
