"""Ranked answers: one JSON line is one question with its answers, best first, and what is known to be right.

The same lines go everywhere: `sage-eval judge` measures judges on them, training draws its preference pairs from them.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sage_ad.evaluation.inspection import Family, Gold, Shape
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import whole_file

RankSource = Literal["expert", "writer", "llm"]


class AnswerScore(BaseModel):
    """The levels that a judge gave one answer; null levels where it could not say."""

    model_config = ConfigDict(extra="ignore")

    type: int | None = Field(default=None, ge=1, le=5)
    localisation: int | None = Field(default=None, ge=1, le=5)
    logic: int | None = Field(default=None, ge=1, le=5)
    mean: float | None = Field(default=None, ge=1, le=5)


class RankedAnswers(Shape):
    """One line: a question, its answers best first, and, where known, the gold answer and the scores of a judge.

    Attributes:
        id: names the line; its number in the file when absent.
        image, reference, mask: files; null in a set of texts alone.
        group: names the image; the questions of one image share it.
        pair_type: family of the question.
        facts: texts of facts about the product.
        candidates: taught names that the defect may bear with their probabilities, the likeliest first.
        answers: best first, at least two.
        rank_source: who ranked the answers.
        scores: one score per answer (null: unscored), in the order of `answers`; null before a judge saw them.
        judge: name of the judge that gave the scores.
    """

    id: str | None = None
    image: str | None = None
    reference: str | None = None
    mask: str | None = None
    object: str | None = None
    domain: str | None = None
    group: str | None = None
    pair_type: Family | None = None
    question: str = Field(min_length=1)
    gold: Gold | None = None
    facts: list[str] = Field(default_factory=list)
    candidates: list[tuple[str, float]] = Field(default_factory=list)
    answers: list[str] = Field(min_length=2)
    rank_source: RankSource | None = None
    scores: list[AnswerScore | None] | None = None
    judge: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_facts_are_no_facts(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("facts", ...) is None:
            return {**value, "facts": []}
        return value

    @model_validator(mode="after")
    def _one_score_per_answer(self) -> RankedAnswers:
        if self.scores is not None and len(self.scores) != len(self.answers):
            raise ValueError(f"{len(self.scores)} scores stand beside {len(self.answers)} answers")
        return self


def _line_error(path: Path, number: int, what: str) -> InputError:
    return InputError(f"{path}, line {number}: {what}; mend or remove this line.")


def parse_record(path: Path, number: int, record: dict[str, Any], unknown: Counter[str]) -> RankedAnswers:
    """One line from its JSON object; keys that mean nothing here are left out and counted in `unknown`.

    Raises:
        InputError: a field is missing or wrong; the message names the line.
    """
    known: dict[str, Any] = {key: value for key, value in record.items() if key in RankedAnswers.model_fields}
    unknown.update(key for key in record if key not in known)
    if isinstance(gold := known.get("gold"), dict):
        known["gold"] = {key: value for key, value in gold.items() if key in Gold.model_fields}
        unknown.update(f"gold.{key}" for key in gold if key not in known["gold"])
    try:
        ranked = RankedAnswers.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise _line_error(path, number, f"{field}: {first['msg']}") from None
    return ranked if ranked.id is not None else ranked.model_copy(update={"id": str(number)})


def _parse_line(path: Path, number: int, line: str, unknown: Counter[str]) -> RankedAnswers:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise _line_error(path, number, f"this is no JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict):
        raise _line_error(path, number, "this is no JSON object")
    return parse_record(path, number, record, unknown)


def iterate_ranked(path: str | Path, unknown: Counter[str] | None = None) -> Iterator[RankedAnswers]:
    """Yields the lines of a ranked-answers file one by one (empty lines are passed over).

    Args:
        path: the file (JSONL).
        unknown: counts the keys that mean nothing here ("gold.x": within the gold answer); None has them logged.

    Raises:
        InputError: the file cannot be read, or a line is wrong; the message names the line.
    """
    path = Path(path)
    counted = Counter[str]() if unknown is None else unknown
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _parse_line(path, number, line, counted)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file of ranked answers (JSONL).") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text; give a file of ranked answers (JSONL).") from None
    if unknown is None and counted:
        logging.getLogger(__name__).warning("%s: %s", path, unknown_in_words(counted))


def unknown_in_words(unknown: Counter[str]) -> str:
    """The sentence about keys that were ignored."""
    return "ignored keys that are not known: " + ", ".join(f"{key} ({n} lines)" for key, n in unknown.items())


def read_ranked(path: str | Path, unknown: Counter[str] | None = None) -> list[RankedAnswers]:
    """All lines of a ranked-answers file; raises `InputError` as `iterate_ranked` does, and for a file without lines."""
    lines = list(iterate_ranked(path, unknown))
    if not lines:
        raise InputError(f"{path} holds no ranked answers; give a file with one JSON object a line.")
    return lines


def write_ranked(path: str | Path, lines: Iterable[RankedAnswers]) -> int:
    """Writes ranked answers as JSONL and returns how many; the file appears whole or not at all."""
    path, count = Path(path), 0
    try:
        with whole_file(path) as stream:
            for line in lines:
                stream.write(json.dumps(line.model_dump(mode="json"), ensure_ascii=False).encode() + b"\n")
                count += 1
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another file.") from None
    return count
