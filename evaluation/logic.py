"""Logic of an answer: does the verdict follow from true reasons, does it contradict itself, does the consequence agree?"""

from __future__ import annotations

from evaluation.content import particulars
from evaluation.inspection import Family, Verdict
from evaluation.reading import Reading
from evaluation.rubric import Fault
from evaluation.stemming import stems
from evaluation.verdict import STRONG, SpokenVerdict


def consequence_faults(reading: Reading, state: Verdict, family: Family) -> list[Fault]:
    """Faults of what the answer says may be done with the part, held against the verdict `state`."""
    uses = [claim for claim in reading.claims if claim.kind == "use" and claim.scope != "aside"]
    wrong_stance = "good" if state == "anomalous" else "bad"
    wrong = [claim for claim in uses if claim.stance == wrong_stance]
    if wrong:
        return [Fault.of("wrong-consequence", words=wrong[0].words)]
    if family == "defect diagnosis" and not uses and reading.polar is None:
        return [Fault.of("no-consequence")]
    return []


def reason_faults(
    reading: Reading, verdict: SpokenVerdict, question: str = "", product: str | None = None
) -> list[Fault]:
    """Faults of the reasons themselves: none given, only the verdict repeated, or set against the verdict."""
    if verdict.split and verdict.by_words is not None:
        against = verdict.good if verdict.by_words == "normal" else verdict.bad
        return [Fault.of("opposite-reason", said=reading.polar_words, words=against)]
    if min(verdict.good_weight, verdict.bad_weight) >= STRONG:
        return [Fault.of("contradiction", good=verdict.good, bad=verdict.bad)]
    if not reading.clauses:
        return [Fault.of("no-reason")]
    told = [stem for clause in reading.clauses for stem in particulars(clause, question, product)]
    named = [claim for claim in reading.claims if claim.concept and not set(stems(claim.term)) <= set(stems(question))]
    if not told and not named:
        return [Fault.of("general-reason")]
    return []


def doubt_faults(verdict: SpokenVerdict) -> list[Fault]:
    """Faults of doubt: a hedged verdict is a guess."""
    if not verdict.hedges:
        return []
    return [Fault.of("hedged-verdict", words=verdict.hedges[0]), Fault.of("guess", words=verdict.hedges[0])]
