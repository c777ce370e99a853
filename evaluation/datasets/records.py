"""What the sets of JSON records (AD-PL, MANTA, MMAD) share: finding their files, images and verdicts."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from sage_ad.evaluation.datasets.common import InspectionDataset, json_records
from sage_ad.evaluation.datasets.sample import GOOD, Sample
from sage_ad.evaluation.inspection import FAMILIES, Family
from sage_ad.evaluation.questions import GoldQuestion, family_of, state_of
from sage_ad.vlm.errors import InputError

ENDINGS = (".json", ".jsonl")


class _Quiet:
    """Stands in for a data set while a file is only looked at: what is broken is reported when it is really read."""

    def report(self, path: str | Path, reason: str) -> None:
        del path, reason

    def _short(self, path: str | Path) -> str:
        return str(path)


def record_files(root: Path) -> list[Path]:
    """The JSON files of a set: the file itself, or those directly in its folder, sorted."""
    if root.is_file():
        return [root] if root.suffix.lower() in ENDINGS else []
    try:
        return sorted(entry for entry in root.iterdir() if entry.suffix.lower() in ENDINGS and entry.is_file())
    except OSError:
        return []


def first_records(root: Path, count: int = 1) -> Iterator[tuple[str, Any]]:
    """The first records of each JSON file of a set, for telling its format."""
    for path in record_files(root):
        yield from islice(json_records(path, _Quiet()), count)  # type: ignore[arg-type]


def find_image(base: Path, name: str) -> Path:
    """The file that a record's path means: below the JSON's folder or the one above it, however much of it is foreign.

    Sets are written on other machines ("/data/mvtec/bottle/..."), so leading parts are dropped until the rest exists.

    Returns:
        The file found, else where it was expected (its absence is then reported with that path).
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    parts = tuple(part for part in parts if part not in ("/", "..", "."))
    for start in range(len(parts)):
        for folder in (base, base.parent):
            candidate = folder.joinpath(*parts[start:])
            if candidate.is_file():
                return candidate
    return base.joinpath(*parts)


def text_of(record: dict[str, Any], *names: str) -> str:
    """The first of these fields that holds text; an empty string if none does."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def verdict_in(answer: str) -> bool | None:
    """The verdict that an answer opens with ("True.", "No, ..."), or None."""
    found = re.match(r"\W*(true|yes|false|no)\b", answer.strip().lower())
    return None if found is None else found.group(1) in ("true", "yes")


class RecordDataset(InspectionDataset):
    """Base of the sets that are one list of JSON records; a record's category stands in it."""

    def _read(self) -> Iterator[tuple[Path, str, dict[str, Any]]]:
        """All records with their file and key; what is no object is reported."""
        for path in record_files(self.root):
            for key, record in json_records(path, self):
                if isinstance(record, dict):
                    yield path, key, record
                else:
                    self.report(f"{path.name} record {key}", "this record is no JSON object")

    @abstractmethod
    def _category(self, key: str, record: dict[str, Any]) -> str:
        """Name of the product that a record is about."""

    def _find_categories(self) -> list[str]:
        names = {self._category(key, record) for _, key, record in self._read()}
        if not names and self.problems:
            raise InputError(f"{self.root} holds no readable record ({self.problems[0]}); check the file.")
        return sorted(names)


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


class QuestionRecords(RecordDataset):
    """Base of the sets whose records name `test_image`, `pair_type` and `question_answer`, a list of questions.

    Attributes:
        answered_by: the field of a question that holds its answer, by which the format is recognised.
        unanswered: what a record without a usable question lacks.
    """

    answered_by = ""
    unanswered = ""

    @classmethod
    def recognises(cls, root: Path) -> bool:
        for _, record in first_records(root):
            asked = record.get("question_answer") if isinstance(record, dict) else None
            if isinstance(asked, list) and asked and isinstance(asked[0], dict) and cls.answered_by in asked[0]:
                return True
        return False

    @abstractmethod
    def _questions(self, place: str, group: str, record: dict[str, Any]) -> list[GoldQuestion]:
        """The usable questions of a record; what is wrong with the others is reported at `place`."""

    def _records(self, category: str) -> Iterator[Sample]:
        for path, key, record in self._read():
            if self._category(key, record) == category and (sample := self._sample(path, key, category, record)):
                yield sample

    def _sample(self, path: Path, key: str, category: str, record: dict[str, Any]) -> Sample | None:
        place, identity, name = f"{path.name} record {key}", f"{path.stem}/{key}", text_of(record, "test_image")
        if not name:
            self.report(place, "the record names no test_image")
            return None
        questions = self._questions(place, identity, record)
        if not questions:
            self.report(place, f"the record has no question with {self.unanswered}")
            return None
        reference = text_of(record, "reference_image")
        found = find_image(path.parent, reference) if reference else None
        if found and not found.is_file():
            self.report(found, "this reference image is missing")
            found = None
        anomalous = state_from(questions)
        meta = {"pair_type": text_of(record, "pair_type")}
        return Sample(
            image=find_image(path.parent, name),
            category=category,
            split="test",
            defect="defect" if anomalous else GOOD,
            anomalous=anomalous,
            reference=found,
            meta=meta | {"conclusion": text} if (text := text_of(record, "conclusion_en")) else meta,
            questions=tuple(questions),
            id=identity,
        )
