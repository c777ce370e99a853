"""What a SAGE model with a frozen encoder sees of one part: patch features, evidence, distinct patches, measured words.

Made from `Evidence` in training (kept on disk) and in inspection alike, so that both see the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from sage_ad.vlm.evidence.extractor import Evidence

SIDE = 20
"""Side of the grid on which patch features are given to the model."""

DISTINCT = 16
"""K of Eq. 1 on that grid."""

MARGIN_LIMIT = 4.0
"""Margins beyond so many spreads say nothing more: they are cut."""


@dataclass(frozen=True)
class Sight:
    """One part as a SAGE model sees it.

    Attributes:
        features: (side, side, C) unit-length patch features, float16.
        evidence: (side, side) float16, margins of the patches in units of `MARGIN_LIMIT`: 0 at the threshold, within +-1.
        distinct: (K,) int64, patches with the highest margins on this grid, row by row (Eq. 1).
        margin: margin of the image score, in spreads among good pictures.
        score, threshold: as measured.
        compared: "references" or "builtin" (there was no reference).
        place: where the evidence is strongest, in the words of `sage_ad.vlm.places`.
    """

    features: torch.Tensor
    evidence: torch.Tensor
    distinct: torch.Tensor
    margin: float
    score: float
    threshold: float
    compared: Literal["references", "builtin"]
    place: str

    def measured(self, product: str | None = None, looks: str | None = None) -> str:
        """The measurement in words, as it stands in the prompt.

        Args:
            product: name of the part, if it is known.
            looks: kind of defect in place of the one that `sage_ad.vlm.sage.defect_kinds` finds.
        """
        from sage_ad.vlm.sage.defect_kinds import kind_probabilities, kinds_in_words
        from sage_ad.vlm.sage.processing_sage import measured_sentence

        if looks is None and (kinds := kind_probabilities(self)) is not None:
            looks = kinds_in_words(kinds)
        return measured_sentence(self.score, self.threshold, self.place, looks, product)


def sight_of(evidence: Evidence, side: int = SIDE, distinct: int = DISTINCT) -> Sight:
    """Brings evidence to the model's grid.

    Args:
        evidence: what was measured on a part.
        side: patches a side.
        distinct: K of Eq. 1.
    """
    import torch.nn.functional as F

    from sage_ad.vlm.evidence.patch_matching import distinct_patches
    from sage_ad.vlm.places import place_of_point

    features = F.adaptive_avg_pool2d(evidence.features.permute(2, 0, 1)[None].float(), side)[0]
    margins = F.adaptive_max_pool2d(evidence.margins[None, None].float(), side)[0, 0]
    peak = int(evidence.margins.argmax())
    row, column = divmod(peak, evidence.margins.shape[1])
    return Sight(
        features=F.normalize(features, dim=0).permute(1, 2, 0).half().contiguous(),
        evidence=(margins.clamp(-MARGIN_LIMIT, MARGIN_LIMIT) / MARGIN_LIMIT).half(),
        distinct=distinct_patches(-margins.flatten(), distinct),
        margin=float(evidence.margin),
        score=float(evidence.score),
        threshold=float(evidence.threshold),
        compared=evidence.threshold_from,
        place=place_of_point(column + 0.5, row + 0.5, evidence.margins.shape[1], evidence.margins.shape[0]),
    )


def sight_tensors(sight: Sight) -> dict[str, torch.Tensor]:
    """A sight as tensors, for safetensors; `sight_from_tensors` gives it back."""
    import torch

    from sage_ad.vlm.places import PLACES

    numbers = [sight.margin, sight.score, sight.threshold, float(sight.compared == "references")]
    return {
        "features": sight.features,
        "evidence": sight.evidence,
        "distinct": sight.distinct,
        "numbers": torch.tensor([*numbers, float(PLACES.index(sight.place))], dtype=torch.float64),
    }


def sight_from_tensors(tensors: dict[str, torch.Tensor]) -> Sight:
    """Inverse of `sight_tensors`."""
    from sage_ad.vlm.places import PLACES

    margin, score, threshold, compared, place = tensors["numbers"].tolist()
    return Sight(
        tensors["features"],
        tensors["evidence"],
        tensors["distinct"],
        margin,
        score,
        threshold,
        "references" if compared else "builtin",
        PLACES[int(place)],
    )
