"""One verdict from two: what the rules read in an answer, and what the answer classifier does.

Log-odds are added: the answer classifier's own, and a fixed amount for what the rules found (more for a yes or no in so many
words than for judging words). The amounts were chosen on pools that the answer classifier had not been trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sage_ad.evaluation.inspection import Verdict
from sage_ad.evaluation.judge.answer_classifier import Classification
from sage_ad.evaluation.judge.defect_match import concepts, concepts_of
from sage_ad.evaluation.judge.gold import ResolvedGold
from sage_ad.evaluation.text.answer_parser import ParsedAnswer
from sage_ad.evaluation.text.claims import Claim
from sage_ad.evaluation.text.lexicon import has_cue
from sage_ad.evaluation.text.sentences import CONCESSIONS
from sage_ad.evaluation.text.stated_verdict import PLAIN, SpokenVerdict

BY_YES_NO = 2.5
"""What a yes or a no in so many words weighs against the answer classifier."""
BY_WORDS = 1.5
"""What judging words weigh."""
DENIED = 6.0
"""What it weighs that an answer denies the very defect that is there, and reports no other."""
REPORTED = 1.25
"""What a defect weighs that the rules found reported, or found no trace of."""
EXCEPTED = 3.5
"""What a defect weighs that the answer itself sets against its praise ("fine, except for the crack")."""
CLEAR = 0.75
"""An answer in which the rules find no verdict at all needs at least this much from the answer classifier."""
DECIDED = 2.5
"""The same where the rules read that it leaves the question open."""


@dataclass(frozen=True)
class FusedVerdict:
    """What rules and classifier together take from an answer.

    Attributes:
        verdict: the verdict, its state overruled where the answer classifier is surer than the rules.
        overruled: the answer classifier decided against the rules (or where they found nothing).
        reports_defect: whether the answer reports that something is wrong with the part.
    """

    verdict: SpokenVerdict
    overruled: bool
    reports_defect: bool


def fuse_verdicts(
    verdict: SpokenVerdict, parsed: ParsedAnswer, gold: ResolvedGold, classification: Classification
) -> FusedVerdict:
    """Weighs the rules' verdict and their finding of a defect against the classifier's."""
    state = _state(verdict, parsed, gold, classification)
    overruled = state != verdict.state
    if overruled:
        verdict = replace(verdict, state=state, by_yes_no=None, by_words=state)
    return FusedVerdict(verdict, overruled, classification.defect + _reported(parsed) > 0)


def _reported(parsed: ParsedAnswer) -> float:
    """What the rules' reading adds to the log-odds that a defect is reported.

    Words that take a defect back ("no cracks") or put up with it are no report.
    """
    found = [claim for claim in parsed.asserted("bad") if not claim.tolerated and not claim.by_similarity]
    if any(_is_exception(parsed, claim) for claim in found):
        return EXCEPTED
    return REPORTED if found else -REPORTED


def _is_exception(parsed: ParsedAnswer, claim: Claim) -> bool:
    clause = parsed.clauses[claim.clause]
    return clause.opener in CONCESSIONS or clause.words[:1] == ("only",) or has_cue("exceptions", clause.stems)


def _state(
    verdict: SpokenVerdict, parsed: ParsedAnswer, gold: ResolvedGold, classification: Classification
) -> Verdict | None:
    if gold.yes_means is None:
        return verdict.state
    if verdict.state is None:
        if abs(classification.yes) < (DECIDED if parsed.undecided else CLEAR):
            return None
        rules = 0.0
    else:
        weight = _weight(verdict, parsed, gold)
        rules = weight if verdict.state == gold.yes_means else -weight
    says_yes = classification.yes + rules > 0
    return gold.yes_means if says_yes else _other(gold.yes_means)


def _weight(verdict: SpokenVerdict, parsed: ParsedAnswer, gold: ResolvedGold) -> float:
    """What the rules' verdict weighs against the answer classifier."""
    if denies_the_defect(parsed, gold):
        return DENIED
    if verdict.by_yes_no is not None:
        return BY_YES_NO
    return BY_WORDS if max(verdict.good_weight, verdict.bad_weight) >= PLAIN else BY_WORDS / 2


def denies_the_defect(parsed: ParsedAnswer, gold: ResolvedGold) -> bool:
    """Whether an answer denies the very defect that is there, and reports no other."""
    right = concepts_of(gold.defect or "")
    if gold.topical or parsed.yes_no is not None or parsed.asserted("bad"):
        return False
    return any(claim.denied and concepts(claim) & right for claim in parsed.asserted("good"))


def _other(state: Verdict) -> Verdict:
    return "normal" if state == "anomalous" else "anomalous"
