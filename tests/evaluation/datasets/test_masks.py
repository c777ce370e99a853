"""Masks of other sizes, kinds and orientations become one boolean array, or one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import mask, picture

from sage_ad.evaluation.datasets import load_mask, places_of_mask
from sage_ad.evaluation.datasets.sample import Sample
from sage_ad.vlm.errors import InputError


def test_mask_of_another_size_and_kind(tmp_path: Path) -> None:
    small = Sample(tmp_path / "x.png", "c", "test", masks=(mask(tmp_path / "m.png", (0, 0, 1, 1), (400, 300)),))
    scaled = load_mask(small, (40, 30))
    assert scaled is not None
    assert scaled.shape == (30, 40)
    assert scaled.sum() == 1  # one marked pixel of 120,000 survives the scaling
    Image.fromarray(np.full((30, 40), 20, np.uint8)).save(tmp_path / "m.jpg", quality=30)
    faint = load_mask(Sample(tmp_path / "x.png", "c", "test", masks=(tmp_path / "m.jpg",)))
    assert faint is not None
    assert not faint.any()  # compression noise is no defect
    colour = np.zeros((30, 40, 4), np.uint8)
    colour[..., 3] = 255
    colour[:10, :10, 0] = 255
    Image.fromarray(colour).save(tmp_path / "rgba.png")
    red = load_mask(Sample(tmp_path / "x.png", "c", "test", masks=(tmp_path / "rgba.png",)))
    assert red is not None
    assert red.sum() == 100
    assert load_mask(Sample(tmp_path / "x.png", "c", "test")) is None


def test_mask_is_turned_with_its_exif_rotated_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright after a quarter turn clockwise
    picture(tmp_path / "x.jpg", (40, 30), exif=exif)
    lying = mask(tmp_path / "m.png", (0, 0, 8, 8), (40, 30))
    turned = load_mask(Sample(tmp_path / "x.jpg", "c", "test", masks=(lying,)), (30, 40))
    assert turned is not None
    assert turned.shape == (40, 30)
    assert places_of_mask(turned)[0] == "upper right"


def test_a_broken_mask_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_text("no mask")
    with pytest.raises(InputError, match=r"m\.png cannot be read"):
        load_mask(Sample(tmp_path / "x.png", "c", "test", masks=(tmp_path / "m.png",)))
