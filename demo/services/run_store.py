"""`RunStore`: past inspections on disk, one folder each, every visitor's apart from the others'.

runs/<owner>/<run>/run.json holds the trace and what was asked; beside it stand the shown pictures (WebP) and the files
as they were uploaded (test part and first good part), which rankings and quality files need.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sage_ad.demo.services.pictures import Shown
from sage_ad.evaluation.inspection import InspectionTrace
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import safe_name, write_whole

_RUN = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_OWNER = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class Run:
    """One kept inspection.

    Attributes:
        id: its name, which begins with date and time (UTC).
        created: when, ISO 8601.
        part: file name of the test image as it was uploaded.
        request: what was asked: file names, questions, settings, model.
        trace: what was found.
        pictures: what was shown.
        folder: where it lies.
    """

    id: str
    created: str
    part: str
    request: dict[str, Any]
    trace: InspectionTrace
    pictures: Shown
    folder: Path

    @property
    def original(self) -> Path | None:
        """The test image as it was uploaded, if it is still there."""
        return next(iter(sorted(self.folder.glob("test-original*"))), None)

    @property
    def original_reference(self) -> Path | None:
        """The first good part as it was uploaded, if there was one."""
        return next(iter(sorted(self.folder.glob("reference-original*"))), None)

    def label(self) -> str:
        """One line for a list: when, what, and what was found."""
        when = self.created[:16].replace("T", " ")
        found = self.trace.verdict + (f" ({self.trace.defect})" if self.trace.defect else "")
        return f"{when} · {self.part} · {self.trace.product or 'product not named'} · {found}"

    def matches(self, words: list[str]) -> bool:
        """Whether every word (lower case) occurs in its label, domain, explanation, questions or answers."""
        trace = self.trace
        text = " ".join(
            [
                self.label(),
                trace.domain or "",
                trace.model,
                trace.explanation,
                *(f"{item.question} {item.text}" for item in trace.answers),
            ]
        ).lower()
        return all(word in text for word in words)


class RunStore:
    """Keeps, finds and deletes runs.

    Args:
        root: folder of all runs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()

    def add(
        self, owner: str, trace: InspectionTrace, pictures: Shown, request: dict[str, Any], originals: list[Path]
    ) -> Run:
        """Keeps an inspection; the folder appears whole or not at all.

        Args:
            owner: whose it is (`sage_ad.demo.services.safety.owner_of`).
            trace, pictures: what was found and shown.
            request: what was asked, as JSON values.
            originals: test image and (if there is one) first good part, as uploaded; copied.
        """
        now = datetime.now(UTC)
        name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        folder = self._folder(owner) / name
        draft = folder.with_name(f".{name}")
        record = {
            "id": name,
            "created": now.isoformat(timespec="seconds"),
            "part": safe_name(originals[0].name, "part"),
            "request": request,
            "size": list(pictures.size),
            "references": pictures.references,
            "trace": trace.model_dump(mode="json"),
        }
        try:
            draft.mkdir(parents=True)
            (draft / "test.webp").write_bytes(pictures.test)
            (draft / "heat.webp").write_bytes(pictures.heat)
            if pictures.reference is not None:
                (draft / "reference.webp").write_bytes(pictures.reference)
            for role, path in zip(("test", "reference"), originals, strict=False):
                shutil.copyfile(path, draft / f"{role}-original{path.suffix.lower()}")
            write_whole(draft / "run.json", json.dumps(record, ensure_ascii=False, allow_nan=False))
            draft.rename(folder)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise InputError(
                f"The run cannot be kept in {self.root} ({error.strerror or error}); free some room or set SAGE_HOME."
            ) from None
        return self._read(folder)

    def get(self, owner: str, run: str) -> Run:
        """One of this visitor's runs.

        Raises:
            InputError: this visitor has no such run.
        """
        folder = self._folder(owner) / run if _RUN.fullmatch(run or "") else None
        if folder is None or not folder.is_dir():
            raise InputError("There is no such run (any more); choose another one.")
        return self._read(folder)

    def find(self, owner: str, text: str = "", verdict: str | None = None, limit: int = 50) -> list[Run]:
        """This visitor's runs, newest first, that hold all words of a text."""
        words = text.lower().split()
        found = []
        for run in self._iterate(owner):
            if (not verdict or run.trace.verdict == verdict) and run.matches(words):
                found.append(run)
                if len(found) == limit:
                    break
        return found

    def delete(self, owner: str, run: str) -> None:
        """Deletes a run with its pictures."""
        shutil.rmtree(self.get(owner, run).folder)

    def keep_beside(self, owner: str, run: str, name: str, value: Any) -> None:
        """Writes a JSON value beside a run."""
        write_whole(self.get(owner, run).folder / f"{name}.json", json.dumps(value, allow_nan=False))

    def beside(self, owner: str, run: str, name: str) -> Any | None:
        """A JSON value beside a run, or None."""
        path = self.get(owner, run).folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _folder(self, owner: str) -> Path:
        if not _OWNER.fullmatch(owner):
            raise InputError("This visitor has no runs; open the page again.")
        return self.root / owner

    def _iterate(self, owner: str) -> Iterator[Run]:
        folder = self._folder(owner)
        if not folder.is_dir():
            return
        for entry in sorted(folder.iterdir(), reverse=True):
            if _RUN.fullmatch(entry.name):
                try:
                    yield self._read(entry)
                except InputError:
                    continue  # half-deleted or damaged: it cannot be shown, and the others can

    def _read(self, folder: Path) -> Run:
        try:
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            reference = folder / "reference.webp"
            pictures = Shown(
                test=(folder / "test.webp").read_bytes(),
                reference=reference.read_bytes() if reference.is_file() else None,
                heat=(folder / "heat.webp").read_bytes(),
                size=(int(record["size"][0]), int(record["size"][1])),
                references=int(record["references"]),
            )
            trace = InspectionTrace.model_validate(record["trace"])
            return Run(record["id"], record["created"], record["part"], record["request"], trace, pictures, folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"The run {folder.name} is damaged ({type(error).__name__}); delete it.") from None
