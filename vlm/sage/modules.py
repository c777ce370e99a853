"""What SAGE adds to a base model: adapter, fusion attention, the two LN-Proj, and the evidence's say in the verdict."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sage_ad.vlm.sage.fusion import FusionAttention, LNProjection, pad_rows
from sage_ad.vlm.sage.verdict_token import StateEvidence

EFFICIENTNET_LITE2_CHANNELS = 168
"""Channels of a patch of `sage_ad.vlm.evidence.encoders.EfficientNetLite2`: 48 of stride 8 and 120 of stride 16."""


class PatchAdapter(nn.Module):
    """Patch features of a frozen encoder, with their place and their evidence, to the language model's width."""

    def __init__(self, patch_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(patch_channels + 3, hidden_size)
        self.outer = nn.Linear(hidden_size, hidden_size)

    def forward(self, grid: torch.Tensor, evidence: torch.Tensor | None) -> torch.Tensor:
        """(batch, h, w, C) unit-length vectors and evidence (batch, h, w) to (batch, h, w, hidden size)."""
        batch, h, w, channels = grid.shape
        like: dict[str, Any] = {"dtype": self.inner.weight.dtype, "device": grid.device}
        rows = torch.linspace(-1, 1, h, **like).view(1, h, 1).expand(batch, h, w)
        columns = torch.linspace(-1, 1, w, **like).view(1, 1, w).expand(batch, h, w)
        evidence = torch.zeros_like(rows) if evidence is None else evidence.to(**like)
        beside = torch.stack((rows, columns, evidence), dim=-1)
        # Entries of a unit-length vector are small; brought to the scale of the three channels beside them.
        x = torch.cat((grid.to(**like) * channels**0.5, beside), dim=-1)
        return self.outer(F.gelu(self.inner(x)))


class SageFusion(nn.Module):
    """What SAGE adds to the base model: adapter, fusion attention, the two LN-Proj, and the evidence's say.

    Args:
        config: a `SageConfig`, or what has its fields.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.hidden_size
        own_eyes = config.patch_channels is None
        self.adapter = PatchAdapter(config.patch_channels, width) if config.patch_channels is not None else None
        self.attention = FusionAttention(
            config.fact_channels or width, width, config.fusion_heads, residual=config.fusion_residual
        )
        self.image_projection = LNProjection(width, width, residual=own_eyes)
        self.fact_projection = LNProjection(width, width)
        self.state_evidence = None if config.evidence == "off" else StateEvidence(gated=config.evidence == "gated")

    def fuse(self, facts: torch.Tensor, patches: list[torch.Tensor]) -> torch.Tensor:
        """LN-Proj(t^s), (batch, L, width), from facts (batch, L, C) and each sample's chosen patches (K_i, width)."""
        # Facts and patches have scales of their own; without this the attention starts out blind to one of them.
        keys, mask = pad_rows([F.layer_norm(p, p.shape[-1:]) for p in patches])
        facts = F.layer_norm(facts.to(keys.dtype), facts.shape[-1:])
        return self.fact_projection(self.attention(facts, keys, keys, mask))


def heads_of(width: int) -> int:
    """Heads of the fusion attention: of about 64 channels, and dividing the width."""
    return next(n for n in range(max(1, width // 64), 0, -1) if width % n == 0)


def start_weights(module: nn.Module, embedding_std: float) -> None:
    """Weights before training; image and fact tokens start at the scale of the base model's token embeddings."""
    from transformers import initialization as init

    if isinstance(module, StateEvidence):
        init.ones_(module.weight)
        init.zeros_(module.bias)
        init.constant_(module.gain, 0.0 if module.gated else 1.0)
    elif isinstance(module, LNProjection):
        init.ones_(module.norm.weight)
        init.zeros_(module.norm.bias)
        init.zeros_(module.linear.bias)
        if module.residual:
            init.zeros_(module.linear.weight)
        else:
            init.normal_(module.linear.weight, std=embedding_std * module.linear.in_features**-0.5)
    elif isinstance(module, FusionAttention | PatchAdapter):
        for linear in (part for part in module.children() if isinstance(part, nn.Linear)):
            init.normal_(linear.weight, std=linear.in_features**-0.5)
            if linear.bias is not None:
                init.zeros_(linear.bias)
