"""A domain as one file: a zip of `manifest.json`, `pack.yaml`, `facts.jsonl` and `cards.yaml`.

Every fact has its whole provenance. Reading one executes nothing and writes no path that the file names: the members are
read by name, decoded as JSON and YAML, and stored like any other facts and cards. The pictures that the pack
was shown come with it (`looks/`, listed in the manifest); a picture is kept only under the name that its own content gives it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sage_ad.knowledge.facts import Fact, fact_from_record, now
from sage_ad.knowledge.looks.pictures import Look, merge_looks, read_looks
from sage_ad.knowledge.store.cards import DefectCard, parse_cards, read_card_file
from sage_ad.knowledge.store.fact_store import AddReport, FactStore
from sage_ad.knowledge.store.packs import Pack, make_folder, parse_pack
from sage_ad.knowledge.text.instructions import instruction_reason
from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.files import sync, write_whole

_FORMAT = "sage-pack"
_VERSION = 1
_MEMBERS = ("manifest.json", "pack.yaml", "facts.jsonl")
_CARDS = "cards.yaml"
"""A member that files written before there were cards lack."""
_LARGEST = 1 << 30
"""Most bytes that a member may unpack to: a small file must not fill the memory."""


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        domain: the pack that the facts went to.
        created: whether the domain is new here.
        stored: which facts were new, merged or known.
        refused: one line for each fact, card or picture that was not taken.
        looks: how many pictures were new.
    """

    domain: str
    created: bool
    stored: AddReport
    refused: list[str] = field(default_factory=list)
    looks: int = 0


