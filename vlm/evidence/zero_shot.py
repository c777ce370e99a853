"""Evidence from one picture alone: what looks like a defect, and what the picture's own mirror does not explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_ad.vlm.evidence.defect_head import defect_logits
from sage_ad.vlm.evidence.patch_matching import mirror_similarity, top_mean

if TYPE_CHECKING:
    import torch

WINDOW = 2
"""Patches around a mirrored place in which a match may lie: parts are never placed to the pixel."""

MIRROR_WEIGHT = 10.0
"""Log-odds that a unit of asymmetry (cosine distance) counts."""


def evidence_without_reference(
    tokens: torch.Tensor, context: torch.Tensor, top_share: float
) -> tuple[float, torch.Tensor]:
    """Image score and map from one picture alone.

    Args:
        tokens: (h, w, C) unit-length vectors.
        context: (h, w, D) raw features for the defect head.
        top_share: share of the highest patches whose mean is the image score.

    Returns:
        Score and (h, w) map in log-odds. The two cues are pooled apart, since they need not peak at the same patch; the
        map blends them and is shifted so that its own highest patches have the score as their mean.
    """
    asymmetry = MIRROR_WEIGHT * (1 - mirror_similarity(tokens, WINDOW))
    cue = defect_logits(context)
    score = float(top_mean(cue, top_share) + top_mean(asymmetry, top_share))
    blend = cue + asymmetry
    return score, blend + (score - top_mean(blend, top_share))
