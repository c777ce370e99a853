"""Regions in measured words."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sage_ad.vlm.evidence.appearance import describe_region


def drawn(box: tuple[int, int, int, int], level: int) -> tuple[Image.Image, SimpleNamespace, SimpleNamespace]:
    """A grey picture with one rectangle, and evidence that is hot exactly there."""
    picture = np.full((200, 200), 128, dtype=np.uint8)
    heat = np.zeros((200, 200), dtype=np.float32)
    x0, y0, x1, y1 = box
    picture[y0:y1, x0:x1] = level
    heat[y0:y1, x0:x1] = 1.0
    evidence = SimpleNamespace(map=heat, threshold=0.5)
    return Image.fromarray(picture).convert("RGB"), evidence, SimpleNamespace(box=box, score=1.0)


@pytest.mark.parametrize(
    ("box", "level", "words"),
    [
        ((20, 90, 180, 96), 40, "dark elongated line"),
        ((90, 20, 96, 180), 220, "bright elongated line"),
        ((60, 60, 140, 140), 30, "dark large area"),
        ((95, 95, 101, 101), 250, "bright small spot"),
        ((80, 80, 110, 110), 130, "patch"),
    ],
)
def test_tone_and_shape(box: tuple[int, int, int, int], level: int, words: str) -> None:
    assert describe_region(*drawn(box, level)) == words
