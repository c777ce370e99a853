"""Keeps the vector index in step with the catalogue: embeds what is new, once, and makes a damaged index anew."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sage_ad.knowledge.facts import Fact
from sage_ad.knowledge.store.catalogue import Catalogue, Change
from sage_ad.knowledge.store.packs import make_folder
from sage_ad.vlm.errors import BackendError

if TYPE_CHECKING:
    import numpy as np

    from sage_ad.knowledge.vectors.backends import Vectors
    from sage_ad.knowledge.vectors.embedding_cache import Embedder, EmbeddingCache

Result = TypeVar("Result")


class IndexSync:
    """The vectors of all facts of a catalogue. Nothing is opened, loaded or embedded before it is needed.

    Args:
        catalogue: what to follow.
        folder: where the vector index lies.
        embeddings: folder of the cache of embedded texts.
        embedder: the sentence embedder; None takes the process's default one when it is needed.
        setting: which vector store, see `sage_ad.knowledge.vectors.backends.open_vectors`.
    """

    def __init__(
        self, catalogue: Catalogue, folder: Path, embeddings: Path, embedder: Embedder | None, setting: Any
    ) -> None:
        self.catalogue, self.folder = catalogue, folder
        self._embedding_folder = embeddings
        self._embedder = embedder
        self._setting = setting
        self._vectors: Vectors | None = None
        self._embeddings: EmbeddingCache | None = None
        self._lock = threading.RLock()

    def embedder(self) -> Embedder:
        """The embedder, loaded at the first call."""
        if self._embedder is None:
            from sage_ad.knowledge.vectors.embedding import default_embedder

            self._embedder = default_embedder()
        return self._embedder

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, (n, dimensions) float32; those embedded before come from the cache."""
        from sage_ad.knowledge.vectors.embedding_cache import EmbeddingCache

        with self._lock:
            if self._embeddings is None:
                self._embeddings = EmbeddingCache(self._embedding_folder, *self._model())
        return self._embeddings.vectors(texts, self.embedder)

    def _model(self) -> tuple[str, int]:
        """Name and dimensions of the embedding model, without loading the default one."""
        if self._embedder is None:
            from sage_ad.knowledge.vectors.embedding import DEFAULT_DIMENSIONS, DEFAULT_MODEL

            return DEFAULT_MODEL, DEFAULT_DIMENSIONS
        return self._embedder.name, self._embedder.dimensions

    def use(self, task: Callable[[Vectors], Result]) -> Result:
        """Calls `task` with the vector index, up to date.

        An index that is damaged, or belongs to another embedding model, is made anew first, with one line on standard
        error.

        Raises:
            BackendError: when the index cannot be written, or the vector store does not answer.
        """
        from sage_ad.knowledge.vectors.index import UnusableIndex

        with self._lock:
            try:
                return task(self._current())
            except UnusableIndex as error:
                reason: Exception = error
            except sqlite3.DatabaseError as error:
                if any(word in str(error) for word in ("locked", "full", "readonly")):
                    raise BackendError(f"The vector index {self.folder} cannot be used ({error}).") from None
                reason = error
            print(f"The vector index was unusable ({reason}): rebuilt from the packs.", file=sys.stderr)
            self._vectors = None
            shutil.rmtree(self.folder, ignore_errors=True)
            try:
                return task(self._current())
            except (UnusableIndex, sqlite3.DatabaseError) as error:
                raise BackendError(f"The vector index {self.folder} cannot be rebuilt ({error}).") from None

    def verify(self) -> None:
        """Reads every byte of the index; a damaged one is made anew, with one line on standard error."""
        self.use(lambda vectors: vectors.verify())

    def close(self) -> None:
        """Closes the index."""
        with self._lock:
            if self._vectors is not None:
                self._vectors.close()
                self._vectors = None

    def _current(self) -> Vectors:
        if self._vectors is None:
            from sage_ad.knowledge.vectors.backends import open_vectors

            model, dimensions = self._model()
            self._vectors = open_vectors(self._setting, self.folder, dimensions, model)
        if self._vectors.note("catalogue") != self._state():
            with file_lock(self.folder.parent / "index.lock"):
                self._follow(self._vectors)
        return self._vectors

    def _state(self) -> str:
        return f"{self.catalogue.uuid}:{self.catalogue.version}"

    def _follow(self, vectors: Vectors) -> None:
        """Takes what changed in the catalogue over into the vector index."""
        uuid, _, version = (vectors.note("catalogue") or "").partition(":")
        state = self._state()
        if uuid == self.catalogue.uuid:
            changes: Iterable[Change] = self.catalogue.changes(int(version))
        else:  # another catalogue numbers its changes anew: everything is compared
            changes = self._everything(vectors)
        batch: dict[str, Change] = {}
        for change in changes:
            batch[change.id] = change
            if len(batch) == 5000:
                self._apply(vectors, batch)
                batch = {}
        self._apply(vectors, batch)
        vectors.note("catalogue", state)

    def _everything(self, vectors: Vectors) -> Iterator[Change]:
        gone = set(vectors.keys())
        for fact in self.catalogue.facts():
            gone.discard(fact.id)
            yield Change(fact.id, fact)
        for key in gone:
            yield Change(key, None)

    def _apply(self, vectors: Vectors, batch: Mapping[str, Change]) -> None:
        from sage_ad.knowledge.vectors.embedding_cache import text_hash

        known = vectors.known(list(batch))
        gone = [key for key, change in batch.items() if change.fact is None and key in known]
        if gone:
            vectors.delete(gone)
        facts = [change.fact for change in batch.values() if change.fact is not None]
        wanted = {fact.id: (_label(fact), text_hash(fact.text)) for fact in facts}
        fresh = [fact for fact in facts if known.get(fact.id) != wanted[fact.id]]
        if fresh:
            labels, hashes = zip(*(wanted[fact.id] for fact in fresh), strict=True)
            vectors.upsert([fact.id for fact in fresh], self.embed([fact.text for fact in fresh]), labels, hashes)


def _label(fact: Fact) -> dict[str, str]:
    return {"domain": fact.domain, "kind": fact.kind, "status": fact.status}


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds a lock between processes; its file and folder are made when absent.

    Raises:
        BackendError: when they cannot be.
    """
    from filelock import FileLock

    lock = FileLock(path)
    try:
        make_folder(path.parent)
        lock.acquire()
    except OSError as error:
        raise BackendError(
            f"{path.parent} cannot be written ({error.strerror or error}); make room or mend its rights, then repeat."
        ) from None
    try:
        yield
    finally:
        lock.release()
