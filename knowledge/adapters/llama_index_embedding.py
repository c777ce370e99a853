"""The sentence embedder as llama-index knows embedders, for its pipelines, node parsers and vector stores."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr

from sage_ad.knowledge.vectors.embedding import DEFAULT_MODEL, SentenceEmbedder, default_embedder


class SageEmbedding(BaseEmbedding):
    """A llama-index embedding model over `SentenceEmbedder`.

    Args:
        embedder: the embedder to use; None takes the process's `default_embedder(model_name)`.
        model_name: its name when `embedder` is None.
    """

    _embedder: SentenceEmbedder = PrivateAttr()

    def __init__(
        self, embedder: SentenceEmbedder | None = None, model_name: str = DEFAULT_MODEL, **settings: Any
    ) -> None:
        used = embedder or default_embedder(model_name)
        super().__init__(model_name=used.name, **settings)
        self._embedder = used

    @classmethod
    def class_name(cls) -> str:
        """Name under which llama-index serialises this class."""
        return "SageEmbedding"

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.encode(texts).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)
