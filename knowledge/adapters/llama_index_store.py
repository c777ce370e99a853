"""The vector index as llama-index knows vector stores: filters and deletion work, files are mapped, ids never repeat.

llama-index's own FAISS stores have neither filters nor deletion (or give a deleted node's number to another one); this
one keeps nodes with their text and metadata beside the vectors and passes the same conformance suite as llama-index's
`SimpleVectorStore` (tests/helpers/vector_store_conformance.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import (
    build_metadata_filter_fn,
    metadata_dict_to_node,
    node_to_metadata_dict,
)
from pydantic import PrivateAttr

from sage_ad.knowledge.store.retrieval import diversify
from sage_ad.knowledge.vectors.index import Label, UnusableIndex, VectorIndex


class SageVectorStore(BasePydanticVectorStore):
    """A llama-index vector store over a memory-mapped file that FAISS searches.

    Args:
        folder: where its files lie; made when absent. Every change is on the disk when it returns; several processes
            may use one folder.
        dimensions: length of an embedding.
        model: name of the embedding model; a folder of another one is refused.

    Raises:
        sage_ad.knowledge.vectors.index.UnusableIndex: when the folder holds a damaged index, or one of another model or
            of an earlier version of SAGE.

    Example:
        >>> from llama_index.core import StorageContext, VectorStoreIndex
        >>> store = SageVectorStore("index", dimensions=384, model="all-MiniLM-L6-v2")  # doctest: +SKIP
        >>> VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store))  # doctest: +SKIP
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    _index: VectorIndex = PrivateAttr()

    def __init__(self, folder: Path | str, dimensions: int, model: str) -> None:
        super().__init__(stores_text=True)
        try:
            self._index = VectorIndex(Path(folder), dimensions, model)
        except UnusableIndex as error:
            raise UnusableIndex(
                f"The vector index {folder} cannot be used: {error}; delete this folder and add the nodes again."
            ) from None

    @classmethod
    def class_name(cls) -> str:
        """Name under which llama-index serialises this class."""
        return "SageVectorStore"

    @property
    def client(self) -> VectorIndex:
        """The index below."""
        return self._index

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Adds nodes with their embeddings; a node whose id is there takes its place. Returns their ids."""
        last = {node.node_id: node for node in nodes}  # a node given twice counts once, as its last version
        if last:
            chosen = list(last.values())
            contents = [node_to_metadata_dict(node, remove_text=False, flat_metadata=False) for node in chosen]
            self._index.upsert(
                list(last),
                np.array([node.get_embedding() for node in chosen], dtype=np.float32),
                [node.metadata for node in chosen],
                [json.dumps(content) for content in contents],
                [node.ref_doc_id for node in chosen],
            )
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Deletes all nodes of a source document."""
        self._index.delete(self._index.keys(parent=ref_doc_id))

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any) -> None:
        """Deletes the nodes that have one of these ids and pass the filters; None lets all pass."""
        self._index.delete(self._chosen(node_ids, filters))

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes that have one of these ids and pass the filters, in the order in which they were added."""
        return self._nodes(self._chosen(node_ids, filters))

    def clear(self) -> None:
        """Deletes everything."""
        self._index.clear()

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to the query's embedding, best first (mode MMR: that do not repeat one another).

        Raises:
            ValueError: for a query without an embedding, or another mode.
        """
        if query.query_embedding is None:
            raise ValueError("the query has no embedding")
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            raise ValueError(f"query mode {query.mode.value!r} is not known; use default or mmr")
        vector = np.array(query.query_embedding, dtype=np.float32)
        k = query.similarity_top_k
        wide = k if query.mode == VectorStoreQueryMode.DEFAULT else max(4 * k, 20)
        hits = self._index.search(vector, wide, _label_test(query.filters), self._restricted(query))
        if query.mode == VectorStoreQueryMode.MMR:
            hits = self._spread(hits, k, kwargs.get("mmr_threshold", query.mmr_threshold))
        ids = [key for key, _ in hits]
        return VectorStoreQueryResult(nodes=self._nodes(ids), similarities=[score for _, score in hits], ids=ids)

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Does nothing: every change is on the disk already, in the folder that the store was opened with."""

    def _restricted(self, query: VectorStoreQuery) -> list[str] | None:
        # llama-index hands over empty lists where nothing is restricted.
        if not query.node_ids and not query.doc_ids:
            return None
        keys = set(query.node_ids) if query.node_ids else None
        if query.doc_ids:
            of_documents = {key for document in query.doc_ids for key in self._index.keys(parent=document)}
            keys = of_documents if keys is None else keys & of_documents
        return sorted(keys or set())

    def _spread(self, hits: list[tuple[str, float]], k: int, threshold: float | None) -> list[tuple[str, float]]:
        """llama-index's threshold is the weight of relevance: 1 takes the best, 0 the most different."""
        found = self._index.vectors([key for key, _ in hits])
        kept = [hit for hit in hits if hit[0] in found]
        if not kept:
            return []
        diversity = 0.5 if threshold is None else 1 - threshold
        chosen = diversify([score for _, score in kept], np.stack([found[key] for key, _ in kept]), k, diversity)
        return [kept[position] for position in chosen]

    def _chosen(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> list[str]:
        keys = self._index.keys(allowed=_label_test(filters))
        if node_ids is None:
            return keys
        wanted = set(node_ids)
        return [key for key in keys if key in wanted]

    def _nodes(self, keys: list[str]) -> list[BaseNode]:
        known = self._index.known(keys)
        return [metadata_dict_to_node(json.loads(known[key][1])) for key in keys if key in known]


def _label_test(filters: MetadataFilters | None) -> Callable[[Label], bool] | None:
    """Metadata filters as a test of a label, with the meaning that llama-index gives to every operator."""
    if filters is None or not filters.filters:
        return None

    def allowed(label: Label) -> bool:
        return build_metadata_filter_fn(lambda _: label, filters)("")

    return allowed
