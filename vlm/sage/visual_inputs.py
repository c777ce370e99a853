"""What a SAGE model with a frozen encoder sees of one part: patch features, evidence, distinct patches, measured words.

Made from `Evidence` in training (kept on disk) and in inspection alike, so that both see the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
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
    """

    features: torch.Tensor
    evidence: torch.Tensor
    distinct: torch.Tensor
    margin: float
    score: float
    threshold: float
    compared: Literal["references", "builtin"]
    place: str

    def measured(self, product: str | None = None, kind: str | None = None) -> str:
        """The measurement in words, as it stands in the prompt.

        Args:
            product: name of the part, if it is known.
            kind: kind of defect in place of the one that `sage_ad.vlm.sage.visual_inputs` finds.
        """
        from sage_ad.vlm.sage.processing_sage import measured_sentence

        if kind is None and (kinds := kind_probabilities(self)) is not None:
            kind = kinds_in_words(kinds)
        return measured_sentence(self.score, self.threshold, self.place, kind, product)


def visual_inputs_of(evidence: Evidence, side: int = SIDE, distinct: int = DISTINCT) -> VisualInputs:
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
    return VisualInputs(
        features=F.normalize(features, dim=0).permute(1, 2, 0).half().contiguous(),
        evidence=(margins.clamp(-MARGIN_LIMIT, MARGIN_LIMIT) / MARGIN_LIMIT).half(),
        distinct=distinct_patches(-margins.flatten(), distinct),
        margin=float(evidence.margin),
        score=float(evidence.score),
        threshold=float(evidence.threshold),
        # The other parts of a batch stand in for references: both give cosine distances.
        compared="builtin" if evidence.threshold_from == "builtin" else "references",
        place=place_of_point(column + 0.5, row + 0.5, evidence.margins.shape[1], evidence.margins.shape[0]),
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
    )


KINDS = ("contamination", "crack", "deformation", "hole", "missing part", "scratch", "stain")


HEAD_FILE = Path(__file__).with_name("defect_kinds.safetensors")


SECOND_FROM = 0.25
"""Probability from which the second kind is named beside the first."""


_PATCHES = 6


_AROUND = 5


_EDGE = 0.35


def kind_features(visual: VisualInputs) -> torch.Tensor:
    """Inputs of the head, (2 C + 7,) float32.

    The first distinct patch and the mean of the first six, each less the picture's mean patch; then the area that stands
    out, how elongated it is, how much of it lies around the peak, the peak's distance to the border, the margin of the
    score, and the highest and the median margin of the patches.
    """
    import torch

    side = visual.evidence.shape[0]
    patches, margins = visual.features.float().flatten(0, 1), visual.evidence.float()
    local = (patches[visual.distinct[:_PATCHES]] - patches.mean(dim=0)) * patches.shape[1] ** 0.5
    high, middle = margins.max(), margins.median()
    rows, columns = torch.where(margins >= high - _EDGE * (high - middle))
    row, column = divmod(int(margins.argmax()), side)
    down, right = rows - row, columns - column
    near = (down.abs() <= _AROUND) & (right.abs() <= _AROUND)
    border = min(row, side - 1 - row, column, side - 1 - column)
    shape = [10 * len(rows) / side**2, _elongation(down[near], right[near]), float(near.sum()) / 20, border / 10]
    levels = [visual.margin / 4, float(high), float(middle)]
    return torch.cat((local.mean(dim=0), local[0], torch.tensor([*shape, *levels])))


def _elongation(down: torch.Tensor, right: torch.Tensor) -> float:
    """Ratio of the axes of a region, from 1; patches are blunt, so a single row counts as a tenth of a patch wide."""
    import torch

    if len(down) < 3:
        return 1.0
    spread = torch.linalg.eigvalsh(torch.cov(torch.stack((down, right)).float()))
    return float(((spread[1] + 0.1) / (spread[0].clamp(min=0) + 0.1)).sqrt())


@lru_cache(maxsize=1)
def _weights() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(HEAD_FILE)


def kind_probabilities(visual: VisualInputs) -> dict[str, float] | None:
    """Probability of each kind, if the part has a defect at all; None for features of an encoder that it does not know."""
    import torch

    head = _weights()
    features = kind_features(visual)
    if features.shape != head["mean"].shape:
        return None
    values = (features - head["mean"]) / head["spread"]
    chances = torch.softmax(head["weight"] @ values + head["bias"], dim=0)
    return dict(zip(KINDS, chances.tolist(), strict=True))


def kinds_in_words(probabilities: dict[str, float]) -> str:
    """The most probable kind, and the second where it is nearly as probable: "scratch or crack"."""
    first, second = sorted(probabilities, key=lambda kind: -probabilities[kind])[:2]
    return f"{first} or {second}" if probabilities[second] >= SECOND_FROM else first
