"""Answers of a SAGE model with a frozen encoder: its own state, its own words, checked against what was measured.

The state is the model's: the evidence's calibrated log-odds, moved by what the language model sees. The verdict of each
answer follows from it and from what the question asserts. The reason is in the model's words as long as they hold:
they name no place that was not measured, no defect on a part called normal, and say nothing against the state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.agents.answering import wording
from sage_ad.agents.answering.defect_naming import known_defects, ranked_names
from sage_ad.agents.answering.wording import Answers
from sage_ad.agents.settings import mode_of_facts
from sage_ad.agents.state import EvidenceSummary, InspectionState
from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.evaluation.questions import with_article

if TYPE_CHECKING:
    from sage_ad.agents.resources import Resources, View
    from sage_ad.evaluation.questions import Question
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.vlm.sage.generation import PartQuery, PartReply

NAME = re.compile(
    r"\b(?:is|are|shows?|see|by|be seen|:)\s+an?\s+((?:[a-z]+[ -]){0,3}?[a-z]+?)"
    r"(?=\s+(?:on|in|at|of|which|that|can|and)\b|[;,.]|$)"
)
"""A defect's name as the model was trained to bring it: "there is a dark stain in the ...", "it differs by a crack"."""
UNCOUNTED = re.compile(NAME.pattern.replace(r"\s+an?\s+", r"\s+", 1))
"""The same without an article: "there is contamination on the ...", "it shows scratches"."""
PLACE = re.compile(r" (?:in|on|at) the (?:upper|lower|centre)(?: (?:left|centre|right))? area")
"""A place as the model was trained to bring it."""
UNNAMED = "defect"
"""What a defect is called where no name was taught: the model's own guess is wrong more often than right."""
NOTHING = frozenset(("defect", "defects", "flaw", "fault", "anomaly", "part", "good", "normal", "deviation"))
CAREFUL = frozenset(("may", "fail", "use"))
"""Words of "it may fail in use", which claims nothing about the part."""
SURE = (
    "Calibrated: how often this verdict was right for such evidence in the training data, good and bad parts "
    "counted alike."
)


def sage_query(
    state: InspectionState,
    view: View,
    facts: Sequence[dict[str, Any]],
    questions: Sequence[Question],
    store: FactStore,
) -> tuple[PartQuery, list[tuple[str, float]]]:
    """What the model is asked about a part (batches collect many of them), and the domain's defects that fit its appearance."""
    from sage_ad.vlm.sage.generation import PartQuery
    from sage_ad.vlm.sage.visual_inputs import kind_probabilities, visual_inputs_of

    visual = visual_inputs_of(view.evidence)
    names = ranked_names(known_defects(store, state["domain"], state["product"]), kind_probabilities(visual) or {})
    query = PartQuery(
        visual=visual,
        questions=tuple(question.text for question in questions),
        polarities=tuple(question.polarity for question in questions),
        facts=tuple(fact["text"] for fact in facts),
        product=state["product"],
        kind=names[0][0] if names else None,
    )
    return query, names


def answer_as_sage(
    state: InspectionState,
    resources: Resources,
    facts: Sequence[dict[str, Any]],
    questions: Sequence[Question],
    on_text: Callable[[int, str], None] | None = None,
) -> Answers | None:
    """Asks a SAGE model about one part.

    Args:
        state: the inspection so far.
        resources: its back end is asked; its view of the part gives the features.
        facts: the facts that reach the model.
        questions: what is asked, in order.
        on_text: is given the number of a question and each new piece of its answer.

    Returns:
        The answers; None where another path answers: another kind of model, or a score was failed before.
    """
    backend: Any = resources.backend
    if not hasattr(backend, "answer_parts") or state.get("round", 0):
        return None
    request = InspectionRequest.model_validate(state["request"])
    view = resources.view(request.image, request.references)
    settings = state["settings"]
    query, _ = sage_query(state, view, facts, questions, resources.store)
    (reply,) = backend.answer_parts(
        [query],
        mode=mode_of_facts(settings["facts"], backend),
        max_new_tokens=settings["max_new_tokens"],
        on_text=None if on_text is None else lambda _, number, piece: on_text(number, piece),
    )
    return compose(state, view, facts, questions, reply, backend.name)


