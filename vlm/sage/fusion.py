"""Facts attend to what differs (Eq. 2), and join the picture before the language model (Eq. 9): the mathematics only.

Works on tensors alone: no pictures, no tokens, no Hugging Face. `vlm.evidence.patch_matching` says which patches are
distinct (Eq. 1); `sage_ad.vlm.sage.modeling_sage` puts the parts together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

RARE_SHARE = 0.1
"""Share of an image's patches that count as a patch's like when its rarity within the image is measured."""


class FusionAttention(nn.Module):
    """Fusion attention, Eq. 2: t^s = softmax(t^g W_q (v_d W_k)^T / sqrt(d)) v W_v, multi-head, then projected.

    As printed, the keys are the K distinct patches and the values all p^2 patches, which does not multiply; the values
    are therefore gathered at the K selected indices. Without a reference (zero-shot) both are all test patches.

    Args:
        fact_channels: length of a fact's vector t^g.
        patch_channels: length of a patch's vector v.
        heads: number of heads; each works on `channels / heads` and is scaled by the root of that.
        channels: width d of the attention; default `patch_channels`.
        residual: adds a projection of t^g to the result. Eq. 2 has none: a fact then acts through its weights alone.
    """

    def __init__(
        self,
        fact_channels: int,
        patch_channels: int,
        heads: int,
        channels: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        channels = channels or patch_channels
        if channels % heads:
            raise ValueError(f"the width {channels} of the fusion attention does not divide into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(fact_channels, channels, bias=False)
        self.key = nn.Linear(patch_channels, channels, bias=False)
        self.value = nn.Linear(patch_channels, channels, bias=False)
        self.output = nn.Linear(channels, patch_channels, bias=False)
        self.residual = nn.Linear(fact_channels, patch_channels, bias=False) if residual else None

    def forward(
        self,
        facts: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Fuses facts with patches.

        Args:
            facts: t^g, (batch, L, fact_channels).
            keys: v_d, (batch, K, patch_channels).
            values: v at the same K indices, (batch, K, patch_channels).
            mask: (batch, K), true where a patch is there and false where it only fills up the batch.

        Returns:
            t^s, (batch, L, patch_channels).
        """
        query, key, value = (self._split(part) for part in (self.query(facts), self.key(keys), self.value(values)))
        seen = None if mask is None else mask[:, None, None, :]
        fused = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        fused = self.output(fused.transpose(1, 2).flatten(2))
        return fused if self.residual is None else fused + self.residual(facts)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LNProjection(nn.Module):
    """LN-Proj of Eq. 9: layer normalisation, then a linear map into the language model's embedding space.

    With `residual=True` the map starts at zero and its result is added to the input: a pretrained model's own image
    tokens pass unchanged until training moves them.
    """

    def __init__(self, channels: int, out_channels: int, residual: bool = False) -> None:
        super().__init__()
        if residual and channels != out_channels:
            raise ValueError(f"a residual projection keeps its width, not {channels} to {out_channels}")
        self.residual = residual
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., channels) to (..., out_channels)."""
        projected = self.linear(self.norm(x))
        return x + projected if self.residual else projected


def rare_patches(test: torch.Tensor, k: int) -> torch.Tensor:
    """The K patches with the fewest of their like within the same image: distinct patches without a reference.

    A patch's similarity is the mean similarity to its best matches, a tenth of the image's other patches.

    Args:
        test: (n, C) unit-length vectors.
        k: how many; all of them if there are fewer.

    Returns:
        (min(k, n),) int64 indices, rarest first; ties go to the earlier patch.
    """
    if len(test) < 2:
        return torch.arange(len(test), device=test.device)
    similarity = (test @ test.T).fill_diagonal_(-torch.inf)
    like = similarity.topk(max(1, round(RARE_SHARE * (len(test) - 1))), dim=1).values.mean(dim=1)
    return torch.sort(like, stable=True).indices[:k]


def mean_of_tokens(embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """t^g: each fact sentence as the mean of its token embeddings.

    Args:
        embeddings: (batch, L, tokens, C).
        mask: (batch, L, tokens), 1 at tokens and 0 at padding; a fact without tokens gives zeros.

    Returns:
        (batch, L, C).
    """
    weight = mask.to(embeddings.dtype).unsqueeze(-1)
    return (embeddings * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1)


def pad_rows(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stacks matrices (n_i, C) of unlike heights: (batch, max n, C) with zeros, and a mask (batch, max n)."""
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    heights = torch.tensor([len(r) for r in rows], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < heights[:, None]
