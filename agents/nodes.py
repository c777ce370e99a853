"""The nodes of the graph: each reads the state, does one thing with the resources, and returns what it changed.

Every node appends one `TraceStep` with its time and what it found in a sentence, and announces itself on the custom
stream, so that a viewer sees the steps as they happen.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from sage_ad.agents.answering import wording
from sage_ad.agents.answering.candidates import look_words, taught_names
from sage_ad.agents.answering.limits import is_a_case, limits_about, states_limit
from sage_ad.agents.answering.soft_facts import answer_as_sage, explain_as_sage
from sage_ad.agents.answering.vision_language import answer_with_pictures
from sage_ad.agents.perception import measure_part
from sage_ad.agents.resources import AgentContext, Resources
from sage_ad.agents.settings import mode_of_facts
from sage_ad.agents.state import InspectionState
from sage_ad.evaluation.inspection import Candidate, InspectionRequest, TraceFact, TraceRegion
from sage_ad.evaluation.questions import Question
from sage_ad.knowledge.facts import Fact
from sage_ad.knowledge.ingestion.tags import canonical, tagger, with_taught
from sage_ad.knowledge.store.packs import GENERAL, Pack
from sage_ad.knowledge.store.product_match import plain_words
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.knowledge.store.cards import DefectCard

Update = dict[str, Any]
Node = Callable[[InspectionState, Runtime[AgentContext]], tuple[Update, str]]


def step(node: Node) -> Callable[[InspectionState, Runtime[AgentContext]], Update]:
    """Times a node, announces its start, and appends its `TraceStep` to the update."""

    @functools.wraps(node)
    def timed(state: InspectionState, runtime: Runtime[AgentContext]) -> Update:
        runtime.stream_writer({"event": "started", "step": node.__name__})
        start = time.perf_counter()
        update, summary = node(state, runtime)
        done = {"name": node.__name__, "seconds": round(time.perf_counter() - start, 4), "summary": summary}
        return {**update, "steps": [done]}

    return timed


def request_of(state: InspectionState) -> InspectionRequest:
    """The request, checked again: state may come from a checkpoint."""
    return InspectionRequest.model_validate(state["request"])


@step
def perceive(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """Patch features, comparison with the reference, evidence map, regions."""
    return measure_part(request_of(state), state["settings"], runtime.context.resources)


def trace_fact(fact: Fact, score: float | None, pack: Pack | None, defect: str | None) -> dict[str, Any]:
    """A fact as the state keeps it: `TraceFact` values and the defects that it is about.

    A fact without tags is about the defects of the pack that its sentence names; one of normal variation names them to say
    what it is not. The asserted `defect` stands by the name that it was taught under, whatever the pack calls it.
    """
    shape = TraceFact(id=fact.id, text=fact.text, kind=fact.kind, source=fact.source, status=fact.status, score=score)
    known = pack.defects if pack else ()
    about = canonical(fact.defects, known)
    if pack and not about and fact.kind != "normal-variation":
        about = tagger(pack)(fact.text, ())[1]
    asserted = canonical([defect], known) if defect else ()
    return {**shape.model_dump(mode="json"), "defects": [defect if name in asserted else name for name in about]}


def _pack(resources: Resources, domain: str | None) -> Pack | None:
    """The pack with what was taught by showing, perhaps after its facts were tagged."""
    pack = resources.store.packs().get(domain or "")
    return with_taught(pack) if pack else None


@step
def recall(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """Facts of the domain, ranked for the questions, the product and what was seen."""
    request, settings = request_of(state), state["settings"]
    store = runtime.context.resources.store
    # The product's name comes from the user's own words (the request's product or questions), never from the picture.
    match = store.match_product(request.product or " ".join(request.questions), question=not request.product)
    domain = request.domain or match.domain
    note = match.note or f"domain {domain}, found by {match.how}"
    if domain != match.domain:
        note = f"domain {domain}, which was asked for or taught this product"
    known = match.domain == domain and match.product is not None
    product = request.product or (match.product if known else None)
    names = name_defect(state, runtime.context.resources, domain, product)
    if settings["facts"] == "none" or settings["fact_count"] == 0:
        return {
            "domain": domain,
            "product": product,
            "covered": True,
            "facts": [],
            "recall_note": note,
            **names,
        }, "facts are switched off"
    known_as = match.product if known else product
    facts = recall_facts(state, runtime.context.resources, domain, product, known_as, names["defect"])
    covered = (known or product is None) and len(facts) >= min(settings["covered_from"], settings["fact_count"])
    update = {
        "domain": domain,
        "product": product,
        "covered": covered,
        "facts": facts,
        "recall_note": note,
        **names,
    }
    cover = "enough" if covered else "too few"
    return update, f"{len(facts)} facts ({note}), {cover} for this part"


def name_defect(
    state: InspectionState, resources: Resources, domain: str | None, product: str | None
) -> dict[str, Any]:
    """Names that the defect may bear, and the one that is asserted; of a normal part, the one that its picture was taught."""
    from sage_ad.knowledge.looks.naming import taught_as

    request = request_of(state)
    none: dict[str, Any] = {"candidates": [], "defect": None, "taught_as": None}
    if domain is None:
        return none
    if state["evidence"]["verdict"] == "normal":
        return {**none, "taught_as": taught_as(domain, product, request.image) if product else None}
    view = resources.view(request.image, request.references)
    found, defect = taught_names(view, domain, product, resources.extractor)
    return {**none, "candidates": [item.model_dump() for item in found], "defect": defect}


def cards_of(state: InspectionState, resources: Resources) -> dict[str, DefectCard]:
    """The pack's defect cards for the product, by name: those of all its products, and its own."""
    domain, name = state["domain"], state["product"]
    if domain is None or domain == GENERAL:
        return {}
    known = resources.store.match_product(name).product if name else None
    return {
        card.name: card
        for card in resources.store.cards(domain)
        if not card.products or known in card.products or any(_names(own, name) for own in card.products)
    }


