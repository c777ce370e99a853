"""A promised false-alarm rate holds on images that were not seen, or is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_ad.evaluation.reports.calibration import calibrate, conformal_p_value, conformal_threshold, needed_normals
from sage_ad.vlm.errors import InputError


@pytest.mark.parametrize(("rate", "count"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.5, 1), (0.3, 3), (0.9, 1)])
def test_needed_normals(rate: float, count: int) -> None:
    assert needed_normals(rate) == count


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        needed_normals(rate)
    with pytest.raises(InputError, match="between 0 and 1"):
        calibrate([1.0], [], rate)


def test_too_few_normals_say_how_many_are_missing() -> None:
    with pytest.raises(InputError, match="add 4 more"):
        conformal_threshold([0.1] * 15, 0.05)
    refused = calibrate([0.1] * 15, [0.2], 0.05)
    assert (refused.threshold, refused.measured) == (None, None)
    assert refused.refused is not None
    assert "there are 15" in refused.refused
    assert calibrate([0.1] * 19, [], 0.05).measured is None


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy"])
def test_the_promise_holds_for_any_distribution(draw: str, rate: float) -> None:
    generator = np.random.default_rng(7)
    alarms = []
    for _ in range(400):
        scores = getattr(generator, draw)(size=40 + 30)
        threshold = conformal_threshold(scores[:40], rate)
        alarms.append((scores[40:] > threshold).mean())
    # On average at most the rate, and not far below it: a threshold at infinity would keep any promise.
    assert np.mean(alarms) <= rate + 0.01
    assert np.mean(alarms) >= rate - 1 / 41 - 0.01


@given(st.lists(st.floats(0, 1), min_size=19, max_size=60), st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_no_more_calibration_scores_exceed_it_than_the_rate_allows(scores: list[float], rate: float) -> None:
    threshold = conformal_threshold(scores, rate)
    assert threshold in scores
    assert sum(score > threshold for score in scores) <= rate * (len(scores) + 1)


def test_p_values() -> None:
    normals = [0.1, 0.2, 0.3]
    assert conformal_p_value(0.9, normals) == 0.25
    assert conformal_p_value(0.0, normals) == 1.0


def test_the_measured_rate_stands_beside_the_asked_one() -> None:
    result = calibrate(list(np.linspace(0, 1, 99)), [0.5, 0.5, 0.99, 2.0], 0.05)
    assert result.measured is not None
    assert result.measured.value == 0.5
    assert result.measured.n == 4
    assert result.to_json()["asked"] == 0.05
