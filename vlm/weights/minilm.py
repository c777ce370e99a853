"""The sentence encoder all-MiniLM-L6-v2 from its Python package, with texts of like length read together."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.loaded import loaded_once

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 2048
"""Tokens (padding included) in one forward pass: beyond it larger batches gain nothing on a CPU."""


LAYERS, HEADS, NORM_EPS = 6, 12, 1e-12
"""From its config.json."""


class MiniLM:
    """Tokeniser and network. Thread-safe.

    The six layers of BERT are run here: importing transformers for them takes four seconds of each cold process.

    Args:
        device: a torch device.

    Attributes:
        weights: float32 tensors by the names of transformers' `BertModel`.

    Raises:
        InputError: the weights are neither installed nor can they be fetched.
    """

    def __init__(self, device: str = "cpu") -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        from sage_ad.vlm.weights.embedded import minilm_folder

        folder = minilm_folder()
        self.device = device
        self.weights: dict[str, torch.Tensor] = load_file(folder / "model.safetensors", device=device)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        # A tokeniser keeps the length that it cuts at inside, so two threads must not use one at the same moment.
        self._lock = threading.Lock()

    def changed(self, changes: Mapping[str, torch.Tensor]) -> MiniLM:
        """This network with some weights added to; it shares the tokeniser and all other weights with this one.

        Args:
            changes: what is added, by the names of `weights`.
        """
        other = copy(self)
        other.weights = self.weights | {name: self.weights[name] + change for name, change in changes.items()}
        return other

    def tokens(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, longest: int
    ) -> dict[str, list[list[int]]]:
        """Token ids ("input_ids") and types ("token_type_ids") of texts, or of pairs of texts, cut to `longest` tokens."""
        given: Any = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        with self._lock:
            self._tokenizer.enable_truncation(longest)
            found = self._tokenizer.encode_batch(given)
        return {"input_ids": [one.ids for one in found], "token_type_ids": [one.type_ids for one in found]}

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The tokens as text."""
        return tuple(str(self._tokenizer.id_to_token(one)) for one in ids)

    def read(
        self, tokens: dict[str, list[list[int]]]
    ) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]]:
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
            ids, types, mask = (each.to(self.device) for each in (ids, types, mask))
            with torch.inference_mode():
                hidden = self._hidden(ids, types, mask)
            yield batch, hidden, mask, types

    def _hidden(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states (n, tokens, 384)."""
        import torch.nn.functional as F

        def linear(x: torch.Tensor, name: str) -> torch.Tensor:
            return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

        def norm(x: torch.Tensor, name: str) -> torch.Tensor:
            return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], NORM_EPS)

        words, places, kinds = (
            self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        x = norm(words[ids] + kinds[types] + places[: ids.shape[1]], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            query, key, value = (
                linear(x, f"{at}.attention.self.{name}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None].bool())
            x = norm(
                x + linear(mixed.transpose(1, 2).flatten(2), f"{at}.attention.output.dense"),
                f"{at}.attention.output.LayerNorm",
            )
            inner = F.gelu(linear(x, f"{at}.intermediate.dense"))
            x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x


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
