"""Vectors of a region: where the defect is taken to be, and what its close-up shows."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sage_ad.vlm.evidence.encoders import load_encoder
from sage_ad.vlm.evidence.region_features import close_up_box, hot_box, hottest, region_features


def heat_at(row: int, column: int) -> np.ndarray:
    heat = np.full((40, 30), 0.1, np.float32)
    heat[row - 2 : row + 3, column - 2 : column + 3] = 0.9
    return heat


def test_the_hot_box_is_where_the_heat_is() -> None:
    x0, y0, x1, y1 = hot_box(heat_at(10, 20), 300, 400)
    assert x0 <= 180
    assert x1 >= 230
    assert y0 <= 80
    assert y1 >= 130
    assert x1 - x0 <= 90
    assert y1 - y0 <= 90


def test_a_second_weaker_spot_does_not_widen_the_box() -> None:
    heat = heat_at(10, 20)
    heat[30:33, 5:8] = 0.7
    assert hot_box(heat, 300, 400) == hot_box(heat_at(10, 20), 300, 400)


def test_the_hottest_patches_are_a_fixed_share() -> None:
    weights = hottest(heat_at(10, 20))
    assert weights.sum() == 18  # 1.5 % of 1200
    assert set(np.argwhere(weights)[:, 0]) <= {8, 9, 10, 11, 12}


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (290, 380, 300, 400), (10, 10, 290, 30), (0, 0, 300, 400)])
def test_a_close_up_is_a_square_inside_the_picture(box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = close_up_box(box, 300, 400)
    assert 0 <= x0 < x1 <= 300
    assert 0 <= y0 < y1 <= 400
    assert abs((x1 - x0) - (y1 - y0)) <= 1
    assert x0 <= max(box[0], 0) + (box[2] - box[0]) / 2 <= x1


def test_the_same_flaw_elsewhere_is_more_alike_than_another_one() -> None:
    encoder = load_encoder(device="cpu")

    def seen(kind: str, x: int, y: int) -> np.ndarray:
        image = Image.new("RGB", (192, 192), (150, 150, 150))
        draw = ImageDraw.Draw(image)
        if kind == "hole":
            draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(10, 10, 10))
        else:
            draw.line((x - 25, y - 10, x + 25, y + 10), fill=(250, 250, 250), width=2)
        return region_features(encoder, image, box=(x - 28, y - 14, x + 28, y + 14)).close_up

    hole, same, line = seen("hole", 60, 60), seen("hole", 130, 120), seen("line", 60, 60)
    assert hole @ same > 0.9 > hole @ line


def test_a_region_needs_a_place() -> None:
    with pytest.raises(ValueError, match="heat or a box"):
        region_features(load_encoder(device="cpu"), Image.new("RGB", (64, 64)))
