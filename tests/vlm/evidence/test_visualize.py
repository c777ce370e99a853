"""The evidence picture: absolute colours, clear below the threshold, boxes where the regions are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sage_ad.vlm.evidence.extractor import Evidence
from sage_ad.vlm.evidence.regions import find_regions
from sage_ad.vlm.evidence.visualize import PANEL, evidence_picture, overlay


def evidence_of(values: np.ndarray, threshold: float = 0.4) -> Evidence:
    score = float(values.max())
    anomalous = score > threshold
    return Evidence(
        score=score,
        threshold=threshold,
        threshold_from="references",
        threshold_reason="given",
        verdict="anomalous" if anomalous else "normal",
        confidence=0.9,
        confidence_reason="given",
        map=values.astype(np.float32),
        regions=find_regions(values, threshold) if anomalous else [],
        distinct=torch.tensor([0]),
        features=torch.ones(1, 1, 1),
        distances=torch.ones(1, 1),
        margins=torch.ones(1, 1),
    )


@pytest.fixture
def grey() -> Image.Image:
    return Image.new("RGB", (200, 150), (120, 120, 120))


def spot(level: float) -> np.ndarray:
    values = np.full((150, 200), 0.1)
    values[100:120, 150:170] = level
    return values


def test_a_normal_part_stays_clear(grey: Image.Image) -> None:
    assert np.array_equal(np.asarray(overlay(grey, evidence_of(spot(0.39)))), np.asarray(grey))


def test_colour_lies_only_where_the_evidence_is(grey: Image.Image) -> None:
    laid = np.asarray(overlay(grey, evidence_of(spot(0.7))), int)
    changed = np.abs(laid - 120).sum(axis=2) > 0
    assert changed[100:120, 150:170].all()
    assert not changed[:90].any()


def test_the_same_evidence_has_the_same_colour_in_every_picture(grey: Image.Image) -> None:
    alone, beside = spot(0.6), spot(0.6)
    beside[10:30, 10:30] = 2.0
    first = np.asarray(overlay(grey, evidence_of(alone)))[110, 160]
    second = np.asarray(overlay(grey, evidence_of(beside)))[110, 160]
    assert np.array_equal(first, second)


def test_three_panels_side_by_side_and_two_without_reference(grey: Image.Image) -> None:
    found = evidence_of(spot(0.7))
    assert evidence_picture(grey, [grey], found).width > 3 * PANEL
    assert 2 * PANEL < evidence_picture(grey, [], found).width < 3 * PANEL


def test_the_box_is_drawn_around_the_spot(grey: Image.Image) -> None:
    picture = np.asarray(evidence_picture(grey, [], evidence_of(spot(0.7))), int)
    box = (np.abs(picture - (0, 190, 255)).sum(axis=2) < 10).nonzero()
    scale = PANEL / 200
    left = box[1].min() - (PANEL + 24)
    assert abs(left - 150 * scale) < 8
    assert abs(box[1].max() - (PANEL + 24) - 170 * scale) < 8


@pytest.mark.parametrize("size", [(16, 16), (1600, 40), (40, 1600)])
def test_any_shape_of_picture(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    picture = evidence_picture(image, [image], evidence_of(np.full(size[::-1], 0.9)))
    assert picture.mode == "RGB"