def compose(
    state: InspectionState,
    view: View,
    facts: Sequence[dict[str, Any]],
    questions: Sequence[Question],
    reply: PartReply,
    name: str,
) -> Answers:
    """Answers from the model's reply, as far as its words hold.

    Args:
        state, facts, questions: of the inspection.
        view: the part, for a region where the model sees something that the threshold does not.
        reply: what the model said.
        name: of the model.
    """
    evidence, warnings = decided(state["evidence"], view, reply)
    product = state["product"]
    said_defect = _defect(questions, reply) if reply.state == "anomalous" else None
    defect = state.get("defect")
    answers: list[dict[str, Any]] = []
    dropped: list[str] = []
    told = wording.citable(facts, evidence["verdict"], defect)
    for question, verdict, said in zip(questions, reply.verdicts, reply.texts, strict=True):
        words = renamed(placed(backed(about(reason(said), product), told), evidence), defect or UNNAMED)
        fault = words_fault(words, question, evidence, product, facts, defect)
        if fault:
            dropped.append(f"{len(answers) + 1}: {fault}")
        answers.append(_answer(question, verdict, None if fault else words, evidence, state, facts, defect))
    note = (
        f"{name} takes the part for {reply.state} (chance of a defect {probability(reply):.2f}); "
        f"{len(answers) - len(dropped)} of {len(answers)} answers in its words"
    )
    if said_defect and defect != said_defect:
        note += f"; it said {said_defect}, {'the taught looks say ' + defect if defect else 'which nothing taught supports'}"
    if dropped:
        note += f"; its wording was dropped in answer {'; '.join(dropped[:3])}"
    return Answers(answers, None, note, warnings, evidence)


def probability(reply: PartReply) -> float:
    """The model's P(anomalous)."""
    from math import exp

    return 1 / (1 + exp(-max(-30.0, min(30.0, reply.log_odds))))


def decided(measured: EvidenceSummary, view: View, reply: PartReply) -> tuple[EvidenceSummary, list[str]]:
    """The evidence with the model's state: confidence, and regions where the state calls for them or forbids them."""
    from sage_ad.evaluation.inspection import trace_regions
    from sage_ad.vlm.evidence.regions import find_regions

    chance = probability(reply)
    evidence: EvidenceSummary = {
        **measured,
        "verdict": reply.state,
        "confidence": round(max(chance, 1 - chance), 4),
        "confidence_reason": SURE,
    }
    if reply.state == measured["verdict"]:
        return evidence, []
    regions: list[dict[str, Any]] = []
    if reply.state == "anomalous":
        peak = float(view.evidence.map.max())
        found = find_regions(view.evidence.map, 0.98 * peak, down_to=0.9 * peak, limit=1)
        regions = [region.model_dump(mode="json") for region in trace_regions(found)]
    warning = (
        f"The model takes the part for {reply.state} (chance of a defect {chance:.2f}), although the score "
        f"{measured['score']:.3f} against the threshold {measured['threshold']:.3f} alone says {measured['verdict']}."
    )
    return {**evidence, "regions": regions}, [warning]


def reason(said: str) -> str:
    """The first two whole sentences of what the model said, without state or verdict words."""
    line = " ".join(said.split())
    sentences = re.split(r"(?<=[.!?])\s+", line)
    whole = [s for s in sentences if s.endswith((".", "!"))]
    return " ".join(whole[:2])


def about(words: str, product: str | None) -> str:
    """The model's words about the part: where no product is named the model tends to put "the defect" in its stead."""
    return words if product else re.sub(r"\b(on|of) the defect\b", r"\1 the part", words)


def placed(words: str, evidence: EvidenceSummary) -> str:
    """The model's words with the place that was measured: what and why is the model's to say, where is not."""
    measured = wording.places(evidence)[:1]
    return PLACE.sub(f" in the {measured[0]} area" if measured else "", words)


