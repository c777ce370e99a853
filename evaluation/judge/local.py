"""The local judge: deterministic, without a network, and with a reason in words for every point that it takes off.

It reads the answer (`text.answer_parser`), finds what is right (`judge.gold`: gold, else mask, else evidence), and
collects faults of the verdict, the defect, the place and the logic. The rubric turns faults into levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sage_ad.evaluation.inspection import LOCAL_JUDGE, Family, JudgeRequest, MLEScore, Verdict
from sage_ad.evaluation.judge.answer_classifier import Classification, Classifier, default_classifier
from sage_ad.evaluation.judge.defect_match import concepts, concepts_of, is_named, naming, texts_to_compare
from sage_ad.evaluation.judge.features import Features, reference_of, texts_of
from sage_ad.evaluation.judge.gold import ResolvedGold, asks_for_use, resolve_gold
from sage_ad.evaluation.judge.logic import (
    citation_faults,
    cited_sentences,
    consequence_faults,
    doubt_faults,
    played_down,
    reason_faults,
)
from sage_ad.evaluation.judge.score_model import ScoreModel, default_score_model
from sage_ad.evaluation.judge.score_resolution import has_right_verdict, resolve_faults, wrong_verdict
from sage_ad.evaluation.judge.self_check import shown_levels, without_gold
from sage_ad.evaluation.judge.verdict_fusion import FusedVerdict, fuse_verdicts
from sage_ad.evaluation.questions import family_of
from sage_ad.evaluation.rubric import DIMENSIONS, Dimension, Fault, level_and_reasons
from sage_ad.evaluation.text.answer_parser import ParsedAnswer, read, with_sentiment
from sage_ad.evaluation.text.final_answer import final_answer
from sage_ad.evaluation.text.keywords import particulars
from sage_ad.evaluation.text.localisation import place_words, places_in, pointed_faults
from sage_ad.evaluation.text.normalise import stem, stems, words
from sage_ad.evaluation.text.sentence_similarity import Embedder, SentenceSimilarity, concept_glosses
from sage_ad.evaluation.text.stated_verdict import STRONG, SpokenVerdict, spoken_verdict
from sage_ad.evaluation.text.token_similarity import TokenSimilarity

if TYPE_CHECKING:
    import numpy as np

FOREIGN = 0.5
"""A description at the right place in which a known word names another defect gets the benefit of the doubt from this
similarity to the right defect on."""
THIN = 2
"""So many particulars, and none of the gold answer's among them, are a thin reason."""


@dataclass(frozen=True)
class Case:
    """One answer to be judged.

    Attributes:
        request: what was asked for.
        parsed: the answer, parsed.
        gold: what it is held against.
        family: the question's family.
        use_asked: whether the question asks what may be done with the part.
        classification: what the answer classifier takes from the answer.
    """

    request: JudgeRequest
    parsed: ParsedAnswer
    gold: ResolvedGold
    family: Family
    use_asked: bool
    classification: Classification


