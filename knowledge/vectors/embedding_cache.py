"""Vectors of sentences by the hash of their text, on disk, so that nothing is embedded twice on one machine."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sage_ad.knowledge.sqlite import chunks, connect, marks, transaction

MANY = 1000
"""Sentences that take some seconds to embed: it is said then."""


class Embedder(Protocol):
    """What the store asks of an embedder; `SentenceEmbedder` is one."""

    @property
    def name(self) -> str:
        """Name of the model; vectors of two models are never mixed."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of unit length, (n, dimensions) float32."""


def text_hash(text: str) -> str:
    """Hash by which a text's vector is kept."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class EmbeddingCache:
    """Remembers vectors of one model in one SQLite file; without a file that can be written it only embeds.

    Args:
        folder: the cache's folder; the file is named for the model.
        model: name of the model.
        dimensions: length of its vectors.
    """

    def __init__(self, folder: Path, model: str, dimensions: int) -> None:
        name = re.sub(r"[^\w.-]+", "-", model)[-60:]
        self.path = folder / f"{name}-{text_hash(model)[:8]}-{dimensions}.sqlite"
        self.dimensions = dimensions
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._broken = False

    def _open(self) -> sqlite3.Connection | None:
        if self._db is None and not self._broken:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # A lost cache costs seconds; a synchronised one would cost every add some.
                self._db = connect(self.path, synchronous="off")
                self._db.execute("create table if not exists vectors(hash text primary key, vector blob) without rowid")
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
        return self._db

    def _give_up(self, error: Exception) -> None:
        print(
            f"Warning: vectors are not kept in {self.path} ({error}); they are made anew when needed.", file=sys.stderr
        )
        self._broken, self._db = True, None
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            for ending in ("", "-wal", "-shm"):  # damaged: the next process begins afresh
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    def vectors(self, texts: Sequence[str], embedder: Any) -> np.ndarray:
        """The vectors of these texts, (n, dimensions) float32; `embedder()` is called only for those not yet known.

        Args:
            texts: sentences; equal ones are embedded once.
            embedder: function that gives the `Embedder`, so that the model is loaded only when it is needed.
        """
        hashes = [text_hash(text) for text in texts]
        with self._lock:
            known = self._read(sorted(set(hashes)))
        missing = {name: text for name, text in zip(hashes, texts, strict=True) if name not in known}
        if missing:
            if len(missing) > MANY:
                print(f"Embedding {len(missing)} sentences (once) ...", file=sys.stderr)
            made = np.ascontiguousarray(embedder().encode(list(missing.values())), dtype=np.float32)
            fresh = dict(zip(missing, made, strict=True))
            with self._lock:
                self._write(fresh)
            known.update(fresh)
        if not hashes:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        return np.stack([known[name] for name in hashes])

    def _read(self, hashes: list[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        db = self._open()
        if db is None:
            return found
        try:
            for part in chunks(hashes):
                query = f"select hash, vector from vectors where hash in ({marks(part)})"
                for name, blob in db.execute(query, part):
                    if len(blob) == 4 * self.dimensions:
                        found[name] = np.frombuffer(blob, dtype=np.float32)
        except sqlite3.Error as error:
            self._give_up(error)
        return found

    def _write(self, vectors: dict[str, np.ndarray]) -> None:
        db = self._open()
        if db is None:
            return
        try:
            with transaction(db):
                rows = [(name, vector.tobytes()) for name, vector in vectors.items()]
                db.executemany("insert or replace into vectors values(?,?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)
