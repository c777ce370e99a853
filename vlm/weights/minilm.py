"""The sentence encoder all-MiniLM-L6-v2 from its Python package, with texts of like length read together."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.loaded import loaded_once

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 2048
"""Tokens (padding included) in one forward pass: beyond it larger batches gain nothing on a CPU."""


class MiniLM:
    """Tokeniser and network. Thread-safe.

    Args:
        device: a torch device.

    Raises:
        InputError: the weights are neither installed nor can they be fetched.
    """

    def __init__(self, device: str = "cpu") -> None:
        from sage_ad.vlm.commandline import quiet_libraries
        from sage_ad.vlm.weights.embedded import minilm_folder

        quiet_libraries()
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = minilm_folder()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32, add_pooling_layer=False)
        self.model: Any = model.to(device).eval()
        # Fast tokenisers keep their settings inside, so two threads must not use one at the same moment.
        self._lock = threading.Lock()

    def tokens(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, longest: int) -> Any:
        """Token ids and types of texts, or of pairs of texts, cut to `longest` tokens."""
        with self._lock:
            return self.tokenizer(list(texts), pairs and list(pairs), truncation=True, max_length=longest)

    def read(self, tokens: Any) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Runs texts through the network, in batches of like length.

        Yields:
            Indices of the texts (n), last hidden states (n, tokens, 384), mask and token types (n, tokens).
        """
        import torch

        rows = tokens["input_ids"]
        for batch in batches_by_length([len(row) for row in rows], BATCH_TOKENS):
            longest = max(len(rows[index]) for index in batch)
            ids, types, mask = (torch.zeros((len(batch), longest), dtype=torch.long) for _ in range(3))
            for place, index in enumerate(batch):
                length = len(rows[index])
                ids[place, :length] = torch.as_tensor(rows[index])
                types[place, :length] = torch.as_tensor(tokens["token_type_ids"][index])
                mask[place, :length] = 1
            ids, types, mask = (each.to(self.model.device) for each in (ids, types, mask))
            with torch.inference_mode():
                hidden = self.model(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
            yield batch, hidden, mask, types


def minilm(device: str = "cpu") -> MiniLM:
    """The encoder of this process, loaded at the first call."""
    return loaded_once(MiniLM, device)


def mean_over(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that `mask` keeps: (batch, tokens, width), (batch, tokens) -> (batch, width)."""
    kept = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1)


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
