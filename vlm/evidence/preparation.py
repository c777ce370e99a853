"""How a picture was prepared, measured on its pixels: over-exposure, compression, colour, empty corners of a turn.

A part that was photographed or saved in another way than its references differs everywhere, and no defect is needed for
that. What is measured here is compared with the same of the references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 1024
"""Of larger pictures the middle is measured, so that the cost is bounded and blocks of compression stay in place."""

CLIPPED, BLOCKS, EMPTY = 0.05, 0.3, 0.003
"""By how much a part must exceed its references: share of pixels, relative step at blocks, share of pixels."""

JPEG = 8
"""Side in pixels of the blocks of JPEG."""

STEEPEST = 16
"""Steps between neighbouring pixels count up to so many grey levels: an edge of the part is no border of blocks."""

TRIANGLE = 0.15
"""A triangle fills half of the rectangle of its two sides; so far from half is the rounding of pixels."""

GREY = 2
"""A picture whose channels differ by no more than so many levels anywhere is grey."""

BLANK = 2.0
"""A picture whose brightness scatters by less (in levels of 255) shows nothing. Of 1,234 pictures of 22 products the flattest
scatters by 5.8."""


@dataclass(frozen=True)
class Preparation:
    """What tells how a picture was made.

    Attributes:
        clipped: share of pixels that are white in every channel (254 of 255 or more).
        blocks: step between neighbouring pixels across the borders of 8 x 8 blocks, relative to the largest at any other
            distance from them, less 1; of rows and columns the smaller, and never below 0.
        empty: share of pixels that continue a corner in exactly its colour and make a triangle, as turning leaves it; of
            the corners the smallest.
        grey: whether the picture has no colour.
    """

    clipped: float
    blocks: float
    empty: float
    grey: bool


def measure(image: Image.Image) -> Preparation:
    """Measures a picture."""
    left, top = ((max(0, side - LONGEST) // 2) // JPEG * JPEG for side in image.size)
    part = image.crop((left, top, min(image.width, left + LONGEST), min(image.height, top + LONGEST)))
    grey, colour = np.asarray(part.convert("L"), np.float32), np.asarray(part.convert("RGB"))
    darkest = colour.min(axis=2)
    return Preparation(
        clipped=float((darkest >= 254).mean()),
        blocks=max(0.0, min(_step(grey), _step(grey.T))),
        empty=_empty_corners(image),
        grey=bool((colour.max(axis=2) - darkest).max() <= GREY),
    )


def differences(part: Preparation, references: Sequence[Preparation]) -> list[str]:
    """A sentence for each respect in which a part was prepared unlike all of its references."""
    found = []
    most = {name: max(getattr(one, name) for one in references) for name in ("clipped", "blocks", "empty")}
    if part.clipped > most["clipped"] + CLIPPED:
        found.append(
            f"{100 * part.clipped:.0f} % of the picture is over-exposed (white), where the references have at most "
            f"{100 * most['clipped']:.0f} %; what differs may be the light and no defect."
        )
    if part.blocks > most["blocks"] + BLOCKS:
        found.append(
            f"The picture was compressed harder than the references: the steps at the borders of its 8 x 8 blocks are "
            f"{100 * part.blocks:.0f} % larger than elsewhere, those of the references at most {100 * most['blocks']:.0f} %; "
            "what differs may be the compression and no defect."
        )
    if part.grey not in {one.grey for one in references}:
        ours, theirs = ("grey", "in colour") if part.grey else ("in colour", "grey")
        found.append(
            f"The picture is {ours} and the references are {theirs}; what differs may be that and no defect: take all of them "
            "in the same way."
        )
    # White areas and compressed ones have flat corners, too.
    if not found and part.empty > most["empty"] + EMPTY:
        found.append(
            f"Flat triangles fill the corners of the picture, {100 * part.empty:.1f} % of it each, where the references have at "
            f"most {100 * most['empty']:.1f} %: it seems to have been turned; what differs may be that and no defect."
        )
    return found


def blank(image: Image.Image) -> list[str]:
    """A sentence about a picture of one colour: rarity finds nothing rare in what a covered lens or a dead lamp leaves."""
    from PIL import ImageStat

    scatter = ImageStat.Stat(image.convert("L")).stddev[0]
    if scatter >= BLANK:
        return []
    return [
        f"The picture is nearly one colour (its brightness scatters by {scatter:.1f} of 255 levels); check camera and light."
    ]


def _step(grey: np.ndarray) -> float:
    """Mean step down the columns across the borders of blocks, relative to the largest elsewhere, less 1."""
    steps = np.minimum(np.abs(np.diff(grey, axis=0)), STEEPEST)
    if len(steps) < JPEG:
        return 0.0
    *elsewhere, border = (float(steps[start::JPEG].mean()) for start in range(JPEG))
    return border / max(*elsewhere, 0.25) - 1


def _empty_corners(image: Image.Image) -> float:
    """Share of pixels in a flat triangle at a corner, between the edges and in exactly its colour; the smallest of four."""
    grey = np.asarray(image.convert("L").resize((256, 256), 0))
    shares = []
    for corner in (grey, grey[:, ::-1], grey[::-1], grey[::-1, ::-1]):
        half = corner[:128, :128] == corner[0, 0]
        flat = np.logical_and.accumulate(half, axis=0) & np.logical_and.accumulate(half, axis=1)
        filled = flat.mean() / (flat[0].mean() * flat[:, 0].mean())
        shares.append(float(flat.sum() / grey.size) if abs(filled - 0.5) < TRIANGLE else 0.0)
    return min(shares)
