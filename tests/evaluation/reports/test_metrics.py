"""Figures against plain implementations that one can check by reading."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sage_ad.evaluation.reports.metrics import (
    PixelTally,
    average_precision,
    bootstrap,
    bootstrap_mean,
    decisions,
    expected_calibration_error,
    image_auroc,
    macro,
    rank_auroc,
    reliability,
)
from sage_ad.vlm.errors import InputError


def plain_regions(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Connected regions (8 neighbours) by flood fill."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    regions = []
    while left:
        stack, region = [left.pop()], []
        while stack:
            row, column = stack.pop()
            region.append((row, column))
            for near in [(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    stack.append(near)
        regions.append(region)
    return regions


def plain_aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """AUPRO by trying every score as a threshold, as the definition reads."""
    regions = [(image, region) for image, mask in enumerate(masks) for region in plain_regions(mask)]
    clean = sum(int((~mask).sum()) for mask in masks)
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for values in maps for v in values.ravel()}, reverse=True):
        false = (
            sum(int(((values >= threshold) & ~mask).sum()) for values, mask in zip(maps, masks, strict=True)) / clean
        )
        found = [sum(maps[i][p] >= threshold for p in region) / len(region) for i, region in regions]
        points.append((false, sum(found) / len(found)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def scene(seed: int, images: int = 4, side: int = 24) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noisy maps over masks with regions of very different size; the first image is good."""
    generator = np.random.default_rng(seed)
    maps, masks = [], []
    for image in range(images):
        mask = np.zeros((side, side), bool)
        if image:
            mask[2:4, 2:4] = True
            mask[10 : 12 + 3 * image, 8:20] = True
        noise = generator.normal(size=(side, side)) + 1.5 * mask
        maps.append(noise.astype(np.float32))
        masks.append(mask)
    return maps, masks


@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_aupro_equals_the_definition(seed: int, limit: float) -> None:
    maps, masks = scene(seed)
    tally = PixelTally()
    for values, mask in zip(maps, masks, strict=True):
        tally.add(values, mask if mask.any() else None)
    assert tally.aupro(limit) == pytest.approx(plain_aupro(maps, masks, limit), abs=2e-3)
    assert tally.regions == 6


def test_aupro_with_ties_and_few_levels() -> None:
    maps, masks = scene(3)
    maps = [np.round(values * 2) / 2 for values in maps]
    tally = PixelTally()
    for values, mask in zip(maps, masks, strict=True):
        tally.add(values, mask)
    assert tally.aupro() == pytest.approx(plain_aupro(maps, masks, 0.3), abs=1e-9)


def test_small_regions_weigh_as_much_as_large_ones() -> None:
    mask = np.zeros((40, 40), bool)
    mask[0, 0] = True
    mask[10:30, 10:30] = True
    missed_small = np.where(mask, 1.0, 0.0).astype(np.float32)
    missed_small[0, 0] = 0.0
    tally = PixelTally()
    tally.add(missed_small, mask)
    pixels, aupro = tally.auroc(), tally.aupro()
    assert pixels is not None
    assert aupro is not None
    assert pixels > 0.99
    assert aupro < 0.66


def test_pixel_auroc_equals_scikit_learn() -> None:
    maps, masks = scene(2)
    maps = [values - 5 for values in maps]  # negative scores keep their order
    tally = PixelTally()
    for values, mask in zip(maps, masks, strict=True):
        tally.add(values, mask)
    expected = roc_auc_score(np.concatenate([m.ravel() for m in masks]), np.concatenate([v.ravel() for v in maps]))
    assert tally.auroc() == pytest.approx(expected, abs=1e-3)


def test_perfect_and_absent_pixels() -> None:
    mask = np.zeros((9, 9), bool)
    mask[3:5, 3:5] = True
    tally = PixelTally()
    assert (tally.auroc(), tally.aupro()) == (None, None)
    tally.add(mask.astype(np.float32), mask)
    assert tally.auroc() == 1.0
    assert tally.aupro() == pytest.approx(1.0)
    good = PixelTally()
    good.add(np.zeros((9, 9)), None)
    assert (good.auroc(), good.aupro()) == (None, None)


