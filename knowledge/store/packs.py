"""Packs: folders of plain text that a person can read and a team can review in git. All else is derived from them.

A pack is `pack.yaml` (name, products, synonyms, version, licence), defect cards under `cards/` (see `store.cards`), and
fact files under `facts/`: YAML written by hand, one file a kind, and `records.jsonl`, the log to which commands append.
The packs shipped with SAGE are never written; a user's folder of the same name lies over the shipped one and wins fact
by fact and card by card.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sage_ad.knowledge.facts import KINDS, Fact, FactSource, check_domain_name, fact_from_record, field_fault
from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.files import sync

SHIPPED = Path(__file__).parents[1] / "domains"
"""Folder of the packs that come with SAGE."""

LOG = "records.jsonl"
"""Name of the log of a pack: one fact, or one removal, a line; the last line of an id counts."""

GENERAL = "general"
"""Name of the pack that serves products which no pack names."""

_YAML = (".yaml", ".yml")

# libyaml's loader is ten times as fast as the one in Python, and as safe.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """It refuses a field that an entry has twice, of which YAML takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class Term(BaseModel):
    """A product or a defect with the other names that people use for it; `de` and `zh`: in German and Chinese."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str
    synonyms: tuple[str, ...] = ()
    de: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, in every language, each once."""
        return tuple(dict.fromkeys((self.name, *self.synonyms, *self.de, *self.zh)))


class Pack(BaseModel):
    """The head of a pack, as `pack.yaml` has it.

    `defects` names those that have no card; the store adds the names of the pack's cards. `hints` are words of processes
    and materials ("anodised") that speak for the pack where a product is typed under no known name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str
    title: str = ""
    description: str = ""
    version: str = "0.1.0"
    licence: str = ""
    products: tuple[Term, ...] = ()
    hints: tuple[str, ...] = ()
    defects: tuple[Term, ...] = ()


@dataclass(frozen=True)
class PackFile:
    """One file of a pack on disk.

    Attributes:
        address: where it lies.
        domain: the pack's name.
        shipped: whether it came with SAGE.
        size, mtime_ns, inode: what tells that it changed.
    """

    address: str
    domain: str
    shipped: bool
    size: int
    mtime_ns: int
    inode: int

    @property
    def path(self) -> Path:
        """Its path; made when asked for, because hundreds of files are listed before every look at a fact."""
        return Path(self.address)

    @property
    def label(self) -> str:
        """Its name in citations: `knowledge/domains/...`, or `domains/...` below the user's data folder."""
        inside = self.path.name if self.path.name == "pack.yaml" else f"{self.path.parent.name}/{self.path.name}"
        return f"{'knowledge/' if self.shipped else ''}domains/{self.domain}/{inside}"


def list_pack_files(root: Path, *, shipped: bool) -> list[PackFile]:
    """All files of all packs under `root`, in reading order; an absent folder has none."""
    files: list[PackFile] = []
    for folder in _entries(root):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        inner = [entry for entry in _entries(folder.path) if entry.name == "pack.yaml"]
        inner += [entry for entry in _entries(os.path.join(folder.path, "cards")) if entry.name.endswith(_YAML)]
        inner += [
            entry for entry in _entries(os.path.join(folder.path, "facts")) if entry.name.endswith((*_YAML, ".jsonl"))
        ]
        for entry in inner:
            status = entry.stat()
            if stat.S_ISREG(status.st_mode):
                files.append(
                    PackFile(entry.path, folder.name, shipped, status.st_size, status.st_mtime_ns, status.st_ino)
                )
    return files


