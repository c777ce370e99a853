"""Values of more than 8 bits to 8: one range for a part and its references, from the format or from them together.

Cameras store 12 bits in 16, a single dead pixel may be at the top of the range, and flat-field corrected pictures are
floats around 1. A range taken from each picture by itself would change with its brightest pixel, and hide defects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OUTLIERS = 0.1
"""Per cent of the pixels at either end that may lie outside of a range (dead and hot pixels); they are clipped to it."""

USED = 0.25
"""Share of a format's range that the values must span; narrower ones are stretched, or few grey levels would be left."""

_DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Values:
    """What the values of one picture are like.

    Attributes:
        kind: "integer" or "float".
        low, high: between these lie all values but the outliers at either end.
        minimum, maximum: of all values.
        full: smallest and largest value that the format allows, where the file says it.
    """

    kind: str
    low: float
    high: float
    minimum: float
    maximum: float
    full: tuple[float, float] | None = None


@dataclass(frozen=True)
class Brightness:
    """A range of values that becomes 0 to 255.

    Attributes:
        low, high: the range.
        reason: where it comes from, in words.
    """

    low: float
    high: float
    reason: str

    def to_8_bit(self, values: np.ndarray) -> np.ndarray:
        """Values as uint8 of the same shape, rounded; what lies outside of the range is clipped."""
        scaled = (values.astype(np.float64) - self.low) * (255.0 / (self.high - self.low))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)

    @property
    def sentence(self) -> str:
        """For the trace."""
        return f"Brightness: values from {self.low:.6g} to {self.high:.6g} are read as 0 to 255 ({self.reason})."


def values_of(values: np.ndarray, full: tuple[float, float] | None = None) -> Values:
    """Describes the values (H, W) or (H, W, C) of a picture."""
    kind = "float" if np.issubdtype(values.dtype, np.floating) else "integer"
    low, high = np.percentile(values, [OUTLIERS, 100 - OUTLIERS], method="nearest")
    return Values(kind, float(low), float(high), float(values.min()), float(values.max()), full)


def common_brightness(pictures: Sequence[Values], *, plain: int = 0) -> Brightness:
    """One range for several pictures.

    The range of the format is taken where the values use at least a quarter of it: what the file states, else the
    smallest number of bits (8, 10, 12, 14, 16) that holds them, else 0 to 1 for floats. If not, the range is that of the
    values of all pictures together, rounded outwards, so that parts of one lot share it.

    Args:
        pictures: those of more than 8 bits, all integers or all floats.
        plain: how many 8-bit pictures stand beside them; these cannot be stretched along.
    """
    low, high = min(item.low for item in pictures), max(item.high for item in pictures)
    if low == high:  # one value but for a few pixels, and these few are all that there is to see
        low, high = min(item.minimum for item in pictures), max(item.maximum for item in pictures)
    together = f"from {len(pictures)} pictures together" if len(pictures) > 1 else "from this picture"
    formats = _ranges(pictures)
    for start, end, name in formats:
        fits = start <= low and high <= end
        if fits and (plain or low == high or high - low >= USED * (end - start)):
            return Brightness(start, end, f"{name}, {together}")
        if fits:
            break
    # Bright and dark spots that are no outliers by far stay inside, for they may be the defect.
    span = high - low
    bottom = max(min(item.minimum for item in pictures), low - span)
    top = min(max(item.maximum for item in pictures), high + span)
    if bottom >= 0 and top - bottom >= USED * top:
        bottom = 0.0  # black stays black, as it would in a picture of 8 bits
    bottom, top = _rounded_outwards(bottom, top)
    return Brightness(bottom, top, together)


def _ranges(pictures: Sequence[Values]) -> list[tuple[float, float, str]]:
    """Ranges that the format offers, the narrowest first."""
    stated = {item.full for item in pictures}
    if len(stated) == 1 and (full := next(iter(stated))) is not None:
        return [(*full, "the range of the format")]
    if pictures[0].kind == "float":
        return [(0.0, 1.0, "floats from 0 to 1")]
    return [(0.0, 2.0**bits - 1, f"{bits} bits") for bits in _DEPTHS]


def _rounded_outwards(low: float, high: float) -> tuple[float, float]:
    """The range with its ends moved outwards to steps of an eighth of its width or less."""
    if high - low < np.finfo(np.float64).tiny * 256:  # one value everywhere
        return low, low + 1.0
    step = 2.0 ** math.floor(math.log2(high - low)) / 8
    return math.floor(low / step) * step, math.ceil(high / step) * step