def test_maps_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        PixelTally().add(np.zeros((4, 4)), np.zeros((5, 5), bool))
    with pytest.raises(InputError, match="no numbers"):
        PixelTally().add(np.full((4, 4), np.nan), None)


def test_image_figures() -> None:
    labels, scores = [False, False, True, True], [0.1, 0.4, 0.35, 0.8]
    assert image_auroc(labels, scores) == 0.75
    assert average_precision(labels, scores) == pytest.approx(0.8333, abs=1e-4)
    tied = np.round(np.random.default_rng(0).normal(size=200), 1)
    labels_of_tied = np.random.default_rng(1).random(200) < 0.3
    assert rank_auroc(labels_of_tied, tied) == pytest.approx(image_auroc(labels_of_tied, tied))
    assert rank_auroc(np.array([True]), np.array([0.1])) is None
    assert image_auroc([True, True], [0.1, 0.2]) is None
    assert average_precision([False], [0.1]) is None


def test_decisions_count_overkill_and_miss() -> None:
    result = decisions([False, False, False, False, True, True], [True, False, False, False, True, False])
    assert (result.overkill, result.miss) == (0.25, 0.5)
    assert result.f1 == pytest.approx(0.5)
    only_bad = decisions([True, True], [False, True])
    assert (only_bad.overkill, only_bad.miss) == (None, 0.5)
    only_good = decisions([False], [False])
    assert (only_good.f1, only_good.overkill, only_good.miss) == (None, 0.0, None)


def test_bootstrap_interval_covers_and_repeats() -> None:
    values = list(np.random.default_rng(0).normal(10, 2, 200))
    first, again = bootstrap_mean(values, seed=3), bootstrap_mean(values, seed=3)
    assert first == again
    assert first is not None
    assert first.low < 10.2
    assert first.high > 9.8
    assert first.high - first.low == pytest.approx(2 * 1.96 * 2 / np.sqrt(200), rel=0.2)
    assert bootstrap_mean(values, seed=4) != first
    assert bootstrap_mean([None, None]) is None
    assert bootstrap_mean([]) is None


def test_bootstrap_draws_whole_images() -> None:
    """Five equal answers of an image are one observation: the interval must be as wide as for the images alone."""
    images = np.random.default_rng(1).integers(0, 2, 60).astype(float)
    alone = bootstrap_mean(list(images))
    answers = bootstrap_mean(list(np.repeat(images, 5)), list(np.repeat(np.arange(60), 5)))
    assert alone is not None
    assert answers is not None
    assert answers.n == alone.n == 60
    assert answers.high - answers.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_the_quick_mean_agrees_with_the_general_bootstrap() -> None:
    generator = np.random.default_rng(5)
    right = generator.random(120) < 0.7
    images = np.repeat(np.arange(40), 3)
    anomalous, category = images % 2 == 0, images % 4 // 2
    strata = list(zip(category.tolist(), anomalous.tolist(), strict=True))

    def statistic(rows: np.ndarray) -> float | None:
        return macro(
            np.mean([right[part][anomalous[part] == state].mean() for state in (True, False)])
            for part in (rows[category[rows] == c] for c in (0, 1))
        )

    slow = bootstrap(statistic, images.tolist(), strata=strata)
    quick = bootstrap_mean([float(value) for value in right], images.tolist(), strata=strata)
    assert slow is not None
    assert quick is not None
    assert quick.value == pytest.approx(slow.value)
    assert quick.n == slow.n
    assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high), abs=0.02)


def test_bootstrap_keeps_strata() -> None:
    labels = np.array([True] * 3 + [False] * 3)
    scores = np.array([3.0, 2.0, 5.0, 1.0, 2.5, 0.0])
    figure = bootstrap(
        lambda rows: image_auroc(labels[rows], scores[rows]), 6, strata=[bool(label) for label in labels], rounds=200
    )
    assert figure is not None
    assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_reliability_bins() -> None:
    bins = reliability([0.55, 0.55, 0.95, 1.0], [True, False, True, True])
    assert [(entry.n, entry.accuracy) for entry in bins] == [(2, 0.5), (2, 1.0)]
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.05 + 2 * 0.025) / 4)
    assert expected_calibration_error([]) is None