def backed(words: str, facts: Sequence[dict[str, Any]]) -> str:
    """The model's words without a consequence that no fact tells of.

    The model was taught to bring a fact's consequence behind a semicolon; where it has none, it makes one up ("a scratch
    in a good part is usually a good one").
    """
    sentences = []
    for sentence in re.split(r"(?<=[.!?])\s+", words):
        finding, _, rest = sentence.partition(";")
        clause = wording.content_words(re.split(r",? so ", rest)[0])
        known = [wording.content_words(fact["text"]) for fact in facts]
        if rest and not clause <= CAREFUL and not any(len(clause & own) >= 0.8 * len(clause) for own in known):
            sentence = f"{finding.rstrip()}."
        sentences.append(sentence)
    return " ".join(sentences)


def renamed(words: str, defect: str) -> str:
    """The model's words with the asserted name for the defect (or `UNNAMED`), where the model gave one of its own."""
    found = defect_named(words)
    if found is None or found == defect:
        return words
    said = re.sub(rf"\b(?:an? )?{re.escape(found)}\b", with_article(defect), words, flags=re.IGNORECASE)
    # Without a name "the defect is a defect" is left of a sentence that gave one.
    return re.sub(rf"\bThe {UNNAMED} is {with_article(UNNAMED)}\b", f"There is {with_article(UNNAMED)}", said)


def words_fault(
    words: str,
    question: Question,
    evidence: EvidenceSummary,
    product: str | None,
    facts: Sequence[dict[str, Any]],
    defect: str | None,
) -> str | None:
    """Why the model's words cannot be used, or None: the faults of `text_fault`, and a defect named on a good part."""
    from sage_ad.agents.answering.vision_language import text_fault
    from sage_ad.evaluation.text.answer_parser import read

    fault = text_fault(words, question, evidence, product, facts, defect)
    if fault or evidence["verdict"] == "anomalous":
        return fault
    named = [claim.term for claim in read(words).asserted("bad", "defect")]
    return f"it names a defect ({named[0]}) on a part that is normal" if named else None


def _defect(questions: Sequence[Question], reply: PartReply) -> str | None:
    """The defect that the model names most often, asked which one it is or not; the identification counts first."""
    named: list[str] = []
    for question, text in zip(questions, reply.texts, strict=True):
        if (name := defect_named(reason(text))) is not None:
            named += [name] * (2 if question.family == "defect identification" else 1)
    return max(named, key=lambda n: (named.count(n), -named.index(n))) if named else None


def defect_named(words: str) -> str | None:
    """The name of a defect in a sentence of the model, or None where it is left open ("a defect")."""
    from sage_ad.evaluation.judge.defect_match import concepts_of

    for match in NAME.finditer(words.lower()):
        name = match.group(1).strip(" -")
        if name.split()[-1] not in NOTHING:
            return name
    # Without an article many words could stand there; a name is what is known as one and takes none.
    bare = (match.group(1).strip(" -") for match in UNCOUNTED.finditer(words.lower()))
    return next((name for name in bare if with_article(name) == name and concepts_of(name)), None)


def _answer(
    question: Question,
    verdict: bool | None,
    words: str | None,
    evidence: EvidenceSummary,
    state: InspectionState,
    facts: Sequence[dict[str, Any]],
    defect: str | None,
) -> dict[str, Any]:
    """One answer: the verdict as asked, what was measured, the model's reason (or the grounded one), a cited fact."""
    anomalous = evidence["verdict"] == "anomalous"
    cited = wording.cited_facts(facts, question.family, evidence["verdict"], defect)[:1]
    if words is None:
        text = wording.grounded_answer(
            question.family, verdict, evidence, state["product"], defect, cited, state["appearances"]
        )
    else:
        parts = [] if verdict is None else ["Yes." if verdict else "No."]
        # Asked which defect and where, the model says both itself, as a rule; if it omits the place, the place goes first.
        placed_by_model = any(place in words for place in wording.places(evidence))
        if question.family != "defect identification" or (anomalous and not placed_by_model):
            parts.append(wording.finding(evidence, state["product"]))
        parts.append(words)
        if question.family == "defect diagnosis" and anomalous and not re.search(r"\b(should|must)\b", words):
            parts.append("It should not be used before an expert has looked at the marked area.")
        if anomalous or question.family == "standard comparison":
            parts += [wording.fact_sentence(fact, defect) for fact in cited]
        text = " ".join(parts)
    return wording.trace_answer(question, verdict, text, cited)
