"""Similarity of sentences by embedding (MiniLM): rounded, so that a level never hangs on the last bits of a float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

from sage_ad.evaluation.text.lexicon import lexicon
from sage_ad.evaluation.text.sentiment import sentiment_of

if TYPE_CHECKING:
    import numpy as np

DECIMALS = 3


class Embedder(Protocol):
    """Anything that turns texts into unit-length rows."""

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


class SentenceSimilarity:
    """Embeds every text once and compares texts by the cosine of their vectors.

    Args:
        embedder: turns texts into unit vectors; None takes `knowledge.vectors.embedding.default_embedder()` when first needed.
        known: vectors of texts that need not be embedded again.
    """

    def __init__(self, embedder: Embedder | None = None, known: Mapping[str, np.ndarray] | None = None) -> None:
        self._embedder = embedder
        self._vectors: dict[str, np.ndarray] = dict(known or {})

    def prepare(self, texts: Iterable[str]) -> None:
        """Embeds texts in one batch (those already known are passed over)."""
        missing = [text for text in dict.fromkeys(texts) if text and text not in self._vectors]
        if not missing:
            return
        if self._embedder is None:
            from sage_ad.knowledge.vectors.embedding import default_embedder

            self._embedder = default_embedder()
        self._vectors.update(zip(missing, self._embedder.encode(missing), strict=True))

    def vectors_of(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """The vectors of those texts that have been prepared."""
        return {text: self._vectors[text] for text in texts if text in self._vectors}

    def between(self, one: str, others: Sequence[str]) -> list[float]:
        """Cosine similarities of one text to others, rounded; 0 for empty texts."""
        self.prepare([one, *others])
        if not one:
            return [0.0] * len(others)
        vector = self._vectors[one]
        return [round(float(vector @ self._vectors[other]), DECIMALS) if other else 0.0 for other in others]

    def to_concepts(self, text: str) -> dict[str, float]:
        """How near a text comes to each concept of the lexicon: its best gloss."""
        glosses = concept_glosses()
        values = iter(self.between(text, [gloss for entries in glosses.values() for gloss in entries]))
        return {concept: max(next(values) for _ in entries) for concept, entries in glosses.items()}

    def sentiment(self, text: str) -> float:
        """How much a text sounds like a complaint (towards 1) or like praise (towards -1); see `evaluation.text.sentiment`."""
        self.prepare([text])
        return round(sentiment_of(self._vectors[text]), DECIMALS)


@cache
def concept_glosses() -> dict[str, list[str]]:
    """The glosses of each concept, its name among them."""
    return {concept: [f"a {concept.replace('-', ' ')}", *entry["glosses"]] for concept, entry in lexicon().items()}
