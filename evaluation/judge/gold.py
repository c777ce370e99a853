"""What an answer is held against: the gold answer where there is one, else what was measured on the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sage_ad.evaluation.inspection import JudgeRequest, Verdict
from sage_ad.evaluation.questions import polarity_of
from sage_ad.evaluation.text.answer_parser import read
from sage_ad.evaluation.text.keywords import essence
from sage_ad.evaluation.text.localisation import Cell, cells_of_mask, cells_of_regions, cells_of_words
from sage_ad.evaluation.text.normalise import stem_set, stems, word_set, words

_USES = stem_set(
    "use usable used ship sell deliver release approve accept pass install fit mount operate operation safe unsafe "
    "service serviceable reject scrap replace repair rework keep stay remain run wear eat drink drive climb leave "
    "fail dangerous danger harmless risk withdraw discard work reliable function sort hold load action intervene "
    "needed"
)
_DENYING = stem_set("deny denies refute dispute exclude rule")
_OPEN = word_set(
    "what which where how why who whose describe name state identify explain tell give list locate point say"
)


@dataclass(frozen=True)
class ResolvedGold:
    """What is right about one question.

    Attributes:
        state: normal or anomalous; None when nothing tells.
        yes_means: the state that a "yes" to the question asserts; None when it is no yes/no question about the state.
        verdict: the right answer to the question as asked; None when it has none.
        defect: name of the defect in words, when known.
        cells: where it is, as cells of the 3 x 3 grid; empty when not known.
        place: the place in words, as given.
        source: "gold" or "measured".
        defect_texts: the defect in words and sentences, for comparison by similarity.
        topical: the question asks about one particular thing, and the right answer to it goes against the part's state
            ("is the fault a short?" "No, an open circuit."), so that to deny the thing is not to praise the part.
    """

    state: Verdict | None
    yes_means: Verdict | None
    verdict: bool | None
    defect: str | None
    cells: frozenset[Cell]
    place: str | None
    source: Literal["gold", "measured"]
    defect_texts: tuple[str, ...] = ()
    topical: bool = False


def is_open(question: str) -> bool:
    """Whether a question cannot be answered by yes or no ("Which defect ...?", "Describe ...")."""
    return words(question)[:1] != [] and words(question)[0] in _OPEN


def question_polarity(question: str) -> Verdict | None:
    """The state that a "yes" to the question asserts; None when it is no yes/no question about the part's state."""
    if is_open(question):
        return None
    known = polarity_of(question)
    if known is not None:
        return _opposite(known) if _DENYING & set(stems(question)) else known
    parsed = read(question)
    stances = {claim.stance for claim in parsed.claims if claim.scope != "rest" and not claim.weak}
    if len(stances) == 1 and question.strip().endswith("?"):
        return "normal" if stances == {"good"} else "anomalous"
    return None


def asks_for_use(question: str) -> bool:
    """Whether a question asks what may be done with the part ("Can it be shipped?") rather than what state it is in."""
    if is_open(question):
        return False
    return bool(_USES & set(stems(question)))


def _opposite(state: Verdict) -> Verdict:
    return "normal" if state == "anomalous" else "anomalous"


def _state_of_text(text: str | None) -> Verdict | None:
    if not text:
        return None
    parsed = read(text)
    good, bad = len(parsed.asserted("good")), len(parsed.asserted("bad"))
    return None if good == bad else "normal" if good > bad else "anomalous"


def resolve_gold(request: JudgeRequest) -> ResolvedGold:
    """What is right about a request: gold first, then mask, then the evidence."""
    yes_means = asked = question_polarity(request.question)
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
        return ResolvedGold(
            state, yes_means, verdict, None, measured if state == "anomalous" else frozenset(), None, "measured"
        )
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
    if state != "anomalous":
        return ResolvedGold(state, yes_means, verdict, None, cells, None, "gold")
    texts = _defect_texts(defect, gold.reference_answer)
    topical = asked is not None and yes_means is not None and asked != yes_means
    return ResolvedGold(state, yes_means, verdict, defect, cells, gold.place, "gold", texts, topical)


def _defect_texts(defect: str | None, reference: str | None) -> tuple[str, ...]:
    """The defect's name and the reference answer's clauses about it, without their places."""
    texts = [defect, f"there is a {defect}"] if defect else []
    if reference:
        parsed = read(reference)
        wanted = {claim.clause for claim in parsed.asserted("bad") if claim.kind != "use"}
        texts += [essence(clause) for number, clause in enumerate(parsed.clauses) if number in wanted]
    return tuple(text for text in texts if text)


def _defect_sentence(reference: str | None) -> str | None:
    """The clauses of a reference answer that report the defect, where its place is to be read."""
    if not reference:
        return None
    parsed = read(reference)
    wanted = {claim.clause for claim in parsed.asserted("bad")}
    return ". ".join(clause.text for number, clause in enumerate(parsed.clauses) if number in wanted) or None
