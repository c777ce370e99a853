"""What kind of defect the strongest evidence looks like: a small linear head on what a SAGE model sees of a part.

It knows seven kinds and no product: its inputs are the distinct patches relative to the mean patch of the same picture, and
the shape of the region that stands out. Trained on synthetic parts and pasted defects by
`benchmarks/train_defect_kinds.py`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sage_ad.vlm.sage.visual_inputs import Sight

KINDS = ("contamination", "crack", "deformation", "hole", "missing part", "scratch", "stain")
HEAD_FILE = Path(__file__).with_name("defect_kinds.safetensors")
SECOND_FROM = 0.25
"""Probability from which the second kind is named beside the first."""

_PATCHES, _AROUND, _EDGE = 6, 5, 0.35


def kind_features(sight: Sight) -> torch.Tensor:
    """Inputs of the head, (2 C + 7,) float32.

    The first distinct patch and the mean of the first six, each less the picture's mean patch; then the area that stands
    out, how elongated it is, how much of it lies around the peak, the peak's distance to the border, the margin of the
    score, and the highest and the median margin of the patches.
    """
    import torch

    side = sight.evidence.shape[0]
    patches, margins = sight.features.float().flatten(0, 1), sight.evidence.float()
    local = (patches[sight.distinct[:_PATCHES]] - patches.mean(dim=0)) * patches.shape[1] ** 0.5
    high, middle = margins.max(), margins.median()
    rows, columns = torch.where(margins >= high - _EDGE * (high - middle))
    row, column = divmod(int(margins.argmax()), side)
    down, right = rows - row, columns - column
    near = (down.abs() <= _AROUND) & (right.abs() <= _AROUND)
    border = min(row, side - 1 - row, column, side - 1 - column)
    shape = [10 * len(rows) / side**2, _elongation(down[near], right[near]), float(near.sum()) / 20, border / 10]
    levels = [sight.margin / 4, float(high), float(middle)]
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


def kind_probabilities(sight: Sight) -> dict[str, float] | None:
    """Probability of each kind, if the part has a defect at all; None for features of an encoder that it does not know."""
    import torch

    head = _weights()
    features = kind_features(sight)
    if features.shape != head["mean"].shape:
        return None
    values = (features - head["mean"]) / head["spread"]
    chances = torch.softmax(head["weight"] @ values + head["bias"], dim=0)
    return dict(zip(KINDS, chances.tolist(), strict=True))


def kinds_in_words(probabilities: dict[str, float]) -> str:
    """The most probable kind, and the second where it is nearly as probable: "scratch or crack"."""
    first, second = sorted(probabilities, key=lambda kind: -probabilities[kind])[:2]
    return f"{first} or {second}" if probabilities[second] >= SECOND_FROM else first
