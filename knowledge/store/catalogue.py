"""The catalogue: what stands in all packs, derived into one SQLite file in the cache; opening it reads only changes.

It keeps every layer of a fact (shipped, written by hand by the user, logged by commands) and knows which one counts,
has the words of every fact and of the cards of its defects in a BM25 index (SQLite's FTS5), and numbers every change, so
that the vector index can follow. Facts stay on disk: a million of them are no Python objects.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_ad.knowledge.facts import Fact, fact_from_record
from sage_ad.knowledge.sqlite import chunks, connect, marks, transaction, unwritable
from sage_ad.knowledge.store.cards import DefectCard, read_card_file
from sage_ad.knowledge.store.packs import (
    Pack,
    PackFile,
    fingerprint,
    list_pack_files,
    read_fact_yaml,
    read_log,
    read_pack,
    unread_files,
)
from sage_ad.vlm.errors import InputError

_VERSION = "3"

_TABLES = """
create table meta(key text primary key, value text);
create table files(path text primary key, domain text, shipped int, layer int, size int, mtime int, inode int,
                   offset int, fingerprint text);
create table records(id text, layer int, path text, body text, primary key(id, layer, path)) without rowid;
create index records_path on records(path);
create table facts(row integer primary key autoincrement, id text unique, domain text, kind text, status text, key text,
                   shipped int, version int, body text);
