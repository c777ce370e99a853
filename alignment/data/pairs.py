"""Which answers are compared: entropy of ranked answers (Eq. 4), and the pairs that its gaps select (Eq. 5).

Entropy says how much each answer's score tells. With the scores S_1 .. S_N of one question's answers and p = softmax(S),
Eq. 4 as printed sums over all answers, so it is one number for the whole list and every difference of it is 0. Both
per-answer forms stand here:

    term       h_i = -p_i log p_i   the summand of Eq. 4; not monotone in S (highest at p = 1/e)
    surprisal  h_i = -log p_i       monotone in S: a gap of h is a gap of the scores

The gap of two answers is dH = |h_w - h_l|, at least 0 and 0 exactly for equal h. Scores have no unit beyond the rubric's
levels (1 to 5), entropies are in nats.

Pairs are the closest neighbours (fine distinction) and the two ends (clear distinction). Rules that the paper leaves open,
the same for all choices of pairs:

- The rank says which answer of a pair is better; scores say by how much. An answer without a score is left out, and its
  neighbours become neighbours of each other.
- Two answers with equal scores are no pair: the judge saw no difference to learn (a gap of 0 would always be the smallest).
- Of two neighbouring pairs with the same gap the one nearer the best answer is taken.
- A pair that is both (two answers) counts once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

from sage_ad.vlm.errors import InputError

EntropyForm = Literal["term", "surprisal"]
ENTROPY_FORMS: tuple[EntropyForm, ...] = get_args(EntropyForm)
PairChoice = Literal["edpo", "extreme", "adjacent", "all"]
PAIR_CHOICES: tuple[PairChoice, ...] = get_args(PairChoice)


def entropies(scores: Sequence[float], form: EntropyForm = "term") -> list[float]:
    """h_i of each answer, Eq. 4 in one of its two forms.

    Args:
        scores: S_1 .. S_N, at least one, finite.
        form: "term" or "surprisal".

    Returns:
        N numbers in nats, in the order of the scores; equal scores have equal entropies.

    Raises:
        InputError: there is no score, one is not finite, or the form is unknown.
    """
    if form not in ENTROPY_FORMS:
        raise InputError(f"There is no entropy form {form!r}; use {' or '.join(ENTROPY_FORMS)}.")
    if not scores or not all(math.isfinite(score) for score in scores):
        raise InputError(f"Entropy needs at least one score, all of them finite, not {list(scores)}.")
    highest = max(scores)
    log_total = math.log(sum(math.exp(score - highest) for score in scores))
    surprisals = [log_total - (score - highest) for score in scores]
    if form == "surprisal":
        return surprisals
    return [math.exp(-h) * h for h in surprisals]


@dataclass(frozen=True)
class AnswerPair:
    """Two answers of one list.

    Attributes:
        winner, loser: places in the list, 0 the best; the winner always stands before the loser.
        gap: dH, in nats; 0 where there are no scores.
    """

    winner: int
    loser: int
    gap: float = 0.0


def select_pairs(
    scores: Sequence[float | None], choice: PairChoice = "edpo", form: EntropyForm = "term"
) -> list[AnswerPair]:
    """The pairs of one list of ranked answers that are trained on.

    Args:
        scores: S_1 .. S_N, best answer first; None where the judge gave none.
        choice: "edpo" (Eq. 5: closest neighbours and the ends), "extreme" (the ends), "adjacent" (the closest
            neighbours), or "all".
        form: of the entropy, Eq. 4.

    Returns:
        Pairs without repetition, closest neighbours first; empty where fewer than two different scores are known.

    Raises:
        InputError: the choice or the form is unknown.
    """
    if choice not in PAIR_CHOICES:
        raise InputError(f"There is no choice of pairs {choice!r}; use one of {', '.join(PAIR_CHOICES)}.")
    known = [(place, score) for place, score in enumerate(scores) if score is not None]
    if len(known) < 2:
        return []
    values = [score for _, score in known]
    h = entropies(values, form)

    def pair(w: int, loser: int) -> AnswerPair | None:
        if values[w] == values[loser]:
            return None
        return AnswerPair(known[w][0], known[loser][0], abs(h[w] - h[loser]))

    if choice == "all":
        return [found for w, loser in combinations(range(len(known)), 2) if (found := pair(w, loser))]
    neighbours = [found for w in range(len(known) - 1) if (found := pair(w, w + 1))]
    closest = min(neighbours, key=lambda found: found.gap) if neighbours and choice != "extreme" else None
    ends = pair(0, len(known) - 1) if choice != "adjacent" else None
    # A dictionary keeps the order and drops the pair that is both.
    return [*dict.fromkeys(found for found in (closest, ends) if found is not None)]


def unscored_pairs(answers: int, choice: PairChoice) -> list[AnswerPair]:
    """Pairs of a list that no judge scored: only the rank counts, so there is no gap and no closest pair.

    Raises:
        InputError: the choice needs scores.
    """
    if choice == "all":
        return [AnswerPair(w, loser) for w, loser in combinations(range(answers), 2)]
    if choice == "extreme" or answers == 2:
        return [AnswerPair(0, answers - 1)] if answers > 1 else []
    raise InputError(
        f"The pairs {choice!r} are chosen by scores and the data has none; run sage-train score first, or use the pairs "
        "'extreme' or 'all' with eta 0."
    )
