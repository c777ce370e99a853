"""Sentence embedding: all-MiniLM-L6-v2 from its Python package, or any sentence-transformers model.

The encoder is read by `AutoModel` and mean-pooled, which gives the same vectors as the sentence-transformers package
without its slow import. Sentences are grouped by length, so that little of a batch is padding.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MODEL = "all-MiniLM-L6-v2"

DEFAULT_DIMENSIONS = 384

_DEFAULT_TOKENS = 256
"""Longest input of all-MiniLM-L6-v2 in tokens, from its sentence_bert_config.json; the rest is cut off."""

_REMEMBERED = 4096
"""Sentences whose vectors are remembered, 6 MB."""

_BATCH_TOKENS = 2048
"""Tokens (padding included) in one forward pass: beyond it larger batches gain nothing on a CPU."""


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
        # Fast tokenisers keep their padding settings inside, so two threads must not use one at the same moment.
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

    def __init__(self, device: str) -> None:
        from sage_ad.vlm.commandline import quiet_libraries
        from sage_ad.vlm.weights.embedded import minilm_folder

        quiet_libraries()
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = minilm_folder()
        self.device = torch.device(_device(device))
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32, add_pooling_layer=False)
        self.model = model.to(self.device).eval()
        self.dimensions = int(model.config.hidden_size)

    def encode(self, texts: list[str]) -> np.ndarray:
        import numpy as np
        import torch

        tokens = self.tokenizer(texts, truncation=True, max_length=_DEFAULT_TOKENS)["input_ids"]
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        with torch.inference_mode():
            for batch in batches_by_length([len(ids) for ids in tokens], _BATCH_TOKENS):
                vectors[batch] = self._forward([tokens[index] for index in batch])
        return vectors

    def _forward(self, tokens: list[list[int]]) -> np.ndarray:
        """Mean of the last hidden states over each sentence's own tokens: (batch, dimensions), unit length."""
        import torch

        longest = max(map(len, tokens))
        ids = torch.full((len(tokens), longest), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros((len(tokens), longest), dtype=torch.long)
        for row, sentence in enumerate(tokens):
            ids[row, : len(sentence)] = torch.as_tensor(sentence)
            mask[row, : len(sentence)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()


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
            self.model = SentenceTransformer(name, device=_device(device))
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


def batches_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Groups indices by length, longest first, so that each group padded to its longest keeps within `budget` tokens.

    Args:
        lengths: tokens of each sentence.
        budget: tokens of a whole batch, padding included; a longer sentence is a batch of its own.
    """
    batch: list[int] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        longest = lengths[index] if not batch else longest
        batch.append(index)
    if batch:
        yield batch


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"Device {device!r} is not there: no CUDA device is visible to torch; use --device cpu or auto."
        )
    return device


@functools.lru_cache(maxsize=4)
def _cached(name: str, device: str) -> SentenceEmbedder:
    return SentenceEmbedder(name, device)


_loading = threading.Lock()


def default_embedder(name: str = DEFAULT_MODEL, device: str = "auto") -> SentenceEmbedder:
    """The embedder of this process: loaded at the first call, then shared by everyone who asks for the same one."""
    with _loading:  # two threads that ask at once must not load the weights twice
        return _cached(name, device)