class LocalJudge:
    """Judges answers by the rubric with linguistic rules, a lexicon and sentence embeddings.

    Args:
        embedder: turns sentences into unit vectors; None takes `sage_ad.knowledge.vectors.embedding.default_embedder()`.
        classifier: the answer classifier; None takes `sage_ad.evaluation.judge.answer_classifier.default_classifier()`.
        score_model: the score model; None takes `sage_ad.evaluation.judge.score_model.default_score_model()`.
        every_level: give every level a number without gold, too: for measuring what these numbers are worth.
    """

    name = LOCAL_JUDGE

    def __init__(
        self,
        embedder: Embedder | None = None,
        classifier: Classifier | None = None,
        score_model: ScoreModel | None = None,
        *,
        every_level: bool = False,
    ) -> None:
        self._every_level = every_level
        self._embedder = embedder
        self._classifier = classifier
        self._score_model = score_model
        self._glosses: dict[str, np.ndarray] = {}

    def judge(self, requests: Sequence[JudgeRequest]) -> list[MLEScore]:
        """Scores answers; an answer about which nothing is known to be right comes back unscored, with the reason."""
        cases, similarity, tokens = self.prepare(requests)
        scores = [self._score(case, similarity, tokens) for case in cases]
        if self._every_level:
            return scores
        shown = shown_levels()
        return [without_gold(score, one, shown) for score, one in zip(scores, requests, strict=True)]

    def prepare(self, requests: Sequence[JudgeRequest]) -> tuple[list[Case], SentenceSimilarity, TokenSimilarity]:
        """Everything that is read in batches: the cases, and the similarities of sentences and of words."""
        requests = [replace(one, answer=final_answer(one.answer)) for one in requests]
        similarity, tokens = SentenceSimilarity(self._embedder, self._glosses), TokenSimilarity()
        classifier = self._classifier or default_classifier()
        classifications = classifier.classify([one.question for one in requests], [one.answer for one in requests])
        cases = [
            Case(
                request,
                read(request.answer, request.question),
                resolve_gold(request),
                request.family or family_of(request.question),
                asks_for_use(request.question),
                classification,
            )
            for request, classification in zip(requests, classifications, strict=True)
        ]
        similarity.prepare(_texts(cases))
        tokens.prepare(text for case in cases for text in texts_of(case.request, case.gold))
        # Only the lexicon's own sentences are kept from call to call: answers come and go, these never change.
        self._glosses = self._glosses or similarity.vectors_of(
            gloss for entry in concept_glosses().values() for gloss in entry
        )
        return cases, similarity, tokens

    def _score(self, case: Case, similarity: SentenceSimilarity, tokens: TokenSimilarity) -> MLEScore:
        if case.gold.state is None:
            return MLEScore(unscored="Neither a gold answer nor a mask nor a measured verdict says what is right.")
        case, found = answer_features(case, similarity)
        if reference_of(case.request, case.gold) is None:
            faults = find_faults(case, found.fused, similarity)
        else:
            comparison = (self._score_model or default_score_model()).compare(found, tokens)
            if has_right_verdict(found, comparison):
                faults = resolve_faults(found, comparison)
            else:
                other = with_other_state(found.fused, case.gold)
                faults = wrong_verdict(found, comparison, find_faults(case, other, similarity))
        return score_of(faults, case.gold)


def answer_features(case: Case, similarity: SentenceSimilarity) -> tuple[Case, Features]:
    """The case with the sentiment of its clauses, and all that rules and classifier find in the answer."""
    parsed, gold, request = with_sentiment(case.parsed, similarity), case.gold, case.request
    spoken = spoken_verdict(parsed, gold.yes_means, case.use_asked, frozenset(stems(request.question)))
    if spoken.state is None and not parsed.undecided and points_at_something(case, similarity):
        spoken = replace(spoken, state="anomalous", by_words="anomalous", bad=request.answer)
    fused = fuse_verdicts(spoken, parsed, gold, case.classification)
    case = replace(case, parsed=parsed)
    right = fused
    if fused.verdict.state != gold.state:
        verdict = replace(fused.verdict, state=gold.state, by_yes_no=None, by_words=gold.state)
        right = replace(fused, verdict=verdict, overruled=True)
    named = None
    if is_named(gold.defect):
        named = naming(parsed, gold, similarity, request.question, request.object)
    return case, Features(
        request=request,
        parsed=parsed,
        gold=gold,
        classification=case.classification,
        spoken=spoken,
        fused=fused,
        faults=tuple(find_faults(case, right, similarity)),
        named=named,
        sounds=tuple(similarity.sentiment(clause.text) for clause in parsed.clauses),
    )


def with_other_state(fused: FusedVerdict, gold: ResolvedGold) -> FusedVerdict:
    """The fused verdict where the answer is found not to give the right one (a wrong or absent one stays as it is)."""
    if fused.verdict.state != gold.state:
        return fused
    state: Verdict = "normal" if gold.state == "anomalous" else "anomalous"
    verdict = replace(fused.verdict, state=state, by_yes_no=None, by_words=state)
    return replace(fused, verdict=verdict, overruled=True)


def points_at_something(case: Case, similarity: SentenceSimilarity) -> bool:
    """Whether an answer without a judging word still reports a defect: it gives a place, or describes the right one."""
    if places_named(case.parsed):
        return True
    if not is_named(case.gold.defect):
        return False
    found = naming(case.parsed, case.gold, similarity, case.request.question, case.request.object)
    return found.match in {"same", "near"}


def places_named(parsed: ParsedAnswer) -> bool:
    """Whether a parsed answer names any place."""
    return any(places_in(clause.text) for clause in parsed.clauses)


def _texts(cases: Sequence[Case]) -> list[str]:
    """Everything that will be compared by similarity, so that it is embedded in one batch."""
    texts: list[str] = []
    for case in cases:
        texts += [clause.text for clause in case.parsed.clauses]
        if cited := [sentence for _, sentence in cited_sentences(case.request.answer)]:
            texts += [*cited, *case.request.facts]
        if is_named(case.gold.defect):
            texts += texts_to_compare(case.parsed, case.gold)
    return texts


