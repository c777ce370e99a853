"""The vector index: one append-only file of vectors, mapped into memory for FAISS, and one SQLite file that describes it.

`vectors-*.f16` holds the vectors one after the other as 16-bit floats: half the memory of 32 bits, a search twice as
fast, and the same ten best neighbours in all but a few queries of a thousand. `entries.sqlite` says for each of them, in
the same order, its key and the code of its label; code 0 means deleted. A change appends to the file, then commits one
SQLite transaction, so a reader sees the state before or after it, never half of one: bytes beyond the last entry do not
count, and the next writer writes over them. No row number is used twice, not even after a compaction.

Labels are small sets of metadata that many vectors share (domain, kind, status): a filter is decided once a distinct
label, not once a vector.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import sys
import threading
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sage_ad.knowledge.sqlite import chunks, connect, marks, transaction, unwritable
from sage_ad.vlm.errors import BackendError

Label = Mapping[str, Any]

Where = Mapping[str, Collection[str]]
"""Allowed values by name of a label's field; an empty collection allows every value."""

_FORMAT = 2

_TABLES = """
create table meta(key text primary key, value);
create table labels(code integer primary key, body text unique);
create table entries(row integer primary key autoincrement, key text unique, code int, version int, parent text,
                     body text);
create index entries_parent on entries(parent) where parent is not null;
create index entries_version on entries(version)
"""

_CHECKED_WHOLE = 1 << 26
"""Bytes up to which opening checks every vector, which takes milliseconds; `VectorIndex.verify` always does."""

_COMPACTED_FROM = 10_000
"""Deleted vectors from which the file is compacted when they are more than half of it."""

_COPIED_FROM = 50_000
"""Vectors from which a copy on the GPU pays: below, the mapped file answers within a few milliseconds."""

_GPU_MOST = 2048
"""Neighbours that a GPU index can find in one search."""


class UnusableIndex(Exception):
    """The index on disk is damaged or belongs to another model or version; the message says which."""


@dataclass
class _View:
    """The vectors at one version of the index, as a search needs them.

    Attributes:
        file: name of the vector file; a compaction writes another one.
        first: row number of the first vector in it; the others follow without a gap.
        version, crc: the version, and the checksum of its vectors.
        codes: (n,) the code of each vector's label, 0 for a deleted one.
        vectors: (n, dimensions) float16, mapped.
        labels: the label of each code.
    """

    file: str = ""
    first: int = 0
    version: int = 0
    crc: int = 0
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), "<f2"))
    labels: dict[int, Label] = field(default_factory=dict)


