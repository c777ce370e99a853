"""The final answer in what a model writes: its thinking set aside, its tags, JSON and verdict labels turned into text.

Reasoning models write `<think>...</think>` before they answer, models trained with format rewards wrap the answer in
tags (`<answer>No</answer>`), others answer in JSON, and inspectors write "NG: scratch at the rim". People read all of
these as "No. A scratch at the rim."; so must whatever judges them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_THINKING = r"think|thinking|thought|thoughts|reflection|scratchpad|inner_monologue"
_PAIRS = (
    re.compile(rf"<\s*({_THINKING})\b[^<>]*>.*?</\s*\1\s*>", re.DOTALL | re.IGNORECASE),
    re.compile(r"\[(THINK)\].*?\[/THINK\]", re.DOTALL),
    re.compile(r"◁(think)▷.*?◁/think▷", re.DOTALL),
    re.compile(r"<\|begin_of_(thought)\|>.*?<\|end_of_thought\|>", re.DOTALL),
)
_THOUGHT_ENDS = re.compile(
    rf"</\s*(?:{_THINKING})\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>\s*final\s*<\|message\|>",
    re.IGNORECASE,
)
_THOUGHT_BEGINS = re.compile(
    rf"<\s*(?:{_THINKING})\b[^<>]*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>\s*analysis\s*<\|message\|>",
    re.IGNORECASE,
)
_VERDICTS = (
    "answer",
    "final_answer",
    "finalanswer",
    "final",
    "verdict",
    "decision",
    "conclusion",
    "judgement",
    "judgment",
    "result",
)
_VERDICT_TAG = re.compile(rf"<\s*({'|'.join(_VERDICTS)})\b[^<>]*>(.*?)</\s*\1\s*>", re.DOTALL | re.IGNORECASE)
_UNCLOSED_VERDICT = re.compile(rf"<\s*(?:{'|'.join(_VERDICTS)})\s*>", re.IGNORECASE)
_BOXED = re.compile(
    r"(?:\b(?:the |my )?(?:final )?answer(?: is)?:?\s*)?\$?(?:\\boxed\{\s*(?:\\text\{)?\s*([^{}]*?)\s*\}+|"
    r"<\|begin_of_box\|>(.*?)<\|end_of_box\|>)\$?[.]?",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>|<\|[\w/]+\|>")
_INLINE = re.compile(
    r"</?(?:b|i|u|em|strong|span|code|mark|small|sub|sup|a|ref|box|font|image|s)(?:\s[^<>]*)?>", re.IGNORECASE
)
_FENCED = re.compile(r"\A\s*```[\w-]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_STATES_BAD = re.compile(r"defect|anomal|abnormal|fault|damage|flaw", re.IGNORECASE)
_STATES_GOOD = re.compile(r"normal|good|\bok\b|intact|pass", re.IGNORECASE)
_BAD_LABEL = r"n\.?\s?g\.?|n\.?\s?o\.?\s?k\.?|n\.?\s?i\.?\s?o\.?"
_LABEL = re.compile(
    rf"^[\s*_#>\"'(\[]*(?:(?P<bad>{_BAD_LABEL})|(?P<good>(?-i:i\.?\s?O\.?|O\.?\s?[Kk]\.?|Okay|Accept(?:ed)?|ACCEPT(?:ED)?)))[*_)\]\"']*"
    r"(?=\s*(?:[:;-]|–|—|\n|[.!]?\s*$)|(?<=[\])*])\s|(?(bad)\s*[.,!]|(?!)))",
    re.IGNORECASE,
)
"""A label that opens an answer. "OK" may be a yes as well, so it is a label only where it stands alone or before a colon,
and never in lower case."""
_LABEL_WITHIN = re.compile(r"(?<![\w.])(?:NG|N\.G\.|NOK|n\.?i\.?O\.?)(?!\w)")
_HEADED_OK = re.compile(
    r"\b((?:result|verdict|status|judge?ment|decision|assessment|quality|state|condition|disposition)\s*[:=]\s*)"
    r"(?:ok|o\.k\.|okay|i\.?\s?o\.?)(?=\W|$)",
    re.IGNORECASE,
)
_STATE_LINE = re.compile(
    r"^[\s*_#>-]*(?:defects?|anomal(?:y|ies)|faults?|flaws?|defective|anomalous|damaged?)"
    r"(?: (?:found|present|detected|visible|status))?[\s*_]*[:=][\s*_]*(?:(?P<yes>yes|true|1)|(?P<no>no|none|false|0|nil|n/a))"
    r"\b[*_]*[.,;]?[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)


def final_answer(text: str) -> str:
    """The answer that a text ends in, as plain text: verdict first, then what is said beside it.

    Thinking that is marked as such is set aside; thinking that never ends leaves no answer ("") unless an answer is
    tagged. Of several tagged answers the last one counts. A text without any of these marks comes back as it is.
    """
    answer = without_thinking(text)
    if fenced := _FENCED.match(answer):
        answer = fenced.group(1)
    if (found := _from_json(answer)) is not None:
        answer = found
    elif "<" in answer or "\\boxed" in answer:
        answer = _from_tags(answer)
    return _spell_labels(answer)


def without_thinking(text: str) -> str:
    """The text without what is marked as thinking, also where the mark that opens or closes it is missing."""
    if not _THOUGHT_ENDS.search(text) and not _THOUGHT_BEGINS.search(text):
        return text
    for pair in _PAIRS:
        text = pair.sub(" ", text)
    # Chat templates often put the opening mark into the prompt, so that the reply holds the closing one alone.
    *_, text = _THOUGHT_ENDS.split(text)
    if begun := _THOUGHT_BEGINS.search(text):
        tagged = _VERDICT_TAG.search(text, begun.end()) or _UNCLOSED_VERDICT.search(text, begun.end())
        text = text[: begun.start()] + (text[tagged.start() :] if tagged else "")
    return text.strip()


def _from_tags(text: str) -> str:
    """The text with its tagged verdict in front and all tags taken out."""
    tagged = list(_VERDICT_TAG.finditer(text))
    rest = _VERDICT_TAG.sub(" ", text)
    stated = [bare for match in tagged if (bare := _bare(match.group(2)))]
    if not stated:
        stated = [bare for match in _BOXED.finditer(rest) if (bare := _bare(match.group(1) or match.group(2) or ""))]
        rest = _BOXED.sub(" ", rest)
    if not stated and (begun := _UNCLOSED_VERDICT.search(rest)):
        stated, rest = [_bare(rest[begun.end() :])], rest[: begun.start()]
    return _sentences([stated[-1] if stated else "", _bare(rest)]) if stated or _TAG.search(text) else text


def _bare(text: str) -> str:
    """A text without tags; what stood in different tags becomes different sentences."""
    text = _INLINE.sub("", text)
    return _sentences(_TAG.split(text)) if _TAG.search(text) else text.strip()


def _sentences(pieces: Iterable[str]) -> str:
    """Pieces of text in a row, each ended by a full stop where it has none of its own."""
    stated = [" ".join(piece.split()) for piece in pieces if piece and piece.strip(" \n\t.,;:")]
    return " ".join(piece if piece[-1] in ".!?:;," else f"{piece}." for piece in stated)


def _from_json(text: str) -> str | None:
    """A JSON object of an answer as sentences, verdict first; None where the text is no JSON object."""
    bare = text.strip()
    if not (bare.startswith("{") and bare.endswith("}")):
        return None
    try:
        found = json.loads(bare, strict=False)
    except json.JSONDecodeError:
        return None
    known = {key.lower().replace(" ", "_"): value for key, value in found.items()}
    first = [key for key in _VERDICTS if key in known]
    aside = re.compile(rf"^(?:{_THINKING})$")
    rest = [key for key in known if key not in first and not aside.match(key)]
    return _sentences(_as_sentence(key, known[key], key in first) for key in (*first, *rest))


def _as_sentence(key: str, value: Any, verdict: bool) -> str:
    """One entry of a JSON answer in words; numbers and empty entries say nothing about the part."""
    if isinstance(value, bool):
        if verdict:
            return "Yes" if value else "No"
        if _STATES_BAD.search(key):
            return "The part is defective" if value else "The part is free of defects"
        if _STATES_GOOD.search(key):
            return "The part is good" if value else "The part is defective"
        return ""
    if isinstance(value, str):
        return value
    return _sentences(item for item in value if isinstance(item, str)) if isinstance(value, list) else ""


def _spell_labels(text: str) -> str:
    """A text whose labels ("NG", "n.i.O.", "Defect: none") are spelt out, since they mean a state whatever was asked."""
    if found := _LABEL.match(text):
        state = "It is defective" if found.group("bad") else "It is OK"
        text = state + _joined(text[found.end() :].lstrip(" ."))
    text = _HEADED_OK.sub(r"\1the part is OK", _LABEL_WITHIN.sub("defective", text))
    return _STATE_LINE.sub(
        lambda match: "The part is defective. " if match.group("yes") else "The part is free of defects. ", text
    ).rstrip()


def _joined(rest: str) -> str:
    """What follows a label, with the stop that parts them."""
    if rest[:1] in {":", ";", ",", "!"}:
        return rest
    return f" {rest}" if rest[:1] in {"-", "–", "—"} else f". {rest.strip()}".rstrip()