create index facts_key on facts(key);
create index facts_domain on facts(domain, kind, status);
create index facts_version on facts(version);
create table removed(id text primary key, version int);
create table sources(id text, file text, sha256 text);
create index sources_id on sources(id);
create index sources_file on sources(file);
create table packs(domain text, shipped int, path text, body text, primary key(domain, shipped));
create table cards(path text, domain text, shipped int, position int, name text, body text);
create index cards_domain on cards(domain);
create table problems(path text, message text);
create virtual table words using fts5(text, terms, tokenize='porter unicode61 remove_diacritics 2');
"""

SHIPPED_LAYER, HAND_LAYER, LOG_LAYER = 0, 1, 2


@dataclass(frozen=True)
class Change:
    """A fact that appeared, changed or (fact is None) went away since a version of the catalogue."""

    id: str
    fact: Fact | None


class Catalogue:
    """The derived database of all packs. Thread-safe; several processes may use one file.

    Args:
        path: the SQLite file; made when absent, made anew (with one line on standard error) when damaged.
        shipped: folder of shipped packs.
        user: folder of the user's packs.
        warn: whether what cannot be read is said on standard error, too, as it is met; `problems` has it in any case.
    """

    def __init__(self, path: Path, shipped: Path, user: Path, *, warn: bool = True) -> None:
        self.path, self.shipped, self.user, self.warn = path, shipped, user, warn
        self._lock = threading.RLock()
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._data_version = -1
        self._packs: tuple[int, dict[str, Pack]] | None = None
        self.db = self._open()

    # -- opening ---------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise unwritable(self.path, error) from None
            print(f"The catalogue {self.path} cannot be used ({error}): rebuilt from the packs.", file=sys.stderr)
            self._discard()
            return self._connect()
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _discard(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        db = connect(self.path)
        try:
            with transaction(db):
                if not db.execute("select 1 from sqlite_master where name='meta'").fetchone():
                    for statement in _TABLES.split(";\n"):
                        db.execute(statement)
                    db.execute(
                        "insert into meta values('format', ?), ('uuid', ?), ('version', '0')",
                        (_VERSION, uuid.uuid4().hex),
                    )
            row = db.execute("select value from meta where key='format'").fetchone()
            if row is None or row[0] != _VERSION:
                raise sqlite3.DatabaseError(f"its format is {row and row[0]}, not {_VERSION}")
            if (
                self.path.stat().st_size < 1 << 26
                and (damage := db.execute("pragma quick_check(1)").fetchone()[0]) != "ok"
            ):
                raise sqlite3.DatabaseError(damage)
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Closes the database; the object cannot be used afterwards."""
        with self._lock:
            self.db.close()

    # -- following the packs ---------------------------------------------------------------------------------------

    def sync(self) -> bool:
        """Reads what changed in the packs since the last look, in one transaction; True when anything did.

        Raises:
            BackendError: when the cache cannot be written.
        """
        with self._lock:
            now = {file.address: (file.size, file.mtime_ns, file.inode) for file in self._files()}
            if now == self._known():
                return False
            try:
                with transaction(self.db):
                    self._follow()
            except sqlite3.Error as error:
                raise unwritable(self.path, error) from None
            return True

    def _known(self) -> dict[str, tuple[int, int, int]]:
        version = self.db.execute("pragma data_version").fetchone()[0]
        if version != self._data_version or not self._seen:
            rows = self.db.execute("select path, size, mtime, inode from files")
            self._seen = {path: (size, mtime, inode) for path, size, mtime, inode in rows}
            self._data_version = version
        return self._seen

    def _files(self) -> list[PackFile]:
        return list_pack_files(self.shipped, shipped=True) + list_pack_files(self.user, shipped=False)

    def _follow(self) -> None:
        # Listed anew inside the transaction: another process may have followed a later state since we looked.
        files = self._files()
        known = {
            row[0]: row[1:]
            for row in self.db.execute("select path, size, mtime, inode, offset, fingerprint from files")
        }
        touched: dict[str, None] = {}  # a dict, because it keeps the order of the files
        for path in known.keys() - {file.address for file in files}:
            touched |= self._forget(path)
        for file in files:
            before = known.get(file.address)
            if before is None or before[:3] != (file.size, file.mtime_ns, file.inode):
                touched |= self._read(file, before)
        version = self.version + 1
        found_by: dict[str, dict[str, str]] = {}
        for identity in touched:
            self._apply(identity, version, found_by)
        self.db.execute("update meta set value=? where key='version'", (str(version),))
        self._seen = {}

    def _forget(self, path: str) -> dict[str, None]:
        touched = {row[0]: None for row in self.db.execute("select id from records where path=?", (path,))}
        named = "select domain from packs where path=? union select domain from cards where path=?"
        for (domain,) in self.db.execute(named, (path, path)).fetchall():
            touched |= self._of_pack(domain)
        for table in ("records", "packs", "cards", "problems", "files"):
            self.db.execute(f"delete from {table} where path=?", (path,))
        return touched

    def _of_pack(self, domain: str) -> dict[str, None]:
        """Ids of its facts: they are found by the names and cards that the pack has."""
        return {row[0]: None for row in self.db.execute("select id from facts where domain=? order by row", (domain,))}

    def _read(self, file: PackFile, before: Sequence[Any] | None) -> dict[str, None]:
        """Takes one new or changed file over; returns the ids whose state may be another now."""
        path, name = file.address, file.path.name
        is_log = name.endswith(".jsonl")
        offset = 0
        if is_log and before and file.size >= before[3] and fingerprint(file.path, before[3]) == before[4]:
            offset = before[3]  # it only grew: the part read before still stands
        touched = self._forget(path) if not offset else {}
        layer = SHIPPED_LAYER if file.shipped else LOG_LAYER if is_log else HAND_LAYER
        end = file.size
        try:
            if name == "pack.yaml":
                self._keep_pack(file, read_pack(file.path, file.label))
                touched |= self._of_pack(file.domain)
            elif file.path.parent.name == "cards":
                self._keep_cards(file, read_card_file(file.path, file.label))
                touched |= self._of_pack(file.domain)
            elif is_log:
                part = read_log(file.path, file.label, offset)
                end = part.offset
                touched |= self._keep(layer, path, part.records)
                self._complain(path, part.problems)
            else:
                facts = read_fact_yaml(file)
                touched |= self._keep(layer, path, [fact.record() for fact in facts])
                twice = [text for text, count in Counter(fact.text for fact in facts).items() if count > 1]
                self._complain(path, [f"{file.label} has this fact twice: {text[:80]}; delete one." for text in twice])
        except InputError as error:
            self._complain(path, [str(error)])
        mark = fingerprint(file.path, end) if is_log else ""
        self.db.execute(
            "insert or replace into files values(?,?,?,?,?,?,?,?,?)",
            (path, file.domain, file.shipped, layer, file.size, file.mtime_ns, file.inode, end, mark),
        )
        return touched

    def _keep_pack(self, file: PackFile, pack: Pack) -> None:
        if pack.name != file.domain:
            raise InputError(
                f"{file.label}: its name is {pack.name!r}, but its folder {file.domain!r}; make them the same."
            )
        row = (file.domain, file.shipped, str(file.path), pack.model_dump_json())
        self.db.execute("insert or replace into packs values(?,?,?,?)", row)

    def _keep_cards(self, file: PackFile, cards: Iterable[DefectCard]) -> None:
        rows = [
            (
                str(file.path),
                file.domain,
                file.shipped,
                position,
                card.name,
                card.model_dump_json(exclude_defaults=True),
            )
            for position, card in enumerate(cards)
        ]
        self.db.executemany("insert into cards values(?,?,?,?,?,?)", rows)

    def _keep(self, layer: int, path: str, records: Iterable[dict[str, Any]]) -> dict[str, None]:
        rows = [(record["id"], layer, path, json.dumps(record, ensure_ascii=False)) for record in records]
        self.db.executemany("insert or replace into records values(?,?,?,?)", rows)
        return {row[0]: None for row in rows}

    def _complain(self, path: str, messages: Iterable[str]) -> None:
        for message in messages:
            if self.warn:
                print(f"Warning: {message}", file=sys.stderr)
            self.db.execute("insert into problems values(?,?)", (path, message))

    def _apply(self, identity: str, version: int, found_by: dict[str, dict[str, str]]) -> None:
        """Lets the highest layer of one id count: writes, updates or deletes its fact.

        `found_by` is `_found_by` of each pack that was needed so far.
        """
        record = self.db.execute(
            "select body, layer, path from records where id=? order by layer desc, path desc limit 1", (identity,)
        ).fetchone()
        fact = None
        if record and "removed" not in (body := json.loads(record[0])):
            try:
                fact = fact_from_record(body, f"{record[2]}, fact {identity}")
            except InputError as error:
                self._complain(record[2], [str(error)])
        old = self.db.execute("select row, body, domain from facts where id=?", (identity,)).fetchone()
        if fact is None:
            if old:
                self._erase(old[0], identity)
                self.db.execute("insert or replace into removed values(?,?)", (identity, version))
            return
        text = json.dumps(fact.record(), ensure_ascii=False)
        shipped = int(
            self.db.execute("select 1 from records where id=? and layer=0", (identity,)).fetchone() is not None
        )
        if fact.domain not in found_by:
            found_by[fact.domain] = self._found_by(fact.domain)
        terms = " ".join(found_by[fact.domain].get(name, name) for name in (*fact.products, *fact.defects))
        if old and old[1] == text:
            self.db.execute("update words set terms=? where rowid=? and terms<>?", (terms, old[0], terms))
            return
        if old:
            self._erase(old[0], identity)
        self.db.execute("delete from removed where id=?", (identity,))
        cursor = self.db.execute(
            "insert into facts(id, domain, kind, status, key, shipped, version, body) values(?,?,?,?,?,?,?,?)",
            (identity, fact.domain, fact.kind, fact.status, fact.key, shipped, version, text),
        )
        self.db.execute("insert into words(rowid, text, terms) values(?,?,?)", (cursor.lastrowid, fact.text, terms))
        self.db.executemany("insert into sources values(?,?,?)", [(identity, s.file, s.sha256) for s in fact.sources])

    def _found_by(self, domain: str) -> dict[str, str]:
        """By product and defect of a pack: the words by which its facts are found.

        Of a defect all names and the look on its card; of a product no synonyms, which draw facts of every kind nearer at once
        (the worst pack loses a tenth of nDCG) and which the embedding knows, but German and Chinese names, which it does not.
        """
        heads = self.db.execute("select body from packs where domain=? order by shipped desc", (domain,)).fetchall()
        packs = [Pack.model_validate_json(body) for (body,) in heads]
        words = {term.name: " ".join((term.name, *term.de, *term.zh)) for pack in packs for term in pack.products}
        words |= {term.name: " ".join(term.names) for pack in packs for term in pack.defects}
        cards = self._cards(domain).get(domain, ())
        return words | {card.name: " ".join((*card.term.names, card.look.text)) for card in cards}

    def _erase(self, row: int, identity: str) -> None:
        self.db.execute("delete from facts where row=?", (row,))
        self.db.execute("delete from words where rowid=?", (row,))
        self.db.execute("delete from sources where id=?", (identity,))

    # -- asking ----------------------------------------------------------------------------------------------------

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            try:
                return self.db.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise unwritable(self.path, error) from None

    @property
    def version(self) -> int:
        """Number of the latest change."""
        return int(self._rows("select value from meta where key='version'")[0][0])

    @property
    def uuid(self) -> str:
        """Name of this very database: another one counts its versions anew."""
        return self._rows("select value from meta where key='uuid'")[0][0]

    def get(self, ids: Sequence[str]) -> dict[str, Fact]:
        """The facts with these ids; ids that are not there are left out."""
        found: dict[str, Fact] = {}
        for part in chunks(ids):
            for identity, body in self._rows(f"select id, body from facts where id in ({marks(part)})", part):
                found[identity] = _fact(body)
        return found

    def ids_like(self, prefix: str, limit: int = 3) -> list[str]:
        """Ids that begin with `prefix`."""
        query = "select id from facts where id >= ? and id < ? order by id limit ?"
        return [row[0] for row in self._rows(query, (prefix, prefix + "g", limit))]

    def by_key(self, keys: Sequence[str]) -> dict[str, Fact]:
        """Facts by `Fact.key`: those that say the same as a text, whatever their id."""
        found: dict[str, Fact] = {}
        for part in chunks(keys):
            for key, body in self._rows(f"select key, body from facts where key in ({marks(part)})", part):
                found[key] = _fact(body)
        return found

    def facts(
        self,
        domain: str | None = None,
        kind: Collection[str] = (),
        status: Collection[str] = (),
        source: str | None = None,
    ) -> Iterator[Fact]:
        """Facts in the order in which they were stored; an empty condition lets all pass."""
        where, values = _conditions([domain] if domain else (), kind, status)
        if source is not None:
            where += " and id in (select id from sources where file=? or sha256=?)"
            values += [source, source]
        last = 0
        while True:  # in pages, so that no lock is held while the caller works with a fact
            rows = self._rows(
                f"select row, body from facts where row>? {where} order by row limit 1000", [last, *values]
            )
            for _, body in rows:
                yield _fact(body)
            if len(rows) < 1000:
                return
            last = rows[-1][0]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Number of facts by (domain, kind, status)."""
        rows = self._rows("select domain, kind, status, count(*) from facts group by domain, kind, status")
        return {(domain, kind, status): count for domain, kind, status, count in rows}

    def packs(self) -> dict[str, Pack]:
        """The packs by name; a user's pack.yaml adds products and defects to the shipped one's and wins otherwise.

        Their defects are those that `pack.yaml` names and those of the cards.
        """
        version = self.version
        if self._packs is not None and self._packs[0] == version:
            return dict(self._packs[1])
        packs: dict[str, Pack] = {}
        for domain, body in self._rows("select domain, body from packs order by shipped desc, domain"):
            pack = Pack.model_validate_json(body)
            packs[domain] = _overlay(packs[domain], pack) if domain in packs else pack
        for (domain,) in self._rows("select domain from facts union select domain from cards"):
            packs.setdefault(domain, Pack(name=domain))
        for domain, cards in self._cards().items():
            known = {card.name for card in cards}
            named = tuple(term for term in packs[domain].defects if term.name not in known)
            terms = tuple(card.term for card in cards)
            packs[domain] = packs[domain].model_copy(update={"defects": terms + named})
        self._packs = version, dict(sorted(packs.items()))
        return dict(self._packs[1])

    def _cards(self, domain: str | None = None) -> dict[str, list[DefectCard]]:
        """Cards by domain; of two with one name the user's counts."""
        where, values = ("where domain=?", [domain]) if domain else ("", [])
        found: dict[str, dict[str, DefectCard]] = {}
        query = f"select domain, name, body from cards {where} order by domain, shipped desc, path, position"
        for pack, name, body in self._rows(query, values):
            found.setdefault(pack, {})[name] = DefectCard.model_validate_json(body)
        return {pack: list(cards.values()) for pack, cards in found.items()}

    def cards(self, domain: str) -> list[DefectCard]:
        """The defect cards of a pack, the user's laid over the shipped ones."""
        return self._cards(domain).get(domain, [])

    def user_domains(self) -> set[str]:
        """Domains of which the user has files of their own."""
        return {row[0] for row in self._rows("select distinct domain from files where not shipped")}

    def problems(self) -> list[str]:
        """One line for every file, entry or line of a pack that could not be used."""
        return [row[0] for row in self._rows("select message from problems")]

    def check_files(self) -> list[str]:
        """One line for every pack without a `pack.yaml`, file that is not read, file without a card, and fact in two files."""
        named = "select domain from files where path like '%pack.yaml'"
        bare = self._rows(f"select distinct domain from files where domain not in ({named})")
        twice = self._rows(
            "select json_extract(body, '$.text'), group_concat(path, ' and ') from records where layer=? "
            "group by id having count(*) > 1",
            (HAND_LAYER,),
        )
        files = self._rows("select path, domain from files where path not in (select path from problems)")
        filled = {path for (path,) in self._rows("select distinct path from cards")}
        empty = [
            f"domains/{domain}/cards/{Path(path).name} has no card; write one, or delete the file."
            for path, domain in files
            if Path(path).parent.name == "cards" and path not in filled
        ]
        return [
            *empty,
            *unread_files(self.user),
            *(
                f"domains/{domain}/pack.yaml is missing; write one that names the pack and its products."
                for (domain,) in bare
            ),
            *(f"The same fact stands in {paths}: {text[:80]}; keep it in one of them." for text, paths in twice),
        ]

    def without_head(self) -> set[str]:
        """Domains of which a `pack.yaml` is missing or could not be used: their products are not all known."""
        heads = "select domain from files where path like '%pack.yaml'"
        wrong = f"{heads} and path in (select path from problems)"
        return {row[0] for row in self._rows(f"{wrong} union select domain from files where domain not in ({heads})")}

    def changes(self, since: int) -> Iterator[Change]:
        """What changed after version `since`, in no particular order."""
        last = 0
        while rows := self._rows(
            "select row, body from facts where version>? and row>? order by row limit 1000", (since, last)
        ):
            for _, body in rows:
                fact = _fact(body)
                yield Change(fact.id, fact)
            last = rows[-1][0]
        for (identity,) in self._rows("select id from removed where version>?", (since,)):
            yield Change(identity, None)

    def lexical(
        self,
        words: Sequence[tuple[str, float]],
        k: int,
        domain: Collection[str] = (),
        kind: Collection[str] = (),
        status: Collection[str] = (),
    ) -> list[tuple[str, float]]:
        """The k best facts by BM25, best first, as (id, score); higher is better.

        Args:
            words: texts with the weight of their words in the query; stop words are left out.
            k: how many.
            domain, kind, status: what may be found; empty means everything.
        """
        terms = _terms(words)
        if not terms:
            return []
        where, values = _conditions(domain, kind, status)
        query = f"""select f.id, bm25(words, 1.0, 0.6) from words join facts f on f.row = words.rowid
                    where words match ? {where.replace(" and ", " and f.")} order by bm25(words, 1.0, 0.6) limit ?"""
        return [(identity, -score) for identity, score in self._rows(query, [" OR ".join(terms), *values, k])]


