"""The local judge: deterministic, without a network, and with a reason in words for every point that it takes off.

It reads the answer (`evaluation.reading`), finds the truth (`evaluation.truth`: gold, else mask, else evidence), and
collects faults of the verdict, the defect, the place and the logic. The rubric turns faults into levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evaluation.citing import citation_faults, cited_sentences
from evaluation.defects import concepts, concepts_of, is_named, naming, texts_to_compare
from evaluation.inspection import Family, MLEScore
from evaluation.judging import LOCAL_JUDGE, JudgeRequest
from evaluation.likeness import Embedder, Likeness, concept_glosses
from evaluation.logic import consequence_faults, doubt_faults, played_down, reason_faults
from evaluation.placing import place_words, places_in, pointed_faults
from evaluation.questions import family_of
from evaluation.reading import Reading, read, with_impressions
from evaluation.rubric import DIMENSIONS, Dimension, Fault, level_and_reasons
from evaluation.stemming import stems
from evaluation.truth import Truth, asks_for_use, truth_of
from evaluation.verdict import STRONG, SpokenVerdict, spoken_verdict

if TYPE_CHECKING:
    import numpy as np

UNCLEAR = 0.15
"""Likeness to the right defect from which on a description at the right place gets the benefit of the doubt."""


@dataclass(frozen=True)
class Case:
    """One answer on the judge's desk.

    Attributes:
        request: what was asked for.
        reading: the answer, read.
        truth: what it is held against.
        family: the question's family.
        use_asked: whether the question asks what may be done with the part.
    """

    request: JudgeRequest
    reading: Reading
    truth: Truth
    family: Family
    use_asked: bool


class LocalJudge:
    """Judges answers by the rubric with linguistic rules, a lexicon and sentence embeddings.

    Args:
        embedder: turns sentences into unit vectors; None takes `knowledge.embedding.default_embedder()`.
    """

    name = LOCAL_JUDGE

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self._glosses: dict[str, np.ndarray] = {}

    def judge(self, requests: Sequence[JudgeRequest]) -> list[MLEScore]:
        """Scores answers; an answer about which nothing is known to be right comes back unscored, with the reason."""
        likeness = Likeness(self._embedder, self._glosses)
        cases = [
            Case(
                request,
                read(request.answer, request.question),
                truth_of(request),
                request.family or family_of(request.question),
                asks_for_use(request.question),
            )
            for request in requests
        ]
        likeness.prepare(_texts(cases))
        # Only the lexicon's own sentences are kept from call to call: answers come and go, these never change.
        self._glosses = self._glosses or likeness.vectors_of(
            gloss for entry in concept_glosses().values() for gloss in entry
        )
        return [self._score(case, likeness) for case in cases]

    def _score(self, case: Case, likeness: Likeness) -> MLEScore:
        if case.truth.state is None:
            return MLEScore(unscored="Neither a gold answer nor a mask nor a measured verdict says what is right.")
        reading = with_impressions(case.reading, likeness)
        verdict = spoken_verdict(reading, case.truth.yes_means, case.use_asked, frozenset(stems(case.request.question)))
        if verdict.state is None and not reading.undecided and points_at_something(case, likeness):
            verdict = replace(verdict, state="anomalous", by_words="anomalous", bad=case.request.answer)
        faults = find_faults(replace(case, reading=reading), verdict, likeness)
        return _as_score(faults, placed=case.truth.state == "normal" or bool(case.truth.cells))


def points_at_something(case: Case, likeness: Likeness) -> bool:
    """Whether an answer without a judging word still reports a defect: it gives a place, or describes the right one."""
    if any(places_in(clause.text) for clause in case.reading.clauses):
        return True
    if not is_named(case.truth.defect):
        return False
    found = naming(case.reading, case.truth, likeness, case.request.question, case.request.object)
    return found.match in {"same", "near"}


def _texts(cases: Sequence[Case]) -> list[str]:
    """Everything that will be compared by likeness, so that it is embedded in one batch."""
    texts: list[str] = []
    for case in cases:
        texts += [clause.text for clause in case.reading.clauses]
        if cited := [sentence for _, sentence in cited_sentences(case.request.answer)]:
            texts += [*cited, *case.request.facts]
        if is_named(case.truth.defect):
            texts += texts_to_compare(case.reading, case.truth)
    return texts


def _as_score(faults: list[Fault], placed: bool) -> MLEScore:
    levels: dict[Dimension, int | None] = {}
    reasons: list[str] = []
    for dimension in DIMENSIONS:
        if dimension == "localisation" and not placed:
            levels[dimension] = None
            continue
        level, why = level_and_reasons(dimension, faults)
        levels[dimension] = level
        reasons += why
    known = [level for level in levels.values() if level is not None]
    return MLEScore(
        type=levels["type"],
        localisation=levels["localisation"],
        logic=levels["logic"],
        mean=round(sum(known) / len(known), 4),
        deductions=reasons,
    )


def without_quotations(reading: Reading, facts: Sequence[str]) -> Reading:
    """The reading without claims that stand word for word in a given fact.

    A quoted fact is general knowledge, not what the answer says of this part ("a cell that passes less current ..." lets
    nothing pass). Short claims stay: "is cracked" stands in many facts and is still the answer's own.
    """
    known = [" ".join(stems(fact)) for fact in facts]
    claims = tuple(
        claim
        for claim in reading.claims
        if len(words := stems(claim.words)) < 5 or not any(" ".join(words) in fact for fact in known)
    )
    return replace(reading, claims=claims)


def find_faults(case: Case, verdict: SpokenVerdict, likeness: Likeness) -> list[Fault]:
    """All faults of one answer, in no particular order."""
    reading, truth = case.reading, case.truth
    if verdict.state is None:
        return _faults_without_verdict(reading, truth)
    own = without_quotations(reading, case.request.facts)
    faults = [
        *reason_faults(own, verdict, case.request.question, case.request.object),
        *doubt_faults(verdict),
        *citation_faults(case.request.answer, case.request.facts, likeness),
        *consequence_faults(own, verdict.state, case.family),
    ]
    if verdict.state != truth.state:
        return faults + _faults_of_wrong_state(reading, verdict, truth)
    if verdict.split:
        against = verdict.good if verdict.by_words == "normal" else verdict.bad
        faults.append(Fault.of("split-verdict", said=reading.polar_words, words=against))
        faults.append(Fault.of("unsupported-place"))
    elif min(verdict.good_weight, verdict.bad_weight) >= STRONG:
        faults.append(Fault.of("split-state", good=verdict.good, bad=verdict.bad))
    if truth.state == "normal":
        return faults + _faults_on_normal(case)
    if mild := played_down(reading):
        faults.append(Fault.of("played-down", words=mild[0].words))
        named = tuple(replace(claim, excused=False) if claim in mild else claim for claim in reading.claims)
        case = replace(case, reading=replace(reading, claims=named))
        reading = case.reading
    return faults + _defect_faults(case, likeness) + pointed_faults(reading, truth.cells)


def _faults_without_verdict(reading: Reading, truth: Truth) -> list[Fault]:
    if reading.undecided:
        return [
            Fault.of("no-verdict", why="it leaves the question open"),
            Fault.of("no-verdict-logic"),
            Fault.of("no-place", truth=place_words(truth.cells)),
        ]
    why = "no yes or no and nothing about the part's state can be read in it"
    return [Fault.of("no-answer", why=why), Fault.of("no-answer-place"), Fault.of("no-answer-logic", why=why)]


def _faults_of_wrong_state(reading: Reading, verdict: SpokenVerdict, truth: Truth) -> list[Fault]:
    words = verdict.good if verdict.state == "normal" else verdict.bad
    state = Fault.of("wrong-state", said=str(verdict.state), words=words or reading.polar_words, truth=str(truth.state))
    if truth.state == "anomalous":
        return [state, Fault.of("denied-place", truth=place_words(truth.cells)), Fault.of("argues-wrong")]
    return [state, Fault.of("invented-place", named="a defect"), Fault.of("argues-wrong")]


def _faults_on_normal(case: Case) -> list[Fault]:
    reading = case.reading
    reported = [claim for claim in reading.asserted("bad") if claim.kind == "defect" or not claim.denied]
    if reading.polar is False and case.truth.yes_means == "anomalous":
        asked = set(stems(case.request.question))
        reported = [claim for claim in reported if not set(stems(claim.term)) <= asked]
    known = _known_as_harmless(case)
    reported = [claim for claim in reported if not (claim.tolerated and concepts(claim) & known)]
    if not reported:
        return []
    worst = min(reported, key=lambda claim: claim.tolerated)
    if worst.tolerated:
        return [Fault.of("tolerated-report", named=worst.term), Fault.of("tolerated-reason", named=worst.term)]
    return [
        Fault.of("invented-defect", named=worst.term),
        Fault.of("invented-anywhere"),
        Fault.of("tolerated-defect", named=worst.term),
    ]


def _unverified_defect(case: Case) -> list[Fault]:
    """Faults of the name where no gold says which defect it is: there must be a name, and the facts should know it."""
    named = case.reading.asserted("bad", "defect")
    if not named:
        return [Fault.of("unnamed-unknown")]
    known = {name for fact in case.request.facts for name in concepts_of(fact)}
    if case.truth.source == "measured" and known and not any(concepts(claim) & known for claim in named):
        return [Fault.of("unknown-defect", named=named[0].term)]
    return []


def _known_as_harmless(case: Case) -> frozenset[str]:
    """Concepts that the gold answer of a normal part, or a fact, calls harmless: to mention them is no fault."""
    gold = case.request.gold
    texts = [*case.request.facts, (gold.reference_answer or "") if gold else ""]
    return frozenset(
        name
        for text in texts
        for claim in read(text).claims
        if claim.concept and (claim.excused or claim.tolerated)
        for name in claim.concept.split("|")
    )


def _defect_faults(case: Case, likeness: Likeness) -> list[Fault]:
    reading, truth = case.reading, case.truth
    if not is_named(truth.defect):
        return _unverified_defect(case)
    found = naming(reading, truth, likeness, case.request.question, case.request.object)
    right = truth.defect or ""
    if found.match == "same":
        return []
    if found.match == "near":
        return [Fault.of("near-defect", named=found.named, truth=right)]
    if found.match == "other" and found.likeness >= UNCLEAR and not pointed_faults(reading, truth.cells):
        # Strange words for something at the very place of the defect: likely it, though nothing proves it.
        return [Fault.of("unclear-defect", named=found.named, truth=right)]
    if found.match == "other":
        return [Fault.of("wrong-defect", named=found.named, truth=right), Fault.of("false-reason", named=found.named)]
    if right and set(stems(right)) <= set(stems(case.request.question)):
        return []  # "Where is the scratch?" names it already
    return [Fault.of("unnamed-defect", truth=right)]
