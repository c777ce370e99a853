"""AD-PL: preference data with four ranked answers a question; read into `Sample`s, written from ranked answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sage_ad.evaluation.datasets.records import QuestionRecords, family_named, text_of, verdict_in
from sage_ad.evaluation.questions import GoldQuestion, polarity_of, state_of
from sage_ad.vlm.errors import InputError

GROUPS = frozenset({"train", "test", "validation", "images", "image", "data", "rgb"})
"""Folder names in an image's path that name no product."""


class ADPL(QuestionRecords):
    """Records: `pair_type`, `test_image`, `reference_image`, `question_answer`: 5 x {question, 4 ranked answers}."""

    format = "adpl"
    layout = "JSON records with test_image, reference_image and question_answer: [{question_en, answer_options: [...]}]"

    answered_by, unanswered = "answer_options", "ranked answers"

    def _category(self, key: str, record: dict[str, Any]) -> str:
        named = text_of(record, "category", "object", "domain")
        if named:
            return named
        # The schema has no product; in the paths of the source sets it is the folder above train or test.
        parts = text_of(record, "test_image").replace("\\", "/").split("/")[:-1]
        for number, part in enumerate(parts):
            if part.lower() in GROUPS and number:
                return parts[number - 1]
        return parts[-1] if parts else "unnamed"

    def _questions(self, place: str, group: str, record: dict[str, Any]) -> list[GoldQuestion]:
        questions = []
        entries = record.get("question_answer")
        for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
            text = text_of(entry, "question_en", "question_cn") if isinstance(entry, dict) else ""
            options = entry.get("answer_options") if isinstance(entry, dict) else None
            answers = [_answer(option) for option in options] if isinstance(options, list) else []
            answers = [answer for answer in answers if answer]
            if not text or not answers:
                self.report(place, f"question {number} has no text or no answer")
                continue
            polarity, verdict = polarity_of(text), verdict_in(answers[0])
            known = polarity is not None and verdict is not None
            questions.append(
                GoldQuestion(
                    text=text,
                    family=family_named(text_of(record, "pair_type"), text),
                    polarity=polarity,
                    verdict=verdict,
                    anomalous=bool(known and polarity and state_of(polarity, bool(verdict)) == "anomalous"),
                    reference_answer=answers[0],
                    group=group,
                    ranked=tuple(answers),
                )
            )
        return questions


def _answer(option: Any) -> str:
    """An answer's text: the schema has objects, exports of it have plain strings."""
    if isinstance(option, str):
        return option.strip()
    return text_of(option, "answer_en", "answer_cn") if isinstance(option, dict) else ""


def ranked_lines(dataset: ADPL) -> Iterator[dict[str, Any]]:
    """The set as lines of ranked answers (contracts.md), with the fields that it has something for."""
    for sample in dataset.samples():
        for number, question in enumerate(sample.questions, start=1):
            yield {
                "id": f"{sample.id}/{number}",
                "image": str(sample.image),
                "reference": str(sample.reference) if sample.reference else None,
                "object": sample.category,
                "group": question.group,
                "pair_type": question.family,
                "question": question.text,
                "gold": None if question.verdict is None else question.gold().model_dump(mode="json"),
                "answers": list(question.ranked),
                "rank_source": "expert",
            }


def write_adpl(lines: Iterable[dict[str, Any]], path: str | Path) -> int:
    """Writes lines of ranked answers (contracts.md) as AD-PL: one record a `group`, in the order of their first lines.

    Returns:
        The number of records.

    Raises:
        InputError: a line lacks its question or answers.
    """
    records: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.get("question") or not line.get("answers"):
            raise InputError(f"Line {number} of the ranked answers has no question or no answers; mend or remove it.")
        group = str(line.get("group") or line.get("id") or number)
        record = records.setdefault(
            group,
            {
                "pair_type": line.get("pair_type"),
                "category": line.get("object"),
                "test_image": line.get("image"),
                "reference_image": line.get("reference"),
                "question_answer": [],
            },
        )
        # One record may mix families (five questions an image); then no single pair_type is true for all of them.
        if record["pair_type"] != line.get("pair_type"):
            record["pair_type"] = None
        options = [{"answer_en": answer, "answer_cn": None} for answer in line["answers"]]
        record["question_answer"].append(
            {"question_en": line["question"], "question_cn": None, "answer_options": options}
        )
    Path(path).write_text(json.dumps(list(records.values()), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return len(records)
