"""What a batch is asked to inspect: a folder of pictures, or a manifest (CSV or JSON lines) with a line for each part."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.agents.peers import peer_groups
from sage_ad.knowledge.text.decoding import decode
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.vlm.evidence.peers import PeerEvidence

MANIFEST_ENDINGS = (".csv", ".jsonl", ".ndjson")
COLUMNS = ("id", "image", "references", "product", "domain", "questions")
_ALIASES = {"reference": "references", "question": "questions"}
_LISTS = ("references", "questions")
_HEADINGS = {*COLUMNS, *_ALIASES}
SEPARATOR = "|"
"""Between several references or questions in one field of a CSV manifest."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a batch.

    Attributes:
        number: place in the folder or manifest, from 1.
        key: name of this piece of work: a digest of the request and of its files' sizes and times of change, so that a
            picture that was replaced is a new piece of work; the n-th line with the same request has its own key. The key
            of a part that is judged by the other parts of its batch depends on all of these, too.
        image: absolute path of the picture.
        references: absolute paths of good parts; a folder in a request is already its pictures here.
        product, domain, questions: as in `InspectionRequest`.
        id: the user's own name of the part, from the manifest.
        peers: what tells the part from the others of its batch, once they were compared (it has no references).
    """

    number: int
    key: str
    image: str
    references: tuple[str, ...] = ()
    product: str | None = None
    domain: str | None = None
    questions: tuple[str, ...] = ()
    id: str | None = None
    peers: PeerEvidence | None = field(default=None, compare=False)

    def request(self) -> InspectionRequest:
        """The part as an inspector takes it."""
        from sage_ad.evaluation.inspection import InspectionRequest

        return InspectionRequest(
            image=Path(self.image),
            references=[Path(path) for path in self.references],
            questions=list(self.questions),
            domain=self.domain,
            product=self.product,
        )


def read_parts(
    source: Path,
    *,
    references: Iterable[Path] = (),
    product: str | None = None,
    domain: str | None = None,
    questions: Sequence[str] = (),
    recursive: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Part]:
    """Lists the parts of a folder or manifest.

    Args:
        source: a folder of pictures, or a manifest. Relative paths in a manifest start at the manifest's own folder.
        references, product, domain, questions: for parts whose manifest line does not name its own.
        recursive: take pictures in folders below a folder, too; linked folders are entered once.
        say: is given a sentence for whatever in a folder, of parts or of a line's references, was left out (files that are
            no pictures, folders not entered).

    Returns:
        The parts in the order of names or lines.

    Raises:
        InputError: no such source, a reference given here cannot be found, or a manifest line cannot be understood.
    """
    make = PartMaker(references, product, domain, questions, say)
    if source.suffix.lower() in MANIFEST_ENDINGS and not source.is_dir():
        entries = _manifest(source)
    else:
        entries = ({"image": str(path)} for path in _pictures(source, recursive, say))
    parts = [make.part(number, entry) for number, entry in enumerate(entries, start=1)]
    if not parts:
        raise InputError(f"The manifest {source} names no part; give it a line for each picture.")
    return _keyed_by_batch(parts)


def in_working_order(parts: Sequence[Part]) -> list[Part]:
    """Parts that share references one after the other, so that few encoded references are held at a time."""
    first: dict[tuple[str, ...], int] = {}
    for part in parts:
        first.setdefault(part.references, len(first))
    return sorted(parts, key=lambda part: first[part.references])


def _keyed_by_batch(parts: Sequence[Part]) -> list[Part]:
    """The parts; where the other parts of the batch judge one, another batch is another piece of work."""
    batch: dict[str, str] = {}
    for group in peer_groups(parts):
        together = "".join(sorted(part.key for part in group))
        batch |= {part.key: hashlib.sha256((part.key + together).encode()).hexdigest()[:20] for part in group}
    return [replace(part, key=batch.get(part.key, part.key)) for part in parts]


class PartMaker:
    """Makes parts of manifest entries and of files.

    Args:
        references, product, domain, questions: for parts whose entry does not name its own.
        say: is given a sentence for whatever was left out of a folder that an entry names as its references.

    Raises:
        InputError: a reference cannot be found.
    """

    def __init__(
        self,
        references: Iterable[Path] = (),
        product: str | None = None,
        domain: str | None = None,
        questions: Sequence[str] = (),
        say: Callable[[str], None] | None = None,
    ) -> None:
        from sage_ad.vlm.images import expand_references

        self.references = tuple(os.path.abspath(path) for path in expand_references(references))
        self.product, self.domain, self.questions = product, domain, tuple(questions)
        self._keys = _Keys(say)

    def part(self, number: int, entry: Mapping[str, Any]) -> Part:
        """The part of an entry."""
        own = entry.get("references")
        fields: dict[str, Any] = {
            "image": os.path.abspath(entry["image"]),
            "references": self.references if own is None else self._keys.expanded(tuple(own)),
            "product": entry.get("product") or self.product,
            "domain": entry.get("domain") or self.domain,
            "questions": tuple(entry.get("questions") or self.questions),
        }
        return Part(number=number, key=self._keys.key(fields), id=entry.get("id"), **fields)

    def of_file(self, path: Path, number: int) -> list[Part]:
        """The parts of a file, several where it holds several pictures."""
        from sage_ad.vlm.images import pages_of

        return [self.part(number + at, {"image": str(page)}) for at, page in enumerate(pages_of(path))]


class _Keys:
    """Makes keys; looks at each file once, however many parts share it."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say = say
        self._seen: Counter[str] = Counter()
        self._stamps: dict[tuple[str, ...], list[str]] = {}
        self._folders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def expanded(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """A line's references with folders as their pictures; what cannot be found stays, and fails with its part."""
        from sage_ad.vlm.images import expand_references

        if paths not in self._folders:
            try:
                files: Iterable[Path] = expand_references((Path(path) for path in paths), self._say)
            except InputError:
                files = [Path(path) for path in paths]
            self._folders[paths] = tuple(os.path.abspath(path) for path in files)
        return self._folders[paths]

    def key(self, fields: Mapping[str, Any]) -> str:
        references = fields["references"]
        if references not in self._stamps:
            self._stamps[references] = [_stamp(path) for path in references]
        text = json.dumps([*fields.values(), _stamp(fields["image"]), self._stamps[references]])
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:20]
        self._seen[digest] += 1
        again = self._seen[digest]
        return digest if again == 1 else f"{digest}-{again}"


