"""Thresholds from references alone: ratios that serve any encoder, and references that are unlike the others."""

from __future__ import annotations

import pytest

from sage_ad.vlm.evidence.thresholds import odd_ones, threshold_from_one, threshold_from_several

SCORES = [0.30, 0.33, 0.31, 0.36]


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
def test_the_scale_of_an_encoders_distances_does_not_matter(scale: float) -> None:
    several, spread, _ = threshold_from_several([scale * score for score in SCORES])
    one, _, _ = threshold_from_one(scale * 0.4)
    assert several == pytest.approx(scale * threshold_from_several(SCORES)[0])
    assert several - spread == pytest.approx(scale * 0.324, rel=0.01)
    assert one == pytest.approx(scale * 0.46)


def test_references_that_scatter_more_leave_more_room() -> None:
    even, wide = threshold_from_several([0.3, 0.3, 0.3])[0], threshold_from_several([0.2, 0.3, 0.45])[0]
    assert 0.3 < even < 0.33 < wide


def test_an_odd_reference_needs_three_others() -> None:
    assert [index for index, _ in odd_ones([0.30, 0.33, 0.31, 0.60])] == [3]
    assert odd_ones([0.30, 0.33, 0.60]) == []
    assert odd_ones(SCORES) == []
