"""Questions that measurement and pack answer by themselves: which defect, is it a ..., where, how large, how large it may be,
how many, why, what to do, how sure, explain it. Each answer says what is known, or that it is not.

A language model has no part in these: it would have to guess, and its guess would read like knowledge. Only the explanation
may be worded by a SAGE model, which was trained to say no more than this (`sage_ad.agents.answering.soft_facts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sage_ad.agents.answering.limits import limit_line
from sage_ad.agents.answering.report import (
    UNSURE,
    Cards,
    action_line,
    card_of,
    consequence_lines,
    explanation,
    facts_about,
    name_line,
    sentence_case,
    trust_line,
    unseen_line,
)
from sage_ad.agents.state import EvidenceSummary, InspectionState
from sage_ad.evaluation.inspection import TraceAnswer
from sage_ad.evaluation.questions import Question, with_article
from sage_ad.vlm.evidence.description import Description

PATTERNS: tuple[tuple[str, str], ...] = (
    (
        "limit",
        r"\bhow (?:large|big|long|wide|deep|small|tall|thick|high|many|much)\b.*\b(?:may|can|must|should|is|are)\b"
        r".*\b(?:be\b(?! \w+(?:ed|t)\b)|allowed|permitted|accepted|acceptable|tolerated|too \w+)"
        r"|\b(?:tolerances?|limits?|acceptance criteri\w+)\b|\btoo (?:large|big|long|wide|deep|thick|high|many|small)\b"
        r"|^(?=.*\b(?:max|maximum|minimum|permitted|permissible|allowed|allowable|acceptable|accepted|tolerated)\b)"
        r".*(?:\b(?:size|length|width|depth|height|diameter|area|number)\b|\d ?(?:mm|cm|µm|um|px|%))",
    ),
    ("depth", r"\bhow deep\b|\bdepth\b|\bdeeper\b"),
    (
        "size",
        r"\bhow (?:large|big|long|wide|small|tall)\b|\bwhat (?:size|dimensions?)\b|\b(?:size|dimensions?) of\b"
        r"|\b(?:larger|bigger|longer|wider|smaller|shorter|narrower) than\b",
    ),
    (
        "number",
        r"\bhow many\b|^\W*(?:is (?:it|there)|are (?:there|these|they|those)) (?:(?:only|just|really|more than) )*"
        r"(?:one|two|three|four|five|several|many|\d+)\b(?! of\b|[.,]?\d| ?(?:mm|cm|µm|um|px|%))",
    ),
    (
        "place",
        r"^\W*(?:and )?where\b|\bwhich (?:area|place|location|position|region|part of)\b|\bwhereabouts\b"
        r"|^\W*(?:is|are|does|do) [\w -]+? (?:in|on|at|near) the (?:\w+ )?"
        r"(?:left|right|top|bottom|centre|center|middle|edge|corner|rim)\b",
    ),
    (
        "action",
        r"\bwhat (?:should|must|can|do|shall) (?:i|we|one|be done)\b|\bwhat to do\b|\bwhat now\b"
        r"|\bhow (?:should|do) (?:i|we) (?:proceed|handle|treat)\b|\b(?:rework|scrap|repair|reject) (?:it|this)\b"
        r"|\bbe (?:repaired|reworked|fixed|scrapped)\b"
        r"|^\W*(?:is|are) (?:it|this|that|they|these) (?:a )?(?:scrap|waste|rejects?)\b",
    ),
    (
        "cause",
        r"^\W*(?:and )?why\b|\bwhat (?:is the |are the |could be the )?(?:causes?|caused|reasons?)\b"
        r"|\bhow did (?:it|this|that) (?:happen|come about|arise)\b|\bwhere does (?:it|this) come from\b"
        r"|^\W*what happened\b",
    ),
    (
        "use",
        r"\b(?:can|may|should|could) (?:i|we|it|this|that|they|the [\w -]+?) (?:still |be )*"
        r"(?:ship|use|sell|deliver|install|release|keep|accept)(?:p?ed|d)?\b|\b(?:sold|delivered|kept)\b"
        r"|^\W*(?:is|are) (?:it|they|(?:this|that|these|those|the)(?: [\w -]+?)?) (?:still |really )?"
        r"(?:safe|usable|shippable|acceptable|allowed|permitted|permissible|tolerable|fit for)\b",
    ),
    (
        "severity",
        r"\bhow (?:bad|serious|severe|dangerous|critical)\b"
        r"|^\W*(?:is|are) (?:it|they|(?:this|that|these|those|the)(?: [\w -]+?)?) (?:very |really )?"
        r"(?:serious|severe|dangerous|critical)\b",
    ),
    ("trust", r"\bhow (?:sure|certain|confident|reliable)\b"),
    (
        "name",
        r"\b(?:what|which) (?:kind|type|sort|defect|fault|flaw|anomaly)\b"
        r"|\bwhat(?: is|['’]s) (?:it|this|wrong|that|the (?:defect|fault|flaw))\b",
    ),
    (
        "appearance",
        r"\bwhat does (?:it|the (?:defect|fault|flaw|area)) look like\b|\bwhat (?:colour|color|shape)\b|\bdescribe\b",
    ),
    ("explain", r"^\W*(?:please |(?:can|could|would) you )*(?:explain|summari[sz]e)\b"),
)
"""Intent and how it is asked, the most particular first; matched on lower-case text."""
IS_IT = re.compile(
    r"^\W*(?:is|are|does|do|could|can|might)(?:n['’]t)?\s+(?:it|this|that|there|these|the [\w -]+?)\s+(?:not\s+)?"
    r"(?:(?:be|no|have|has|show|shows|any|a|an|some|really|possibly|maybe|just|only|sign of|signs of)\s+)*(?P<name>[\w -]+?)\W*$"
)
"""A question for one defect by its name: "is it a stain?", "does the part have any scratches?"."""
OF_A_KIND = re.compile(
    r"^\W*(?:and )?(?:is|are|may|can|could|would|will|should|must|does|do)\s+"
    r"(?!(?:it|this|that|these|those|they|there|the|we|i|you|your|our|one|all|every\w*|any\w*|something|nothing)\b)"
    r"(?P<some>(?:an?|some|two|three|\d[\d.,]*)\s+)?"
)
"""A question about defects of a kind and not about this part: "is a crack of 0.3 mm allowed?"."""
OF_THIS = re.compile(
    r"^\W*(?:and )?(?:is|are|was|were|has|have|does|do|did|can|could|will)\s+(?:the|this|that|these|those)\s+"
)
"""A question that takes a defect for granted: "is this crack new?"; whether it is there was not asked."""
ALLOWED = re.compile(r"\b(?:allow|permi[ts]|accept|toler|ok(?:ay)?\b)")
PRESENT = re.compile(
    r"\b(?:visible|present|there|seen?|found|detected|detectable|shown?|shows|evident|recogni[sz]able|have|has|real|really)\b"
)
ANY = re.compile(r"^\W*(?:(?:any|no|an?|maybe|perhaps)\s+)*(?P<name>[\w-]+(?: [\w-]+)?)\W*$")
"""The same in a word or two: "any scratches?", "rust?"."""
ALSO = re.compile(
    r"\?\s+(?=\S)|,?\s+and\s+(?=(?:how|what|where|why|which|is|are|may|can|must|should)\b)", re.IGNORECASE
)
"""Between two questions in one."""


UNKNOWN = (
    "Neither the picture nor the pack answers this. What can be asked, in English: is it a ..., which defect, where, how large, "
    "how large it may be, how many, why, how serious, what to do, may it be used, how sure."
)


def asked_about(question: Question) -> tuple[str, str] | None:
    """Intent of a question, and the defect that it names; None where it asks for the state of the part."""
    from sage_ad.evaluation.judge.defect_match import concepts_of

    text = re.sub(r",? or not\b", "", " ".join(question.text.casefold().split()))
    if (kind := OF_A_KIND.match(text)) and concepts_of(text) and not PRESENT.search(text):
        subject = text[kind.end() :]
        head = subject.split()[: 2 if len(subject.split()) > 2 else 1]  # "is glass cracked?" asks for the state
        if kind["some"] or concepts_of(" ".join(head)) or ALLOWED.search(subject):
            return "limit", ""
    for intent, pattern in PATTERNS:
        # "Must it be kept back?" asks for the state with the sign turned, "is it within tolerance?" for the state.
        turned = intent == "use" and question.polarity == "anomalous" and re.search(r"\b(?:not|never|kept)\b", text)
        state = intent == "limit" and question.polarity and not re.search(r"\b(?:how|what|which)\b", text)
        if re.search(pattern, text) and not turned and not state:
            return intent, ""
    if (granted := OF_THIS.match(text)) and concepts_of(text[granted.end() :].split()[0]) and not PRESENT.search(text):
        return "unknown", ""
    if (found := IS_IT.match(text) or ANY.match(text)) and concepts_of(name := found["name"]):
        if re.search(r"\bor\b", name):
            return "name", ""
        return "is it not" if re.search(r"\b(?:not|no)\b", text) else "is it", name
    # With a yes or no it asks for the state of the part; in several lines it brings choices to pick from.
    return ("unknown", "") if question.polarity is None and "\n" not in question.text.strip() else None


def parts_of(question: Question) -> list[Question]:
    """The questions in one ("Is it a crack and how large is it?"), where each asks what can be answered; else that one."""
    from sage_ad.evaluation.questions import read_question

    parts = [read_question(part) for part in ALSO.split(question.text) if part.strip()]
    intents = [asked_about(part) for part in parts]
    return parts if len(set(intents)) > 1 and None not in intents and ("unknown", "") not in intents else [question]


def answer_asked(
    question: Question,
    intent: str,
    named: str,
    state: InspectionState,
    cards: Cards,
    limits: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The answer to a question of a known intent (`asked_about`), as a `TraceAnswer` dump; `limits` are facts for "limit"."""
    nothing = unseen_line(taught) if (taught := state.get("taught_as")) else "Nothing stands out."
    doubt = _doubt(state["evidence"])
    if intent == "limit":
        verdict, text = None, _limit(question, limits, state, cards)
    elif intent == "unknown":
        verdict, text = None, UNKNOWN
    elif intent == "explain":
        verdict, text = None, _explanation(state, cards)
    elif intent == "use":
        verdict = state["evidence"]["verdict"] == "normal"
        text = f"Yes, as far as was measured. {nothing}" if verdict else f"No. {_action(state, cards)}"
        if verdict and (taught or doubt):
            verdict, text = None, f"That is not {'known' if taught else 'sure'}. {nothing if taught else doubt}"
    elif state["evidence"]["verdict"] == "normal" and intent != "trust":
        verdict = False if intent == "is it" and not taught and not doubt else None
        text = f"No. {nothing}" if verdict is False else nothing if taught or intent != "is it" else doubt
    elif named:
        verdict, text = _is_it(named, state, cards, wanted=intent == "is it")
    else:
        verdict, text = None, _ANSWERS[intent](state, cards)
    told = [fact for fact in state["facts"] if fact["text"].rstrip(".") in text]
    answer = TraceAnswer(
        question=question.text,
        family=question.family,
        verdict=verdict,
        text=text,
        facts=list(dict.fromkeys(fact["id"] for fact in (*limits, *told))),
    )
    return answer.model_dump(mode="json")


