"""Eq. 5: which answers are compared, with ties, missing scores and short lists."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_ad.alignment.data.pairs import (
    ENTROPY_FORMS,
    PAIR_CHOICES,
    AnswerPair,
    entropies,
    select_pairs,
    unscored_pairs,
)
from sage_ad.vlm.errors import InputError


def places(scores, choice="edpo", form="surprisal"):
    return [(pair.winner, pair.loser) for pair in select_pairs(scores, choice, form)]


def test_closest_neighbours_and_the_ends():
    """Score gaps 2, 0.5, 1.5: the second and third are closest, the ends are first and last."""
    assert places([5, 3, 2.5, 1]) == [(1, 2), (0, 3)]
    assert places([5, 3, 2.5, 1], "adjacent") == [(1, 2)]
    assert places([5, 3, 2.5, 1], "extreme") == [(0, 3)]
    assert len(places([5, 3, 2.5, 1], "all")) == 6


def test_gaps_are_those_of_the_whole_list():
    [close, ends] = select_pairs([5, 3, 2.5, 1], "edpo", "surprisal")
    assert (close.gap, ends.gap) == pytest.approx((0.5, 4))
    h = entropies([5, 3, 2.5, 1], "term")
    [close, ends] = select_pairs([5, 3, 2.5, 1], "edpo", "term")
    assert (close.winner, close.loser) == min(((i, i + 1) for i in range(3)), key=lambda p: abs(h[p[0]] - h[p[1]]))
    assert ends.gap == pytest.approx(abs(h[0] - h[3]))


def test_the_forms_select_differently():
    """By their small terms the last two are closest, by their scores the first two."""
    assert places([5, 4.5, 2, 1], "adjacent", "surprisal") == [(0, 1)]
    assert places([5, 4.5, 2, 1], "adjacent", "term") == [(2, 3)]


@pytest.mark.parametrize("form", ENTROPY_FORMS)
def test_two_answers_are_one_pair_counted_once(form):
    assert places([4, 2], "edpo", form) == [(0, 1)]
    assert select_pairs([4, 2], "edpo", form) == select_pairs([4, 2], "extreme", form)


def test_equal_scores_are_no_pair():
    assert places([3, 3, 3, 3]) == []
    assert places([5, 5, 3, 1]) == [(1, 2), (0, 3)]
    assert places([4, 3, 4], "extreme") == []
    assert places([3, 3], "all") == []


def test_of_equal_gaps_the_one_nearer_the_best_is_taken():
    assert places([5, 4, 3, 2]) == [(0, 1), (0, 3)]


def test_unscored_answers_are_left_out_and_keep_the_others_places():
    assert places([5, None, 2.5, 1]) == [(2, 3), (0, 3)]
    assert places([None, 4, None, 2]) == [(1, 3)]
    assert places([None, 4, None, None]) == []


def test_the_rank_says_who_wins_even_where_the_judge_differs():
    [pair] = select_pairs([2, 4], "edpo", "surprisal")
    assert pair == AnswerPair(0, 1, pytest.approx(2))


@given(
    st.lists(st.one_of(st.none(), st.floats(1, 5)), max_size=6),
    st.sampled_from(PAIR_CHOICES),
    st.sampled_from(ENTROPY_FORMS),
)
def test_pairs_are_ordered_distinct_scored_and_have_finite_gaps(scores, choice, form):
    pairs = select_pairs(scores, choice, form)
    assert len({(p.winner, p.loser) for p in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.winner < pair.loser
        assert scores[pair.winner] is not None
        assert scores[pair.loser] is not None
        assert pair.gap >= 0
        assert math.isfinite(pair.gap)


def test_without_scores_only_the_rank_counts():
    assert unscored_pairs(4, "extreme") == [AnswerPair(0, 3)]
    assert unscored_pairs(2, "edpo") == [AnswerPair(0, 1)]
    assert len(unscored_pairs(4, "all")) == 6
    with pytest.raises(InputError, match="sage-train score"):
        unscored_pairs(4, "edpo")


def test_an_unknown_choice_is_refused():
    with pytest.raises(InputError, match="extreme"):
        select_pairs([1, 2], "best")  # type: ignore[arg-type]
