"""Knows: numbers with units in a sentence, as intervals in base units, and when two of them exclude each other."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

_UNITS: dict[str, tuple[str, float]] = {
    "nm": ("length", 1e-9), "µm": ("length", 1e-6), "um": ("length", 1e-6), "micron": ("length", 1e-6),
    "microns": ("length", 1e-6), "micrometres": ("length", 1e-6), "micrometers": ("length", 1e-6),
    "mm": ("length", 1e-3), "millimetre": ("length", 1e-3), "millimetres": ("length", 1e-3), "millimeter": ("length", 1e-3),
    "millimeters": ("length", 1e-3), "cm": ("length", 1e-2), "centimetre": ("length", 1e-2),
    "centimetres": ("length", 1e-2), "centimeters": ("length", 1e-2), "m": ("length", 1.0), "metres": ("length", 1.0),
    "metre": ("length", 1.0), "meters": ("length", 1.0), "km": ("length", 1e3), "inch": ("length", 0.0254),
    "inches": ("length", 0.0254), "in": ("length", 0.0254), "mil": ("length", 2.54e-5), "mils": ("length", 2.54e-5),
    "mm²": ("area", 1e-6), "mm2": ("area", 1e-6), "cm²": ("area", 1e-4), "cm2": ("area", 1e-4), "m²": ("area", 1.0),
    "%": ("share", 0.01), "percent": ("share", 0.01), "per cent": ("share", 0.01), "ppm": ("share", 1e-6),
    "°c": ("temperature", 1.0), "degrees celsius": ("temperature", 1.0), "celsius": ("temperature", 1.0),
    "k": ("kelvin", 1.0), "°f": ("fahrenheit", 1.0), "°": ("angle", 1.0), "degrees": ("angle", 1.0),
    "degree": ("angle", 1.0), "ms": ("time", 1e-3), "s": ("time", 1.0), "sec": ("time", 1.0), "second": ("time", 1.0),
    "seconds": ("time", 1.0), "min": ("time", 60.0), "minute": ("time", 60.0), "minutes": ("time", 60.0),
    "h": ("time", 3600.0), "hour": ("time", 3600.0), "hours": ("time", 3600.0), "day": ("time", 86400.0),
    "days": ("time", 86400.0), "week": ("time", 604800.0), "weeks": ("time", 604800.0), "month": ("time", 2629800.0),
    "months": ("time", 2629800.0), "year": ("time", 31557600.0), "years": ("time", 31557600.0),
    "mg": ("mass", 1e-6), "g": ("mass", 1e-3), "grams": ("mass", 1e-3), "kg": ("mass", 1.0), "t": ("mass", 1e3),
    "mv": ("voltage", 1e-3), "v": ("voltage", 1.0), "volt": ("voltage", 1.0), "volts": ("voltage", 1.0),
    "kv": ("voltage", 1e3), "ma": ("current", 1e-3), "a": ("current", 1.0), "amperes": ("current", 1.0),
    "w": ("power", 1.0), "watts": ("power", 1.0), "kw": ("power", 1e3), "pa": ("pressure", 1.0), "kpa": ("pressure", 1e3),
    "mpa": ("pressure", 1e6), "bar": ("pressure", 1e5), "n": ("force", 1.0), "kn": ("force", 1e3), "nm²": ("area", 1e-18),
    "n·m": ("torque", 1.0), "ohm": ("resistance", 1.0), "ohms": ("resistance", 1.0), "ω": ("resistance", 1.0),
    "hz": ("frequency", 1.0), "khz": ("frequency", 1e3), "mhz": ("frequency", 1e6), "rpm": ("frequency", 1 / 60),
    "l": ("volume", 1e-3), "ml": ("volume", 1e-6), "pixels": ("pixels", 1.0), "pixel": ("pixels", 1.0), "px": ("pixels", 1.0),
    "times": ("factor", 1.0), "fold": ("factor", 1.0), "x": ("factor", 1.0),
}  # fmt: skip
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_WORD_VALUES = {word: float(number) for number, word in enumerate(_WORDS)} | {
    "half": 0.5,
    "twenty": 20.0,
    "hundred": 100.0,
}

_NUMBER = rf"(?:\d+(?:[.,]\d+)?|{'|'.join(sorted(_WORD_VALUES, key=len, reverse=True))})"
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_ABOVE = (
    r"(?:longer|more|greater|larger|wider|deeper|higher|thicker|bigger|heavier|older|hotter|brighter) than|above|over|exceeds?|"
    r"exceeding|at least|no less than|not less than|from|minimum(?: of)?|>=?|≥|upwards of|beyond|more than"
)
_BELOW = (
    r"(?:shorter|less|fewer|smaller|narrower|shallower|lower|thinner|lighter|younger|cooler) than|below|under|at most|up to|"
    r"no more than|not more than|maximum(?: of)?|max\.?|<=?|≤|within|less than|until"
)
_PATTERN = re.compile(
    rf"(?:(?P<above>\b(?:{_ABOVE})|>=?|≥)|(?P<below>\b(?:{_BELOW})|<=?|≤)|(?P<about>\b(?:about|around|roughly|approximately|"
    rf"approx\.?|ca\.?|nearly|some|±)))?\s*(?:(?:a|an|the)\s+)?(?<![\w.,])(?P<low>{_NUMBER})(?:\s*(?P<unit1>{_UNIT})(?![\w²]))?"
    rf"(?:\s*(?:-|–|to|and|through)\s*(?P<high>{_NUMBER}))?[\s-]*(?P<unit>{_UNIT})?(?![\w²])(?P<after>\s+or\s+(?:more|less|"
    r"longer|shorter|above|below|greater|larger|smaller|fewer|higher|lower))?"
)


@dataclass(frozen=True)
class Quantity:
    """A number of a sentence as an interval.

    Attributes:
        low: lower end in the base unit of the dimension (metres, shares of 1, degrees Celsius, seconds, ...).
        high: upper end; infinite for "more than".
        dimension: "length", "share", ...; for a bare count the word that is counted ("screws").
        bound: "above", "below" or None for a value or range; a limit is compared with a limit by its value.
        text: how it stands in the sentence.
    """

    low: float
    high: float
    dimension: str
    bound: Literal["above", "below"] | None
    text: str

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
    for match, quantity in reversed(found):
        # A counted word stays in the text: it is what the sentence is about.
        rest = rest[: match.start()] + " " + rest[match.end() :]
        del quantity
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
    return Quantity(low, high, dimension, bound, match.group().strip())


def _value(text: str) -> float:
    return _WORD_VALUES[text] if text in _WORD_VALUES else float(text.replace(",", "."))


def conflict(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities exclude each other: disjoint intervals, or the same kind of limit at another value."""
    if a.dimension != b.dimension:
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
