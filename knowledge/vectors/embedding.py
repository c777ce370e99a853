"""Sentence embedding: all-MiniLM-L6-v2 from its Python package, or any sentence-transformers model.

The encoder is read by `sage_ad.vlm.weights.minilm` and mean-pooled, which gives the same vectors as the package
sentence-transformers without its slow import.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_ad.vlm.devices import pick_device
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.loaded import loaded_once

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MODEL = "all-MiniLM-L6-v2"

DEFAULT_DIMENSIONS = 384

_DEFAULT_TOKENS = 256
"""Longest input of all-MiniLM-L6-v2 in tokens, from its sentence_bert_config.json; the rest is cut off."""

_REMEMBERED = 4096
"""Sentences whose vectors are remembered, 6 MB."""


class SentenceEmbedder:
    """Turns sentences into unit-length vectors, so that an inner product is their cosine similarity. Thread-safe.

    Args:
        name: "all-MiniLM-L6-v2" (installed with SAGE), or the name or folder of any sentence-transformers model, which
            needs the package sentence-transformers.
        device: "auto" (CUDA when present), "cpu" or "cuda".

    Attributes:
        name: the model's name; a store remembers it, because vectors of two models cannot be mixed.
        dimensions: length of a vector (384 for all-MiniLM-L6-v2).

    Raises:
        InputError: when the model, or the package that reads it, is absent.
    """

    def __init__(self, name: str = DEFAULT_MODEL, device: str = "auto") -> None:
        self.name = name
        self._lock = threading.Lock()
        self._encoder: _MeanPooling | _SentenceTransformer
        if name == DEFAULT_MODEL:
            self._encoder = _MeanPooling(device)
        else:
            self._encoder = _SentenceTransformer(name, device)
        self.dimensions: int = self._encoder.dimensions
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds sentences. The last few thousand are remembered: parts of one product bring the same ones again.

        Args:
            texts: any number of sentences, in any order and of any length (tokens past the model's limit are cut off).

        Returns:
            Array (n, dimensions) float32 of unit-length rows, in the order of `texts`.
        """
        import numpy as np

        if isinstance(texts, str):
            raise TypeError("encode takes a list of sentences; wrap a single one: encode([text])")
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        with self._lock:
            missing = [text for text in dict.fromkeys(texts) if text not in self._known]
            found = dict(zip(missing, self._encoder.encode(missing), strict=True)) if missing else {}
            vectors = np.stack([found[text] if text in found else self._known[text] for text in texts])
            self._remember(texts, vectors)
        return vectors

    def _remember(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keeps the vectors of sentences that came last; a whole corpus is nothing to remember."""
        if len(texts) > _REMEMBERED:
            return
        for text, vector in zip(texts, vectors, strict=True):
            self._known[text] = vector.copy()
            self._known.move_to_end(text)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


class _MeanPooling:
    """The package's MiniLM: token vectors averaged over the sentence and scaled to length 1."""

    dimensions = DEFAULT_DIMENSIONS

    def __init__(self, device: str) -> None:
        from sage_ad.vlm.weights.minilm import minilm

        self.model = minilm(pick_device(device))

    def encode(self, texts: list[str]) -> np.ndarray:
        import numpy as np
        import torch

        from sage_ad.vlm.weights.minilm import mean_over

        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for batch, hidden, mask, _ in self.model.read(self.model.tokens(texts, longest=_DEFAULT_TOKENS)):
            vectors[batch] = torch.nn.functional.normalize(mean_over(hidden, mask), dim=1).cpu().numpy()
        return vectors


class _SentenceTransformer:
    """Any other model, read by the package sentence-transformers."""

    def __init__(self, name: str, device: str) -> None:
        if name.startswith(("/", ".", "~")) and not Path(name).expanduser().is_dir():
            raise InputError(
                f"Embedding model {name!r} is not there; name the folder of a sentence-transformers model."
            )
        if importlib.util.find_spec("sentence_transformers") is None:
            raise InputError(
                f"Embedding model {name!r} needs the package sentence-transformers: install it with "
                f"pip install sentence-transformers, or use the built-in {DEFAULT_MODEL}."
            )
        from sage_ad.vlm.commandline import quiet_libraries

        quiet_libraries()
        from sentence_transformers import SentenceTransformer

        try:
            self.model = SentenceTransformer(name, device=pick_device(device))
        except (OSError, ValueError) as error:
            raise InputError(
                f"Embedding model {name!r} could not be loaded ({str(error).splitlines()[0]}); give a folder or "
                f"the name of a sentence-transformers model that can be reached, or use the built-in {DEFAULT_MODEL}."
            ) from None
        size = self.model.get_embedding_dimension()
        if not size:
            raise InputError(f"Embedding model {name!r} does not say how long its vectors are; use another one.")
        self.dimensions = int(size)

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)


def default_embedder(name: str = DEFAULT_MODEL, device: str = "auto") -> SentenceEmbedder:
    """The embedder of this process: loaded at the first call, then shared by everyone who asks for the same one."""
    return loaded_once(SentenceEmbedder, name, device)
