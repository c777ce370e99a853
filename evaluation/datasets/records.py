"""What the sets of JSON records (AD-PL, MANTA, MMAD) share: finding their files, images and verdicts."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from sage_ad.evaluation.datasets.common import InspectionDataset, json_records
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
