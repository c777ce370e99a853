"""How well each patch is explained: by the references anywhere, by them at the same place, by its own mirror.

What none of these explains is evidence of a defect. The four distances (two of them match anywhere: one under the
encoder's weights of scales with turned references, one plainly) are averaged with weights that the pictures themselves
give: an explanation that fails for the *typical* patch does not apply to this part (it is not aligned with its
reference, or has no mirror), and then it says nothing of the odd patch either. No product is known by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage_ad.vlm.evidence.defect_head import defect_logits
from sage_ad.vlm.evidence.patch_matching import (
    Matching,
    mirror_similarity,
    patch_similarity,
    top_mean,
    window_similarity,
    within_similarity,
)

if TYPE_CHECKING:
    import torch

WINDOW = 2
"""Patches around a place in which an aligned or mirrored match may lie: parts are never placed to the pixel."""

MIRROR_WEIGHT = 10.0
"""Log-odds that a unit of asymmetry (cosine distance) counts without a reference."""

RARITY_OFFSET = -3.0
"""Log-odds of a patch that is not rare at all, for encoders that have no defect head."""


SAME_PLACE_APPLIES = (0.08, 0.04)
"""Where the same place still counts half, and how softly it fades: median distance beyond that of a match anywhere."""

MIRROR_APPLIES = (0.10, 0.05)
"""The same for the mirror."""

LOOKS_WEIGHT = 0.025
"""Distance that a unit of zero-shot log-odds is worth beside a reference (docs/detection.md)."""


@dataclass(frozen=True)
class Standard:
    """What a picture is compared with.

    Attributes:
        patches: (m, C) vectors of the references and their turned copies, under the encoder's weights of scales.
        grids: (h, w, C) vectors of each reference as it was given, under these weights.
        plain: (n, C) vectors of the references as given, all scales alike.
    """

    patches: torch.Tensor
    grids: Sequence[torch.Tensor]
    plain: torch.Tensor


def distance_to_references(
    features: torch.Tensor, tokens: torch.Tensor, standard: Standard, matching: Matching = "nearest"
) -> torch.Tensor:
    """Weighted mean of four distances of every patch: twice to its match anywhere, to the same place, to its mirror.

    Args:
        features: (h, w, C) unit-length vectors of the picture, all scales alike.
        tokens: the same under the encoder's weights of scales.
        standard: the references.
        matching: inner operator of Eq. 1 for matches anywhere. "paper" takes the first distance alone, as Eq. 1 does.

    Returns:
        (h, w) distances.
    """
    import torch

    shape = tokens.shape[:2]
    anywhere = 1 - patch_similarity(tokens.flatten(0, 1), standard.patches, matching=matching).reshape(shape)
    if matching == "paper":
        return anywhere
    plainly = 1 - patch_similarity(features.flatten(0, 1), standard.plain).reshape(shape)
    aligned = [window_similarity(tokens, on_grid(grid, shape), WINDOW) for grid in standard.grids]
    same_place = 1 - torch.stack(aligned).amax(dim=0)
    mirrored = 1 - mirror_similarity(tokens, WINDOW)
    place_weight = applicability(same_place - anywhere, *SAME_PLACE_APPLIES)
    mirror_weight = applicability(mirrored - anywhere, *MIRROR_APPLIES)
    total = anywhere + plainly + place_weight * same_place + mirror_weight * mirrored
    return total / (2 + place_weight + mirror_weight)


def applicability(excess: torch.Tensor, half: float, softness: float) -> float:
    """How far an explanation applies to a part, 0 to 1, from what it leaves of the typical patch.

    Args:
        excess: (h, w) its distances beyond those of a match anywhere. A defect hardly moves their median.
        half: median at which it counts half.
        softness: how quickly it fades around that.
    """
    import math

    return 1 / (1 + math.exp((float(excess.median()) - half) / softness))


def with_looks(distances: torch.Tensor, log_odds: float, top_share: float) -> tuple[float, torch.Tensor]:
    """Adds what the picture looks like by itself to the comparison with references.

    Args:
        distances: (h, w) from `distance_to_references`.
        log_odds: image score of `evidence_without_reference`.
        top_share: share of the highest patches whose mean is the image score.

    Returns:
        Score, and the map shifted so that its own highest patches have the score as their mean.
    """
    shift = LOOKS_WEIGHT * log_odds
    return float(top_mean(distances, top_share)) + shift, distances + shift


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
