"""The language model SmolLM2-135M-Instruct, run for inference from its unpacked weights.

Its thirty layers are run here, as MiniLM's are: importing transformers' models for them takes two seconds of each cold
process. Step by step it computes what `LlamaForCausalLM` of transformers 5 does, so that both write the same words.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

LAYERS, WIDTH, HEADS, KEY_HEADS, HEAD_WIDTH = 30, 576, 9, 3, 64
NORM_EPS, ROPE_BASE = 9.999999747378752e-06, 100000.0
END = 2
"""From its config.json; `END` ends a text and fills up texts that have ended."""


class KeyValueCache:
    """Keys and values of the tokens that were read, one pair (rows, KEY_HEADS, tokens, HEAD_WIDTH) a layer."""

    def __init__(self) -> None:
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def get_seq_length(self) -> int:
        """Tokens of each row."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Keeps the rows of these indices, each as often as it stands there."""
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]

    def extended(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the keys and values of new tokens to a layer's, and gives all."""
        if layer == len(self.layers):
            self.layers.append((keys, values))
        else:
            before = self.layers[layer]
            self.layers[layer] = torch.cat((before[0], keys), dim=2), torch.cat((before[1], values), dim=2)
        return self.layers[layer]


class SmolLM2:
    """Hidden states and logits.

    Args:
        weights: tensors of one dtype by the names of transformers' `LlamaForCausalLM`.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = weights
        self.embedding = weights["model.embed_tokens.weight"]
        exponents = torch.arange(0, HEAD_WIDTH, 2, dtype=torch.float) / HEAD_WIDTH
        self._frequencies = (1.0 / ROPE_BASE**exponents).to(self.embedding.device)

    def read(self, x: torch.Tensor, mask: torch.Tensor, cache: KeyValueCache) -> torch.Tensor:
        """Reads new tokens behind those of the cache, and adds them to it.

        Args:
            x: (rows, new, width) embeddings.
            mask: (rows, cached + new), 0 at padding.
            cache: of the tokens before.

        Returns:
            (rows, new, width), the last hidden states.
        """
        new = x.shape[1]
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -new:]
        turned = (positions[..., None].float() * self._frequencies).repeat(1, 1, 2)[:, None]
        cos, sin = turned.cos().to(x.dtype), turned.sin().to(x.dtype)
        seen = _seen(mask, new)
        for layer in range(LAYERS):
            at = f"model.layers.{layer}"
            x = x + self._attention(self._norm(x, f"{at}.input_layernorm"), at, layer, cos, sin, seen, cache)
            y = self._norm(x, f"{at}.post_attention_layernorm")
            gate, up = self._linear(y, f"{at}.mlp.gate_proj"), self._linear(y, f"{at}.mlp.up_proj")
            x = x + self._linear(F.silu(gate) * up, f"{at}.mlp.down_proj")
        return self._norm(x, "model.norm")

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., width) to (..., vocabulary)."""
        return F.linear(hidden, self.embedding)

    def _attention(
        self,
        x: torch.Tensor,
        at: str,
        layer: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        seen: torch.Tensor | None,
        cache: KeyValueCache,
    ) -> torch.Tensor:
        query, key, value = (
            self._linear(x, f"{at}.self_attn.{name}_proj").unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)
            for name in ("q", "k", "v")
        )
        query, key = (part * cos + _half_turned(part) * sin for part in (query, key))
        key, value = cache.extended(layer, key, value)
        rows, new, group = len(x), x.shape[1], HEADS // KEY_HEADS
        if seen is None:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=new > 1, enable_gqa=True)
        elif new == 1:  # the heads that share keys stand as one head's queries: no key is copied
            mixed = F.scaled_dot_product_attention(query.reshape(rows, KEY_HEADS, group, HEAD_WIDTH), key, value, seen)
        else:
            key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
            mixed = F.scaled_dot_product_attention(query, key, value, seen)
        mixed = mixed.reshape(rows, HEADS, new, HEAD_WIDTH).transpose(1, 2).flatten(2)
        return self._linear(mixed, f"{at}.self_attn.o_proj")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + NORM_EPS)
        return self.weights[f"{name}.weight"] * wide.to(x.dtype)


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _seen(mask: torch.Tensor, new: int) -> torch.Tensor | None:
    """(rows, 1, new, all) which tokens each new one sees; None where these are all before it, and nothing is padding."""
    total = mask.shape[1]
    if new in (1, total) and bool(mask.all()):
        return None
    places = torch.arange(total, device=mask.device)
    return ((places <= places[-new:, None]) & mask.bool()[:, None])[:, None]
