"""A sentence embedder without a model, for tests of everything but meaning: words hashed to fixed random directions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np


class LightEmbedder:
    """Deterministic in every process; sentences that share words are near one another."""

    def __init__(self, name: str = "light", dimensions: int = 64) -> None:
        self.name, self.dimensions = name, dimensions
        self.embedded = 0
        self._known: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += len(texts)
        vectors = np.stack([self._sum(text) for text in texts]) if texts else np.zeros((0, self.dimensions))
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def _sum(self, text: str) -> np.ndarray:
        words = re.findall(r"\w+", text.lower()) or ["-"]
        return np.sum([self._direction(word) for word in words], axis=0)

    def _direction(self, word: str) -> np.ndarray:
        if word in self._known:
            return self._known[word]
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {word}".encode()).digest()[:8], "big")
        self._known[word] = np.random.default_rng(seed).standard_normal(self.dimensions)
        return self._known[word]