def score_of(faults: list[Fault], gold: ResolvedGold) -> MLEScore:
    """The levels and reasons that faults come to by the rubric; no level for a place that is not known."""
    placed = gold.state == "normal" or bool(gold.cells)
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


def without_quotations(parsed: ParsedAnswer, facts: Sequence[str]) -> ParsedAnswer:
    """The parsed answer without claims that stand word for word in a given fact.

    A quoted fact is general knowledge, not what the answer says of this part ("a cell that passes less current ..." lets
    nothing pass). Short claims stay: "is cracked" stands in many facts and is still the answer's own.
    """
    known = [" ".join(stems(fact)) for fact in facts]
    claims = tuple(
        claim
        for claim in parsed.claims
        if len(words := stems(claim.words)) < 5 or not any(" ".join(words) in fact for fact in known)
    )
    return replace(parsed, claims=claims)


def find_faults(case: Case, fused: FusedVerdict, similarity: SentenceSimilarity) -> list[Fault]:
    """All faults of one answer, in no particular order."""
    parsed, gold, verdict = case.parsed, case.gold, fused.verdict
    if verdict.state is None:
        return _faults_without_verdict(parsed, gold)
    own = without_quotations(parsed, case.request.facts)
    faults = [
        *reason_faults(own, verdict, case.request.question, case.request.object),
        *doubt_faults(verdict),
        *citation_faults(case.request.answer, case.request.facts, similarity),
    ]
    if not gold.topical:
        faults += consequence_faults(own, verdict.state, case.family)
    if verdict.state != gold.state:
        return faults + _faults_of_wrong_state(case, verdict)
    # Without a yes or a no, a plain "the part is free of defects" beside a defect is a contradiction, whoever reads it.
    clash = verdict.by_yes_no is None and not fused.overruled and verdict.good_weight >= 1.0
    if gold.topical or (fused.reports_defect == (gold.state == "anomalous") and not clash):
        # Rules and classifier agree on what is there, so words of the other side are about something else.
        faults = [fault for fault in faults if fault.name not in {"opposite-reason", "contradiction"}]
    elif gold.state == "anomalous":
        faults += _faults_of_split(case, verdict)
    if gold.state == "normal":
        return faults + _faults_on_normal(case, fused)
    if not gold.topical and (mild := played_down(parsed)):
        faults.append(Fault.of("played-down", words=mild[0].words))
        named = tuple(replace(claim, excused=False) if claim in mild else claim for claim in parsed.claims)
        case = replace(case, parsed=replace(parsed, claims=named))
        parsed = case.parsed
    return faults + _defect_faults(case, similarity) + pointed_faults(parsed, gold.cells)


def _faults_of_split(case: Case, verdict: SpokenVerdict) -> list[Fault]:
    """Faults of an answer whose verdict is right but whose words speak for the part."""
    if verdict.split:
        against = verdict.good if verdict.by_words == "normal" else verdict.bad
        split = Fault.of("split-verdict", said=case.parsed.yes_no_words, words=against)
        return [split, Fault.of("unsupported-place")]
    if min(verdict.good_weight, verdict.bad_weight) >= STRONG:
        return [Fault.of("split-state", good=verdict.good, bad=verdict.bad)]
    return []


def _faults_without_verdict(parsed: ParsedAnswer, gold: ResolvedGold) -> list[Fault]:
    if parsed.undecided:
        return [
            Fault.of("no-verdict", why="it leaves the question open"),
            Fault.of("no-verdict-logic"),
            Fault.of("no-place", gold=place_words(gold.cells)),
        ]
    why = "no yes or no and nothing about the part's state can be read in it"
    return [Fault.of("no-answer", why=why), Fault.of("no-answer-place"), Fault.of("no-answer-logic", why=why)]


def _faults_of_wrong_state(case: Case, verdict: SpokenVerdict) -> list[Fault]:
    parsed, gold = case.parsed, case.gold
    said = verdict.good if verdict.state == "normal" else verdict.bad
    said = said or parsed.yes_no_words or (parsed.clauses[0].text if parsed.clauses else case.request.answer)
    state = Fault.of("wrong-state", said=str(verdict.state), words=said, gold=str(gold.state))
    if gold.state == "anomalous":
        return [state, Fault.of("denied-place", gold=place_words(gold.cells)), Fault.of("argues-wrong")]
    return [state, Fault.of("invented-place", named="a defect"), Fault.of("argues-wrong")]


