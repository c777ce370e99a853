"""MANTA's questions: a domain, an image, and statements about it that are true or false."""

from __future__ import annotations

from typing import Any

from sage_ad.evaluation.datasets.records import QuestionRecords, family_named, text_of
from sage_ad.evaluation.questions import GoldQuestion, polarity_of, state_of


class MANTA(QuestionRecords):
    """Records: `domain`, `test_image`, `pair_type`, `conclusion_en`, `question_answer`: [{`question_en`, `answer`}]."""

    format = "manta"
    layout = (
        "JSON records with domain, test_image, pair_type and question_answer: [{question_en, answer: true or false}]"
    )

    answered_by, unanswered = "answer", "an answer"

    def _category(self, key: str, record: dict[str, Any]) -> str:
        return text_of(record, "domain") or "unnamed"

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