def unread_files(root: Path) -> list[str]:
    """One line for every file of text in the packs under `root` that stands where nothing is read."""
    read = {file.address for file in list_pack_files(root, shipped=False)}
    lost = [
        path.relative_to(root)
        for path in sorted(root.glob("*/**/*"))
        if path.suffix.lower() in (*_YAML, ".txt") and str(path) not in read and path.is_file()
    ]
    return [
        f"domains/{path} is not read: a pack has pack.yaml, cards/*.yaml and facts/*.yaml; move or rename it."
        for path in lost
        if path.parts[1] != "looks" and not (path.suffix.lower() == ".txt" and path.parts[1] not in ("cards", "facts"))
    ]


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def parse_yaml(content: bytes, label: str) -> Any:
    """Content of a YAML file; `label` names the file in the `InputError` when it cannot be read."""
    try:
        return yaml.load(content.decode(), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is no YAML"
        raise InputError(f"{label}{place} cannot be read: {problem}; mend the file.") from None
    except UnicodeDecodeError:
        raise InputError(f"{label} cannot be read: it is not UTF-8 text; save it as UTF-8.") from None


def read_pack(path: Path, label: str | None = None) -> Pack:
    """Reads a `pack.yaml`.

    Raises:
        InputError: when it is no YAML, lacks its name or has unknown fields.
    """
    return parse_pack(path.read_bytes(), label or str(path))


def parse_pack(data: bytes, label: str) -> Pack:
    """Makes a pack of the content of a `pack.yaml`; `label` names it in errors, which are those of `read_pack`."""
    content = parse_yaml(data, label)
    if not isinstance(content, Mapping):
        raise InputError(f"{label} cannot be read: it must hold fields such as name and products; mend the file.")
    try:
        pack = Pack.model_validate(dict(content))
    except ValidationError as error:
        raise InputError(f"{label}: {field_fault(error.errors(include_url=False)[0])}; mend the file.") from None
    check_domain_name(pack.name)
    return pack


def read_fact_yaml(file: PackFile) -> list[Fact]:
    """Reads a fact file written by hand: a list of entries with text and, optionally, products, defects, kind, status.

    The kind is the file's name (`cause.yaml`) unless an entry says otherwise. What a person wrote into a pack counts as
    approved, and its source is the file itself.

    Raises:
        InputError: naming file and entry when something cannot be used.
    """
    entries = parse_yaml(file.path.read_bytes(), file.label)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise InputError(f"{file.label} cannot be read: it must be a list of facts ('- text: ...'); mend the file.")
    kind = file.path.stem if file.path.stem in KINDS else None
    source = FactSource(file=file.label, extractor="written by hand")
    facts = []
    for number, entry in enumerate(entries, start=1):
        where = f"{file.label}, entry {number}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where}: a fact must be written as '- text: ...'; mend the file.")
        if kind is None and "kind" not in entry:
            raise InputError(
                f"{where}: its kind is missing; write 'kind: ...', or name the file for one of {', '.join(KINDS)}."
            )
        given = {"kind": kind, "status": "approved", "sources": [source], **entry, "domain": file.domain}
        facts.append(fact_from_record(given, where))
    return facts


@dataclass
class LogPart:
    """What was read from a log: records in order, where reading ended, and lines that could not be used."""

    records: list[dict[str, Any]] = field(default_factory=list)
    offset: int = 0
    problems: list[str] = field(default_factory=list)


def read_log(path: Path, label: str, offset: int = 0) -> LogPart:
    """Reads the whole lines of a log from `offset` on.

    A last line without its end was torn by a crash (or is being written this moment): it was never acknowledged, so it
    is not read. A whole line that is no JSON object is reported and skipped.
    """
    with path.open("rb") as stream:
        stream.seek(offset)
        content = stream.read()
    end = content.rfind(b"\n") + 1
    part = LogPart(offset=offset + end)
    for line in content[:end].splitlines():
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("id"), str):
            part.records.append(record)
        else:
            part.problems.append(f"{label}: a line is damaged and was skipped: {line[:60]!r}; restore or delete it.")
    return part


def fingerprint(path: Path, offset: int) -> str:
    """Hash of the last bytes before `offset`: tells whether a log only grew, or was rewritten."""
    with path.open("rb") as stream:
        stream.seek(max(0, offset - 256))
        return hashlib.sha256(stream.read(min(256, offset))).hexdigest()[:16]


def append_to_logs(logs: Mapping[Path, Iterable[Mapping[str, Any]]]) -> None:
    """Appends to several logs, to all of them or to none; see `append_records`."""
    done: list[tuple[Path, int]] = []
    try:
        for path, records in logs.items():
            done.append((path, append_records(path, records)))
    except BackendError:
        for path, length in done:
            os.truncate(path, length)
        raise


def append_records(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Appends lines to a log and returns when they are on the disk: what it returned from survives a crash.

    The caller holds the store's lock. A torn last line of an earlier crash is cut off first.

    Returns:
        The length of the log before, in bytes.

    Raises:
        BackendError: when the disk is full or refuses; the log is then as it was.
    """
    lines = b"".join(json.dumps(dict(record), ensure_ascii=False).encode() + b"\n" for record in records)
    if not lines:
        return path.stat().st_size if path.exists() else 0
    try:
        make_folder(path.parent)
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            start = _cut_torn_line(descriptor)
            _write_all(descriptor, lines, start)
        finally:
            os.close(descriptor)
        if fresh:
            sync(path.parent)
        return start
    except OSError as error:
        raise BackendError(
            f"Nothing was stored: {path} cannot be written ({error.strerror}); what was there is whole. "
            "Make room or mend the folder's rights, then repeat."
        ) from None


def _cut_torn_line(descriptor: int) -> int:
    """Cuts a log after its last whole line and returns its length."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    keep = end
    while keep > 0:
        start = max(0, keep - 65536)
        os.lseek(descriptor, start, os.SEEK_SET)
        newline = os.read(descriptor, keep - start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep != end:
        os.ftruncate(descriptor, keep)
    return keep


def _write_all(descriptor: int, lines: bytes, start: int) -> None:
    os.lseek(descriptor, start, os.SEEK_SET)
    try:
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        # Half of the lines may stand there already: take them back, they are not acknowledged.
        os.ftruncate(descriptor, start)
        raise


def make_folder(folder: Path) -> None:
    """Creates a folder and its parents, each on the disk when this returns."""
    missing = [folder, *folder.parents]
    missing = [parent for parent in missing if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for parent in missing:
        sync(parent.parent)