class VectorIndex:
    """Vectors under string keys, searchable by inner product and by label. Thread-safe; processes may share a folder.

    Args:
        folder: where its files lie; made when absent.
        dimensions: length of a vector.
        model: name of the embedding model: vectors of another model are refused.

    Raises:
        UnusableIndex: when the folder holds a damaged index, or one of another model, length or version.
        BackendError: when the folder cannot be written.
    """

    def __init__(self, folder: Path, dimensions: int, model: str) -> None:
        self.folder, self.dimensions, self.model = folder, dimensions, model
        self._lock = threading.RLock()
        self._view = _View()
        self._gpu: Any = None
        self._gpu_file = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = connect(folder / "entries.sqlite")
            try:
                self._create_or_check()
                with self._transaction():
                    pass  # reads the entries and checks the vectors
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.OperationalError) as error:
            raise unwritable(folder, error) from None
        except sqlite3.DatabaseError as error:
            raise UnusableIndex(f"entries.sqlite is damaged ({error})") from None

    def _create_or_check(self) -> None:
        wanted = {"format": _FORMAT, "model": self.model, "dimensions": self.dimensions}
        with transaction(self._db):
            if not self._db.execute("select 1 from sqlite_master where name='meta'").fetchone():
                if any(self.folder.glob("vectors-*")):
                    raise UnusableIndex("entries.sqlite is empty")
                for statement in _TABLES.split(";\n"):
                    self._db.execute(statement)
                values = {**wanted, "version": 0, "file": _new_name(), "first": 1, "crc": 0}
                self._db.executemany("insert into meta values(?,?)", values.items())
        found = dict(self._db.execute("select key, value from meta"))
        for key, value in wanted.items():
            if found.get(key) != value:
                raise UnusableIndex(f"its {key} is {found.get(key)!r}, but {value!r} is in use")

    def close(self) -> None:
        """Closes the files."""
        with self._lock:
            self._db.close()
            self._view, self._gpu = _View(), None

    # -- transactions ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, mode: str = "deferred") -> Iterator[_View]:
        """A transaction; gives the view of the version that its statements see."""
        with self._lock:
            try:
                yield self._begin(mode)
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have rolled it back already
                    self._db.execute("rollback")
                raise

    def _begin(self, mode: str) -> _View:
        for _ in range(5):
            self._db.execute(f"begin {mode}")
            try:
                self._view = self._refreshed()
                return self._view
            except FileNotFoundError:  # another process compacted the index since we began: look again
                self._db.execute("rollback")
        raise UnusableIndex("its file of vectors is missing")

    def _refreshed(self) -> _View:
        """The view, after taking over what this or another process changed."""
        meta = dict(self._db.execute("select key, value from meta where key in ('file', 'first', 'version', 'crc')"))
        view = self._view
        if view.file != meta["file"]:
            # One string for all codes: a million rows of Python objects would take seconds.
            query = "select group_concat(code) from (select code from entries order by row)"
            (codes,) = self._db.execute(query).fetchone()
            view = _View(meta["file"], meta["first"], codes=np.fromstring(codes or "", np.uint32, sep=","))
            view.vectors = self._map(view.file, len(view.codes))
            if view.vectors.nbytes <= _CHECKED_WHOLE and zlib.crc32(view.vectors.data) != meta["crc"]:
                raise UnusableIndex(f"{view.file} is damaged")
        elif view.version != meta["version"]:
            query = "select row, code from entries where version>? order by row"
            changed = np.array(self._db.execute(query, (view.version,)).fetchall(), np.int64).reshape(-1, 2)
            positions, count = changed[:, 0] - view.first, len(view.codes)
            if len(positions) and positions[-1] >= count:
                view.vectors = self._map(view.file, int(positions[-1]) + 1)
                view.codes = np.concatenate([view.codes, np.zeros(len(view.vectors) - count, np.uint32)])
            view.codes[positions] = changed[:, 1]
        view.version, view.crc = meta["version"], meta["crc"]
        labels = self._db.execute("select code, body from labels where code>?", (max(view.labels, default=0),))
        view.labels.update({code: json.loads(body) for code, body in labels})
        return view

    def _map(self, name: str, count: int) -> np.ndarray:
        if not count:
            return np.zeros((0, self.dimensions), "<f2")
        path = self.folder / name
        if path.stat().st_size < 2 * count * self.dimensions:
            raise UnusableIndex(f"{name} is cut off")
        return np.memmap(path, "<f2", "r", shape=(count, self.dimensions))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[_View]:
        """One change: gives the view before it, whose version is one less; nothing of it is seen when it fails."""
        try:
            with self._transaction("immediate") as view:
                yield view
                self._db.execute("update meta set value=? where key='version'", (view.version + 1,))
        except (sqlite3.OperationalError, OSError) as error:
            raise unwritable(self.folder, error) from None

    # -- reading ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        with self._transaction() as view:
            return int(np.count_nonzero(view.codes))

    def search(
        self,
        vector: np.ndarray,
        k: int,
        where: Where | Callable[[Label], bool] | None = None,
        keys: Collection[str] | None = None,
    ) -> list[tuple[str, float]]:
        """The k nearest keys with their inner products, best first.

        Args:
            vector: the query, (dimensions,).
            k: how many; fewer are returned when fewer are allowed.
            where: allowed values of a label's fields, or whether a label may be found; None allows all.
            keys: only these keys may be found.

        Raises:
            ValueError: when the query has another length.
        """
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        if query.shape[1] != self.dimensions:
            raise ValueError(f"the query has {query.shape[1]} numbers, the index {self.dimensions}")
        allowed = _label_test(where)
        with self._transaction() as view:
            table = np.zeros(max(view.labels, default=0) + 1, dtype=bool)
            for code, label in view.labels.items():
                table[code] = allowed(label)
            mask = table[view.codes]
            if keys is not None:
                only = np.zeros_like(mask)
                only[[row - view.first for (row,) in self._select("row", "key", keys)]] = True
                mask &= only
            k = min(k, int(np.count_nonzero(mask)))
            if k < 1:
                return []
            scores, positions = self._search_gpu(view, query, k, mask) or _search_mapped(view.vectors, query, k, mask)
            rows = (positions + view.first).tolist()
            names = dict(self._select("row, key", "row", rows))
            return [(names[row], float(score)) for row, score in zip(rows, scores, strict=True) if row in names]

    def _select(self, columns: str, by: str, values: Collection[Any]) -> Iterator[Any]:
        """The columns of the entries that have one of these values."""
        for part in chunks(list(values)):
            yield from self._db.execute(f"select {columns} from entries where {by} in ({marks(part)})", part)

    def _search_gpu(
        self, view: _View, query: np.ndarray, k: int, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """As `_search_mapped`, on a copy on the first GPU that `faiss-gpu` sees; None where the mapped file must answer.

        A GPU index knows no filters: more neighbours than asked for are taken, and those that may not be found dropped.
        """
        import faiss

        count = len(view.vectors)
        if count < _COPIED_FROM or k > _GPU_MOST or self._gpu is False or not faiss.get_num_gpus():
            return None
        try:
            if self._gpu_file != view.file:
                self._gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, _over(view.vectors))
                self._gpu_file = view.file
            elif self._gpu.ntotal < count:
                self._gpu.add(view.vectors[self._gpu.ntotal :].astype(np.float32))
        except RuntimeError as error:  # most often: its memory is full
            reason = str(error).splitlines()[0]
            print(f"Warning: {count} vectors were not copied to the GPU ({reason}); the CPU searches.", file=sys.stderr)
            self._gpu = False
            return None
        wide = min(_GPU_MOST, count, k if mask.all() else max(8 * k, 256))
        scores, positions = self._gpu.search(query, wide)
        kept = mask[positions[0]]
        if np.count_nonzero(kept) < k:
            return None
        return scores[0][kept][:k], positions[0][kept][:k]

    def vectors(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The stored vectors of these keys, (dimensions,) float32 of 16-bit precision; absent keys are left out."""
        with self._transaction() as view:
            rows = dict(self._select("key, row", "key", keys))
            return {key: view.vectors[row - view.first].astype(np.float32) for key, row in rows.items()}

    def known(self, keys: Sequence[str]) -> dict[str, tuple[Label, str]]:
        """Label and body of these keys; absent keys are left out."""
        with self._transaction() as view:
            return {key: (view.labels[code], body) for key, code, body in self._select("key, code, body", "key", keys)}

    def keys(self, parent: str | None = None, allowed: Callable[[Label], bool] | None = None) -> list[str]:
        """Keys in the order in which they were added: all, or those with this parent and an allowed label."""
        condition, values = ("code>0", ()) if parent is None else ("parent=?", (parent,))
        with self._transaction() as view:
            codes = {code for code, label in view.labels.items() if allowed is None or allowed(label)}
            rows = self._db.execute(f"select key, code from entries where {condition} order by row", values)
            return [key for key, code in rows if code in codes]

    def note(self, name: str, value: str | None = None) -> str | None:
        """Reads (or, given a value, first writes) a note kept with the index, such as what it was made from."""
        if value is not None:
            with self._writing():
                self._db.execute("insert or replace into meta values(?,?)", (f"note:{name}", value))
            return value
        with self._lock:
            row = self._db.execute("select value from meta where key=?", (f"note:{name}",)).fetchone()
            return row and row[0]

    def verify(self) -> None:
        """Reads every byte of the index; raises `UnusableIndex` when something is not what was written."""
        with self._transaction() as view:
            damage = self._db.execute("pragma quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise UnusableIndex(f"entries.sqlite is damaged ({damage})")
            if zlib.crc32(view.vectors.data) != view.crc:
                raise UnusableIndex(f"{view.file} is damaged")

    # -- writing ---------------------------------------------------------------------------------------------------

    def upsert(
        self,
        keys: Sequence[str],
        vectors: np.ndarray,
        labels: Sequence[Label],
        bodies: Sequence[str] | None = None,
        parents: Sequence[str | None] | None = None,
    ) -> None:
        """Adds vectors; one whose key is there already takes its place.

        Args:
            keys: their names, each at most once.
            vectors: (n, dimensions); kept with 16-bit precision.
            labels: for each the metadata that filters ask for.
            bodies: for each any text to keep with it; None leaves all empty.
            parents: for each what it belongs to (a source document); None leaves all without.

        Raises:
            ValueError: when lengths do not fit or a key comes twice.
            BackendError: when the disk is full; the index is then as it was.
        """
        matrix = np.ascontiguousarray(vectors, dtype="<f2")
        if matrix.shape != (len(keys), self.dimensions) or len(labels) != len(keys):
            raise ValueError(f"{len(keys)} keys and {len(labels)} labels do not fit vectors of shape {matrix.shape}")
        if len(set(keys)) != len(keys):
            raise ValueError("a key comes twice")
        with self._writing() as view:
            self._mark_deleted(keys, view.version + 1)
            path = self.folder / view.file
            with path.open("r+b" if len(view.codes) else "wb") as stream:
                stream.seek(view.vectors.nbytes)
                _write_through(stream, [matrix])
            self._db.execute("update meta set value=? where key='crc'", (zlib.crc32(matrix.data, view.crc),))
            codes, versions = self._codes(labels), itertools.repeat(view.version + 1, len(keys))
            rows = zip(keys, codes, versions, parents or [None] * len(keys), bodies or [""] * len(keys), strict=True)
            self._db.executemany("insert into entries(key, code, version, parent, body) values(?,?,?,?,?)", rows)
        self._compact_when_due()

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes vectors for good; keys that are not there are ignored."""
        with self._writing() as view:
            self._mark_deleted(list(keys), view.version + 1)
        self._compact_when_due()

    def clear(self) -> None:
        """Deletes everything."""
        self.delete(self.keys())
        self.compact()

    def compact(self) -> None:
        """Writes the vectors that are left to a new file; other processes keep searching meanwhile.

        An upsert or a deletion does it when more than half of the vectors, and at least 10,000, are deleted ones.

        Raises:
            BackendError: when the disk is full; the index is then as it was.
        """
        with self._writing() as view:
            for path in self.folder.glob("vectors-*"):
                if path.name != view.file:  # a crash left it: in this transaction nobody else is writing one
                    _remove(path)
            left = np.flatnonzero(view.codes)
            blocks = (view.vectors[left[start : start + 8192]] for start in range(0, len(left), 8192))
            file, next_row = self.folder / _new_name(), view.first + len(view.codes)
            try:
                with file.open("xb") as stream:
                    crc = _write_through(stream, blocks)
                columns = "key, code, version, parent, body"
                query = f"select {columns} from entries where code>0 order by row"
                self._db.execute(f"insert or replace into entries({columns}) {query}")
                self._db.execute("delete from entries where row<?", (next_row,))
                self._db.execute("delete from labels where code not in (select code from entries)")
                values = {"file": file.name, "first": next_row, "crc": crc}
                self._db.executemany("insert or replace into meta values(?,?)", values.items())
            except BaseException:
                _remove(file)
                raise
        _remove(self.folder / view.file)

    def _compact_when_due(self) -> None:
        with self._transaction() as view:
            deleted = len(view.codes) - int(np.count_nonzero(view.codes))
        if deleted >= _COMPACTED_FROM and 2 * deleted > len(view.codes):
            try:
                self.compact()
            except BackendError as error:  # nothing depends on it: the index works on, larger than it need be
                print(f"Warning: the index was not compacted. {error}", file=sys.stderr)

    def _mark_deleted(self, keys: Sequence[str], version: int) -> None:
        change = f"update entries set key=null, code=0, version={version}, parent=null, body=null"
        for part in chunks(keys):
            self._db.execute(f"{change} where key in ({marks(part)})", part)

    def _codes(self, labels: Sequence[Label]) -> list[int]:
        bodies = [json.dumps(dict(label), sort_keys=True, ensure_ascii=False) for label in labels]
        codes: dict[str, int] = {}
        for body in dict.fromkeys(bodies):
            self._db.execute("insert or ignore into labels(body) values(?)", (body,))
            (codes[body],) = self._db.execute("select code from labels where body=?", (body,)).fetchone()
        return [codes[body] for body in bodies]


def _new_name() -> str:
    return f"vectors-{uuid.uuid4().hex[:12]}.f16"


def _label_test(where: Where | Callable[[Label], bool] | None) -> Callable[[Label], bool]:
    if callable(where):
        return where
    limits = {name: set(values) for name, values in (where or {}).items() if values}
    return lambda label: all(label.get(name) in values for name, values in limits.items())


def _write_through(stream: Any, blocks: Iterable[np.ndarray]) -> int:
    """Writes blocks, which are on the disk when this returns; gives their checksum."""
    crc = 0
    for block in blocks:
        stream.write(block)
        crc = zlib.crc32(block.data, crc)
    stream.flush()
    os.fsync(stream.fileno())
    return crc


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # still mapped, where the system forbids it: the next compaction does it
        path.unlink()


def _over(vectors: np.ndarray) -> Any:
    """A FAISS index over vectors (n, dimensions) float16 where they lie; they must live as long as it does."""
    import faiss

    index: Any = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    view: Any = faiss.MaybeOwnedVectorUInt8
    index.codes = view.create_view(faiss.swig_ptr(vectors.view(np.uint8)), vectors.nbytes, index.codes.owner)
    index.ntotal = len(vectors)
    return index


def _search_mapped(vectors: np.ndarray, query: np.ndarray, k: int, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and positions, best first, of the k best vectors whose position is set in the mask."""
    import faiss

    parameters = None
    if not mask.all():
        bits = np.packbits(mask, bitorder="little")  # FAISS only points to it: it must live until the search is over
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg, arg-type]
    scores, positions = _over(vectors).search(query, k, params=parameters)
    return scores[0], positions[0]
