"""MMAD: multiple-choice questions in seven subtasks about images of other sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_ad.evaluation.datasets.records import RecordDataset, find_image, first_records, text_of
from sage_ad.evaluation.datasets.sample import GOOD, Sample
from sage_ad.evaluation.inspection import Family
from sage_ad.evaluation.questions import GoldQuestion, polarity_of

FAMILY_OF_SUBTASK: dict[str, Family] = {
    "Anomaly Detection": "standard comparison",
    "Defect Analysis": "defect diagnosis",
    "Object Classification": "standard comparison",
    "Object Analysis": "standard comparison",
}


class MMAD(RecordDataset):
    """One object: image path -> {`similar_templates`, `random_templates`, `mask_path`, `conversation`}."""

    format = "mmad"
    layout = (
        "one JSON object: image path to {similar_templates, mask_path, conversation: [{Question, Options, Answer}]}"
    )

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return any(isinstance(record, dict) and "conversation" in record for _, record in first_records(root))

    def _category(self, key: str, record: dict[str, Any]) -> str:
        parts = key.replace("\\", "/").strip("/").split("/")
        return "/".join(parts[:2]) if len(parts) > 2 else parts[0]

    def _records(self, category: str) -> Iterator[Sample]:
        for path, key, record in self._read():
            if isinstance(record.get("conversation"), list) and self._category(key, record) == category:
                yield self._sample(path, key, category, record)
            elif "conversation" in record and not isinstance(record["conversation"], list):
                self.report(key, "its conversation is no list")

    def _sample(self, path: Path, key: str, category: str, record: dict[str, Any]) -> Sample:
        base = path.parent
        templates = record.get("similar_templates") or record.get("random_templates") or []
        references = [find_image(base, name) for name in templates if isinstance(name, str)]
        for missing in [reference for reference in references if not reference.is_file()]:
            self.report(missing, "this template is missing")
        references = [reference for reference in references if reference.is_file()]
        mask_name = text_of(record, "mask_path")
        # The path is relative to the set's folder, or (as published) to the category's.
        mask = find_image(base, mask_name) if mask_name else None
        if mask and not mask.is_file():
            mask = find_image(base / category, mask_name)
        if mask and not mask.is_file():
            self.report(mask, "this mask is missing")
            mask = None
        questions = tuple(self._questions(key, record))
        defect = self._defect(key)
        return Sample(
            image=find_image(base, key),
            category=category,
            split="test",
            defect=defect,
            anomalous=defect != GOOD,
            masks=(mask,) if mask else (),
            mask_kind="pixel" if mask else None,
            reference=references[0] if references else None,
            meta={"references": [str(reference) for reference in references]},
            questions=questions,
            id=key,
        )

    @staticmethod
    def _defect(key: str) -> str:
        """MMAD's paths end in <defect>/<file>, with "good" for good parts."""
        parts = key.replace("\\", "/").strip("/").split("/")
        name = parts[-2] if len(parts) > 2 else "defect"
        return GOOD if name.lower() in ("good", "normal", "ok") else name

    def _questions(self, key: str, record: dict[str, Any]) -> Iterator[GoldQuestion]:
        anomalous = self._defect(key) != GOOD
        for number, entry in enumerate(record["conversation"], start=1):
            if not isinstance(entry, dict):
                self.report(key, f"question {number} is no object")
                continue
            options = entry.get("Options")
            letter, text = text_of(entry, "Answer"), text_of(entry, "Question")
            if not text or not isinstance(options, dict) or letter not in options:
                self.report(key, f"question {number} lacks its text, its options, or an answer that is one of them")
                continue
            subtask = text_of(entry, "type") or "unnamed"
            yield GoldQuestion(
                text=text,
                family=FAMILY_OF_SUBTASK.get(subtask, "defect identification"),
                polarity=polarity_of(text) if subtask == "Anomaly Detection" else None,
                anomalous=anomalous,
                reference_answer=str(options[letter]),
                group=key,
                options=tuple((str(name), str(option)) for name, option in options.items()),
                letter=letter,
                subtask=subtask,
            )
