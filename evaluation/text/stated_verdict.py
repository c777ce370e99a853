"""The verdict of an answer: what its yes or no says, what its words say, and whether the two agree."""

from __future__ import annotations

from dataclasses import dataclass

from sage_ad.evaluation.inspection import Verdict
from sage_ad.evaluation.text.answer_parser import ParsedAnswer
from sage_ad.evaluation.text.claims import Claim
from sage_ad.evaluation.text.normalise import stems

_WEIGHTS = {"state": 1.0, "use": 0.75, "defect": 0.8}
_USE_ASKED = 1.0
_DENIED_DEFECT = 0.5
_WEAK = 0.3
_MORE = 0.15
_HEDGED = 0.6
PLAIN = 0.45
"""From this weight on, words can stand against a yes or a no."""
STRONG = 0.75
"""From this weight on, a claim counts as a plain statement."""


@dataclass(frozen=True)
class SpokenVerdict:
    """What an answer decides.

    Attributes:
        state: the state that it gives the part; None when it decides nothing.
        by_yes_no: the state that its yes or no gives (through the question's polarity); None without one.
        by_words: the state that its statements give; None when they give none.
        good, bad: the weightiest words on either side ("" when there are none).
        good_weight, bad_weight: their weights, 0 to 1.
        hedges: words of doubt about the verdict.
    """

    state: Verdict | None
    by_yes_no: Verdict | None
    by_words: Verdict | None
    good: str
    bad: str
    good_weight: float
    bad_weight: float
    hedges: tuple[str, ...]

    @property
    def split(self) -> bool:
        """Whether yes or no and the words mean opposite things."""
        if self.by_yes_no is None or self.by_words is None or self.by_yes_no == self.by_words:
            return False
        if self.by_words == "normal" and not self.bad_weight:
            return self.good_weight >= _WEAK
        return max(self.good_weight, self.bad_weight) >= PLAIN


def _weight(claim: Claim, use_asked: bool) -> float:
    if claim.scope != "part" or claim.excused:
        return 0.0
    weight = _DENIED_DEFECT if claim.kind == "defect" and claim.stance == "good" else _WEIGHTS[claim.kind]
    if claim.kind == "use" and use_asked:
        weight = _USE_ASKED
    return weight * (_WEAK if claim.weak or claim.tolerated else 1.0) * (_HEDGED if claim.hedged else 1.0)


def _best(claims: list[Claim], use_asked: bool) -> tuple[float, str]:
    weighed = [(_weight(claim, use_asked), -index, claim.words) for index, claim in enumerate(claims)]
    best = max(weighed, default=(0.0, 0, ""))
    # Several weak words of one kind ("bright, clean and complete") add up, but never to a plain judgement.
    more = sum(1 for weight, _, _ in weighed if weight > 0) - 1
    weight = min(best[0] + _MORE * more, STRONG - 0.1) if 0 < best[0] <= _WEAK else best[0]
    return weight, best[2] if best[0] > 0 else ""


def _only_repeats(claim: Claim, asked: frozenset[str]) -> bool:
    """Whether a claim only takes up a defect word of the question, which the answer's "no" has dealt with."""
    return bool(claim.concept) and claim.stance == "bad" and set(stems(claim.term)) <= asked


def spoken_verdict(
    parsed: ParsedAnswer, yes_means: Verdict | None, use_asked: bool = False, asked: frozenset[str] = frozenset()
) -> SpokenVerdict:
    """Decides what a parsed answer says of the part.

    Args:
        parsed: the answer, parsed.
        yes_means: the state that a yes to the question asserts (None: yes and no tell nothing).
        use_asked: the question asks what may be done with the part, so that such words are the verdict itself.
        asked: stems of the question's words.
    """
    good_weight, good = _best([claim for claim in parsed.claims if claim.stance == "good"], use_asked)
    bad_weight, bad = _best([claim for claim in parsed.claims if claim.stance == "bad"], use_asked)
    by_words: Verdict | None = None
    topic = asked if yes_means == "anomalous" and parsed.yes_no is False else frozenset()
    if parsed.yes_no is not None:
        # Similarity, or a defect word taken up from the question, is too weak to stand against a plain yes or no.
        known = [claim for claim in parsed.claims if not claim.by_similarity and not _only_repeats(claim, topic)]
        good_weight, good = _best([claim for claim in known if claim.stance == "good"], use_asked)
        bad_weight, bad = _best([claim for claim in known if claim.stance == "bad"], use_asked)
    if good_weight or bad_weight:
        if good_weight != bad_weight:
            by_words = "normal" if good_weight > bad_weight else "anomalous"
        else:
            total = sum(_weight(claim, use_asked) * (1 if claim.stance == "good" else -1) for claim in parsed.claims)
            by_words = "normal" if total > 0 else "anomalous"
    by_yes_no: Verdict | None = None
    if parsed.yes_no is not None and yes_means is not None:
        by_yes_no = yes_means if parsed.yes_no else ("normal" if yes_means == "anomalous" else "anomalous")
    if (
        by_words == "anomalous"
        and max(good_weight, bad_weight) <= _WEAK
        and not any(claim.by_similarity for claim in parsed.claims)
    ):
        # A single word such as "colour" in a text that neither praises nor complains decides nothing.
        by_words = by_words if by_yes_no else None
    state = by_yes_no or by_words
    if parsed.undecided and parsed.yes_no is None and max(good_weight, bad_weight) < 1.0:
        state = None
    return SpokenVerdict(state, by_yes_no, by_words, good, bad, good_weight, bad_weight, parsed.hedges)