def _stamp(path: str) -> str:
    from sage_ad.vlm.images import file_of

    try:
        stat = file_of(path).stat()
    except (OSError, ValueError):
        return "absent"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _pictures(folder: Path, recursive: bool, say: Callable[[str], None] | None) -> list[Path]:
    """Pictures of a folder; with `recursive` those of the folders below it, too, sorted by path."""
    from sage_ad.vlm.images import ENDINGS, scan_folder

    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder} is neither a folder nor a manifest; give a folder of pictures, or a file ending in "
            f"{', '.join(MANIFEST_ENDINGS)} (for one picture use sage-inspect)."
        )
    found = scan_folder(folder, recursive=recursive)
    if not found.pictures:
        where = f"Neither {folder} nor a folder in it holds a" if recursive else f"The folder {folder} holds no"
        hint = " ".join(["; give another folder.", *found.notes])
        raise InputError(f"{where} picture ({', '.join(ENDINGS[:4])}, ...){hint}")
    for note in found.notes:
        if say is not None:
            say(note if recursive or "entered" not in note else f"{note} Use --recursive to enter them.")
    return found.pictures


def _manifest(source: Path) -> Iterator[dict[str, Any]]:
    """Entries of a manifest with plain names and absolute paths."""
    read = _csv_lines if source.suffix.lower() == ".csv" else _json_lines
    try:
        text = decode(source, source.read_bytes())
    except OSError as error:
        raise InputError(f"The manifest {source} cannot be read ({error.strerror}); check the path.") from None
    for line, raw in read(source, text):
        yield _entry(raw, f"Line {line} of {source}", Path(os.path.abspath(source)).parent)


def _csv_lines(source: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows as Excel and others write them: separated by the sign under which most headings are known."""
    told = re.match(r'"?sep=(.)"?\n', text)  # Excel's own first line
    text = text[told.end() :] if told else text
    heading = text.partition("\n")[0].casefold()
    sign = (
        told.group(1)
        if told
        else max(",;\t", key=lambda sign: sum(name in _HEADINGS for name in _cells(heading, sign)))
    )
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=sign)
    try:
        names = [name.strip().casefold() for name in reader.fieldnames or ()]
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise InputError(f"The first line of {source} names {twice[0]!r} twice; keep one of the columns.")
        reader.fieldnames = names
        for raw in reader:
            number = reader.line_num + bool(told)
            if None in raw or None in raw.values():
                raise InputError(
                    f"Line {number} of {source} has another number of fields than the first line; "
                    "put fields with commas in quotation marks."
                )
            filled: dict[str, Any] = {name: value.strip() for name, value in raw.items() if value.strip()}
            for name in filled.keys() & {*_LISTS, *_ALIASES}:
                filled[name] = [item.strip() for item in filled[name].split(SEPARATOR) if item.strip()]
            if filled:  # tables end in empty rows
                yield number, filled
    except csv.Error as error:
        raise InputError(
            f"Line {reader.reader.line_num + bool(told)} of {source} is no CSV ({error}); mend or remove it."
        ) from None


def _cells(line: str, sign: str) -> list[str]:
    return [cell.strip(' "') for cell in line.split(sign)]


def _json_lines(source: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line, object_pairs_hook=_each_once)
        except (ValueError, RecursionError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", error)
            raise InputError(f"Line {number} of {source} is no JSON ({what}); mend or remove it.") from None
        if not isinstance(raw, dict):
            raise InputError(f"Line {number} of {source} is no JSON object; write one object a line.")
        yield number, {name: value for name, value in raw.items() if value is not None}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no name may stand twice: the first value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in it")
    return found


def _entry(raw: dict[str, Any], where: str, folder: Path) -> dict[str, Any]:
    """A checked entry: known names, texts and lists of texts, paths absolute."""
    entry: dict[str, Any] = {}
    for name, value in raw.items():
        plain = _ALIASES.get(name, name)
        if plain not in COLUMNS:
            raise InputError(f"{where} has an unknown field {name!r}; the fields are: {', '.join(COLUMNS)}.")
        if plain in entry:
            raise InputError(f"{where} gives {plain} twice ({name!r} is another name of it); keep one.")
        if plain in _LISTS:
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
                raise InputError(f"{where}: {name!r} must be a text or a list of texts.")
        elif plain == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        elif not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: {name!r} must be a text.")
        entry[plain] = value
    if "image" not in entry:
        raise InputError(f"{where} names no image; the fields are: {', '.join(COLUMNS)}.")
    entry["image"] = str(folder / entry["image"])
    if "references" in entry:
        entry["references"] = [str(folder / path) for path in entry["references"]]
    return entry