def fits(fact: Fact, product: str | None) -> bool:
    """Whether a fact holds for the product: it names none, or this one, or the kind that this one is a kind of."""
    return not fact.products or any(_names(known, product) for known in fact.products)


def _names(known: str, product: str | None) -> bool:
    """Whether a product's name has another one in it, word by word: "arc segment MG-2" is not in "arc segment MG-20"."""
    return f" {plain_words(known)} " in f" {plain_words(product or '')} "


def recall_facts(
    state: InspectionState,
    resources: Resources,
    domain: str | None,
    product: str | None,
    known: str | None,
    defect: str | None,
) -> list[dict[str, Any]]:
    """Facts of each kind that the verdict calls for, best first, each once; `known` is the pack's name of the product.

    The asserted defect guides the search. Without one, those facts come first whose defect's card has the tone, shape and
    size of the strongest region (a blob calls up stains, not broken ends), and the first one's defect guides the rest, so that
    the facts speak of one and the same. This claims nothing: what is measured seldom tells defects apart (docs/looks.md).
    """
    anomalous = state["evidence"]["verdict"] == "anomalous"
    kinds = ["appearance", "consequence", "cause"] if anomalous else ["normal-variation", "appearance", "inspection"]
    places = wording.places(state["evidence"])
    questions = " ".join(request_of(state).questions) or "normal or defective"
    seen = wording.telling(state["appearances"])
    hint, measured = None, {}
    if anomalous and seen is not None and defect is None:
        hint, measured = state["appearances"][seen], look_words(state["evidence"]["regions"][seen]["measured"])
    pack = _pack(resources, domain)
    suspect = canonical([defect], pack.defects if pack else ())[0] if defect else None
    hint = defect or hint
    looks = {card.name: card.look for card in resources.store.cards(domain)} if domain and measured else {}

    def agreement(name: str) -> int:
        return looks[name].agreement(measured) if name in looks else 0

    def order(fact: Fact) -> tuple[bool, int]:
        return suspect is not None and suspect not in fact.defects, -max(map(agreement, fact.defects), default=0)

    share, extra = divmod(state["settings"]["fact_count"], len(kinds))
    facts: dict[str, dict[str, Any]] = {}
    for rank, kind in enumerate(kinds):
        wanted = share + (rank < extra)
        hits = resources.store.search(
            questions,
            domain=domain,
            kind=kind,
            k=4 * wanted,
            product=product,
            place=places[0] if places else None,
            defect=hint,
        )
        hits = [hit for hit in hits if fits(hit.fact, known)]
        if kind == "consequence":
            # "Chips < 0.8 mm: accept" says nothing of this chip; such facts answer a question for the limit.
            hits = [hit for hit in hits if not is_a_case(hit.fact.text)]
        hits.sort(key=lambda hit: order(hit.fact))
        for hit in hits[:wanted]:
            facts.setdefault(hit.fact.id, trace_fact(hit.fact, round(float(hit.score), 4), pack, defect))
        if rank == 0 and anomalous and suspect is None and hits and hits[0].fact.defects:
            hint = suspect = max(hits[0].fact.defects, key=agreement)
    return list(facts.values())


