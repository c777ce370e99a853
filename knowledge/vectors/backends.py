"""One setting decides where vectors live: FAISS on this machine, or any llama-index vector store, such as a server.

The fact store speaks `Vectors`; `knowledge.vectors.index.VectorIndex` answers from FAISS, `LlamaIndexVectors` from
whatever llama-index vector store it is given.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sage_ad.knowledge.sqlite import chunks, connect, marks, transaction
from sage_ad.knowledge.vectors.index import Label, UnusableIndex, VectorIndex, Where
from sage_ad.vlm.errors import BackendError, InputError, SageError

if TYPE_CHECKING:
    import numpy as np


class Vectors(Protocol):
    """What the fact store asks of a vector index."""

    def search(self, vector: np.ndarray, k: int, where: Where) -> list[tuple[str, float]]:
        """The k nearest keys with their cosine similarity, best first."""

    def upsert(self, keys: Sequence[str], vectors: np.ndarray, labels: Sequence[Label], bodies: Sequence[str]) -> None:
        """Adds vectors, or replaces those whose key is there; `bodies` are texts to keep with them."""

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes vectors."""

    def known(self, keys: Sequence[str]) -> dict[str, tuple[Label, str]]:
        """Label and body of those keys that are there."""

    def keys(self) -> list[str]:
        """All keys."""

    def note(self, name: str, value: str | None = None) -> str | None:
        """Reads, or writes, a note kept with the index."""

    def verify(self) -> None:
        """Raises `UnusableIndex` when what is stored is damaged."""

    def close(self) -> None:
        """Closes files and connections."""


