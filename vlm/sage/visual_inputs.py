"""What a SAGE model with a frozen encoder sees of one part: patch features, evidence, distinct patches, measured words.

Made from `Evidence` in training (kept on disk) and in inspection alike, so that both see the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
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
class VisualInputs:
    """One part as a SAGE model sees it.

    Attributes:
        features: (side, side, C) unit-length patch features, float16.
        evidence: (side, side) float16, margins of the patches in units of `MARGIN_LIMIT`: 0 at the threshold, within +-1.
        distinct: (K,) int64, patches with the highest margins on this grid, row by row (Eq. 1).
        margin: margin of the image score, in spreads among good pictures.
        score, threshold: as measured.
        compared: "references" or "builtin" (there was no reference).
        place: where the evidence is strongest, in the words of `sage_ad.vlm.places`.
        description: what stands out there (`sage_ad.vlm.evidence.description`); empty where nothing does.
    """

    features: torch.Tensor
    evidence: torch.Tensor
    distinct: torch.Tensor
    margin: float
    score: float
    threshold: float
    compared: Literal["references", "builtin"]
    place: str
    description: str = ""

    @property
    def anomalous(self) -> bool:
        """Whether the score is above the threshold."""
        return self.score > self.threshold

    def measured(self, product: str | None = None, names: Sequence[tuple[str, float]] = ()) -> str:
        """The measurement in words, as it stands in the prompt.

        Args:
            product: name of the part, if it is known.
            names: taught names that the defect may bear with their probabilities, the likeliest first.
        """
        from sage_ad.vlm.sage.prompts import measured_sentence

        return measured_sentence(self.score, self.threshold, self.place, self.description, names, product)


def visual_inputs_of(
    evidence: Evidence, description: str = "", side: int = SIDE, distinct: int = DISTINCT
) -> VisualInputs:
    """Brings evidence to the model's grid.

    Args:
        evidence: what was measured on a part.
        description: what stands out most, in words.
        side: patches a side.
        distinct: K of Eq. 1.
    """
    import torch.nn.functional as F

    from sage_ad.vlm.evidence.patch_matching import distinct_patches
    from sage_ad.vlm.places import place_of_point

    features = F.adaptive_avg_pool2d(evidence.features.permute(2, 0, 1)[None].float(), side)[0]
    margins = F.adaptive_max_pool2d(evidence.margins[None, None].float(), side)[0, 0]
    height, width = evidence.margins.shape
    row, column = divmod(int(evidence.margins.argmax()), width)
    place = place_of_point(column + 0.5, row + 0.5, width, height)
    return VisualInputs(
        features=F.normalize(features, dim=0).permute(1, 2, 0).half().contiguous(),
        evidence=(margins.clamp(-MARGIN_LIMIT, MARGIN_LIMIT) / MARGIN_LIMIT).half(),
        distinct=distinct_patches(-margins.flatten(), distinct),
        margin=float(evidence.margin),
        score=float(evidence.score),
        threshold=float(evidence.threshold),
        # The other parts of a batch stand in for references: both give cosine distances.
        compared="builtin" if evidence.threshold_from == "builtin" else "references",
        place=evidence.regions[0].place if evidence.regions else place,
        description=description,
    )


def visual_input_tensors(visual: VisualInputs) -> dict[str, torch.Tensor]:
    """Visual inputs as tensors, for safetensors; `visual_inputs_from_tensors` gives it back."""
    import torch

    from sage_ad.vlm.places import PLACES

    numbers = [visual.margin, visual.score, visual.threshold, float(visual.compared == "references")]
    return {
        "features": visual.features,
        "evidence": visual.evidence,
        "distinct": visual.distinct,
        "numbers": torch.tensor([*numbers, float(PLACES.index(visual.place))], dtype=torch.float64),
        "description": torch.tensor(list(visual.description.encode()), dtype=torch.uint8),
    }


def visual_inputs_from_tensors(tensors: dict[str, torch.Tensor]) -> VisualInputs:
    """Inverse of `visual_input_tensors`."""
    from sage_ad.vlm.places import PLACES

    margin, score, threshold, compared, place = tensors["numbers"].tolist()
    return VisualInputs(
        tensors["features"],
        tensors["evidence"],
        tensors["distinct"],
        margin,
        score,
        threshold,
        "references" if compared else "builtin",
        PLACES[int(place)],
        bytes(tensors["description"].tolist()).decode(),
    )
