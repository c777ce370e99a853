"""Which defect an answer names, and how that lies to the right one: the same, a near relative, another, or none.

Names are found with the curated lexicon; where the words of the right name stand in the answer that is enough; and
descriptions without a name ("a line gouged into the finish") are compared by sentence embedding with the right name,
the gold answer and the lexicon's glosses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from sage_ad.evaluation.judge.gold import ResolvedGold
from sage_ad.evaluation.text.answer_parser import ParsedAnswer
from sage_ad.evaluation.text.claims import Claim
from sage_ad.evaluation.text.keywords import essence, particulars
from sage_ad.evaluation.text.lexicon import concept_table, lexicon
from sage_ad.evaluation.text.normalise import stems
from sage_ad.evaluation.text.sentence_similarity import SentenceSimilarity, concept_glosses

Match = Literal["same", "near", "other", "none"]
GENERAL = frozenset(
    stems(
        "defect defective flaw fault faulty anomaly anomalous abnormal abnormality damage damaged problem issue irregularity "
        "imperfection deviation bad ng ko nok mixed and or the a an of on in with part type surface error unknown other"
    )
)
SAME = 0.6
NEAR = 0.4
GLOSS = 0.5
STRICT_GLOSS = 0.6
FAR = 0.2
GLOSS_MARGIN = 0.05


@dataclass(frozen=True)
class Naming:
    """How the defects that an answer names lie to the right one.

    Attributes:
        match: "same", "near", "other" or "none" (nothing in particular is named).
        named: the words that name it.
        similarity: how near the description comes to the right defect.
        known: a known word names another defect (else a description is all there is).
    """

    match: Match
    named: str
    similarity: float = 0.0
    known: bool = False


@cache
def concepts_of(name: str) -> frozenset[str]:
    """The lexicon's concepts that stand in a defect's name ("casting_flaw", "scratched neck"); empty when unknown."""
    found = (match[2].partition(":")[2] for match in concept_table().find(stems(name.replace("-", " "))))
    return frozenset(concept for names in found for concept in names.split("|"))


def concepts(claim: Claim) -> set[str]:
    """The concepts that a claim names (several where its words fit several)."""
    return set(claim.concept.split("|")) if claim.concept else set()


def _group(concept: str) -> str:
    return lexicon()[concept]["group"]


def is_named(name: str | None) -> bool:
    """Whether a defect's name says more than "defect"."""
    return bool(name) and not set(stems(name or "")) <= GENERAL


def telling_clauses(parsed: ParsedAnswer) -> list[int]:
    """Numbers of the clauses that may name the defect: those with a complaint, and those without any judgement."""
    bad = {claim.clause for claim in parsed.claims if _speaks_against(claim) and claim.kind != "use"}
    judged = {claim.clause for claim in parsed.claims if claim.kind == "use" or not _speaks_against(claim)}
    return sorted(bad | (set(range(len(parsed.clauses))) - judged))


def _speaks_against(claim: Claim) -> bool:
    return claim.stance == "bad" and claim.scope == "part" and not claim.excused


def texts_to_compare(parsed: ParsedAnswer, gold: ResolvedGold) -> list[str]:
    """The texts that `naming` will compare, so that they can be embedded in one batch."""
    glosses = [gloss for entries in concept_glosses().values() for gloss in entries]
    return [*(essence(parsed.clauses[number]) for number in telling_clauses(parsed)), *gold.defect_texts, *glosses]


def naming(
    parsed: ParsedAnswer,
    gold: ResolvedGold,
    similarity: SentenceSimilarity,
    question: str = "",
    product: str | None = None,
) -> Naming:
    """Compares the defects that a parsed answer asserts with the right one.

    Args:
        parsed: the answer, parsed.
        gold: what is right; its `defect` must be named.
        similarity: compares descriptions.
        question: the question; its own words name nothing.
        product: the product's name, likewise.
    """
    right = gold.defect or ""
    wanted = concepts_of(right)
    key = set(stems(right.replace("-", " "))) - GENERAL
    spoken = [claim for claim in parsed.claims if _speaks_against(claim) and claim.concept]
    telling = telling_clauses(parsed)
    against = {claim.clause for claim in parsed.claims if _speaks_against(claim)}
    if any(key and key <= set(parsed.clauses[number].stems) for number in against | set(telling)):
        return Naming("same", right)
    same = [claim for claim in spoken if concepts(claim) & wanted]
    if same:
        return Naming("same", same[0].term)
    near = [
        claim
        for claim in spoken
        if not claim.weak and {_group(name) for name in concepts(claim)} & {_group(name) for name in wanted}
    ]
    asked = set(stems(question))
    strong = [
        claim
        for claim in spoken
        if not claim.weak and not set(stems(claim.term)) <= asked and not _is_loose(claim, parsed, question, product)
    ]
    foreign = {claim.clause for claim in strong} if wanted else set()
    best = Naming("none", "")
    described = ""
    for number in telling:
        clause = parsed.clauses[number]
        if not _is_particular(parsed, number, question, product):
            continue
        described = described or essence(clause)
        match = _by_similarity(essence(clause), gold, wanted, similarity, strict=number in foreign)
        if match == "same":
            return Naming("same", clause.text)
        if match == "near":
            best = Naming("near", clause.text)
    if near:
        return Naming("near", near[0].term)
    if best.match == "near":
        return best
    clauses = [essence(parsed.clauses[number]) for number in telling]
    nearest = max((value for one in clauses for value in similarity.between(one, gold.defect_texts)), default=0.0)
    if strong:
        return Naming("other", strong[0].term, nearest, known=True)
    return Naming("other", described, nearest) if described else best


def _is_loose(claim: Claim, parsed: ParsedAnswer, question: str, product: str | None) -> bool:
    """Whether a defect word is only used loosely, as in "it is broken" or "it is worn"."""
    stated = set(particulars(parsed.clauses[claim.clause], question, product)) - set(stems(claim.term))
    return claim.term in {"broken", "worn", "bust", "busted"} and not stated


def _is_particular(parsed: ParsedAnswer, number: int, question: str, product: str | None) -> bool:
    """Whether a clause tells more than that something is wrong ("something is not right with the weave")."""
    vague = any(
        claim.clause == number
        and claim.kind == "state"
        and claim.stance == "bad"
        and not claim.weak
        and not claim.peculiar
        for claim in parsed.claims
    )
    return len(particulars(parsed.clauses[number], question, product)) > (2 if vague else 0)


def _by_similarity(
    clause: str, gold: ResolvedGold, wanted: frozenset[str], similarity: SentenceSimilarity, strict: bool
) -> Match:
    """Whether a clause describes the right defect ("same"), something near it, or neither ("none").

    Against a clause that names a defect of another kind (`strict`), similarity has to be high, and then counts as near.
    """
    value = max(similarity.between(clause, gold.defect_texts), default=0.0)
    values = similarity.to_concepts(clause)
    first = max(values, key=lambda concept: values[concept])
    known = max((values[concept] for concept in wanted), default=0.0)
    if strict:
        return "near" if value >= SAME or (first in wanted and known >= STRICT_GLOSS) else "none"
    if value < SAME and values[first] >= STRICT_GLOSS and values[first] - known > FAR:
        return "none"
    if value >= SAME or (first in wanted and known >= GLOSS):
        return "same"
    if value >= NEAR or (known >= GLOSS - GLOSS_MARGIN and known >= values[first] - GLOSS_MARGIN):
        return "near"
    return "none"
