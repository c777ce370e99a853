"""Words of the description against drawn flaws of known tone, colour, shape, direction and size."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sage_ad.vlm.evidence.description import Description, describe, describe_regions, orientation_word
from sage_ad.vlm.evidence.regions import EvidenceRegion

SIDE, FINE = 240, 4
AXES = {"redder": (0, 1, 0), "bluer": (0, 0, -1), "greener": (0, -1, 0), "yellower": (0, 0, 1)}


def ground(draw: random.Random) -> np.ndarray:
    """(240, 240, 3) of a good part: plain, shaded, grainy or woven."""
    kind, level = draw.choice(["plain", "shaded", "grainy", "woven"]), draw.randint(100, 180)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    relief = {
        "plain": np.zeros((SIDE, SIDE)),
        "shaded": (columns - SIDE / 2) / 4,
        "grainy": np.random.default_rng(draw.randint(0, 9999)).normal(0, 6, (SIDE, SIDE)),
        "woven": 8 * np.sin(columns * 0.9) * np.sin(rows * 0.9),
    }[kind]
    return np.repeat(np.clip(level + relief, 0, 255)[..., None], 3, axis=2)


def flaw(draw: random.Random) -> tuple[str, float, tuple[float, float], np.ndarray]:
    """Shape, angle, length and width, and an anti-aliased (240, 240) mask."""
    shape = draw.choice(["line", "ring", "round spot", "area"])
    picture = Image.new("L", (SIDE * FINE, SIDE * FINE))
    pen, angle = ImageDraw.Draw(picture), 0.0
    x, y = draw.randint(300, 660), draw.randint(300, 660)
    if shape == "line":
        angle, half, thick = draw.choice([0.0, 90.0, 45.0, 135.0]), draw.randint(160, 280), draw.randint(12, 28)
        dx, dy = half * math.cos(math.radians(angle)), -half * math.sin(math.radians(angle))
        pen.line([x - dx, y - dy, x + dx, y + dy], fill=255, width=thick)
        size = (2 * half, thick)
    elif shape == "area":
        a, b = draw.randint(160, 230), draw.randint(160, 230)
        pen.rectangle([x - a, y - b, x + a, y + b], fill=255)
        size = (2 * max(a, b), 2 * min(a, b))
    else:
        radius = draw.randint(60, 110) if shape == "ring" else draw.randint(24, 90)
        box = [x - radius, y - radius, x + radius, y + radius]
        if shape == "ring":
            pen.ellipse(box, outline=255, width=radius // 3)
        else:
            pen.ellipse(box, fill=255)
        size = (2 * radius, 2 * radius)
    mask = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), float) / 255
    return shape, angle, (size[0] / FINE, size[1] / FINE), mask


def coarse(mask: np.ndarray) -> tuple[np.ndarray, list[SimpleNamespace]]:
    """Evidence as patches of 16 pixels see the mask, and its region."""
    from scipy.ndimage import gaussian_filter

    cells = mask.reshape(SIDE // 16, 16, SIDE // 16, 16).mean((1, 3)) ** 0.5
    heat = gaussian_filter(np.kron(cells, np.ones((16, 16))), 8)
    heat /= heat.max()
    rows, columns = np.nonzero(heat > 0.5)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return heat, [SimpleNamespace(box=box, score=1.0)]


def described(*args: Any) -> Description:
    """The first region's description."""
    return describe(*args)[0]