def _doubt(evidence: EvidenceSummary) -> str:
    """Why a normal part is not surely one; empty where nothing speaks against it."""
    if evidence["threshold_from"] == "builtin":
        return "Nothing stands out, but no good part was there to compare with."
    if evidence["confidence"] is not None and evidence["confidence"] < UNSURE:
        return "Nothing stands out, but the score is close to the threshold."
    return ""


def _explanation(state: InspectionState, cards: Cards) -> str:
    text, _ = explanation(
        state["evidence"], product=state["product"], defect=state["defect"], candidates=state["candidates"], cards=cards,
        facts=state["facts"], taught_as=state.get("taught_as"),
    )  # fmt: skip
    return " ".join(text.splitlines())


def _is_it(named: str, state: InspectionState, cards: Cards, *, wanted: bool) -> tuple[bool | None, str]:
    """Verdict and text for "is it a ...?" (`wanted`), or for "is it not a ...?"."""
    from sage_ad.evaluation.judge.defect_match import concepts_of

    defect, asked = state["defect"], concepts_of(named)

    def same(name: str) -> bool:
        return named in name.casefold() or bool(asked & concepts_of(name))

    if defect is not None:
        holds = same(defect) == wanted
        return holds, f"{'Yes' if holds else 'No'}. {_name(state, cards)}"
    return None, f"That is not known. {_name(state, cards)}"