def export_pack(store: FactStore, domain: str, path: Path) -> int:
    """Writes a domain, as it stands with all edits, into one file; returns the number of facts.

    Raises:
        InputError: for an unknown domain, or a path that is a folder.
        BackendError: when the file cannot be written; an older file of that name stays as it was.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file to export to, such as {domain}.sagepack.")
    lines = [json.dumps(fact.record(), ensure_ascii=False) for fact in store.iterate(domain)]
    pack = store.packs()[domain]
    facts = "".join(line + "\n" for line in lines).encode()
    cards = store.cards(domain)
    carded = {card.name for card in cards}
    head = _yaml(
        pack.model_copy(update={"defects": tuple(term for term in pack.defects if term.name not in carded)}).model_dump(
            mode="json"
        )
    )
    deck = _yaml([card.model_dump(mode="json", exclude_defaults=True) for card in cards])
    folder = store.user / domain / "looks"
    looks = read_looks(folder)
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "domain": domain,
        "facts": len(lines),
        "exported": now(),
        "sha256": {
            name: hashlib.sha256(data).hexdigest()
            for name, data in (("pack.yaml", head), ("facts.jsonl", facts), (_CARDS, deck))
        },
    }
    if looks:
        manifest["looks"] = [look.model_dump(mode="json") for look in looks]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        members = (json.dumps(manifest, indent=2).encode(), head, facts, deck)
        for name, data in zip((*_MEMBERS, _CARDS), members, strict=True):
            archive.writestr(name, data)
        for look in looks:
            archive.write(folder / look.file, f"looks/{look.file}", zipfile.ZIP_STORED)
    try:
        write_whole(path, content.getvalue())
    except OSError as error:
        raise BackendError(f"{path} cannot be written ({error.strerror}); make room or name another place.") from None
    return len(lines)


def import_pack(store: FactStore, path: Path) -> ImportReport:
    """Takes a domain over from a file that `export_pack` wrote.

    Facts that are here already get the file's sources; a fact edited on both sides keeps the later edit. A card whose
    name is here already stays as it is here. Facts and cards that read like orders to a model are refused.

    Raises:
        InputError: when the file is absent, damaged or no such file.
        BackendError: when the facts cannot be stored.
    """
    head, facts, cards = _read(path)
    looks = _looks(path)
    known = head.name in store.packs()
    refused = [
        f"{fact.id}: reads like an order to a model ({reason}): {fact.text[:60]}"
        for fact in facts
        if (reason := _order(fact.text, *fact.products, *fact.defects))
    ]
    refused += [
        f"card {card.name!r}: reads like an order to a model ({reason})"
        for card in cards
        if (reason := _order(*_texts(card)))
    ]
    new: list[Look] = []
    if looks:  # first, since a damaged picture stops the import
        new, not_taken = merge_looks(store.user / head.name / "looks", _pictures(path, looks))
        refused += not_taken
    stored = store.add([fact for fact in facts if not _order(fact.text, *fact.products, *fact.defects)])
    folder = store.user / head.name
    here = {card.name for card in store.cards(head.name)} if known else set()
    taken = [card for card in cards if card.name not in here and not _order(*_texts(card))]
    deck = folder / "cards" / "imported.yaml"
    if deck.is_file():
        taken = read_card_file(deck, str(deck)) + taken
    try:
        if not known and not (folder / "pack.yaml").exists():
            make_folder(folder)
            write_whole(folder / "pack.yaml", _yaml(head.model_dump(mode="json")))
            sync(folder)
        if taken:
            make_folder(deck.parent)
            write_whole(deck, _yaml([card.model_dump(mode="json", exclude_defaults=True) for card in taken]))
    except OSError as error:
        raise BackendError(f"{folder} cannot be written ({error.strerror}); make room, then import again.") from None
    return ImportReport(head.name, not known, stored, refused, len(new))


def _looks(path: Path) -> list[Look]:
    """What the pictures in a file show; none in files written before packs had pictures."""
    with zipfile.ZipFile(path) as archive:
        rows = json.loads(_member(archive, "manifest.json", path)).get("looks", [])
    try:
        return [Look.model_validate(row) for row in rows]
    except (TypeError, ValidationError):
        raise InputError(f"{path} is damaged: its list of pictures cannot be read; export it again.") from None


def _pictures(path: Path, looks: list[Look]) -> Iterator[tuple[Look, bytes]]:
    """The looks of a file with their pictures, one at a time."""
    with zipfile.ZipFile(path) as archive:
        for look in looks:
            try:
                yield look, _member(archive, f"looks/{look.file}", path)
            except (zipfile.BadZipFile, OSError, EOFError) as error:
                raise InputError(f"{path} is damaged ({look.file}: {error}); export it again.") from None


def _yaml(content: Any) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def _texts(card: DefectCard) -> tuple[str, ...]:
    differences = (taken.difference for taken in card.taken_for)
    return (*card.term.names, card.look.text, *differences, *card.causes, card.consequence, card.action)


def _order(*texts: str) -> str | None:
    """Why one of the texts reads like an order to a model; None when none does."""
    return next((reason for text in texts if (reason := instruction_reason(text))), None)


def _read(path: Path) -> tuple[Pack, list[Fact], list[DefectCard]]:
    if not path.is_file():
        raise InputError(f"{path} is not there (or is no file); name a file that sage-kb export wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            manifest, head, facts = (_member(archive, name, path) for name in _MEMBERS)
            deck = _member(archive, _CARDS, path) if _CARDS in archive.namelist() else b""
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read ({error}); name a file that sage-kb export wrote.") from None
    about = _manifest(manifest, path)
    for name, data in (("pack.yaml", head), ("facts.jsonl", facts), *([(_CARDS, deck)] if deck else [])):
        if about["sha256"].get(name) != hashlib.sha256(data).hexdigest():
            raise InputError(f"{path} is damaged: its {name} is not what was exported; export it again.")
    pack = parse_pack(head, f"{path}, pack.yaml")
    names = (name for term in (*pack.products, *pack.defects) for name in term.names)
    if reason := _order(pack.title, pack.description, *names):
        raise InputError(f"{path}: its pack.yaml reads like an order to a model ({reason}); take no pack from there.")
    found = []
    for number, line in enumerate(facts.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, facts.jsonl, line {number}"
        try:
            fact = fact_from_record(json.loads(line), where)
        except (ValueError, RecursionError):
            raise InputError(f"{where} is no JSON; export the pack again.") from None
        if fact.domain != pack.name:
            raise InputError(f"{where}: its domain is {fact.domain!r}, but the pack is {pack.name!r}; mend the file.")
        found.append(fact)
    return pack, found, parse_cards(deck, f"{path}, {_CARDS}")


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{path} has no {name}; name a file that sage-kb export wrote.") from None
    if info.file_size > _LARGEST:
        raise InputError(f"{path}: its {name} unpacks to more than {_LARGEST >> 20} MB; split the pack.")
    with archive.open(info) as stream:
        return stream.read(_LARGEST)


def _manifest(data: bytes, path: Path) -> dict[str, Any]:
    try:
        about = json.loads(data)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("format") != _FORMAT or not isinstance(about.get("sha256"), dict):
        raise InputError(f"{path} is no SAGE pack; name a file that sage-kb export wrote.")
    if about.get("version") != _VERSION:
        raise InputError(f"{path} has version {about.get('version')!r} of the pack format; this SAGE reads {_VERSION}.")
    return about
