"""How well each patch is explained: by the references anywhere, by them at the same place, by its own mirror.

What none of these explains is evidence of a defect. The explanations are averaged and none is chosen by product: a part
that lies in any direction is explained by turned references, an aligned part by the same place, a symmetric part by
itself, and an explanation that does not apply adds about the same amount everywhere and so changes no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm.comparison import (
    Matching,
    mirror_similarity,
    patch_similarity,
    top_mean,
    window_similarity,
    within_similarity,
)
from vlm.defect_head import defect_logits

if TYPE_CHECKING:
    import torch

WINDOW = 2
"""Patches around a place in which an aligned or mirrored match may lie: parts are never placed to the pixel."""

MIRROR_WEIGHT = 10.0
"""Log-odds that a unit of asymmetry (cosine distance) counts without a reference."""

RARITY_OFFSET = -3.0
"""Log-odds of a patch that is not rare at all, for encoders that have no defect head."""


def distance_to_references(
    tokens: torch.Tensor, patches: torch.Tensor, grids: Sequence[torch.Tensor], matching: Matching = "nearest"
) -> torch.Tensor:
    """Mean of three distances of every patch: to all reference patches, to those at the same place, to its own mirror.

    Args:
        tokens: (h, w, C) unit-length vectors of the picture.
        patches: (m, C) vectors of the references and their turned copies.
        grids: (h, w, C) vectors of each reference as it was given.
        matching: inner operator of Eq. 1 for the first distance. "paper" takes this distance alone, as Eq. 1 does.

    Returns:
        (h, w) distances.
    """
    import torch

    shape = tokens.shape[:2]
    anywhere = 1 - patch_similarity(tokens.flatten(0, 1), patches, matching=matching).reshape(shape)
    if matching == "paper":
        return anywhere
    aligned = [window_similarity(tokens, on_grid(grid, shape), WINDOW) for grid in grids]
    same_place = 1 - torch.stack(aligned).amax(dim=0)
    mirrored = 1 - mirror_similarity(tokens, WINDOW)
    return (anywhere + same_place + mirrored) / 3


def evidence_without_reference(
    tokens: torch.Tensor, context: torch.Tensor | None, top_share: float
) -> tuple[float, torch.Tensor]:
    """Image score and map from one picture alone: what looks like a defect, and what its own mirror does not explain.

    Args:
        tokens: (h, w, C) unit-length vectors.
        context: (h, w, D) raw features for the defect head; None (another encoder) takes rarity within the picture.
        top_share: share of the highest patches whose mean is the image score.

    Returns:
        Score and (h, w) map in log-odds. The two cues are pooled apart, since they need not peak at the same patch; the
        map blends them and is shifted so that its own highest patches have the score as their mean.
    """
    asymmetry = MIRROR_WEIGHT * (1 - mirror_similarity(tokens, WINDOW))
    if context is None:
        rarity = 1 - within_similarity(tokens, WINDOW)
        looks = RARITY_OFFSET + MIRROR_WEIGHT * rarity
    else:
        looks = defect_logits(context)
    score = float(top_mean(looks, top_share) + top_mean(asymmetry, top_share))
    blend = looks + asymmetry
    return score, blend + (score - top_mean(blend, top_share))


def on_grid(grid: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Features of a reference on the grid of a picture of another shape, (h, w, C), again of unit length."""
    import torch.nn.functional as F

    if tuple(grid.shape[:2]) == tuple(shape):
        return grid
    moved = F.interpolate(
        grid.permute(2, 0, 1)[None], size=(int(shape[0]), int(shape[1])), mode="bilinear", align_corners=False
    )
    return F.normalize(moved[0].permute(1, 2, 0), dim=-1)
