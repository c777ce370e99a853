"""The vector index: immutable memory-mapped FAISS segments, a small writable delta, tombstones, background merges.

Everything that changes stands in one SQLite file (`entries.sqlite`): which key has which row, label and, until it is in
a segment, vector; and which segments there are. A change is one transaction, so a reader sees the state before or after
it, never half of one. Row numbers never repeat: the row of a deleted vector is never given to another one.

Labels are small sets of metadata that many vectors share (domain, kind, status): a filter is decided once a distinct
label, not once a vector.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from sage_ad.knowledge.sqlite import chunks, connect, marks, transaction, unwritable
from sage_ad.knowledge.vectors.index_view import Delta, Label, Part, View, search_part
from sage_ad.knowledge.vectors.segments import (
    DEAD,
    Segment,
    SegmentInfo,
    UnusableIndex,
    segment_files,
    verify_segment,
    write_segment,
)
from sage_ad.vlm.errors import BackendError

_FORMAT = "1"

_TABLES = """
create table meta(key text primary key, value text);
create table entries(row integer primary key autoincrement, key text unique, code int, vector blob, parent text,
                     body text);
create index entries_parent on entries(parent) where parent is not null;
create index entries_delta on entries(row) where vector is not null;
create table relabelled(row integer primary key, version int);
create table dead(row integer primary key, version int);
create table labels(code integer primary key, body text unique);
create table segments(name text primary key, first int, last int, count int, version int, checks text);
"""


@dataclass(frozen=True)
class Hit:
    """A vector that was found: its key and its inner product with the query."""

    key: str
    score: float


class VectorIndex:
    """Vectors under string keys, searchable by inner product and by label. Thread-safe; processes may share a folder.

    Args:
        folder: where its files lie; made when absent.
        dimensions: length of a vector.
        model: name of the embedding model: vectors of another model are refused.
        flush_at: vectors in the delta from which it becomes a segment.
        most_segments: number of segments from which small ones are merged.
        background: merge in a thread of its own; False merges before `upsert` returns.

    Raises:
        UnusableIndex: when the folder holds a damaged index, or one of another model, length or version.
        BackendError: when the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        dimensions: int,
        model: str,
        *,
        flush_at: int = 20_000,
        most_segments: int = 8,
        background: bool = True,
    ) -> None:
        self.folder, self.dimensions, self.model = folder, dimensions, model
        self.flush_at, self.most_segments, self.background = flush_at, most_segments, background
        self._lock = threading.RLock()
        self._merging: threading.Thread | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.db = self._connect()
            self._view = self._load()
        except (OSError, sqlite3.OperationalError) as error:
            raise unwritable(folder, error) from None
        except sqlite3.DatabaseError as error:
            raise UnusableIndex(f"entries.sqlite is damaged ({error})") from None

    def _connect(self) -> sqlite3.Connection:
        db = connect(self.folder / "entries.sqlite")
        try:
            wanted = {"format": _FORMAT, "model": self.model, "dimensions": str(self.dimensions)}
            with transaction(db):
                if not db.execute("select 1 from sqlite_master where name='meta'").fetchone():
                    if any(self.folder.glob("segment-*")):
                        raise UnusableIndex("entries.sqlite is empty")
                    for statement in _TABLES.split(";\n"):
                        db.execute(statement)
                    values = {**wanted, "version": "0", "layout": uuid.uuid4().hex}
                    db.executemany("insert into meta values(?,?)", values.items())
            found = dict(db.execute("select key, value from meta"))
            for key, value in wanted.items():
                if found.get(key) != value:
                    raise UnusableIndex(f"its {key} is {found.get(key)!r}, but {value!r} is in use")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Waits for a merge and closes the files."""
        self.wait()
        with self._lock:
            self.db.close()
            self._view = View()

    # -- reading ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        with self._lock:
            return self.db.execute("select count(*) from entries").fetchone()[0]

    def search(
        self,
        vector: np.ndarray,
        k: int,
        allowed: Callable[[Label], bool] | None = None,
        keys: Iterable[str] | None = None,
    ) -> list[Hit]:
        """The k nearest vectors by inner product, best first.

        Args:
            vector: the query, (dimensions,).
            k: how many; fewer are returned when fewer are allowed.
            allowed: whether vectors with this label may be found; None allows all.
            keys: only these keys may be found.

        Raises:
            ValueError: when the query has another length.
        """
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        if query.shape[1] != self.dimensions:
            raise ValueError(f"the query has {query.shape[1]} numbers, the index {self.dimensions}")
        if k < 1:
            return []
        with self._lock:
            view = self.refresh()
            selectors = view.selectors(allowed, None if keys is None else self._rows_of(keys))
            segments = list(view.segments)
            found = search_part(view.delta, query, k, selectors[-1])
        # Segments never change, so that several threads search them at once.
        for segment, selector in zip(segments, selectors, strict=False):
            found += search_part(segment, query, k, selector)
        found.sort(key=lambda hit: (-hit[0], hit[1]))
        return self._hits(found[:k])

    def _hits(self, found: list[tuple[float, int]]) -> list[Hit]:
        keys: dict[int, str] = {}
        with self._lock:
            for part in chunks([row for _, row in found]):
                query = f"select row, key from entries where row in ({marks(part)})"
                keys.update(self.db.execute(query, part))
        return [Hit(keys[row], score) for score, row in found if row in keys]

    def _rows_of(self, keys: Iterable[str]) -> np.ndarray:
        rows: list[int] = []
        for part in chunks(list(keys)):
            rows += [row for (row,) in self.db.execute(f"select row from entries where key in ({marks(part)})", part)]
        return np.array(sorted(rows), dtype=np.int64)

    def vectors(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The stored vectors of these keys (16-bit precision once in a segment); absent keys are left out."""
        with self._lock:
            view = self.refresh()
            found: dict[str, np.ndarray] = {}
            for part in chunks(list(keys)):
                query = f"select key, row, vector from entries where key in ({marks(part)})"
                for key, row, blob in self.db.execute(query, part):
                    if blob is not None:
                        found[key] = np.frombuffer(blob, dtype=np.float32)
                        continue
                    for segment in view.segments:
                        positions, _ = segment.positions(np.array([row]))
                        if len(positions):
                            found[key] = np.asarray(segment.index.reconstruct(int(positions[0])))
            return found

    def entries(self, keys: Sequence[str]) -> dict[str, tuple[Label, str | None]]:
        """Label and body of these keys; absent keys are left out."""
        with self._lock:
            labels = self.refresh().labels
            found: dict[str, tuple[Label, str | None]] = {}
            for part in chunks(list(keys)):
                rows = self.db.execute(f"select key, code, body from entries where key in ({marks(part)})", part)
                found.update({key: (labels[code], body) for key, code, body in rows})
            return found

    def keys(self, parent: str | None = None, allowed: Callable[[Label], bool] | None = None) -> list[str]:
        """Keys in the order in which they were added: all, or those with this parent and an allowed label."""
        with self._lock:
            labels = self.refresh().labels
            codes = {code for code, label in labels.items() if allowed is None or allowed(label)}
            if parent is None:
                rows = self.db.execute("select key, code from entries order by row")
            else:
                rows = self.db.execute("select key, code from entries where parent=? order by row", (parent,))
            return [key for key, code in rows if code in codes]

    def note(self, name: str, value: str | None = None) -> str | None:
        """Reads (or, given a value, first writes) a note kept with the index, such as what it was made from."""
        with self._lock:
            if value is not None:
                with self._writing():
                    self.db.execute("insert or replace into meta values(?,?)", (f"note:{name}", value))
            row = self.db.execute("select value from meta where key=?", (f"note:{name}",)).fetchone()
            return row and row[0]

    def verify(self) -> None:
        """Reads every byte of the index; raises `UnusableIndex` when something is not what was written."""
        with self._lock:
            damage = self.db.execute("pragma quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise UnusableIndex(f"entries.sqlite is damaged ({damage})")
            for segment in self.refresh().segments:
                verify_segment(self.folder, segment.info)

    # -- following -------------------------------------------------------------------------------------------------

    def refresh(self) -> View:
        """The present view, after taking over what this or another process changed."""
        with self._lock:
            version, layout = self._position()
            if layout != self._view.layout:
                self._view = self._load()
            elif version != self._view.version:
                self._advance()
            return self._view

    def _position(self) -> tuple[int, str]:
        found = dict(self.db.execute("select key, value from meta where key in ('version', 'layout')"))
        return int(found["version"]), found["layout"]

    def _load(self) -> View:
        """Maps the segments and lays everything over them that changed since they were written."""
        missing = Path()
        for _ in range(5):
            self.db.execute("begin")  # one snapshot for all the statements below
            try:
                version, layout = self._position()
                rows = self.db.execute("select name, first, last, count, version, checks from segments order by first")
                try:
                    segments = [Segment(self.folder, SegmentInfo(*row)) for row in rows.fetchall()]
                except FileNotFoundError as error:
                    # The system names the file apart from its message; our own check gives the path alone.
                    missing = Path(error.filename or error.args[0])
                    continue  # merged away by another process since we looked: look again
                view = View(layout=layout, segments=segments, delta=Delta())
                self._apply(view, view.changed_since)
                view.version = version
                return view
            finally:
                self.db.execute("commit")
        raise UnusableIndex(f"{missing.name} is missing")

    def _advance(self) -> None:
        self.db.execute("begin")
        try:
            version, layout = self._position()
            if layout == self._view.layout:
                self._apply(self._view, self._view.version)
                self._view.version = version
                return
        finally:
            self.db.execute("commit")
        self._view = self._load()

    def _apply(self, view: View, since: int) -> None:
        """Adds to a view the labels, rows and deletions that came after version `since`."""
        bodies = self.db.execute("select code, body from labels where code>?", (max(view.labels, default=0),))
        view.labels.update({code: json.loads(body) for code, body in bodies})
        query = "select row, code, vector from entries where vector is not null and row>? order by row"
        if fresh := self.db.execute(query, (view.last_row,)).fetchall():
            vectors = np.stack([np.frombuffer(vector, dtype=np.float32) for _, _, vector in fresh])
            view.delta.add([row for row, _, _ in fresh], [code for _, code, _ in fresh], vectors)
        query = "select r.row, e.code from relabelled r join entries e on e.row = r.row where r.version>?"
        changed = self.db.execute(query, (since,)).fetchall()
        changed += [(row, DEAD) for (row,) in self.db.execute("select row from dead where version>?", (since,))]
        view.mark([row for row, _ in changed], [code for _, code in changed])

    # -- writing ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[int]:
        """One change: gives its version number; nothing of it is seen when it fails."""
        with self._lock:
            try:
                with transaction(self.db):
                    version = self._position()[0] + 1
                    yield version
                    self.db.execute("update meta set value=? where key='version'", (str(version),))
            except (sqlite3.OperationalError, OSError) as error:
                raise unwritable(self.folder, error) from None

    def upsert(
        self,
        keys: Sequence[str],
        vectors: np.ndarray,
        labels: Sequence[Label],
        parents: Sequence[str | None] | None = None,
        bodies: Sequence[str | None] | None = None,
    ) -> None:
        """Adds vectors; one whose key is there already takes its place.

        Args:
            keys: their names, each at most once.
            vectors: (n, dimensions).
            labels: for each the metadata that filters ask for.
            parents: for each what it belongs to (a source document); None leaves all without.
            bodies: for each any text to keep with it.

        Raises:
            ValueError: when lengths do not fit or a key comes twice.
            BackendError: when the disk is full; the index is then as it was.
        """
        matrix = np.ascontiguousarray(vectors, dtype=np.float32)
        if matrix.shape != (len(keys), self.dimensions) or len(labels) != len(keys):
            raise ValueError(f"{len(keys)} keys and {len(labels)} labels do not fit vectors of shape {matrix.shape}")
        if len(set(keys)) != len(keys):
            raise ValueError("a key comes twice")
        nothing = [None] * len(keys)
        direct = len(keys) >= self.flush_at
        with self._writing() as version:
            self._kill(keys, version)
            codes = self._codes(labels)
            blobs: Iterable[bytes | None] = nothing if direct else (vector.tobytes() for vector in matrix)
            last = self.db.execute("select seq from sqlite_sequence where name='entries'").fetchone()
            first = (last[0] if last else 0) + 1
            rows = range(first, first + len(keys))
            self.db.executemany(
                "insert into entries(row, key, code, vector, parent, body) values(?,?,?,?,?,?)",
                zip(rows, keys, codes, blobs, parents or nothing, bodies or nothing, strict=True),
            )
            if direct:
                self._write_directly(matrix, rows, codes, version)
        self._tidy()

    def _write_directly(self, matrix: np.ndarray, rows: Sequence[int], codes: Sequence[int], version: int) -> None:
        """Too many vectors for the delta: they, and what was in the delta, become a segment at once."""
        query = "select row, code, vector from entries where vector is not null order by row"
        waiting = self.db.execute(query).fetchall()
        blocks = [np.frombuffer(vector, dtype=np.float32).reshape(1, -1) for _, _, vector in waiting]
        all_rows = np.array([row for row, _, _ in waiting] + list(rows), np.int64)
        all_codes = np.array([code for _, code, _ in waiting] + list(codes), np.uint32)
        self._announce(self._write([*blocks, matrix], all_rows, all_codes, version))

    def delete(self, keys: Iterable[str]) -> int:
        """Deletes vectors for good; keys that are not there are ignored. Returns how many were deleted."""
        with self._writing() as version:
            return self._kill(list(keys), version)

    def relabel(self, keys: Sequence[str], labels: Sequence[Label]) -> None:
        """Gives vectors other labels; keys that are not there are ignored."""
        with self._writing() as version:
            for key, code in zip(keys, self._codes(labels), strict=True):
                self.db.execute("update entries set code=? where key=?", (code, key))
                query = "insert or replace into relabelled select row, ? from entries where key=?"
                self.db.execute(query, (version, key))

    def clear(self) -> None:
        """Deletes everything."""
        with self._writing():
            names = [name for (name,) in self.db.execute("select name from segments")]
            for table in ("entries", "relabelled", "dead", "labels", "segments"):
                self.db.execute(f"delete from {table}")
            self._new_layout()
        self._discard(names)

    def _kill(self, keys: Sequence[str], version: int) -> int:
        killed = 0
        for part in chunks(keys):
            self.db.execute(f"insert into dead select row, {version} from entries where key in ({marks(part)})", part)
            killed += self.db.execute(f"delete from entries where key in ({marks(part)})", part).rowcount
        return killed

    def _codes(self, labels: Sequence[Label]) -> list[int]:
        known = {body: code for code, body in self.db.execute("select code, body from labels")}
        codes = []
        for label in labels:
            body = json.dumps(dict(label), sort_keys=True, ensure_ascii=False)
            if body not in known:
                known[body] = len(known) + 1
                self.db.execute("insert into labels values(?,?)", (known[body], body))
            codes.append(known[body])
        return codes

    # -- segments --------------------------------------------------------------------------------------------------

    def _write(self, blocks: Iterable[np.ndarray], rows: np.ndarray, codes: np.ndarray, version: int) -> SegmentInfo:
        name = f"segment-{uuid.uuid4().hex[:12]}"
        return write_segment(self.folder, name, self.dimensions, blocks, rows, codes, version)

    def _announce(self, info: SegmentInfo, replaced: Sequence[str] = ()) -> None:
        """Makes a written segment part of the index, inside the transaction of the caller."""
        self.db.executemany("delete from segments where name=?", [(name,) for name in replaced])
        if info.count:
            self.db.execute("insert into segments values(?,?,?,?,?,?)", astuple(info))
        query = "update entries set vector=null where vector is not null and row between ? and ?"
        self.db.execute(query, (info.first, info.last))
        self._new_layout()

    def _new_layout(self) -> None:
        self.db.execute("update meta set value=? where key='layout'", (uuid.uuid4().hex,))

    def _discard(self, names: Iterable[str]) -> None:
        for name in names:
            for path in segment_files(self.folder, name):
                with contextlib.suppress(OSError):  # still mapped, where the system forbids it: swept up later
                    path.unlink()

    def _tidy(self) -> None:
        """Merges when the delta or the number of segments has grown too far."""
        view = self.refresh()
        if len(view.delta) < self.flush_at and len(view.segments) < self.most_segments:
            return
        if not self.background:
            self.merge()
        elif self._merging is None or not self._merging.is_alive():
            self._merging = threading.Thread(target=self._merge_quietly, name="sage-index-merge", daemon=True)
            self._merging.start()

    def _merge_quietly(self) -> None:
        # Nothing depends on a merge: the index works on, larger than it need be.
        try:
            self.merge()
        except BackendError as error:
            print(f"Warning: the index was not merged. {error}", file=sys.stderr)

    def wait(self) -> None:
        """Waits until a merge in the background has ended."""
        if self._merging is not None and self._merging.is_alive():
            self._merging.join()

    def merge(self, everything: bool = False) -> None:
        """Writes the delta, with the small segments before it, as one new segment without deleted vectors.

        Searches and changes go on meanwhile; only the last step, a short transaction, makes the new segment count.

        Args:
            everything: merge all segments into one, however large they are.
        """
        from filelock import FileLock, Timeout

        with contextlib.suppress(Timeout), FileLock(self.folder / "merge.lock", timeout=0):
            with self._lock:
                view = self.refresh()
                old = view.segments if everything else _small(view)
                parts: list[Part] = [*old, view.delta]
                keeps = [part.codes != DEAD for part in parts]
                rows = np.concatenate([part.rows[keep] for part, keep in zip(parts, keeps, strict=True)])
                codes = np.concatenate([part.codes[keep] for part, keep in zip(parts, keeps, strict=True)])
                delta = list(view.delta.blocks(keeps[-1]))
                version, layout, everything = view.version, view.layout, len(old) == len(view.segments)
            if not len(parts[-1]) and len(old) < 2 and all(keep.all() for keep in keeps):
                return  # one whole segment and nothing to add to it
            blocks = (block for part, keep in zip(old, keeps, strict=False) for block in part.blocks(keep))
            try:
                info = self._write(itertools.chain(blocks, delta), rows, codes, version)
            except OSError as error:
                raise unwritable(self.folder, error) from None
            self._replace(info, [segment.info.name for segment in old], layout, everything)

    def _replace(self, info: SegmentInfo, old: list[str], layout: str, everything: bool) -> None:
        """Lets a merged segment count instead of the `old` ones, unless the segments changed while it was written."""
        with self._writing():
            if self._position()[1] == layout:
                self._announce(info, old)
                if everything:  # no older segment is left that needs these
                    for table in ("dead", "relabelled"):
                        query = f"delete from {table} where version<=? and row<=?"
                        self.db.execute(query, (info.version, info.last))
            known = {name for (name,) in self.db.execute("select name from segments")}
            # Inside the transaction nobody else is writing a segment: what is not known is replaced or left by a crash.
            leftover = {path.name.split(".")[0] for path in self.folder.glob("segment-*")} - known
        self._discard(leftover)


def _small(view: View) -> list[Segment]:
    """The newest segments that are not much larger than what came after them: merging those costs little."""
    chosen: list[Segment] = []
    after = len(view.delta)
    for segment in reversed(view.segments):
        if after and len(segment) > 4 * after:
            break
        chosen.insert(0, segment)
        after += len(segment)
    return chosen