@step
def extract(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """The model writes fact sentences itself, if it can; they are checked, and kept as proposed."""
    from sage_ad.knowledge.ingestion.checks import check_facts
    from sage_ad.knowledge.ingestion.writing import write_facts

    settings, product, domain = state["settings"], state["product"], state["domain"] or "general"
    reason = state.get("retry_reason") or state["recall_note"]
    if settings["facts"] == "none":
        return {}, "facts are switched off"
    if product is None:
        return {}, f"no product is named, so the model has nothing to write facts about ({reason})"
    resources = runtime.context.resources
    if not resources.backend.capabilities.writes_facts:
        if state["covered"]:  # an answer has failed, though the pack tells enough
            return {}, f"because {reason}: {resources.backend.name} cannot write facts of its own"
        return {}, _missing_pack(product, state["domain"], resources.backend.name)
    written = write_facts(
        resources.backend,
        product=product,
        domain=domain,
        defect_hint=None if (seen := wording.telling(state["appearances"])) is None else state["appearances"][seen],
        image=request_of(state).image,
        n=settings["write_count"],
        seed=settings["seed"],
    )
    known = {fact["id"] for fact in state["facts"]}
    checked = check_facts(written, resources.store)
    new = [item.fact for item in checked if item.outcome == "new" and item.fact.id not in known]
    if settings["learn"] and new:
        resources.store.add(new)
    refused = [f"{item.outcome}: {item.reason}" for item in checked if item.outcome != "new"]
    kept = (
        "kept in the knowledge base as proposed"
        if settings["learn"]
        else "used for this inspection only (--learn keeps them)"
    )
    summary = f"because {reason}: {len(written)} facts written, {len(new)} passed the checks" + (
        f", {kept}" if new else ""
    )
    if refused:
        summary += f"; refused: {'; '.join(refused[:3])}"
    pack, defect = _pack(resources, domain), state["defect"]
    return {"facts": [*state["facts"], *(trace_fact(fact, None, pack, defect) for fact in new)]}, summary


def _missing_pack(product: str, domain: str | None, model: str) -> str:
    """What is missing where recall finds too little and the model cannot write facts, and how to begin it."""
    if domain is None or domain == GENERAL:
        known, begin = f"No pack knows {product}", "begin one: sage-kb new-domain NAME, then sage-kb add NAME FILE"
    else:
        known = f"The pack {domain} tells too little of {product}"
        begin = f"add to it: sage-kb add {domain} FILE"
    return f"{known}, and {model} cannot write facts of its own; {begin}."


@step
def review(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """With `review`, waits for an expert: resume with {fact id: "approve" | "reject"} for each proposed fact."""
    proposed = [fact for fact in state["facts"] if fact["status"] == "proposed"]
    if not state["settings"]["review"] or not proposed:
        return {}, "no review asked" if not state["settings"]["review"] else "nothing to review"
    decisions = interrupt({"facts": proposed})
    if not isinstance(decisions, dict):
        raise InputError('A review is resumed with {fact id: "approve" or "reject"}.')
    unknown = sorted(set(decisions) - {fact["id"] for fact in proposed})
    if unknown or set(decisions.values()) - {"approve", "reject"}:
        raise InputError(
            f"A review decision is wrong ({unknown or sorted(set(decisions.values()))}); "
            'give each listed fact id "approve" or "reject".'
        )
    status = {"approve": "approved", "reject": "rejected"}
    facts = [
        {**fact, "status": status[decisions[fact["id"]]]} if fact["id"] in decisions else fact
        for fact in state["facts"]
    ]
    if state["settings"]["learn"]:
        for identifier, decision in decisions.items():
            runtime.context.resources.store.set_status(identifier, status[decision])
    approved = sum(decision == "approve" for decision in decisions.values())
    return {"facts": facts}, f"an expert approved {approved} and rejected {len(decisions) - approved} facts"


@step
def fuse(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """Chooses the facts that reach the answer, within the token budget."""
    settings = state["settings"]
    mode = mode_of_facts(settings["facts"], runtime.context.resources.backend)
    if mode == "soft" and not runtime.context.resources.backend.capabilities.soft_facts:
        raise InputError(
            f"The model {runtime.context.resources.backend.name!r} has no fusion attention for soft facts; "
            "use --facts hard or a SAGE model."
        )
    budget, chosen = settings["fact_tokens"], []
    for fact in state["facts"]:
        # About four characters a token in English; the budget is a bound on prompt time, not an exact count.
        cost = len(fact["text"]) // 4 + 4
        if fact["status"] != "rejected" and cost <= budget:
            chosen.append(fact["id"])
            budget -= cost
    return {"prompt_facts": chosen}, f"{len(chosen)} of {len(state['facts'])} facts reach the model ({mode})"


@step
def answer(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """Verdict from the evidence, words from the model where they hold, facts cited by id."""
    from sage_ad.evaluation.questions import read_question, standard_questions, verdict_of

    request, evidence, product = request_of(state), state["evidence"], state["product"]
    facts = [fact for fact in state["facts"] if fact["id"] in state["prompt_facts"]]
    questions = [read_question(text) for text in request.questions] or standard_questions()
    resources = runtime.context.resources
    known, more = ({}, []) if resources.backend.capabilities.images else _answered(state, resources, facts, questions)
    asked, questions = questions, [question for question in questions if question.text not in known]
    if not questions:
        ordered, summary = _in_order(
            state, runtime, asked, known, wording.Answers([], None, "from measurement and pack")
        )
        return {**ordered, "facts": [*state["facts"], *more]}, summary
    finished = answer_with_pictures(state, resources, facts, questions)
    warnings = [] if finished is None else finished.warnings
    if finished is None or not finished.answers:
        finished = answer_as_sage(state, resources, facts, questions, _passed_on(runtime, questions))
    update: Update = {"round": state.get("round", 0) + 1, "facts": [*state["facts"], *more]}
    if finished is None:
        worded, note = word_finding(state, runtime, facts)
        finished = wording.Answers([], None, note, warnings)
        for question in questions:
            verdict = None if question.polarity is None else verdict_of(question.polarity, evidence["verdict"])
            cited = wording.cited_facts(facts, question.family, evidence["verdict"], state["defect"])[:1]
            text = wording.grounded_answer(
                question.family, verdict, evidence, product, state["defect"], cited, state["appearances"], worded
            )
            finished.answers.append(wording.trace_answer(question, verdict, text, cited))
    else:
        update |= {"evidence": finished.evidence or evidence}
        if finished.defect is not None:
            own = Candidate(name=finished.defect, source="model", reason=f"the model {resources.backend.name} says")
            update |= {"candidates": [*state["candidates"], own.model_dump()]}
    ordered, summary = _in_order(state, runtime, asked, known, finished)
    return {**update, **ordered}, summary


def _answered(
    state: InspectionState, resources: Resources, facts: list[dict[str, Any]], questions: list[Question]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Answers by question that measurement and pack give by themselves, and the facts that they cite and nobody recalled.

    The standard questions are the model's.
    """
    from sage_ad.agents.answering.asked import answer_asked, asked_about, parts_of
    from sage_ad.agents.answering.report import verdict_line
    from sage_ad.evaluation.questions import is_standard

    cards = cards_of(state, resources)
    found: dict[str, dict[str, Any]] = {}
    more: dict[str, dict[str, Any]] = {}
    for question in questions:
        if is_standard(question.text, state["product"]):
            continue
        answers = []
        for part in parts_of(question):
            if (intent := asked_about(part)) is None:
                continue
            limits = limits_for(part, state, resources) if intent[0] == "limit" else []
            more |= {fact["id"]: fact for fact in limits}
            answers.append(answer_asked(part, *intent, state, cards, limits))
            if intent[0] == "explain" and (words := explain_as_sage(state, resources, facts)):
                told = [fact["id"] for fact in facts if fact["text"].rstrip(".") in words]
                text = f"{verdict_line(state['evidence'], state['product'])} {words}"
                answers[-1] |= {"text": text, "facts": told}
        if answers:
            found[question.text] = {
                **answers[0],
                "question": question.text,
                "family": question.family,
                "text": " ".join(own["text"] for own in answers),
                "facts": list(dict.fromkeys(fact for own in answers for fact in own["facts"])),
            }
    recalled = {fact["id"] for fact in state["facts"]}
    return found, [fact for fact in more.values() if fact["id"] not in recalled]


def limits_for(question: Question, state: InspectionState, resources: Resources) -> list[dict[str, Any]]:
    """The approved facts of the product that state the limit which a question asks for."""
    from sage_ad.evaluation.judge.defect_match import concepts_of

    domain, defect = state["domain"], state["defect"]
    if domain is None or state["settings"]["facts"] == "none":
        return []
    store, pack = resources.store, _pack(resources, domain)
    tags = tagger(pack) if pack else lambda text, headings: ((), ())
    match = store.match_product(state["product"] or "")
    product = match.product if match.domain == domain else state["product"]
    asked = tags(question.text, ())[1]
    found = []
    for fact in store.iterate(domain, status="approved"):
        # What is still accepted of a defect is a limit of it.
        about = fact.defects or tags(fact.text, ())[1]
        if fits(fact, product) and states_limit(fact.text, question.text, named=bool(set(about) & set(asked))):
            found.append(trace_fact(fact.model_copy(update={"defects": about}), None, pack, defect))
    found.sort(key=lambda fact: not states_limit(fact["text"], question.text))  # numbers before bare words
    if not asked and (concepts := concepts_of(question.text)):  # a defect that the pack has no card of
        return limits_about([one for one in found if not one["defects"] or concepts & concepts_of(one["text"])], ())
    known = pack.defects if pack else ()
    asserted = canonical([defect], known) if defect else ()
    wanted = [defect if defect and name in asserted else name for name in asked or asserted]
    return limits_about(found, wanted)


def _in_order(
    state: InspectionState,
    runtime: Runtime[AgentContext],
    asked: list[Question],
    known: dict[str, dict[str, Any]],
    finished: wording.Answers,
) -> tuple[Update, str]:
    """The answers in the order of the questions, announced; `known` are those that no model gave."""
    rest = iter(finished.answers)
    answers = [known.get(question.text) or next(rest) for question in asked]
    for item in answers:
        runtime.stream_writer({"event": "answer", "question": item["question"], "text": item["text"]})
    update = {
        "answers": answers,
        "measured": list(known),
        "warnings": finished.warnings,
        "round": state.get("round", 0) + 1,
    }
    return update, f"{len(answers)} answer{'s' * (len(answers) != 1)}; {finished.note}"


def _passed_on(runtime: Runtime[AgentContext], questions: list[Question]) -> Callable[[int, str], None]:
    """Puts pieces of answers on the custom stream, with the question that they answer."""

    def tell(number: int, piece: str) -> None:
        runtime.stream_writer({"event": "token", "question": questions[number].text, "text": piece})

    return tell


def word_finding(
    state: InspectionState, runtime: Runtime[AgentContext], facts: list[dict[str, Any]]
) -> tuple[str | None, str]:
    """Streams the model's wording of the finding; returns it if it holds, and a note that says what happened.

    After a failed round the grounded sentence is used as it is: a second try of the same model on the same words
    would only cost time.
    """
    settings, evidence, product = state["settings"], state["evidence"], state["product"]
    if state.get("round", 0):
        return None, "grounded sentences, after a failed score"
    backend = runtime.context.resources.backend
    sentence = wording.finding(evidence, product)
    messages = wording.wording_messages(sentence, facts, mode_of_facts(settings["facts"], backend) == "hard")
    text = ""
    for piece in backend.stream(
        messages, max_new_tokens=settings["max_new_tokens"], temperature=0.0, seed=settings["seed"]
    ):
        text += piece
        runtime.stream_writer({"event": "token", "text": piece})
        if wording.first_sentence(text + " "):
            break
    worded = wording.first_sentence(text)
    fault = wording.wording_fault(worded, evidence, product)
    if fault:
        return None, f"the model's wording was dropped ({fault}), grounded sentences used"
    return worded, f"finding worded by {backend.name}"


@step
def evaluate(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """Self-check of each answer against evidence and facts; a failing one is the reason for another round."""
    from sage_ad.evaluation.inspection import JudgeRequest

    evidence, settings = state["evidence"], state["settings"]
    # An answer read off the measurement has nothing to be checked against but itself.
    written = [item for item in state["answers"] if item["question"] not in state["measured"]]
    if not written:
        return {"retry_reason": None}, "every answer is measured or quoted"
    texts = [fact["text"] for fact in state["facts"]]
    regions = [TraceRegion.model_validate(region) for region in evidence["regions"]]
    requests = [
        JudgeRequest(
            question=item["question"],
            answer=item["text"],
            family=item["family"],
            facts=texts,
            object=state["product"],
            regions=regions,
            evidence_verdict=evidence["verdict"],
            image_size=(evidence["size"][0], evidence["size"][1]),
        )
        for item in written
    ]
    scores = runtime.context.resources.judge.judge(requests)
    judged = {item["question"]: score.model_dump(mode="json") for item, score in zip(written, scores, strict=True)}
    answers = [{**item, "mle": judged.get(item["question"])} for item in state["answers"]]
    failed = [s for s in scores if s.decisive is not None and s.decisive < settings["pass_mean"]]
    reason = None
    if failed:
        why = failed[0].deductions[0] if failed[0].deductions else "no reason given"
        reason = f"{len(failed)} of {len(scores)} answers scored below {settings['pass_mean']:g} ({why})"
    return {"answers": answers, "retry_reason": reason}, wording.scores_in_words(scores) + (
        f"; {reason}" if reason else ""
    )


@step
def report(state: InspectionState, runtime: Runtime[AgentContext]) -> tuple[Update, str]:
    """The explanation: measured words, names that were taught, what the pack says of them."""
    from sage_ad.agents.answering.report import explanation

    anomalous = state["evidence"]["verdict"] == "anomalous"
    found = state["candidates"] if anomalous else []
    defect = state["defect"] if anomalous else None
    cards = cards_of(state, runtime.context.resources)
    text, cited = explanation(
        state["evidence"],
        product=state["product"],
        defect=defect,
        candidates=found,
        cards=cards,
        facts=state["facts"],
        taught_as=state["taught_as"],
    )
    runtime.stream_writer({"event": "explanation", "text": text})
    lines = len(text.splitlines())
    update = {"explanation": text, "cited": cited, "candidates": found, "defect": defect}
    return update, f"{lines} lines, {len(cited)} facts cited"
