"""Answers of a SAGE model with a frozen encoder: its own state, its own words, checked against what was measured.

The state is the model's: the evidence's calibrated log-odds, moved by what the language model sees. The verdict of each
answer follows from it and from what the question asserts. The reason is in the model's words as long as they hold:
they name no place that was not measured, no defect that the candidates do not hold, none on a part called normal, and
say nothing against the state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.agents.answering import wording
from sage_ad.agents.answering.wording import Answers
from sage_ad.agents.settings import mode_of_facts
from sage_ad.agents.state import EvidenceSummary, InspectionState
from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.evaluation.questions import with_article

if TYPE_CHECKING:
    from sage_ad.agents.resources import Resources, View
    from sage_ad.evaluation.questions import Question
    from sage_ad.vlm.sage.generation import PartQuery, PartReply

NAME = re.compile(
    r"\b(?:is|are|shows?|see|by|be seen|:)\s+an?\s+((?:[a-z]+[ -]){0,3}?[a-z]+?)"
    r"(?=\s+(?:on|in|at|of|which|that|can|and)\b|[;,.]|$)"
)
"""A defect's name as the model was trained to bring it: "there is a dark stain in the ...", "it differs by a crack"."""
UNCOUNTED = re.compile(NAME.pattern.replace(r"\s+an?\s+", r"\s+", 1))
"""The same without an article: "there is contamination on the ...", "it shows scratches"."""
NOTHING = frozenset(("defect", "defects", "flaw", "fault", "anomaly", "part", "good", "normal", "deviation"))
CAREFUL = frozenset(("may", "fail", "use"))
"""Words of "it may fail in use", which claims nothing about the part."""
EXPLAIN = "Explain what was found."
"""The question that the model was trained to answer with an explanation."""
EXPLANATION_TOKENS = 128
EXPLAINING = frozenset(
    """area there shows what stands differs reference references good rest picture looks even nothing compared defect defects
    taught examples likely probably probability most name called none no kind told cannot may can so neither sure given not set
    aside until somebody should looked look marked before used pass resembles""".split()  # noqa: SIM905
)
"""Words that an explanation may bring beside those that were measured, taught or told by a fact."""
ASSERTS = re.compile(
    r"\b(?:(?:it|this|that|defect) is (?!cannot\b|probably none\b)|likely\b|probability\b)", re.IGNORECASE
)
"""How an explanation asserts a name."""
EMPTY = re.compile(r"\b(defect|flaw|fault|anomaly) is (?:a|an|the) \1\b", re.IGNORECASE)
SURE = (
    "Calibrated: how often this verdict was right for such evidence in the training data, good and bad parts "
    "counted alike."
)


def sage_query(
    state: InspectionState, view: View, facts: Sequence[dict[str, Any]], questions: Sequence[Question]
) -> PartQuery:
    """What the model is asked about a part: measurement, description and candidates as it was trained on them."""
    from sage_ad.vlm.sage.generation import PartQuery
    from sage_ad.vlm.sage.visual_inputs import visual_inputs_of

    description = next((region.get("description", "") for region in state["evidence"]["regions"]), "")
    return PartQuery(
        visual=visual_inputs_of(view.evidence, description),
        questions=tuple(question.text for question in questions),
        polarities=tuple(question.polarity for question in questions),
        facts=tuple(fact["text"] for fact in facts),
        product=state["product"],
        names=tuple((item["name"], item["probability"]) for item in taught(state)),
    )


def taught(state: InspectionState) -> list[dict[str, Any]]:
    """The candidates that were taught by showing, the likeliest first."""
    return [item for item in state["candidates"] if item["source"] == "looks"]


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
    query = sage_query(state, view, facts, questions)
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
    defect = state.get("defect")
    answers: list[dict[str, Any]] = []
    dropped: list[str] = []
    told = wording.citable(facts, evidence["verdict"], defect)
    for question, verdict, said in zip(questions, reply.verdicts, reply.texts, strict=True):
        words = backed(reason(compared(said, evidence)), told)
        fault = words_fault(words, question, evidence, product, facts, defect, [defect] if defect else [])
        if fault:
            dropped.append(f"{len(answers) + 1}: {fault}")
        answers.append(_answer(question, verdict, None if fault else words, evidence, state, facts, defect))
    note = (
        f"{name} takes the part for {reply.state} (chance of a defect {probability(reply):.2f}); "
        f"{len(answers) - len(dropped)} of {len(answers)} answers in its words"
    )
    if dropped:
        note += f"; its wording was dropped in answer {'; '.join(dropped[:3])}"
    return Answers(answers, None, note, warnings, evidence)


