"""What a model that sees replies: the JSON that is asked for, and reading whatever comes instead.

A server with structured output gives the object as asked. Others wrap it in words or code fences, break off in the
middle, or number their sentences; all of that is read, and `VlmReply.how` says which it was. Nothing is made up.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from sage_ad.evaluation.inspection import Verdict
from sage_ad.vlm.backends.json_reply import json_object_with

REPLY_FORM = (
    '{"state": "normal" or "anomalous", "defect": name of the defect or null, '
    '"answers": {"q1": {"text": "...", "facts": [numbers of the facts that it uses]}, ...}}'
)


@dataclass
class VlmReply:
    """A reply, read.

    Attributes:
        state: the state that the model gives the part; None if it gives none.
        defect: the defect in its words; None if it names none.
        texts: question number (from 0) to its answer.
        facts: question number to the facts that the answer names, as numbers from 0.
        how: "JSON", "broken JSON", "numbered lines", "plain text" or "nothing readable".
    """

    state: Verdict | None = None
    defect: str | None = None
    texts: dict[int, str] = field(default_factory=dict)
    facts: dict[int, list[int]] = field(default_factory=dict)
    how: str = "nothing readable"


def reply_schema(questions: int) -> dict[str, Any]:
    """The JSON schema of a reply to so many questions, in the strict form that hosted services ask for."""
    answer = _closed({"text": {"type": "string"}, "facts": {"type": "array", "items": {"type": "integer"}}})
    return _closed(
        {
            "state": {"type": "string", "enum": ["normal", "anomalous"]},
            "defect": {"type": ["string", "null"]},
            "answers": _closed({f"q{number}": answer for number in range(1, questions + 1)}),
        }
    )


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_reply(text: str, questions: int) -> VlmReply:
    """Reads a reply to so many questions: JSON, JSON that broke off, numbered lines, or a plain text to one question."""
    found = json_object_with(text, "answers")
    if found is not None:
        return _from_object(found, questions)
    for read in (_from_broken_object, _from_lines):
        reply = read(text, questions)
        if reply.texts:
            return reply
    plain = " ".join(text.split())
    if questions == 1 and plain and not plain.startswith(("{", "[")):
        return VlmReply(texts={0: one_sentence(plain)}, how="plain text")
    return VlmReply()


def _from_object(found: dict[str, Any], questions: int) -> VlmReply:
    state, defect = found.get("state"), found.get("defect")
    reply = VlmReply(how="JSON")
    reply.state = state if state in ("normal", "anomalous") else None
    reply.defect = defect if isinstance(defect, str) else None
    answers = found["answers"]
    if isinstance(answers, list):  # some models number by place
        answers = {f"q{number}": answer for number, answer in enumerate(answers, start=1)}
    for number in range(questions):
        answer = answers.get(f"q{number + 1}") if isinstance(answers, dict) else None
        said = answer.get("text") if isinstance(answer, dict) else answer
        if isinstance(said, str) and said.strip():
            reply.texts[number] = one_sentence(said)
        if isinstance(answer, dict) and isinstance(answer.get("facts"), list):
            reply.facts[number] = [n - 1 for n in answer["facts"] if type(n) is int and n > 0]
    return reply


_ANSWER = re.compile(r'"q(\d+)"\s*:\s*(?:\{\s*"text"\s*:\s*)?"((?:[^"\\]|\\.)*)"')
_STATE = re.compile(r'"state"\s*:\s*"(normal|anomalous)"')
_DEFECT = re.compile(r'"defect"\s*:\s*"((?:[^"\\]|\\.)*)"')
_LINE = re.compile(r"^\W*(?:q(?:uestion)?\s*|answer\s*)?(\d+)\s*[.):-]\W*(\w.*)$", re.IGNORECASE)


def _from_broken_object(text: str, questions: int) -> VlmReply:
    """What can be read of an object that broke off (a length limit) or is not quite JSON: whole strings only."""
    reply = VlmReply(how="broken JSON")
    for number, said in _ANSWER.findall(text):
        if 1 <= int(number) <= questions and said.strip():
            reply.texts.setdefault(int(number) - 1, one_sentence(_unescaped(said)))
    if state := _STATE.search(text):
        reply.state = "normal" if state.group(1) == "normal" else "anomalous"
    if defect := _DEFECT.search(text):
        reply.defect = _unescaped(defect.group(1))
    return reply


def _from_lines(text: str, questions: int) -> VlmReply:
    """Numbered lines: "1. Yes, ...", "Q2: ..."."""
    reply = VlmReply(how="numbered lines")
    for line in text.splitlines():
        found = _LINE.match(line)
        if found and 1 <= int(found.group(1)) <= questions:
            reply.texts.setdefault(int(found.group(1)) - 1, one_sentence(found.group(2)))
    return reply


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def one_sentence(text: str) -> str:
    """An answer on one line, without the yes or no that opens it (the evidence decides that) and with a full stop."""
    plain = " ".join(text.split()).strip("` ")
    if plain[:1] in ("'", '"') and plain.count(plain[0]) == 2 and plain.endswith(plain[0]):
        plain = plain[1:-1]
    plain = re.sub(r"^(?:yes|no|true|false)\b\s*[.,:;!-]*\s*", "", plain, flags=re.IGNORECASE)
    if not plain:
        return ""
    return plain[0].upper() + plain[1:] + ("" if plain.endswith((".", "!", "?")) else ".")
