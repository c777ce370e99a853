"""Which sentence is worth keeping as a fact, and of which kind it is, without a language model.

A softmax regression over MiniLM embeddings and a few cue words ("is caused by", "leads to", "within tolerance"), fitted
to the labelled sentences of `data/extraction.yaml`. The fit is deterministic, takes a second or two, and its
coefficients are kept in the cache folder under a name that changes with the sentences and the embedding model.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sage_ad.knowledge.facts import KINDS, Kind
from sage_ad.knowledge.text.resources import resource, resource_text
from sage_ad.vlm.files import whole_file
from sage_ad.vlm.paths import cache_home

if TYPE_CHECKING:
    import numpy as np

CLASSES: tuple[str, ...] = (*KINDS, "none")
"""What a sentence can be: a fact of one kind, or no fact."""

_VERSION = 2
_CUE_WEIGHT = 0.6  # an embedding has length 1; a cue should count about as much as its direction, not more


class Embedder(Protocol):
    """What the classifier needs of a sentence embedder; `sage_ad.knowledge.vectors.embedding.SentenceEmbedder` is one."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclass(frozen=True)
class Judgement:
    """What the classifier says of one sentence.

    Attributes:
        worth: probability (0 to 1) that it is a fact worth keeping.
        kind: the likeliest kind, if it is one.
        kind_probability: probability (0 to 1) of that kind among the kinds.
        kinds: probability of each kind among the kinds; they add up to 1.
    """

    worth: float
    kind: Kind
    kind_probability: float
    kinds: dict[Kind, float]


class FactClassifier:
    """Softmax regression from a sentence (embedding and cue words) to `CLASSES`.

    Args:
        weights: (384 + cues, classes) float64.
        offsets: (classes,) float64.
    """

    def __init__(self, weights: np.ndarray, offsets: np.ndarray) -> None:
        self.weights = weights
        self.offsets = offsets

    @classmethod
    def fitted(cls, embedder: Embedder) -> FactClassifier:
        """The classifier for an embedding model: read from the cache folder, or fitted now and kept there."""
        import numpy as np

        model = f"{embedder.name} {embedder.dimensions}"
        key = "\n".join((str(_VERSION), model, resource_text("cues.yaml"), resource_text("extraction.yaml")))
        path = cache_home() / "knowledge" / f"classifier-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        try:
            with np.load(path, allow_pickle=False) as saved:
                return cls(saved["weights"], saved["offsets"])
        except (OSError, ValueError, KeyError, EOFError):
            pass  # absent or damaged: a cache may be made again at any time
        classifier = cls.fit(*labelled_sentences(), embedder)
        classifier._save(path)
        return classifier

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str], embedder: Embedder) -> FactClassifier:
        """Fits the regression to labelled sentences; the same input gives the same coefficients."""
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        features = _features(texts, embedder.encode(texts))
        model = LogisticRegression(C=8.0, max_iter=2000, class_weight="balanced")
        model.fit(features, [CLASSES.index(label) for label in labels])
        return cls(np.ascontiguousarray(model.coef_.T), model.intercept_)

    def judge(self, texts: Sequence[str], vectors: np.ndarray) -> list[Judgement]:
        """Judges sentences.

        Args:
            texts: n sentences.
            vectors: their embeddings (n, 384).
        """
        import numpy as np

        if not texts:
            return []
        logits = _features(texts, vectors) @ self.weights + self.offsets
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return [_judgement(row) for row in probabilities]

    def _save(self, path: Path) -> None:
        """Writes the coefficients whole or not at all; a cache folder that cannot be written only costs time."""
        import numpy as np

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as stream:
                np.savez(stream, weights=self.weights, offsets=self.offsets)
        except OSError:
            return


def labelled_sentences() -> tuple[list[str], list[str]]:
    """The training sentences of `data/extraction.yaml` and their classes."""
    labelled = [(text, label) for label, texts in resource("extraction.yaml").items() for text in texts]
    return [text for text, _ in labelled], [label for _, label in labelled]


def _judgement(row: np.ndarray) -> Judgement:
    worth = float(1.0 - row[-1])
    total = max(float(row[:-1].sum()), 1e-12)
    kinds = {kind: float(row[index]) / total for index, kind in enumerate(KINDS)}
    best = max(KINDS, key=lambda kind: kinds[kind])
    return Judgement(worth, best, kinds[best], kinds)


@functools.cache
def _cue_patterns() -> tuple[re.Pattern[str], ...]:
    cues = resource("cues.yaml")
    return tuple(re.compile(rf"\b(?:{'|'.join(cues[name])})\b", re.I) for name in CLASSES)


def _features(texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
    """Embeddings with one column a class appended: whether a cue of that class occurs in the sentence."""
    import numpy as np

    cues = np.array([[bool(pattern.search(text)) for pattern in _cue_patterns()] for text in texts], dtype=np.float64)
    return np.hstack([np.asarray(vectors, dtype=np.float64), _CUE_WEIGHT * cues])