def _name(state: InspectionState, cards: Cards) -> str:
    return name_line(state["defect"], state["candidates"], state["product"], cards)


def _likeliest(state: InspectionState, cards: Cards) -> str:
    """The candidates, where there are any; how to teach a name is told where a name is asked for."""
    return f" {_name(state, cards)}" if state["candidates"] else ""


def _regions(state: InspectionState, tell: Callable[[dict[str, Any]], str]) -> str:
    lines = [f"{sentence_case(region['place'])}: {tell(region)}." for region in state["evidence"]["regions"]]
    return " ".join(lines) or "No area stands out enough to be marked."


def _size(state: InspectionState, cards: Cards) -> str:
    del cards
    scale = state["settings"]["mm_per_pixel"]

    def tell(region: dict[str, Any]) -> str:
        return Description.from_dict(region["measured"]).size_in_words(scale)

    hint = "" if scale else " With the scale of the picture (millimetres per pixel), sizes are in millimetres, too."
    return _regions(state, tell) + hint


def _limit(question: Question, limits: Sequence[dict[str, Any]], state: InspectionState, cards: Cards) -> str:
    from sage_ad.evaluation.judge.defect_match import concepts_of

    defect, asked = state["defect"], concepts_of(question.text)
    if defect and asked and not asked & concepts_of(defect):
        defect = None  # the limit of another defect; what was measured is no measure of that
    searched = state["domain"] is not None and state["settings"]["facts"] != "none"
    said = limit_line(limits, state["product"], defect, searched=searched)
    return f"{said} Measured: {_size(state, cards)}" if defect else said


