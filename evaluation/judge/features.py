"""What speaks for and against an answer, in numbers: the score model's evidence.

The rules and the answer classifier say what an answer says; gold and the gold answer say what it should have said. A
feature is one number about how the two lie to each other. Features of the verdict are signed: above 0 speaks for the right
one. Nothing here counts words: a long answer is no better and no worse for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sage_ad.evaluation.inspection import JudgeRequest
from sage_ad.evaluation.judge.answer_classifier import Classification
from sage_ad.evaluation.judge.defect_match import Naming
from sage_ad.evaluation.judge.gold import ResolvedGold
from sage_ad.evaluation.judge.verdict_fusion import FusedVerdict
from sage_ad.evaluation.rubric import Fault
from sage_ad.evaluation.text.answer_parser import ParsedAnswer, read
from sage_ad.evaluation.text.keywords import particulars
from sage_ad.evaluation.text.localisation import places_in
from sage_ad.evaluation.text.stated_verdict import SpokenVerdict
from sage_ad.evaluation.text.token_similarity import TokenSimilarity

_SURE = 8.0
"""Log-odds of the answer classifier count no further than this."""
_OPENING = re.compile(r"^(?:yes|no)\b[\s,.;:-]*", re.IGNORECASE)
DEFECT_FAULTS = (
    "wrong-defect",
    "near-defect",
    "unclear-defect",
    "unnamed-defect",
    "no-place",
    "wrong-place",
    "beside-place",
    "mixed-place",
    "coarse-place",
    "played-down",
    "guess",
    "no-reason",
    "general-reason",
    "false-reason",
)
"""Faults of an answer on a defective part that count as features of its content."""
NORMAL_FAULTS = (
    "invented-defect",
    "tolerated-report",
    "thin-reason",
    "general-reason",
    "no-reason",
    "guess",
    "contradiction",
    "opposite-reason",
)
"""Faults of an answer on a normal part that count as features of its content."""


@dataclass(frozen=True)
class Features:
    """All that is known of one answer before the score model compares it with the gold answer.

    Attributes:
        request: what was asked for.
        parsed: the answer, parsed.
        gold: what it is held against.
        classification: what the answer classifier takes from it.
        spoken: the rules' verdict.
        fused: the verdict of rules and answer classifier together.
        faults: the faults that it has if its verdict is the right one.
        named: how the defect that it names lies to the right one; None on a normal part or without a name.
        sounds: how each clause sounds (towards 1 a complaint, towards -1 praise; `SentenceSimilarity.sentiment`).
    """

    request: JudgeRequest
    parsed: ParsedAnswer
    gold: ResolvedGold
    classification: Classification
    spoken: SpokenVerdict
    fused: FusedVerdict
    faults: tuple[Fault, ...]
    named: Naming | None
    sounds: tuple[float, ...]


def reference_of(request: JudgeRequest, gold: ResolvedGold) -> str | None:
    """The gold answer to compare with; None where there is none, or only a yes or a no."""
    reference = request.gold.reference_answer if request.gold and gold.state else None
    return reference if reference and len(_OPENING.sub("", reference)) > 2 else None


def texts_of(request: JudgeRequest, gold: ResolvedGold) -> list[str | None]:
    """The texts whose words will be compared, so that they are read in one batch."""
    reference = reference_of(request, gold)
    return [reference, request.answer, request.question, gold.defect, gold.place] if reference else []


def verdict_features(found: Features, tokens: TokenSimilarity) -> dict[str, float]:
    """Features of the verdict, by name; above 0 speaks for the right one."""
    gold, spoken, parsed = found.gold, found.spoken, found.parsed
    side = 1.0 if gold.state == "anomalous" else -1.0
    answer, reference = found.request.answer, reference_of(found.request, gold)
    yes = 0.0 if gold.yes_means is None else 1.0 if gold.yes_means == gold.state else -1.0
    yes_no = 0.0 if spoken.by_yes_no is None else 1.0 if spoken.by_yes_no == gold.state else -1.0
    words = side * (spoken.bad_weight - spoken.good_weight)
    reported = float(found.fused.reports_defect)
    stated, echoed = tokens.met(reference, answer).mean, tokens.met(answer, reference).mean
    defect = tokens.met(gold.defect, answer)
    same = float(found.named is not None and found.named.match == "same")
    names = {fault.name for fault in found.faults}
    sounds = found.sounds
    anomalous = float(gold.state == "anomalous")
    return {
        "yes-no": yes_no,
        "words-alone": words if not yes_no else 0.0,
        "words-beside-yes-no": words if yes_no else 0.0,
        "classifier-yes": yes * max(-_SURE, min(_SURE, found.classification.yes)),
        "classifier-defect": 0.0 if gold.topical else side * max(-_SURE, min(_SURE, found.classification.defect)),
        "rules": _sign(spoken.state, gold),
        "fused": _sign(found.fused.verdict.state, gold),
        "defect-word": side * bool(parsed.asserted("bad", "defect")),
        "complaint": side * bool(parsed.asserted("bad")),
        "praise": side * bool(parsed.asserted("good")),
        "denial": side * any(claim.denied for claim in parsed.asserted("good")),
        "harshest": side * max(sounds, default=0.0),
        "kindest": side * min(sounds, default=0.0),
        "defective": side,
        "reference-stated": stated,
        "reference-echoed": echoed,
        "reference-whole": tokens.whole(answer, reference),
        "reference-words": _shared(found)[0],
        "stated-and-reported": stated * reported,
        "echoed-and-reported": echoed * reported,
        "defect-same": same,
        "defect-same-and-reported": same * reported,
        "defect-stated": anomalous * defect.mean,
        "defect-stated-worst": anomalous * defect.worst,
        "misplaced": float(bool({"wrong-place", "beside-place"} & names)),
        "placed": anomalous * bool(_places(parsed)),
    }


def content_features(found: Features, tokens: TokenSimilarity) -> dict[str, float]:
    """Features of the content: whether the particulars are there, and are the gold answer's; by name."""
    gold, parsed, request = found.gold, found.parsed, found.request
    reference, names = reference_of(request, gold), {fault.name for fault in found.faults}
    sounds, places = found.sounds, _places(parsed)
    of_reference, of_answer, count = _shared(found)
    features: dict[str, float] = {
        **_met("reference", tokens, reference, request.answer),
        **_met("answer", tokens, request.answer, reference),
        **_novelty(request, reference, tokens),
        "whole": tokens.whole(request.answer, reference),
        "shared-of-reference": of_reference,
        "shared-of-answer": of_answer,
        "shared": min(2.0, count),
        "vague": found.classification.vague,
        "classifier-defect": found.classification.defect,
        "placed": float(bool(places)),
        "places": min(3.0, len(places)),
        "reports": float(found.fused.reports_defect),
        "harshest": max(sounds, default=0.0),
        "kindest": min(sounds, default=0.0),
        "complaint": float(bool(parsed.asserted("bad"))),
        "defect-word": float(bool(parsed.asserted("bad", "defect"))),
        "praise": float(bool(parsed.asserted("good"))),
        "excused": float(any(claim.excused for claim in parsed.claims)),
        "tolerated": float(any(claim.tolerated for claim in parsed.claims)),
        "hedged": float(bool(parsed.hedges)),
    }
    if gold.state == "normal":
        return features | {f"fault-{name}": float(name in names) for name in NORMAL_FAULTS}
    match = found.named.match if found.named else None
    return {
        **features,
        **_met("defect", tokens, gold.defect, request.answer),
        **_met("place", tokens, gold.place, request.answer),
        "defect-whole": tokens.whole(request.answer, gold.defect),
        **{f"named-{name}": float(match == name) for name in ("same", "near", "other", "none")},
        "named-similarity": found.named.similarity if found.named else 0.0,
        "named-known": float(bool(found.named and found.named.known)),
        "no-cells": float(not gold.cells),
        **{f"fault-{name}": float(name in names) for name in DEFECT_FAULTS},
    }


