"""What a region looks like, in words that can be measured: its tone against its surroundings, and its shape.

The words describe pixels ("dark", "elongated"); they name no defect. They steer the search for facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.vlm.evidence.extractor import Evidence
    from sage_ad.vlm.evidence.regions import EvidenceRegion

TONE_STEP = 16.0
"""Difference of grey levels (0 to 255) from which a region counts as darker or brighter than its surroundings."""
SIDED = 1.5
"""How much further one tail of a region's grey levels must reach than the other to be its line."""
HOT_SHARE = 0.85
"""Pixels from this share of a region's score on are what is described."""
LINE_RATIO = 3.0
"""Ratio of the principal axes of the hot pixels from which a region counts as elongated."""
LARGE_SHARE = 0.04
"""Share of the picture from which a region counts as an area, not a spot."""


def describe_region(image: Image.Image, evidence: Evidence, region: EvidenceRegion) -> str:
    """Describes one region, for instance "dark elongated line" or "bright small spot".

    Args:
        image: the test picture.
        evidence: its evidence; pixels near the region's own peak are what is described.
        region: one of `evidence.regions`.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    x0, y0, x1, y1 = region.box
    # A box holds cooler pixels too; those near its own peak are what the region is about.
    level = HOT_SHARE * region.score
    hot = evidence.map[y0:y1, x0:x1] >= level
    if not hot.any():
        hot = np.ones((y1 - y0, x1 - x0), dtype=bool)
    inside = grey[y0:y1, x0:x1][hot]
    margin = max(4, (x1 - x0) // 4, (y1 - y0) // 4)
    top, left = max(0, y0 - margin), max(0, x0 - margin)
    around = grey[top : y1 + margin, left : x1 + margin]
    cold = evidence.map[top : y1 + margin, left : x1 + margin] < level
    tone = _tone(inside, around[cold] if cold.any() else grey, grey)
    return f"{tone} {_shape(hot, hot.sum() / grey.size)}".strip()


def _tone(inside: np.ndarray, around: np.ndarray, picture: np.ndarray) -> str:
    # Either the whole region is darker, than its surroundings and than the picture (beside a dark frame everything is
    # bright, which says nothing), or something narrow inside it is: a line in a wider hot area.
    low, middle, high = (float(value) for value in np.percentile(inside, (5, 50, 95)))
    steps = [float(np.median(around)) - middle, float(np.median(picture)) - middle]
    if min(steps) >= TONE_STEP:
        return "dark"
    if max(steps) <= -TONE_STEP:
        return "bright"
    below, above = middle - low, high - middle
    if max(below, above) < TONE_STEP or max(below, above) < SIDED * min(below, above):
        return ""
    return "dark" if below > above else "bright"


def _shape(hot: np.ndarray, share: float) -> str:
    rows, columns = np.nonzero(hot)
    if len(rows) > 2:
        spread = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(np.stack([rows, columns]))), 1e-6))
        if spread[1] / spread[0] >= LINE_RATIO:
            return "elongated line"
    return "large area" if share >= LARGE_SHARE else "patch" if share >= LARGE_SHARE / 8 else "small spot"