def picture_of(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def drawn(draw: random.Random, *, reference: bool) -> tuple[list[str], int]:
    """Words that are wrong for one drawn flaw, and how many were compared."""
    from skimage.color import lab2rgb, rgb2lab

    good = ground(draw)
    shape, angle, (length, width), mask = flaw(draw)
    change, step = draw.choice(["darker", "lighter", *AXES]), draw.uniform(0.15, 0.4)
    if change in AXES:
        other = 255 * lab2rgb(rgb2lab(good / 255) + 130 * step * np.array(AXES[change]))
    else:
        other = np.clip(good * (1 - step if change == "darker" else 1 + step), 0, 255)
    seen = good * (1 - mask[..., None]) + other * mask[..., None]
    seen = seen + np.random.default_rng(draw.randint(0, 9999)).normal(0, 1, seen.shape)
    found = described(picture_of(seen), *coarse(mask), [picture_of(good)] if reference else [])
    right = {
        f"{shape}, not {found.shape}": found.shape == shape,
        change: change in found.in_words(),
        f"{length:.0f} x {width:.0f}, not {found.length:.0f} x {found.width:.0f}": abs(found.length - length)
        <= max(4, 0.12 * length)
        and abs(found.width - width) <= max(3, 0.15 * width),
    }
    if shape == "line":
        right[f"at {angle}, not {found.angle}"] = found.angle is not None and orientation_word(
            found.angle
        ) == orientation_word(angle)
    if change == "darker":
        right[f"by {step:.2f}, not {found.tone:.2f}"] = abs(found.tone + step) <= 0.05
    return [words for words, holds in right.items() if not holds], len(right)


@pytest.mark.parametrize("reference", [False, True])
def test_words_of_drawn_flaws_are_right(reference: bool) -> None:
    """At least 95 % of the words, with a reference and without."""
    draw = random.Random(20)
    rows = [drawn(draw, reference=reference) for _ in range(60)]
    wrong = [words for faults, _ in rows for words in faults]
    assert len(wrong) <= 0.05 * sum(count for _, count in rows), wrong


def spot(colour: tuple[int, int, int], *, blur: float = 0.0) -> Description:
    """A round spot of a colour, 40 pixels across, on light grey."""
    from PIL import ImageFilter

    picture, mask = Image.new("RGB", (SIDE, SIDE), (190, 190, 190)), Image.new("L", (SIDE, SIDE))
    for canvas, fill in ((picture, colour), (mask, 255)):
        ImageDraw.Draw(canvas).ellipse([100, 80, 140, 120], fill=fill)
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    return described(picture, *coarse(np.asarray(mask, float) / 255))


@pytest.mark.parametrize(
    ("colour", "name"),
    [((30, 30, 30), "black"), ((200, 30, 30), "red"), ((110, 70, 35), "brown"), ((40, 60, 200), "blue")],
)
def test_the_colour_has_a_name(colour: tuple[int, int, int], name: str) -> None:
    assert spot(colour).in_words().startswith(f"{name} round spot")


def test_what_is_lighter_than_black_is_not_called_black() -> None:
    distance = np.hypot(*(np.mgrid[:SIDE, :SIDE] - 120))
    values = np.repeat(np.where(distance < 12, 34.0, 6.0)[..., None], 3, axis=2)
    words = described(picture_of(values), *coarse((distance < 12).astype(float))).in_words()
    assert words.startswith("dark grey round spot")
    assert "lighter" in words


def test_a_blurred_rim_is_no_edge() -> None:
    assert "sharp edge" in spot((60, 60, 60)).in_words()
    assert "no clear edge" in spot((60, 60, 60), blur=10).in_words()


def test_millimetres_need_a_scale() -> None:
    found = spot((60, 60, 60))
    assert "mm" not in found.in_words()
    assert "(4.1 x 4.1 mm)" in found.in_words(mm_per_pixel=0.1)


def test_light_that_differs_between_photographs_is_no_finding() -> None:
    """Against a reference that is darker all over, a lighter spot stays lighter by its own step."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    good = np.repeat((140 + 25 * np.sin(columns / 9) * np.sin(rows / 7))[..., None], 3, axis=2)
    mask = np.hypot(columns - 120, rows - 120) <= 20
    part = good + 40.0 * mask[..., None]
    found = described(picture_of(part), *coarse(mask.astype(float)), [picture_of(good - 30)])
    assert found.background == "reference"
    assert found.tone > 0.15


def test_the_parts_own_outline_is_not_described_as_a_flaw() -> None:
    """A dark bar that runs through and beyond the region is the part: only place and size of the region are told."""
    values = np.full((SIDE, SIDE, 3), 190.0)
    values[90:150] = 60.0
    heat = np.exp(-(np.hypot(*(np.mgrid[:SIDE, :SIDE] - 120)) ** 2) / 200)
    found = described(picture_of(values), heat, [SimpleNamespace(box=(108, 108, 132, 132), score=1.0)])
    assert found.tone is None
    assert found.in_words() == "area, 24 x 24 px, poor match with the rest of the picture"
    assert Description.from_dict(found.to_dict()) == found


def ringed(centre: tuple[int, int]) -> np.ndarray:
    """A dark part with a bright rim on black ground."""
    distance = np.hypot(*(np.mgrid[:SIDE, :SIDE] - np.array(centre)[:, None, None]))
    grey = np.where(distance < 80, np.where(distance < 68, 70.0, 130.0), 5.0)
    return np.repeat(grey[..., None], 3, axis=2)


def test_a_part_that_lies_elsewhere_than_its_reference_is_compared_at_the_same_place_of_the_part() -> None:
    part, mask = ringed((124, 110)), np.zeros((SIDE, SIDE))
    mask[120:132, 100:112] = 1
    part[mask > 0] = 200
    found = described(picture_of(part), *coarse(mask), [picture_of(ringed((116, 118)))])
    assert found.in_words().startswith("light grey spot, 12 x 12 px")
    outline = np.zeros((SIDE, SIDE))
    outline[116:132, 24:48] = 1  # the evidence stands on the rim: nothing but the shift is there
    assert described(picture_of(ringed((124, 110))), *coarse(outline), [picture_of(ringed((116, 118)))]).tone is None


def test_what_good_parts_have_and_the_part_lacks_is_called_missing() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    part = np.repeat((140 + 25 * np.sin(columns / 9) * np.sin(rows / 7))[..., None], 3, axis=2)
    good, mask = part.copy(), np.zeros((SIDE, SIDE))
    mask[100:108, 60:180] = 1
    good[mask > 0] = 40
    found = described(picture_of(part), *coarse(mask), [picture_of(good)])
    assert found.in_words().startswith("a structure of good parts is missing: ")
    assert (found.length, found.width) == (pytest.approx(120, abs=3), pytest.approx(8, abs=1))
    assert "darker than the reference" in described(picture_of(good), *coarse(mask), [picture_of(part)]).in_words()


def test_a_line_is_followed_where_it_is_faint_and_over_gaps() -> None:
    values, mask = np.full((SIDE, SIDE, 3), 190.0), np.zeros((SIDE, SIDE))
    for left, right, grey in ((40, 90, 150), (90, 140, 100), (144, 200, 100)):
        values[116:120, left:right] = grey
        mask[116:120, left:right] = 1
    found = described(picture_of(values), *coarse(mask))
    assert (found.shape, found.count) == ("line", 1)
    assert found.length == pytest.approx(156, abs=6)


@pytest.mark.parametrize(("length", "width", "shape"), [(72, 4, "line"), (72, 12, "spot"), (120, 12, "line")])
def test_a_broad_patch_is_a_line_only_if_it_is_long(length: int, width: int, shape: str) -> None:
    values, mask = np.full((SIDE, SIDE, 3), 190.0), np.zeros((SIDE, SIDE))
    mask[100 : 100 + width, 60 : 60 + length] = 1
    values[mask > 0] = 90
    assert described(picture_of(values), *coarse(mask)).shape == shape


def test_an_arc_lies_where_its_pixels_are_and_not_in_the_middle_of_its_box() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(rows - 120, columns - 120)
    mask = ((distance > 85) & (distance < 95) & (rows < 120) & (columns > 70)).astype(float)
    values = np.where(mask[..., None] > 0, 60.0, 190.0) * np.ones(3)
    heat, found = coarse(mask)
    (region,), _ = describe_regions(
        picture_of(values), heat, [EvidenceRegion(box=found[0].box, score=1.0, place="centre")]
    )
    assert region.place in ("upper centre", "upper right")


def test_a_faint_middle_makes_no_ring() -> None:
    distance = np.hypot(*(np.mgrid[:SIDE, :SIDE] - 120))
    values = np.repeat(np.where(distance < 30, np.where(distance < 18, 150.0, 90.0), 190.0)[..., None], 3, axis=2)
    assert described(picture_of(values), *coarse((distance < 30).astype(float))).shape == "round spot"


def test_several_pieces_give_the_size_of_the_largest() -> None:
    values, mask = np.full((SIDE, SIDE, 3), 190.0), np.zeros((SIDE, SIDE))
    for left in (80, 125):
        mask[110:120, left : left + 35] = 1
    values[mask > 0] = 90
    assert " in 2 pieces, the largest 35 x 10 px" in described(picture_of(values), *coarse(mask)).in_words()


def test_a_region_gets_the_box_of_its_pixels_and_each_thing_is_told_once() -> None:
    values = np.full((SIDE, SIDE, 3), 150.0)
    values[100:112, 60:110] = 40
    heat = np.zeros((SIDE, SIDE))
    heat[80:160, 40:170], heat[96:116, 56:114] = 0.6, 1.0
    found = [EvidenceRegion((40, 80, 170, 160), "centre", 1.0), EvidenceRegion((50, 90, 150, 130), "centre", 0.9)]
    regions, descriptions = describe_regions(picture_of(values), heat, found)
    assert [region.box for region in regions] == [own.box for own in descriptions]
    (region,) = regions
    assert np.abs(np.subtract(region.box, (60, 100, 110, 112))).max() <= 2
    assert (region.place, region.score) == ("centre", 1.0)