def _faults_on_normal(case: Case, fused: FusedVerdict) -> list[Fault]:
    """Faults of an answer that rightly passes a normal part: what it reports all the same."""
    parsed = case.parsed
    reported = [claim for claim in parsed.asserted("bad") if claim.kind == "defect" or not claim.denied]
    if parsed.yes_no is False and case.gold.yes_means == "anomalous":
        asked = set(stems(case.request.question))
        reported = [claim for claim in reported if not set(stems(claim.term)) <= asked]
    known = _known_as_harmless(case)
    reported = [claim for claim in reported if not (claim.tolerated and concepts(claim) & known)]
    if fused.reports_defect and (reported or _particulars(case, praise=False)):
        named = next((claim.term for claim in reported if not claim.tolerated), "")
        last = parsed.clauses[-1].text if parsed.clauses else case.request.answer
        return [
            Fault.of("invented-defect", named=named or f'something wrong ("{last}")'),
            Fault.of("invented-anywhere"),
            Fault.of("tolerated-defect", named=named or "something wrong"),
        ]
    tolerated = [claim for claim in reported if claim.tolerated]
    if tolerated:
        named = tolerated[0].term
        return [Fault.of("tolerated-report", named=named), Fault.of("tolerated-reason", named=named)]
    return _thin_reason(case)


def _thin_reason(case: Case) -> list[Fault]:
    """A fault where a normal part is praised in general, although the gold answer has particulars to tell."""
    gold, question, product = case.request.gold, case.request.question, case.request.object
    if not case.parsed.clauses or gold is None or not gold.reference_answer:
        return []
    known = {one for clause in read(gold.reference_answer).clauses for one in particulars(clause, question, product)}
    stated = _particulars(case)
    if not known or len(stated) > THIN or stated & known:
        return []
    return [Fault.of("thin-reason", gold=_in_order(gold.reference_answer, known)[0])]


_PRAISE = frozenset(stems("good great decent nice fine proper tidy neat"))


def _particulars(case: Case, praise: bool = True) -> set[str]:
    """The stems by which an answer tells something in particular; mere praise does not.

    Args:
        case: the case.
        praise: count the lexicon's words for a good state, too ("clean and undamaged"): they are a reason to pass a
            part, but whoever reads a report of a defect into them is wrong.
    """
    question, product = case.request.question, case.request.object
    stated = {one for clause in case.parsed.clauses for one in particulars(clause, question, product)} - _PRAISE
    if praise:
        return stated
    return stated - {one for claim in case.parsed.claims if claim.stance == "good" for one in stems(claim.term)}


def _in_order(text: str, wanted: set[str]) -> list[str]:
    """The words of a text whose stems are wanted, in its order."""
    return [word for word in words(text) if stem(word) in wanted] or [text]


def _unverified_defect(case: Case) -> list[Fault]:
    """Faults of the name where no gold says which defect it is: there must be a name, and the facts should know it."""
    named = case.parsed.asserted("bad", "defect")
    if not named:
        return [Fault.of("unnamed-unknown")]
    known = {name for fact in case.request.facts for name in concepts_of(fact)}
    if case.gold.source == "measured" and known and not any(concepts(claim) & known for claim in named):
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


def _defect_faults(case: Case, similarity: SentenceSimilarity) -> list[Fault]:
    parsed, gold = case.parsed, case.gold
    if not is_named(gold.defect):
        return _unverified_defect(case)
    found = naming(parsed, gold, similarity, case.request.question, case.request.object)
    right = gold.defect or ""
    if found.match == "same":
        return []
    if found.match == "near":
        return [Fault.of("near-defect", named=found.named, gold=right)]
    placed = bool(gold.cells) and not pointed_faults(parsed, gold.cells)
    if found.match == "other" and placed and (not found.known or found.similarity >= FOREIGN):
        # Strange words for something at the very place of the defect: likely it, though nothing proves it.
        return [Fault.of("unclear-defect", named=found.named, gold=right)]
    if found.match == "other" and (found.known or places_named(parsed)):
        return [Fault.of("wrong-defect", named=found.named, gold=right), Fault.of("false-reason", named=found.named)]
    if right and set(stems(right)) <= set(stems(case.request.question)):
        return []  # "Where is the scratch?" names it already
    return [Fault.of("unnamed-defect", gold=right)]
