"""Tells whether two pictures are one, perhaps saved again with loss: by grey levels and fine detail, not by features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIDE, BLOCK, COARSE = 128, 8, 4
"""Pictures are compared at 128 x 128, in detail by blocks of 8 x 8, in level by blocks of 4 x 4."""

DETAIL = 0.85
"""Correlation of the detail that nine blocks in ten of a copy reach; noise alone tells other good parts (docs/detection.md)."""

LEVEL = 3.0
"""Grey levels (of 255) by which no block of a copy differs: a small flaw in a drawing changes no more than a block."""

FLAT = 1.0
"""Standard deviation in grey levels below which a block has no detail to compare."""


def thumbnail(image: Image.Image) -> np.ndarray:
    """Grey levels of a picture at a glance, (128, 128) float32."""
    from PIL.Image import Resampling

    return np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX), np.float32)


def is_copy(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures, given by their thumbnails, are one."""
    if np.abs(_blocks(one - other, COARSE).mean(axis=1)).max() > LEVEL:
        return False
    details = [blocks - blocks.mean(axis=1, keepdims=True) for blocks in (_blocks(one, BLOCK), _blocks(other, BLOCK))]
    scatter = [detail.std(axis=1) for detail in details]
    correlation = (details[0] * details[1]).mean(axis=1) / np.maximum(scatter[0] * scatter[1], 1e-6)
    correlation[np.maximum(*scatter) < FLAT] = 1
    return bool(np.percentile(correlation, 10) >= DETAIL)


def _blocks(values: np.ndarray, side: int) -> np.ndarray:
    """(128, 128) as a row for each block of side x side."""
    count = SIDE // side
    return values.reshape(count, side, count, side).transpose(0, 2, 1, 3).reshape(count * count, side * side)
