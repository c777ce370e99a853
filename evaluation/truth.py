"""What an answer is held against: the gold answer where there is one, else what was measured on the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evaluation.inspection import Verdict
from evaluation.judging import JudgeRequest
from evaluation.placing import Cell, cells_of_mask, cells_of_regions, cells_of_words
from evaluation.questions import polarity_of
from evaluation.reading import read


@dataclass(frozen=True)
class Truth:
    """What is right about one question.

    Attributes:
        state: normal or anomalous; None when nothing tells.
        yes_means: the state that a "yes" to the question asserts; None when it is no yes/no question about the state.
        verdict: the right answer to the question as asked; None when it has none.
        defect: name of the defect in words, when known.
        cells: where it is, as cells of the 3 x 3 grid; empty when not known.
        place: the place in words, as given.
        source: "gold" or "measured".
        consequence: what is to be done with the part ("use-good" or "use-bad"), when the gold answer says it.
    """

    state: Verdict | None
    yes_means: Verdict | None
    verdict: bool | None
    defect: str | None
    cells: frozenset[Cell]
    place: str | None
    source: Literal["gold", "measured"]


def question_polarity(question: str) -> Verdict | None:
    """The state that a "yes" to the question asserts; None when it is no yes/no question about the part's state."""
    known = polarity_of(question)
    if known is not None:
        return known
    reading = read(question)
    stances = {claim.stance for claim in reading.claims if claim.scope != "rest" and not claim.weak}
    if len(stances) == 1 and question.strip().endswith("?"):
        return "normal" if stances == {"good"} else "anomalous"
    return None


def _opposite(state: Verdict) -> Verdict:
    return "normal" if state == "anomalous" else "anomalous"


def _state_of_text(text: str | None) -> Verdict | None:
    if not text:
        return None
    reading = read(text)
    good, bad = len(reading.asserted("good")), len(reading.asserted("bad"))
    return None if good == bad else "normal" if good > bad else "anomalous"


def truth_of(request: JudgeRequest) -> Truth:
    """The truth about a request: gold first, then mask, then the evidence."""
    yes_means = question_polarity(request.question)
    measured = frozenset[Cell]()
    state: Verdict | None = request.evidence_verdict
    if request.regions:
        measured = cells_of_regions(request.regions, request.image_size)
    if request.mask is not None:
        measured = cells_of_mask(request.mask)
        state = "anomalous" if measured else "normal"
    gold = request.gold
    if gold is None or gold.model_dump(exclude_none=True) == {}:
        verdict = None if state is None or yes_means is None else yes_means == state
        return Truth(state, yes_means, verdict, None, measured if state == "anomalous" else frozenset(), None, "measured")
    if gold.anomalous is not None:
        state = "anomalous" if gold.anomalous else "normal"
    elif gold.verdict is not None and yes_means is not None:
        state = yes_means if gold.verdict else _opposite(yes_means)
    elif gold.defect:
        state = "anomalous"
    else:
        state = _state_of_text(gold.reference_answer) or state
    if gold.verdict is not None and state is not None:
        # The gold tells which way the question runs better than any reading of it.
        yes_means = state if gold.verdict else _opposite(state)
    verdict = gold.verdict
    if verdict is None and yes_means is not None and state is not None:
        verdict = yes_means == state
    cells = frozenset[Cell]()
    if state == "anomalous":
        cells = (measured if request.mask is not None else frozenset()) or cells_of_words(gold.place) or measured
        if not cells and not gold.place:
            cells = cells_of_words(_defect_sentence(gold.reference_answer))
    defect = (gold.defect or "").replace("_", " ").strip() or None
    return Truth(state, yes_means, verdict, defect if state == "anomalous" else None, cells, gold.place, "gold")


def _defect_sentence(reference: str | None) -> str | None:
    """The clauses of a reference answer that report the defect, where its place is to be read."""
    if not reference:
        return None
    reading = read(reference)
    wanted = {claim.clause for claim in reading.asserted("bad")}
    return ". ".join(clause.text for number, clause in enumerate(reading.clauses) if number in wanted) or None