def _depth(state: InspectionState, cards: Cards) -> str:
    return f"Depth does not show in one picture. Length and width: {_size(state, cards)}"


def _severity(state: InspectionState, cards: Cards) -> str:
    defect = state["defect"]
    if defect is None:
        return f"Its severity is not known, for the defect has no name.{_likeliest(state, cards)}"
    card = card_of(defect, cards)
    told = [f"{defect.capitalize()}: usually {card.severity}."] if card else []
    lines = [*told, *consequence_lines(defect, cards, state["facts"], [])]
    return " ".join(lines) or f"The pack tells nothing of what follows from {with_article(defect)}."


def _number(state: InspectionState, cards: Cards) -> str:
    del cards
    count = len(state["evidence"]["regions"])
    return f"{count} area{'s' * (count != 1)} stand{'s' * (count == 1)} out; one defect can show as several areas."


def _place(state: InspectionState, cards: Cards) -> str:
    del cards
    return _regions(
        state,
        lambda region: "box x {} to {}, y {} to {} px".format(*(region["box"][i] for i in (0, 2, 1, 3))),
    )


def _appearance(state: InspectionState, cards: Cards) -> str:
    del cards
    return _regions(state, lambda region: region["description"])


def _action(state: InspectionState, cards: Cards) -> str:
    lines = consequence_lines(state["defect"], cards, state["facts"], [])
    return " ".join(
        [sentence_case(action_line(state["defect"], cards, state["evidence"]).removeprefix("What to do: ")), *lines]
    )


def _cause(state: InspectionState, cards: Cards) -> str:
    defect = state["defect"]
    if defect is None:
        return f"The cause is not known, for the defect has no name.{_likeliest(state, cards)}"
    if (card := card_of(defect, cards)) is None:
        told = facts_about(defect, cards, state["facts"], "cause")
        return " ".join(fact["text"] for fact in told) or f"The pack tells no cause of {with_article(defect)}."
    # Causes are phrases with an "and" of their own.
    return f"{defect.capitalize()}: {'; '.join(cause.rstrip('.') for cause in card.causes)}."


def _trust(state: InspectionState, cards: Cards) -> str:
    del cards
    return sentence_case(trust_line(state["evidence"]).removeprefix("How sure: "))


_ANSWERS: dict[str, Callable[[InspectionState, Cards], str]] = {
    "depth": _depth,
    "size": _size,
    "number": _number,
    "place": _place,
    "action": _action,
    "cause": _cause,
    "severity": _severity,
    "trust": _trust,
    "name": _name,
    "appearance": _appearance,
}
