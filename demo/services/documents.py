"""Documents into facts, watched: what each step of the ingestion graph did, and each fact as it takes shape."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.demo.services.fair_queue import Event
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import safe_name

if TYPE_CHECKING:
    from sage_ad.knowledge.store.fact_store import FactStore

DOCUMENT_ENDINGS = (".md", ".txt", ".pdf", ".docx", ".html", ".htm", ".xlsx", ".csv", ".tsv", ".json", ".jsonl")
SHOWN_AT_MOST = 200


def keep_documents(paths: Sequence[Path], home: Path, owner: str, domain: str) -> list[Path]:
    """Copies uploads to where they stay, because a fact's source must last longer than an upload.

    A file of the same name by the same visitor replaces the old one, so that its facts are updated; other visitors'
    files of that name are other files.

    Raises:
        InputError: a file has an ending that is not read, or cannot be copied.
    """
    folder = home / "documents" / owner / domain
    kept = []
    for path in paths:
        if path.suffix.lower() not in DOCUMENT_ENDINGS:
            known = ", ".join(DOCUMENT_ENDINGS)
            raise InputError(f"{path.name} has the ending {path.suffix or '(none)'!r}; give a document ({known}).")
        target = folder / safe_name(path.name, "document")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        except OSError as error:
            raise InputError(
                f"{path.name} cannot be kept ({error.strerror}); free some room or set SAGE_HOME."
            ) from None
        kept.append(target)
    return kept


def ingestion(store: FactStore, paths: Sequence[Path], domain: str) -> Iterator[Event]:
    """Takes documents into a domain.

    Yields:
        {"event": "did", "step", "file", "summary"} after each step of each file, {"event": "facts", "facts"} whenever
        more is known of the sentences (a list of {"text", "kind", "outcome", "reason"}), at last
        {"event": "report", "report": IngestionReport}.

    Raises:
        InputError: the domain is unknown.
    """
    from sage_ad.knowledge.ingestion.pipeline import STEPS, Ingestion, IngestionReport, collect_files

    store.facts(domain, source="-")  # an unknown domain is refused before anything is read
    queue, problems = collect_files(list(paths))
    report = IngestionReport(domain, problems=[problem.sentence for problem in problems], files=list(problems))
    graph = Ingestion(store, domain, None, approve=False).graph()
    limits: Any = {"recursion_limit": 10 + len(queue) * (len(STEPS) + 1)}
    state: Any = {"queue": queue, "report": report}
    updates: Iterator[Any] = iter(graph.stream(state, limits, stream_mode=["custom", "updates"]))
    for mode, update in updates:
        if mode == "custom":
            yield {"event": "did", **update, "file": Path(update["file"]).name}
            continue
        for step, values in update.items():
            if (facts := arriving(step, values or {})) is not None:
                yield {"event": "facts", "facts": facts}
    yield {"event": "report", "report": report}


def arriving(step: str, values: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The sentences as one step of the graph left them; None if it says nothing of them."""
    if step in ("extract", "classify"):
        return [
            {"text": one.text, "kind": one.kind, "outcome": None, "reason": ""}
            for one in values["extraction"].candidates[:SHOWN_AT_MOST]
        ]
    if step == "check":
        return [
            {"text": one.fact.text, "kind": one.fact.kind, "outcome": one.outcome, "reason": one.reason}
            for one in values["checked"][:SHOWN_AT_MOST]
        ]
    return None
