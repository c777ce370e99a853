"""Measured visual evidence: how far, where, and by what standard a picture departs from its references.

Scores and maps are cosine distances between patch features, so they mean the same for every picture: a part that looks
like its reference is near 0 everywhere, and no map is stretched until something lights up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlm.comparison import Matching, distinct_patches, patch_similarity, top_mean
from vlm.encoders import DEFAULT_ENCODER, PatchEncoder, load_encoder, require_same_encoder
from vlm.errors import InputError
from vlm.regions import EvidenceRegion, find_regions

if TYPE_CHECKING:
    import torch
    from PIL import Image

Method = Literal["sage", "nearest-neighbour"]


@dataclass(frozen=True)
class EvidenceSettings:
    """How evidence is measured.

    Attributes:
        encoder: name of the encoder (`vlm.encoders.load_encoder`).
        device: "auto", "cpu" or "cuda".
        method: "sage", or "nearest-neighbour" for the plain baseline on the same features (rarity within the picture
            when there is no reference).
        matching: inner operator of Eq. 1: "nearest" (best match) or "paper" (worst match, as printed).
        size: side in pixels at which a square picture is encoded; None takes the method's own.
        distinct: K of Eq. 1, how many distinct patches are kept.
        top_share: share of the most distant patches whose mean is the image score.
        max_regions: how many regions at most.
    """

    encoder: str = DEFAULT_ENCODER
    device: str = "auto"
    method: Method = "sage"
    matching: Matching = "nearest"
    size: int | None = None
    distinct: int = 64
    top_share: float = 0.01
    max_regions: int = 5

    def __post_init__(self) -> None:
        if self.method not in ("sage", "nearest-neighbour"):
            raise InputError(f"There is no evidence method {self.method!r}; use 'sage' or 'nearest-neighbour'.")
        if self.matching not in ("nearest", "paper"):
            raise InputError(f"There is no matching {self.matching!r}; use 'nearest' or 'paper'.")
        if not 0 < self.top_share <= 1:
            raise InputError(f"The share of patches that make the score must lie in (0, 1], not {self.top_share}.")
        if self.distinct < 1 or self.max_regions < 1:
            raise InputError("The number of distinct patches and of regions must be at least 1.")


@dataclass
class ReferenceBank:
    """References made ready once, to be compared with many pictures.

    Attributes:
        encoder: name of the encoder that made the features.
        patches: (m, C) unit-length vectors of all references and of their turned and mirrored copies.
        features: the features of the references as given, (h, w, C) each.
        threshold: image score above which a picture is anomalous.
        threshold_reason: one sentence that says how the threshold was found.
        spread: how far scores of good pictures may scatter, in the units of the score.
        typical: the score that a good picture is expected to have.
    """

    encoder: str
    patches: torch.Tensor
    features: list[torch.Tensor]
    threshold: float
    threshold_reason: str
    spread: float
    typical: float


@dataclass
class Evidence:
    """What was measured on one picture.

    Attributes:
        score: image score, a cosine distance between 0 (as the reference) and 2.
        threshold: score above which the verdict is "anomalous".
        threshold_from: "references" (their self-similarity) or "builtin" (there was no reference).
        threshold_reason: one sentence that says how the threshold was found.
        verdict: "normal" or "anomalous".
        confidence: trust in the verdict from 0.5 to 1, or None where it cannot be told.
        confidence_reason: one sentence that says how the confidence was found, or why there is none.
        map: (H, W) float32, evidence for every pixel of the original picture, on the scale of `score`.
        regions: boxes of what stands out, the strongest first; empty for a normal part.
        distinct: (K,) int64 indices of the distinct patches into `features` row by row (Eq. 1), most distant first.
        features: (h, w, C) patch features of the picture.
        distances: (h, w) evidence of each patch.
        reference_features: (h, w, C) patch features of the first reference, or None.
        warnings: sentences about what was read but is doubtful.
        margin: (score - threshold) in units of the spread among good pictures, for calibration.
    """

    score: float
    threshold: float
    threshold_from: Literal["references", "builtin"]
    threshold_reason: str
    verdict: Literal["normal", "anomalous"]
    confidence: float | None
    confidence_reason: str
    map: np.ndarray
    regions: list[EvidenceRegion]
    distinct: torch.Tensor
    features: torch.Tensor
    distances: torch.Tensor
    reference_features: torch.Tensor | None = None
    warnings: list[str] = field(default_factory=list)
    margin: float = 0.0


class EvidenceExtractor:
    """Measures evidence; holds one encoder, which is loaded at the first use.

    Example:
        >>> extractor = EvidenceExtractor()
        >>> bank = extractor.prepare([good_cell])
        >>> extractor.extract(cracked_cell, bank).verdict
        'anomalous'
    """

    def __init__(self, settings: EvidenceSettings | None = None, encoder: PatchEncoder | None = None) -> None:
        self.settings = settings or EvidenceSettings()
        self._encoder = encoder

    @property
    def encoder(self) -> PatchEncoder:
        """The encoder, loaded when it is first needed."""
        if self._encoder is None:
            self._encoder = load_encoder(self.settings.encoder, self.settings.device)
        return self._encoder

    def prepare(self, references: Sequence[Image.Image]) -> ReferenceBank:
        """Makes good pictures of a product ready for comparison.

        Raises:
            InputError: there is no reference.
        """
        import torch
        from PIL import Image

        if not references:
            raise InputError("No reference was given; give a picture of a good part, or inspect without one.")
        turns = [None] if self.settings.method == "nearest-neighbour" else [None, *Image.Transpose]
        features, copies = [], []
        for reference in references:
            turned = [reference if turn is None else reference.transpose(turn) for turn in turns]
            maps = self.encoder.encode(turned, self.settings.size).maps
            features.append(maps[0])
            copies.append(torch.cat([m.flatten(0, 1) for m in maps]))
        typical, reason = self._self_similarity(references, copies)
        spread = 0.15 * typical
        return ReferenceBank(
            self.encoder.name, torch.cat(copies), features, typical + 2 * spread, reason, spread, typical
        )

    def _self_similarity(self, references: Sequence[Image.Image], copies: list[torch.Tensor]) -> tuple[float, str]:
        """The score that a good picture is expected to have, judged by the references alone, and how it was judged."""
        import torch

        if len(references) > 1:
            scores = []
            for index, own in enumerate(copies):
                others = torch.cat([copy for place, copy in enumerate(copies) if place != index])
                part = len(own) // (1 if self.settings.method == "nearest-neighbour" else 8)
                scores.append(self._score(1 - patch_similarity(own[:part], others, matching=self.settings.matching)))
            reason = f"each of the {len(references)} references was compared with the others"
            return float(np.mean(scores)), f"Threshold from the references: {reason}."
        shifted = _shifted(references[0])
        patches = self.encoder.encode([shifted], self.settings.size).tokens()
        score = self._score(1 - patch_similarity(patches, copies[0], matching=self.settings.matching))
        return 0.85 * score, "Threshold from the reference: it was compared with itself after a small turn and shift."

    def _score(self, distances: torch.Tensor) -> float:
        return float(top_mean(distances, self.settings.top_share))

    def extract(self, image: Image.Image, bank: ReferenceBank | None = None) -> Evidence:
        """Measures one picture, against references if a bank is given, else against itself.

        Raises:
            BackendError: the bank was made with another encoder.
        """
        features = self.encoder.encode([image], self.settings.size)[0]
        tokens = features.flatten(0, 1)
        if bank is None:
            similarity = _within(features)
            spread = 0.05
            threshold, source, reason = 0.25, "builtin", "Built-in threshold: there was no reference to learn one from."
        else:
            require_same_encoder(bank.encoder, self.encoder.name)
            similarity = patch_similarity(tokens, bank.patches, matching=self.settings.matching)
            threshold, source, reason = bank.threshold, "references", bank.threshold_reason
            spread = bank.spread
        distances = 1 - similarity
        score = self._score(distances)
        grid = distances.reshape(features.shape[:2])
        evidence_map = _enlarge(grid, image.width, image.height)
        anomalous = score > threshold
        margin = (score - threshold) / max(spread, 1e-6)
        return Evidence(
            score=score,
            threshold=threshold,
            threshold_from="builtin" if source == "builtin" else "references",
            threshold_reason=reason,
            verdict="anomalous" if anomalous else "normal",
            confidence=round(float(1 / (1 + np.exp(-abs(margin)))), 4),
            confidence_reason="From the distance between score and threshold in units of the references' own spread.",
            map=evidence_map,
            regions=find_regions(evidence_map, threshold, limit=self.settings.max_regions) if anomalous else [],
            distinct=distinct_patches(similarity, self.settings.distinct),
            features=features,
            distances=grid,
            reference_features=bank.features[0] if bank else None,
            warnings=[],
            margin=margin,
        )


def _shifted(image: Image.Image) -> Image.Image:
    """The picture turned by 3 degrees and moved by a few pixels, cut so that no empty corner shows."""
    from PIL import Image

    turned = image.rotate(3, resample=Image.Resampling.BICUBIC, translate=(3, -5))
    margin = (int(image.width * 0.06), int(image.height * 0.06))
    return turned.crop((*margin, image.width - margin[0], image.height - margin[1])).resize(image.size)


def _within(features: torch.Tensor, radius: int = 2) -> torch.Tensor:
    """Best match of every patch among the patches of the same picture that do not overlap it, (h * w,)."""
    import torch

    height, width = features.shape[:2]
    tokens = features.flatten(0, 1)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()], dim=1).to(tokens.device)
    found = []
    for start in range(0, len(tokens), 512):
        similarity = tokens[start : start + 512] @ tokens.T
        apart = (place[start : start + 512, None] - place[None]).abs().amax(dim=2)
        found.append(similarity.masked_fill(apart <= radius, -1).amax(dim=1))
    return torch.cat(found)


def _enlarge(grid: torch.Tensor, width: int, height: int) -> np.ndarray:
    """A map of patches at the resolution of the picture, (height, width) float32."""
    import torch.nn.functional as F

    large = F.interpolate(grid[None, None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return np.ascontiguousarray(large[0, 0].cpu().numpy())