class LlamaIndexVectors:
    """Vectors in a llama-index vector store; a ledger on this machine remembers what was handed to it.

    The ledger counts only while the store holds its mark, a node of its own: a store that lost its data, or was swapped
    for another one, is handed everything again.

    Args:
        store: any `BasePydanticVectorStore` that knows metadata filters and `delete_nodes`.
        ledger: SQLite file of the ledger.
        identity: what tells this store and embedding model from another one.
        dimensions: length of a vector.
    """

    def __init__(self, store: Any, ledger: Path, identity: str, dimensions: int) -> None:
        self.store = store
        ledger.parent.mkdir(parents=True, exist_ok=True)
        self.db = connect(ledger)
        self.db.execute("create table if not exists entries(key text primary key, label text, hash text) without rowid")
        self.db.execute("create table if not exists notes(name text primary key, value text)")
        mark = self.note("mark")
        if self.note("identity") != identity or mark is None or not self._holds(mark, dimensions):
            self._begin(identity, dimensions)

    def _holds(self, mark: str, dimensions: int) -> bool:
        vector = [1.0] + [0.0] * (dimensions - 1)
        return any(key == mark for key, _ in self._query(vector, 1, {"domain": [_MARK], "kind": [mark]}))

    def _begin(self, identity: str, dimensions: int) -> None:
        from llama_index.core.schema import TextNode

        with transaction(self.db):
            self.db.execute("delete from entries")
            self.db.execute("delete from notes")
        mark = uuid.uuid4().hex[:16]
        vector = [1.0] + [0.0] * (dimensions - 1)
        label = {"domain": _MARK, "kind": mark, "status": _MARK}
        self.store.add([TextNode(id_=node_id(mark), text=_MARK, metadata=label, embedding=vector)])
        self.note("mark", mark)
        self.note("identity", identity)

    def search(self, vector: np.ndarray, k: int, where: Where) -> list[tuple[str, float]]:
        mark = self.note("mark")
        return [(key, score) for key, score in self._query(vector.tolist(), k + 1, where) if key != mark][:k]

    def _query(self, vector: list[float], k: int, where: Where) -> list[tuple[str, float]]:
        from llama_index.core.vector_stores.types import VectorStoreQuery

        query = VectorStoreQuery(query_embedding=vector, similarity_top_k=k, filters=metadata_filters(where))
        result = self.store.query(query)
        ids = result.ids if result.ids is not None else [node.node_id for node in result.nodes or []]
        scores = result.similarities or [0.0] * len(ids)
        found = [(key_of(name), float(score)) for name, score in zip(ids, scores, strict=True)]
        return sorted(found, key=lambda item: -item[1])

    def upsert(self, keys: Sequence[str], vectors: np.ndarray, labels: Sequence[Label], bodies: Sequence[str]) -> None:
        from llama_index.core.schema import TextNode

        nodes = [
            TextNode(id_=node_id(key), text=key, metadata=dict(label), embedding=vector)
            for key, vector, label in zip(keys, vectors.tolist(), labels, strict=True)
        ]
        # Deleted first: not every store replaces a node of the same id. Only then does the ledger know of them.
        self.store.delete_nodes([node.node_id for node in nodes])
        self.store.add(nodes)
        rows = [(key, json.dumps(dict(label)), body) for key, label, body in zip(keys, labels, bodies, strict=True)]
        with transaction(self.db):
            self.db.executemany("insert or replace into entries values(?,?,?)", rows)

    def delete(self, keys: Sequence[str]) -> None:
        self.store.delete_nodes([node_id(key) for key in keys])
        with transaction(self.db):
            self.db.executemany("delete from entries where key=?", [(key,) for key in keys])

    def known(self, keys: Sequence[str]) -> dict[str, tuple[Label, str]]:
        found: dict[str, tuple[Label, str]] = {}
        for part in chunks(keys):
            query = f"select key, label, hash from entries where key in ({marks(part)})"
            found.update({key: (json.loads(label), text) for key, label, text in self.db.execute(query, part)})
        return found

    def keys(self) -> list[str]:
        return [key for (key,) in self.db.execute("select key from entries")]

    def note(self, name: str, value: str | None = None) -> str | None:
        if value is not None:
            self.db.execute("insert or replace into notes values(?,?)", (name, value))
        row = self.db.execute("select value from notes where name=?", (name,)).fetchone()
        return row and row[0]

    def verify(self) -> None:
        damage = self.db.execute("pragma quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise UnusableIndex(f"the ledger is damaged ({damage})")

    def close(self) -> None:
        self.db.close()


_MARK = "sage-ledger"


def node_id(key: str) -> str:
    """A fact's id as a UUID, the only kind of id that some servers take."""
    return str(uuid.UUID(hex=key + key))


def key_of(name: str) -> str:
    """The fact's id of a `node_id`."""
    return uuid.UUID(name).hex[:16]


def metadata_filters(where: Where) -> Any:
    """The conditions as llama-index `MetadataFilters`; None when there are none."""
    from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

    filters = [
        MetadataFilter(key=name, value=next(iter(values)), operator=FilterOperator.EQ)
        if len(values) == 1
        else MetadataFilter(key=name, value=sorted(values), operator=FilterOperator.IN)
        for name, values in where.items()
        if values
    ]
    return MetadataFilters(filters=list(filters)) if filters else None


def open_vectors(setting: Any, folder: Path, dimensions: int, model: str) -> Vectors:
    """Opens the vector index that a setting names.

    Args:
        setting: a llama-index vector store, or an address: "faiss" (this machine), "qdrant:http://host:6333#collection",
            "qdrant:/folder#collection" (in-process), "postgresql://user:password@host:5432/database#table", or
            "package.module:function" that returns a llama-index vector store. None takes the environment variable
            SAGE_VECTOR_STORE, else "faiss".
        folder: where files may lie.
        dimensions: length of a vector.
        model: name of the embedding model.

    Raises:
        InputError: for an address that names no store, or whose package is not installed.
        BackendError: when the store does not answer.
    """
    setting = setting if setting is not None else os.environ.get("SAGE_VECTOR_STORE") or "faiss"
    if setting == "faiss":
        return VectorIndex(folder, dimensions, model)
    address = setting if isinstance(setting, str) else f"object {type(setting).__module__}.{type(setting).__qualname__}"
    shown = re.sub(r"//[^/@]*@", "//", address)  # a password must not reach a log
    try:
        store = store_at(setting, dimensions) if isinstance(setting, str) else setting
        name = hashlib.sha256(f"{address}\n{model}\n{dimensions}".encode()).hexdigest()[:12]
        return LlamaIndexVectors(store, folder.parent / f"ledger-{name}.sqlite", f"{shown} {model}", dimensions)
    except ImportError as error:
        raise InputError(f"Vector store {shown!r} needs the package {error.name}: pip install {error.name}.") from None
    except SageError:
        raise
    except Exception as error:  # every client has errors of its own; the user needs the address and the reason
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"Vector store {shown!r} does not answer ({reason}); start it or mend its address."
        ) from None


def store_at(address: str, dimensions: int) -> Any:
    """The llama-index vector store at an address (see `open_vectors`); imports its package."""
    place, _, name = address.partition("#")
    if place.startswith("qdrant:"):
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient
        from qdrant_client.models import Distance, VectorParams

        where, collection = place.removeprefix("qdrant:"), name or "sage-facts"
        client = QdrantClient(url=where) if "://" in where else QdrantClient(path=where)
        if not client.collection_exists(collection):  # llama-index makes it at the first add, but asks it before
            shape = VectorParams(size=dimensions, distance=Distance.COSINE)
            client.create_collection(collection, vectors_config={"fact": shape})
        return QdrantVectorStore(collection_name=collection, client=client, dense_vector_name="fact")
    if place.startswith(("postgresql://", "postgres://")):
        from llama_index.vector_stores.postgres import PGVectorStore

        tail = place.partition("://")[2]
        return PGVectorStore.from_params(
            connection_string=f"postgresql+psycopg2://{tail}",
            async_connection_string=f"postgresql+asyncpg://{tail}",
            table_name=name or "sage_facts",
            embed_dim=dimensions,
        )
    module, _, function = place.partition(":")
    if not function or not re.fullmatch(r"[\w.]+:\w+", place):
        raise InputError(
            f"Vector store {place!r} is not known; use faiss, qdrant:URL#collection, postgresql://... or "
            "package.module:function."
        )
    return getattr(importlib.import_module(module), function)()