_WORD = re.compile(r"[^\W_]+")


def _terms(words: Sequence[tuple[str, float]]) -> list[str]:
    """Quoted terms of an FTS5 query; a word of weight 2 stands twice, which BM25 counts twice."""
    terms: list[str] = []
    for text, weight in words:
        for word in _WORD.findall(text.casefold()):
            if len(word) > 1 and word not in STOP_WORDS:
                terms += [f'"{word}"'] * max(1, round(weight))
    return terms[:200]


_COMMON = (
    "a an and any are as at be by can did do does for from has have how in is it its of on or that the their them then "
    "there these they this to was were what when where which who why will with would you your"
)
STOP_WORDS = frozenset(_COMMON.split())
"""Words that say nothing of what is asked."""


def _conditions(domain: Collection[str], kind: Collection[str], status: Collection[str]) -> tuple[str, list[Any]]:
    where, values = "", []
    for column, allowed in (("domain", domain), ("kind", kind), ("status", status)):
        if allowed:
            where += f" and {column} in ({marks(list(allowed))})"
            values += list(allowed)
    return where, values


def _overlay(below: Pack, above: Pack) -> Pack:
    named = {term.name for term in above.products}, {term.name for term in above.defects}
    return above.model_copy(
        update={
            "hints": tuple(dict.fromkeys((*above.hints, *below.hints))),
            "products": above.products + tuple(term for term in below.products if term.name not in named[0]),
            "defects": above.defects + tuple(term for term in below.defects if term.name not in named[1]),
            "title": above.title or below.title,
            "description": above.description or below.description,
            "licence": above.licence or below.licence,
        }
    )


def _fact(body: str) -> Fact:
    return Fact.model_validate_json(body)