def _sign(state: str | None, gold: ResolvedGold) -> float:
    return 0.0 if state is None else 1.0 if state == gold.state else -1.0


def _places(parsed: ParsedAnswer) -> list[str]:
    return [place.words for clause in parsed.clauses for place in places_in(clause.text)]


def _met(name: str, tokens: TokenSimilarity, text: str | None, other: str | None) -> dict[str, float]:
    met = tokens.met(text, other)
    return {f"{name}-worst": met.worst, f"{name}-mean": met.mean, f"{name}-best": met.best}


def _novelty(request: JudgeRequest, reference: str | None, tokens: TokenSimilarity) -> dict[str, float]:
    """What of the answer the gold answer explains better than the question, and what neither explains."""
    gold = tokens.nearest(request.answer, reference)
    asked = tokens.nearest(request.answer, request.question)
    if not len(gold) or len(gold) != len(asked):
        return {"beyond-question": 0.0, "novel": 0.0}
    return {
        "beyond-question": round(float((gold - asked).mean()), 3),
        "novel": round(float((1 - gold.clip(min=asked)).mean()), 3),
    }


def _shared(found: Features) -> tuple[float, float, float]:
    """Particulars that answer and gold answer share: their share of the one's, of the other's, and their number."""
    question, product = found.request.question, found.request.object
    mine = _particulars(found.parsed, question, product)
    right = _particulars(read(reference_of(found.request, found.gold) or ""), question, product)
    both = len(mine & right)
    return both / (1 + len(right)), both / (1 + len(mine)), float(both)


def _particulars(parsed: ParsedAnswer, question: str, product: str | None) -> set[str]:
    return {stem for clause in parsed.clauses for stem in particulars(clause, question, product)}
