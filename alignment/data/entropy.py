"""Entropy of ranked answers, Eq. 4: how much each answer's score says, and the gap between two answers.

With the scores S_1 .. S_N of one question's answers and p = softmax(S), Eq. 4 as printed sums over all answers, so it is
one number for the whole list and every difference of it is 0. Both per-answer readings stand here:

    term       h_i = -p_i log p_i   the summand of Eq. 4; not monotone in S (highest at p = 1/e)
    surprisal  h_i = -log p_i       monotone in S: a gap of h is a gap of the scores

The gap of two answers is dH = |h_w - h_l|, at least 0 and 0 exactly for equal h. Scores have no unit beyond the rubric's
levels (1 to 5), entropies are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from sage_ad.vlm.errors import InputError

EntropyReading = Literal["term", "surprisal"]
READINGS: tuple[EntropyReading, ...] = get_args(EntropyReading)


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities in proportion to exp(score), computed from the highest score down so that nothing overflows."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def entropies(scores: Sequence[float], reading: EntropyReading = "term") -> list[float]:
    """h_i of each answer, Eq. 4 in one of its two readings.

    Args:
        scores: S_1 .. S_N, at least one, finite.
        reading: "term" or "surprisal".

    Returns:
        N numbers in nats, in the order of the scores; equal scores have equal entropies.

    Raises:
        InputError: there is no score, one is not finite, or the reading is unknown.
    """
    if reading not in READINGS:
        raise InputError(f"There is no entropy reading {reading!r}; use {' or '.join(READINGS)}.")
    if not scores or not all(math.isfinite(score) for score in scores):
        raise InputError(f"Entropy needs at least one score, all of them finite, not {list(scores)}.")
    highest = max(scores)
    log_total = math.log(sum(math.exp(score - highest) for score in scores))
    surprisals = [log_total - (score - highest) for score in scores]
    if reading == "surprisal":
        return surprisals
    return [math.exp(-h) * h for h in surprisals]


def gap(entropy_w: float, entropy_l: float) -> float:
    """dH of Eq. 5 and 6: the distance of two answers' entropies in nats."""
    return abs(entropy_w - entropy_l)