def explain_as_sage(state: InspectionState, resources: Resources, facts: Sequence[dict[str, Any]]) -> str | None:
    """What stands out, its name and what to do in a SAGE model's words; None for another model, and unless every word holds.

    Args:
        state: the inspection so far.
        resources: its back end is asked; its view of the part gives the features.
        facts: the facts that reach the model.
    """
    from sage_ad.evaluation.questions import read_question

    backend: Any = resources.backend
    if not hasattr(backend, "answer_parts"):
        return None
    request, evidence = InspectionRequest.model_validate(state["request"]), state["evidence"]
    question = read_question(EXPLAIN)
    query = sage_query(state, resources.view(request.image, request.references), facts, [question])
    mode = mode_of_facts(state["settings"]["facts"], backend)
    (reply,) = backend.answer_parts([query], mode=mode, max_new_tokens=EXPLANATION_TOKENS)
    # A fact about another defect than the asserted one says nothing of this part.
    about = [fact["text"] for fact in facts if state["defect"] in fact.get("defects", ())]
    told = wording.content_words(query.visual.measured(query.product or "part", query.names)) | EXPLAINING
    said = whole_sentences(compared(reply.texts[0], evidence))
    sure = all(
        any(_tells(own, fact) for fact in about)
        or (wording.content_words(own) <= told and _names_hold(own, query, state["defect"]))
        for own in said
    )
    words = " ".join(said)
    # A defect is explained by what stands out and what it is called.
    whole = len(said) > (evidence["verdict"] == "anomalous") and reply.state == evidence["verdict"]
    shares = [f"{share:.2f}" for _, share in query.names]
    held = [*(name for name, _ in query.names), *about]
    fault = words_fault(words, question, evidence, state["product"], facts, state["defect"], held, shares)
    return words if sure and whole and fault is None else None


def _names_hold(sentence: str, query: PartQuery, defect: str | None) -> bool:
    """Whether only the asserted name is asserted, and each other one stands with its own probability."""
    named = defect_named(sentence) or ""
    asserted = named not in query.visual.description or ASSERTS.search(sentence)
    if asserted and (defect is None or defect not in sentence):
        return False
    return all(own == defect or own not in sentence or f"{own} ({share:.2f})" in sentence for own, share in query.names)


def probability(reply: PartReply) -> float:
    """The model's P(anomalous)."""
    from math import exp

    return 1 / (1 + exp(-max(-30.0, min(30.0, reply.log_odds))))


def decided(measured: EvidenceSummary, view: View, reply: PartReply) -> tuple[EvidenceSummary, list[str]]:
    """The evidence, or where the model overrules its state: with the model's, its confidence, and regions to match.

    A state that both share is as sure as the evidence says, so that a question asked does not change the answer to another.
    """
    from sage_ad.evaluation.inspection import trace_regions
    from sage_ad.vlm.evidence.description import describe_regions
    from sage_ad.vlm.evidence.regions import find_regions

    if reply.state == measured["verdict"]:
        return measured, []
    chance = probability(reply)
    evidence: EvidenceSummary = {
        **measured,
        "verdict": reply.state,
        "confidence": round(max(chance, 1 - chance), 4),
        "confidence_reason": SURE,
    }
    regions: list[dict[str, Any]] = []
    if reply.state == "anomalous":
        peak = float(view.evidence.map.max())
        found = find_regions(view.evidence.map, 0.98 * peak, down_to=0.9 * peak, limit=1)
        seen = describe_regions(view.image, view.evidence.map, found, view.references)
        regions = [region.model_dump(mode="json") for region in trace_regions(*seen)]
    warning = (
        f"The model takes the part for {reply.state} (chance of a defect {chance:.2f}), although the score "
        f"{measured['score']:.3f} against the threshold {measured['threshold']:.3f} alone says {measured['verdict']}."
    )
    return {**evidence, "regions": regions}, [warning]


