"""Eq. 4: cases computed by hand, and the properties that selection rests on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_ad.alignment.data.pairs import ENTROPY_FORMS, entropies
from sage_ad.vlm.errors import InputError

LEVELS = st.lists(st.floats(1, 5), min_size=1, max_size=6)


def test_two_answers_by_hand():
    """Scores log 3 and 0 give p = 3/4 and 1/4."""
    scores = [math.log(3), 0.0]
    assert entropies(scores, "surprisal") == pytest.approx([math.log(4 / 3), math.log(4)])
    assert entropies(scores, "term") == pytest.approx([0.75 * math.log(4 / 3), 0.25 * math.log(4)])


def test_the_whole_list_of_the_rubric_by_hand():
    """Scores 5, 4, 2, 1: e^4, e^3, e^1, e^0 over 78.3519..."""
    weights = [math.e**4, math.e**3, math.e, 1.0]
    p = [w / sum(weights) for w in weights]
    assert entropies([5, 4, 2, 1], "term") == pytest.approx([-x * math.log(x) for x in p])
    h = entropies([5, 4, 2, 1], "surprisal")
    assert [h[i + 1] - h[i] for i in range(3)] == pytest.approx([1, 2, 1])


def test_the_summand_is_not_monotone():
    """Why the two forms select differently: a middling answer can have the highest term."""
    h = entropies([5, 4, 1, 1], "term")
    assert h[1] > h[0] > h[2]


@given(LEVELS)
def test_terms_sum_to_the_printed_entropy(scores):
    """Eq. 4 as printed is the sum of the terms, between 0 and log N."""
    total = sum(entropies(scores, "term"))
    p = [math.exp(-h) for h in entropies(scores, "surprisal")]
    assert sum(p) == pytest.approx(1)
    assert total == pytest.approx(-sum(x * math.log(x) for x in p), abs=1e-9)
    assert -1e-9 <= total <= math.log(len(scores)) + 1e-9


@given(LEVELS, st.floats(-50, 50))
def test_surprisal_gaps_are_score_gaps_and_ignore_a_shift(scores, shift):
    h = entropies([s + shift for s in scores], "surprisal")
    for i in range(len(scores)):
        assert abs(h[0] - h[i]) == pytest.approx(abs(scores[0] - scores[i]), abs=1e-9)


@pytest.mark.parametrize("form", ENTROPY_FORMS)
def test_equal_scores_have_equal_entropies_and_no_gap(form):
    h = entropies([3, 3, 3], form)
    assert len(set(h)) == 1
    assert abs(h[0] - h[2]) == 0


def test_extreme_scores_neither_overflow_nor_become_nan():
    for form in ENTROPY_FORMS:
        assert all(math.isfinite(h) for h in entropies([1e4, 0, -1e4], form))


@pytest.mark.parametrize(("scores", "form"), [([], "term"), ([1, math.nan], "term"), ([1, 2], "sum")])
def test_what_cannot_be_computed_is_refused_in_a_sentence(scores, form):
    with pytest.raises(InputError):
        entropies(scores, form)
