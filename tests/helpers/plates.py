"""Plates whose defect (a bright gash, upper left) is easy to see, and a quick stand-in for evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE = 96


def plate(path: Path, defective: bool, seed: int) -> Path:
    """Writes a brushed plate with two holes; a defective one has a bright gash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(seed).normal(120, 4, (SIDE, 1)).repeat(SIDE, axis=1)
    image = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for x in (24, 72):
        draw.ellipse([x - 8, 40, x + 8, 56], fill=(40, 40, 40))
    if defective:
        draw.line([8, 8, 30, 24], fill=(250, 250, 240), width=5)
    image.save(path)
    return path


def gash(path: Path) -> Path:
    """Writes the mask of the gash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).line([8, 8, 30, 24], fill=255, width=5)
    mask.save(path)
    return path


@dataclass
class PlainEvidence:
    """What `PlainExtractor` measures, with the names of `sage_ad.vlm.evidence.extractor.Evidence`."""

    score: float
    map: np.ndarray
    threshold: float = 0.05
    confidence: float | None = 0.8
    verdict: str = ""
    threshold_from: str = "references"
    threshold_reason: str = ""
    confidence_reason: str = ""
    regions: list[Any] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def margin(self) -> float:
        """In units of the threshold."""
        return (self.score - self.threshold) / self.threshold

    @property
    def margins(self) -> Any:
        """(20, 20), of patches of the map."""
        import torch
        import torch.nn.functional as F

        values = torch.tensor(np.ascontiguousarray(self.map))[None, None]
        return (F.adaptive_max_pool2d(values, 20)[0, 0] - self.threshold) / self.threshold

    @property
    def features(self) -> Any:
        """(20, 20, 168): patches that are all alike."""
        import torch

        return torch.full((20, 20, 168), 168**-0.5)

    def __post_init__(self) -> None:
        self.verdict = "anomalous" if self.score > self.threshold else "normal"


class PlainExtractor:
    """Difference to the mean reference, pixel by pixel: quick, and right on our plates."""

    def __init__(self) -> None:
        self.banks: list[int] = []
        self.encoder = SimpleNamespace(encode=list)

    def prepare(self, references: Sequence[Image.Image]) -> np.ndarray:
        self.banks.append(len(references))
        return np.mean([np.asarray(image.convert("L"), np.float32) for image in references], axis=0)

    def extract(self, image: Image.Image, bank: np.ndarray | None = None) -> PlainEvidence:
        values = np.asarray(image.convert("L"), np.float32)
        difference = np.abs(values - (values.mean() if bank is None else bank)) / 255
        return PlainEvidence(float(np.sort(difference.ravel())[-60:].mean()) - 0.05, difference)
