"""What a region looks like, in words that can be measured: its tone against its surroundings, and its shape.

The words describe pixels ("dark", "elongated"); they name no defect. They steer the search for facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from vlm.evidence import Evidence
    from vlm.regions import EvidenceRegion

TONE_STEP = 12.0
"""Difference of grey levels (0 to 255) from which a region counts as darker or brighter than its surroundings."""
LINE_RATIO = 3.0
"""Ratio of the principal axes of the hot pixels from which a region counts as elongated."""
LARGE_SHARE = 0.04
"""Share of the picture from which a region counts as an area, not a spot."""


def describe_region(image: Image.Image, evidence: Evidence, region: EvidenceRegion) -> str:
    """Describes one region, for instance "dark elongated line" or "bright small spot".

    Args:
        image: the test picture.
        evidence: its evidence; pixels above the threshold are what is described.
        region: one of `evidence.regions`.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    x0, y0, x1, y1 = region.box
    hot = evidence.map[y0:y1, x0:x1] > evidence.threshold
    if not hot.any():
        hot = np.ones((y1 - y0, x1 - x0), dtype=bool)
    inside = grey[y0:y1, x0:x1][hot]
    margin = max(4, (x1 - x0) // 4, (y1 - y0) // 4)
    top, left = max(0, y0 - margin), max(0, x0 - margin)
    around = grey[top : y1 + margin, left : x1 + margin]
    cold = evidence.map[top : y1 + margin, left : x1 + margin] <= evidence.threshold
    tone = _tone(inside, around[cold] if cold.any() else grey)
    return f"{tone} {_shape(hot, hot.sum() / grey.size)}".strip()


def _tone(inside: np.ndarray, around: np.ndarray) -> str:
    # Either the whole region is darker (a patch), or something narrow inside it is (a line in a wider hot area).
    low, middle, high = (float(value) for value in np.percentile(inside, (10, 50, 90)))
    step = float(np.median(around)) - middle
    dark, bright = max(step, middle - low), max(-step, high - middle)
    if max(dark, bright) < TONE_STEP:
        return ""
    return "dark" if dark >= bright else "bright"


def _shape(hot: np.ndarray, share: float) -> str:
    rows, columns = np.nonzero(hot)
    if len(rows) > 2:
        spread = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(np.stack([rows, columns]))), 1e-6))
        if spread[1] / spread[0] >= LINE_RATIO:
            return "elongated line"
    return "large area" if share >= LARGE_SHARE else "patch" if share >= LARGE_SHARE / 8 else "small spot"
