"""What speaks for and against an answer, in numbers: the score model's evidence.

The rules and the answer classifier say what an answer says; the truth and the gold answer say what it should have said. A
feature is one number about how the two lie to each other. Features of the verdict are signed: above 0 speaks for the right
one. Nothing here counts words: a long answer is no better and no worse for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sage_ad.evaluation.inspection import JudgeRequest
from sage_ad.evaluation.judge.answer_classifier import Classification
from sage_ad.evaluation.judge.defect_match import Naming
from sage_ad.evaluation.judge.gold import Truth
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
        reading: the answer, read.
        truth: what it is held against.
        classification: what the answer classifier takes from it.
        spoken: the rules' verdict.
        fused: the verdict of rules and answer classifier together.
        faults: the faults that it has if its verdict is the right one.
        named: how the defect that it names lies to the right one; None on a normal part or without a name.
        sounds: how each clause sounds (towards 1 a complaint, towards -1 praise; `SentenceSimilarity.sentiment`).
    """

    request: JudgeRequest
    reading: ParsedAnswer
    truth: Truth
    classification: Classification
    spoken: SpokenVerdict
    fused: FusedVerdict
    faults: tuple[Fault, ...]
    named: Naming | None
    sounds: tuple[float, ...]


def reference_of(request: JudgeRequest, truth: Truth) -> str | None:
    """The gold answer to compare with; None where there is none, or only a yes or a no."""
    reference = request.gold.reference_answer if request.gold and truth.state else None
    return reference if reference and len(_OPENING.sub("", reference)) > 2 else None


def texts_of(request: JudgeRequest, truth: Truth) -> list[str | None]:
    """The texts whose words will be compared, so that they are read in one batch."""
    reference = reference_of(request, truth)
    return [reference, request.answer, request.question, truth.defect, truth.place] if reference else []


def verdict_features(found: Features, tokens: TokenSimilarity) -> dict[str, float]:
    """Features of the verdict, by name; above 0 speaks for the right one."""
    truth, spoken, reading = found.truth, found.spoken, found.reading
    side = 1.0 if truth.state == "anomalous" else -1.0
    answer, reference = found.request.answer, reference_of(found.request, truth)
    yes = 0.0 if truth.yes_means is None else 1.0 if truth.yes_means == truth.state else -1.0
    polar = 0.0 if spoken.by_polar is None else 1.0 if spoken.by_polar == truth.state else -1.0
    words = side * (spoken.bad_weight - spoken.good_weight)
    reported = float(found.fused.reports_defect)
    told, echoed = tokens.met(reference, answer).mean, tokens.met(answer, reference).mean
    defect = tokens.met(truth.defect, answer)
    same = float(found.named is not None and found.named.match == "same")
    names = {fault.name for fault in found.faults}
    sounds = found.sounds
    anomalous = float(truth.state == "anomalous")
    return {
        "polar": polar,
        "words-alone": words if not polar else 0.0,
        "words-beside-polar": words if polar else 0.0,
        "classifier-yes": yes * max(-_SURE, min(_SURE, found.classification.yes)),
        "classifier-defect": 0.0 if truth.topical else side * max(-_SURE, min(_SURE, found.classification.defect)),
        "rules": _sign(spoken.state, truth),
        "fused": _sign(found.fused.verdict.state, truth),
        "defect-word": side * bool(reading.asserted("bad", "defect")),
        "complaint": side * bool(reading.asserted("bad")),
        "praise": side * bool(reading.asserted("good")),
        "denial": side * any(claim.denied for claim in reading.asserted("good")),
        "harshest": side * max(sounds, default=0.0),
        "kindest": side * min(sounds, default=0.0),
        "defective": side,
        "reference-told": told,
        "reference-echoed": echoed,
        "reference-whole": tokens.whole(answer, reference),
        "reference-words": _shared(found)[0],
        "told-and-reported": told * reported,
        "echoed-and-reported": echoed * reported,
        "defect-same": same,
        "defect-same-and-reported": same * reported,
        "defect-told": anomalous * defect.mean,
        "defect-told-worst": anomalous * defect.worst,
        "misplaced": float(bool({"wrong-place", "beside-place"} & names)),
        "placed": anomalous * bool(_places(reading)),
    }


def content_features(found: Features, tokens: TokenSimilarity) -> dict[str, float]:
    """Features of the content: whether the particulars are there, and are the gold answer's; by name."""
    truth, reading, request = found.truth, found.reading, found.request
    reference, names = reference_of(request, truth), {fault.name for fault in found.faults}
    sounds, places = found.sounds, _places(reading)
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
        "complaint": float(bool(reading.asserted("bad"))),
        "defect-word": float(bool(reading.asserted("bad", "defect"))),
        "praise": float(bool(reading.asserted("good"))),
        "excused": float(any(claim.excused for claim in reading.claims)),
        "tolerated": float(any(claim.tolerated for claim in reading.claims)),
        "hedged": float(bool(reading.hedges)),
    }
    if truth.state == "normal":
        return features | {f"fault-{name}": float(name in names) for name in NORMAL_FAULTS}
    match = found.named.match if found.named else None
    return {
        **features,
        **_met("defect", tokens, truth.defect, request.answer),
        **_met("place", tokens, truth.place, request.answer),
        "defect-whole": tokens.whole(request.answer, truth.defect),
        **{f"named-{name}": float(match == name) for name in ("same", "near", "other", "none")},
        "named-likeness": found.named.likeness if found.named else 0.0,
        "named-known": float(bool(found.named and found.named.known)),
        "no-cells": float(not truth.cells),
        **{f"fault-{name}": float(name in names) for name in DEFECT_FAULTS},
    }


def _sign(state: str | None, truth: Truth) -> float:
    return 0.0 if state is None else 1.0 if state == truth.state else -1.0


def _places(reading: ParsedAnswer) -> list[str]:
    return [place.words for clause in reading.clauses for place in places_in(clause.text)]


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
    mine = _particulars(found.reading, question, product)
    right = _particulars(read(reference_of(found.request, found.truth) or ""), question, product)
    both = len(mine & right)
    return both / (1 + len(right)), both / (1 + len(mine)), float(both)


def _particulars(reading: ParsedAnswer, question: str, product: str | None) -> set[str]:
    return {stem for clause in reading.clauses for stem in particulars(clause, question, product)}
