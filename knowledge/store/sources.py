"""Which facts came from which file, how a changed file replaces its own facts only, and how a source is removed.

Beside a pack's facts stands `ingested.jsonl`: one line for each file that was read to its end. It is how the same
file is known again, and why a file whose taking-in was cut off is read once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sage_ad.knowledge.facts import Fact, FactSource
from sage_ad.knowledge.store.packs import append_records
from sage_ad.vlm.errors import BackendError, InputError

if TYPE_CHECKING:
    from sage_ad.knowledge.store.fact_store import FactStore

JOURNAL = "ingested.jsonl"


@dataclass(frozen=True)
class IngestedFile:
    """A file that was read to its end.

    Attributes:
        file: its path as the facts' sources have it.
        sha256: hash of its content.
        extractor: what took the facts from it.
        date: when, ISO 8601.
        facts: how many facts came from it.
        removed: whether its source was removed since.
    """

    file: str
    sha256: str
    extractor: str
    date: str
    facts: int
    removed: bool = False


@dataclass
class SourceRemoval:
    """What the removal of a source did.

    Attributes:
        removed: facts that had no other source and are gone.
        kept: facts that stay with their other sources.
    """

    removed: list[Fact] = field(default_factory=list)
    kept: list[Fact] = field(default_factory=list)


def remove_source(store: FactStore, source: str, domain: str | None = None) -> SourceRemoval:
    """Removes a source: its facts go, except those that have another source too.

    Args:
        store: the fact store.
        source: a file (any way to write its path, or the path as the facts have it), or a SHA-256.
        domain: only in this domain; None takes all.

    Raises:
        InputError: when no fact has this source.
    """
    names = {source, str(Path(source).expanduser().resolve())}
    outcome = SourceRemoval()
    for name in sorted(names):
        part = drop_sources(store, name, domain, lambda s, name=name: name in (s.file, s.sha256))  # type: ignore[misc]
        outcome.removed += part.removed
        outcome.kept += part.kept
    if not outcome.removed and not outcome.kept:
        raise InputError(f"No fact has the source {source!r}; give the file's path as sage-kb show ID prints it.")
    for owner in {fact.domain for fact in (*outcome.removed, *outcome.kept)}:
        for entry in journal(store, owner).values():
            if entry.file in names or entry.sha256 in names:
                note(store, owner, IngestedFile(**{**asdict(entry), "removed": True}))
    return outcome


def drop_sources(
    store: FactStore, source: str, domain: str | None, goes: Callable[[FactSource], bool]
) -> SourceRemoval:
    """Takes the sources that `goes` picks from the facts that have `source` (a file or hash); see `remove_source`."""
    outcome = SourceRemoval()
    for fact in store.facts(domain, source=source):
        left = tuple(one for one in fact.sources if not goes(one))
        if len(left) == len(fact.sources):
            continue
        if left:
            outcome.kept.append(fact.model_copy(update={"sources": left}))
        else:
            outcome.removed.append(fact)
    if outcome.kept:
        store.put(outcome.kept)
    if outcome.removed:
        store.remove([fact.id for fact in outcome.removed])
    return outcome


def journal(store: FactStore, domain: str) -> dict[str, IngestedFile]:
    """The last entry of each file that was taken into a domain, by file; a damaged line is passed over."""
    entries: dict[str, IngestedFile] = {}
    path = store.user / domain / JOURNAL
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        raise BackendError(f"{path} cannot be read ({error.strerror}); mend its rights and repeat.") from None
    for line in lines:
        try:
            entry = IngestedFile(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue
        entries[entry.file] = entry
    return entries


def note(store: FactStore, domain: str, entry: IngestedFile) -> None:
    """Notes that a file was read to its end; on the disk when this returns."""
    from filelock import FileLock

    path = store.user / domain / JOURNAL
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        append_records(path, [asdict(entry)])


def taken_in(store: FactStore, domain: str, file: str, sha256: str, extractor: str) -> str | None:
    """Under which path this content was taken into a domain with this extractor before; None when it was not.

    A file whose facts were all removed since counts as not read, so that adding it brings them back.
    """
    for entry in journal(store, domain).values():
        if entry.sha256 != sha256 or entry.extractor != extractor or entry.removed:
            continue
        if entry.file != file and Path(entry.file).exists():
            continue  # two copies of one file: both are sources
        if entry.facts == 0 or next(iter(store.iterate(domain, source=sha256)), None) is not None:
            return entry.file
    return None
