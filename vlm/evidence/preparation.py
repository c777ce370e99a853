"""How a picture was prepared, measured on its pixels: light, over-exposure, compression, empty corners of a turn.

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

CLIPPED, BLOCKS, EMPTY = 0.05, 0.15, 0.02
"""By how much a part must exceed its references: share of pixels, relative step at blocks, share of pixels."""

LIGHT = 1.4
"""So many times brighter or darker than all references (docs/detection.md)."""

JPEG = 8
"""Side in pixels of the blocks of JPEG."""


@dataclass(frozen=True)
class Preparation:
    """What tells how a picture was made.

    Attributes:
        light: root of the mean square of the grey values, which a dark ground hardly moves.
        clipped: share of pixels that are white in every channel (254 of 255 or more).
        blocks: step between neighbouring pixels across the borders of 8 x 8 blocks, relative to elsewhere, less 1.
        empty: share of pixels that continue a corner in exactly its colour.
    """

    light: float
    clipped: float
    blocks: float
    empty: float


def measure(image: Image.Image) -> Preparation:
    """Measures a picture."""
    left, top = ((max(0, side - LONGEST) // 2) // JPEG * JPEG for side in image.size)
    part = image.crop((left, top, min(image.width, left + LONGEST), min(image.height, top + LONGEST)))
    grey = np.asarray(part.convert("L"), np.float32)
    return Preparation(
        light=float(np.sqrt(np.square(grey).mean())),
        clipped=float((np.asarray(part.convert("RGB")).min(axis=2) >= 254).mean()),
        blocks=float(np.mean([_step(grey), _step(grey.T)])),
        empty=_empty_corners(image),
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
    ratio = part.light / max(min((one.light for one in references), key=lambda light: abs(light - part.light)), 1.0)
    if not 1 / LIGHT <= ratio <= LIGHT and not found:
        found.append(
            f"The picture is {ratio:.2f} times as bright as the reference nearest to it in light; what differs may be the "
            "light and no defect."
        )
    if part.blocks > most["blocks"] + BLOCKS:
        found.append(
            f"The picture was compressed harder than the references: the steps at the borders of its 8 x 8 blocks are "
            f"{100 * part.blocks:.0f} % larger than elsewhere, where the references have at most {100 * most['blocks']:.0f} %; "
            "what differs may be the compression and no defect."
        )
    # White areas and compressed ones have flat corners, too.
    if not found and part.empty > most["empty"] + EMPTY:
        found.append(
            f"{100 * part.empty:.1f} % of the picture are corners of one flat colour, where the references have at most "
            f"{100 * most['empty']:.1f} %: it seems to have been turned; what differs may be that and no defect."
        )
    return found


def _step(grey: np.ndarray) -> float:
    """Mean step down the columns across the borders of blocks, relative to the steps elsewhere, less 1."""
    steps = np.abs(np.diff(grey, axis=0)).mean(axis=1)
    at_border = np.arange(1, len(grey)) % JPEG == 0
    if not at_border.any():
        return 0.0
    return float(steps[at_border].mean() / max(float(steps[~at_border].mean()), 0.25) - 1)


def _empty_corners(image: Image.Image) -> float:
    """Share of pixels in a corner whose way to both edges is exactly of the corner's colour."""
    grey = np.asarray(image.convert("L").resize((256, 256), 0))
    count = 0
    for corner in (grey, grey[:, ::-1], grey[::-1], grey[::-1, ::-1]):
        half = corner[:128, :128] == corner[0, 0]
        flat = np.logical_and.accumulate(half, axis=0) & np.logical_and.accumulate(half, axis=1)
        count += int(flat.sum())
    return count / grey.size