def compared(said: str, evidence: EvidenceSummary) -> str:
    """The model's words with what the part was really compared with, in place of what it was trained to say."""
    against = wording.compared_with(evidence) or "the rest of its picture"
    return re.sub("the good reference|the rest of its picture", against, said)


def reason(said: str) -> str:
    """The first two whole sentences of what the model said, without state or verdict words."""
    return " ".join(whole_sentences(said)[:2])


def whole_sentences(said: str) -> list[str]:
    """The sentences of a text that were finished."""
    return [s for s in re.split(r"(?<=[.!?])\s+", " ".join(said.split())) if s.endswith((".", "!"))]


def backed(words: str, facts: Sequence[dict[str, Any]]) -> str:
    """The model's words without a consequence that no fact tells of.

    The model was taught to bring a fact's consequence behind a semicolon; where it has none, it makes one up ("a scratch
    in a good part is usually a good one").
    """
    sentences = []
    for sentence in re.split(r"(?<=[.!?])\s+", words):
        finding, _, rest = sentence.partition(";")
        clause = re.split(r",? so ", rest)[0]
        careful = wording.content_words(clause) <= CAREFUL
        if rest and not careful and not any(_tells(clause, fact["text"]) for fact in facts):
            sentence = f"{finding.rstrip()}."
        sentences.append(sentence)
    return " ".join(sentences)


def _tells(clause: str, fact: str) -> bool:
    """Whether a clause says what a fact says: four of five of its words stand there."""
    own = wording.content_words(clause)
    return len(own & wording.content_words(fact)) >= 0.8 * len(own)


def words_fault(
    words: str,
    question: Question,
    evidence: EvidenceSummary,
    product: str | None,
    facts: Sequence[dict[str, Any]],
    defect: str | None,
    held: Sequence[str],
    numbers: Sequence[str] = (),
) -> str | None:
    """Why the model's words cannot be used, or None: the faults of `text_fault`, and names that nothing supports.

    Args:
        words: what the model said.
        question, evidence, product, facts: of the inspection.
        defect: the name that is asserted.
        held: the names that it may give the defect.
        numbers: those that it may bring though they were not measured.
    """
    from sage_ad.agents.answering.vision_language import text_fault
    from sage_ad.evaluation.text.answer_parser import read

    fault = text_fault(words, question, evidence, product, facts, defect, numbers)
    if fault:
        return fault
    if EMPTY.search(words):
        return "it says that the defect is a defect"
    if evidence["verdict"] == "anomalous":
        strange = strange_name(words, [*held, *(region.get("description", "") for region in evidence["regions"])])
        return f"it names a defect ({strange}) that no candidate holds" if strange else None
    named = [claim.term for claim in read(words).asserted("bad", "defect")]
    return f"it names a defect ({named[0]}) on a part that is normal" if named else None


def strange_name(words: str, held: Sequence[str]) -> str | None:
    """A defect that the words name and none of `held` (names, descriptions) does; what follows a semicolon is a fact's."""
    from sage_ad.evaluation.judge.defect_match import concepts_of

    finding = " ".join(sentence.partition(";")[0] for sentence in re.split(r"(?<=[.!?])\s+", words))
    finding = finding.replace("marked area", "area")  # the lexicon takes a mark for a stain
    name = defect_named(finding)
    if name is not None and not any(name in own.casefold() for own in held):
        return name
    known = frozenset().union(*(concepts_of(own) for own in held))
    return next(iter(sorted(concepts_of(finding) - known)), None)


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
        parts += [wording.fact_sentence(fact, defect) for fact in cited]
        text = " ".join(parts)
    return wording.trace_answer(question, verdict, text, cited)
