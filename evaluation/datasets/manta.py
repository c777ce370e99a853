"""MANTA's questions: a domain, an image, and statements about it that are true or false."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_ad.evaluation.datasets.records import RecordDataset, find_image, first_records, text_of
from sage_ad.evaluation.datasets.sample import GOOD, Sample
from sage_ad.evaluation.inspection import FAMILIES, Family
from sage_ad.evaluation.questions import GoldQuestion, family_of, polarity_of, state_of


def family_named(name: str, question: str) -> Family:
    """The family that a record's `pair_type` names, else the one that the question reads like."""
    plain = name.strip().lower().replace("_", " ")
    return next((family for family in FAMILIES if family == plain), None) or family_of(question)


def state_from(questions: list[GoldQuestion]) -> bool | None:
    """Whether the part is anomalous, from the right answers to its questions; None if they say nothing or disagree."""
    states = {
        state_of(question.polarity, question.verdict)
        for question in questions
        if question.polarity is not None and question.verdict is not None
    }
    return states == {"anomalous"} if len(states) == 1 else None


class MANTA(RecordDataset):
    """Records: `domain`, `test_image`, `pair_type`, `conclusion_en`, `question_answer`: [{`question_en`, `answer`}]."""

    format = "manta"
    layout = (
        "JSON records with domain, test_image, pair_type and question_answer: [{question_en, answer: true or false}]"
    )

    @classmethod
    def recognises(cls, root: Path) -> bool:
        for _, record in first_records(root):
            answers = record.get("question_answer") if isinstance(record, dict) else None
            if isinstance(answers, list) and answers and isinstance(answers[0], dict) and "answer" in answers[0]:
                return True
        return False

    def _category(self, key: str, record: dict[str, Any]) -> str:
        return text_of(record, "domain") or "unnamed"

    def _records(self, category: str) -> Iterator[Sample]:
        for path, key, record in self._read():
            if self._category(key, record) == category:
                sample = self._sample(path, key, category, record)
                if sample:
                    yield sample

    def _sample(self, path: Path, key: str, category: str, record: dict[str, Any]) -> Sample | None:
        place = f"{path.name} record {key}"
        name = text_of(record, "test_image")
        if not name:
            self.report(place, "the record names no test_image")
            return None
        identity = f"{path.stem}/{key}"
        questions = self._questions(place, identity, record)
        if not questions:
            self.report(place, "the record has no question with an answer")
            return None
        anomalous = state_from(questions)
        return Sample(
            image=find_image(path.parent, name),
            category=category,
            split="test",
            defect="defect" if anomalous else GOOD,
            anomalous=anomalous,
            meta={"pair_type": text_of(record, "pair_type"), "conclusion": text_of(record, "conclusion_en")},
            questions=tuple(questions),
            id=identity,
        )

    def _questions(self, place: str, group: str, record: dict[str, Any]) -> list[GoldQuestion]:
        questions = []
        entries = record.get("question_answer")
        for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
            text = text_of(entry, "question_en", "question") if isinstance(entry, dict) else ""
            if not text or not isinstance(entry.get("answer"), bool):
                self.report(place, f"question {number} has no text, or its answer is not true or false")
                continue
            verdict: bool = entry["answer"]
            polarity = polarity_of(text)
            conclusion = text_of(entry, "conclusion_en") or text_of(record, "conclusion_en")
            questions.append(
                GoldQuestion(
                    text=text,
                    family=family_named(text_of(record, "pair_type"), text),
                    polarity=polarity,
                    verdict=verdict,
                    anomalous=polarity is not None and state_of(polarity, verdict) == "anomalous",
                    reference_answer=f"{verdict}. {conclusion}".strip(),
                    group=group,
                )
            )
        return questions
