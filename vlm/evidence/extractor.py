"""Measured visual evidence: how far, where, and by what standard a picture departs from its references.

Scores and maps are cosine distances between patch features: to those of the references, of the other parts of a batch, or
(rarity) of the rest of the same picture. No map is stretched until something lights up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import (
    DEFAULT_ENCODER,
    PatchEncoder,
    load_encoder,
    one_thread,
    require_same_encoder,
    working_size,
)
from sage_ad.vlm.evidence.memory_bank import MAX_PATCHES, NEIGHBOURS, BankSettings, MemoryBank, build_bank
from sage_ad.vlm.evidence.patch_matching import Matching, distinct_patches, top_mean, within_similarity
from sage_ad.vlm.evidence.preparation import blank, differences, measure
from sage_ad.vlm.evidence.regions import EvidenceRegion, find_regions
from sage_ad.vlm.evidence.tiles import Tile, encode, is_large, parse_tile, tile_side

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from sage_ad.vlm.evidence.memory_bank import Reference
    from sage_ad.vlm.evidence.peers import PeerEvidence

ThresholdFrom = Literal["references", "batch", "builtin"]

RARITY_THRESHOLD = 0.44
"""Built-in threshold without a reference; benchmarks/evidence_trials.py --alone says what it is worth."""

RARITY_SPREAD = 0.15
"""Rarity over which the odds of a defect grow e-fold, in the same trials."""

REGION_EDGE = 0.8
"""Share of the built-in threshold down to which a region extends."""

BUILTIN_REASON = (
    "The score says how far the rarest patches are from the rest of the picture, and the threshold of "
    f"{RARITY_THRESHOLD:.2f} is the same for every product, because there was no reference. Over 18 products a quarter of "
    "the good parts scored higher and half of the defective ones lower; on three of them every good part scored higher."
)

FOREIGN = 0.35
"""A reference is taken for another product from this product of two figures on: the cosine distance of the mean patches,
and the median distance of the picture's patches in units of those within the reference (docs/detection.md)."""

SEEN_FROM = 8
"""Pixels at the encoder's scale from which a flaw is seen: one patch."""

TOP_SHARE = 0.01
"""Share of the patches that makes the score."""

CONFIDENCE = 0.9
"""The odds that a verdict is right are (1 + its margin) to this power (`benchmarks/confidence.py`)."""
_CONFIDENCE = {
    "references": "About so large a share of verdicts as far from the threshold was right on 18 other products.",
    "batch": "From the distance between score and threshold, in units of the scatter in the batch; not calibrated.",
    "builtin": "Without a good part this is a hint, not a verdict: over other products about so large a share was right.",
}


@dataclass(frozen=True)
class EvidenceSettings:
    """How evidence is measured.

    Attributes:
        encoder: name of the encoder (`sage_ad.vlm.evidence.encoders.load_encoder`); only the embedded one measures a picture
            without a reference or a batch.
        device: "auto", "cpu" or "cuda".
        matching: inner operator of Eq. 1: "nearest" (best match) or "paper" (worst match, as printed).
        size: side in pixels at which a square picture is encoded; None takes the encoder's own.
        distinct: K of Eq. 1, how many distinct patches are kept.
        top_share: share of the most distant patches whose mean is the image score.
        max_regions: how many regions at most.
        tile: "auto" cuts pictures that are much larger than what the encoder sees, or very narrow, into overlapping tiles
            if there are references; a number of pixels cuts every larger picture; "off" cuts none.
    """

    encoder: str = DEFAULT_ENCODER
    device: str = "auto"
    matching: Matching = "nearest"
    size: int | None = None
    distinct: int = 64
    top_share: float = TOP_SHARE
    max_regions: int = 5
    tile: Tile = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile", parse_tile(self.tile))
        if self.matching not in ("nearest", "paper"):
            raise InputError(f"There is no matching {self.matching!r}; use 'nearest' or 'paper'.")
        if not 0 < self.top_share <= 1:
            raise InputError(f"The share of patches that make the score must lie in (0, 1], not {self.top_share}.")
        if self.distinct < 1 or self.max_regions < 1:
            raise InputError("The number of distinct patches and of regions must be at least 1.")


@dataclass
class Evidence:
    """What was measured on one picture.

    Attributes:
        score: image score, a cosine distance (0: as the reference, at most 2).
        threshold: score above which the verdict is "anomalous".
        threshold_from: "references" (their self-similarity), "batch" (the other parts of the batch) or "builtin" (there was
            neither).
        threshold_reason: one sentence that says how the threshold was found.
        verdict: "normal" or "anomalous".
        confidence: trust in the verdict from 0.5 to 1, or None where it cannot be estimated.
        confidence_reason: one sentence that says how the confidence was found, or why there is none.
        map: (H, W) float32, evidence for every pixel of the original picture, on the scale of `score`.
        regions: boxes of what stands out, the strongest first; empty for a normal part.
        distinct: (K,) int64 indices of the distinct patches into `features` row by row (Eq. 1), most distant first.
        features: (h, w, C) patch features of the picture.
        distances: (h, w) evidence of each patch.
        margins: (h, w) `distances` as `margin` counts them: 0 at the threshold, 1 a spread among good pictures above.
        reference_features: (h, w, C) patch features of the first reference, or None.
        warnings: sentences about what was read but is doubtful.
        margin: (score - threshold) in units of the spread among good pictures, for calibration.
    """

    score: float
    threshold: float
    threshold_from: ThresholdFrom
    threshold_reason: str
    verdict: Literal["normal", "anomalous"]
    confidence: float | None
    confidence_reason: str
    map: np.ndarray
    regions: list[EvidenceRegion]
    distinct: torch.Tensor
    features: torch.Tensor
    distances: torch.Tensor
    margins: torch.Tensor
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

    @property
    def size(self) -> int:
        """Side in pixels at which a square picture is encoded."""
        return self.settings.size or self.encoder.size

    def prepare(self, references: Sequence[Reference], say: Callable[[str], None] | None = None) -> MemoryBank:
        """Makes good pictures of a product ready for comparison.

        Args:
            references: pictures, or functions that load one each, so that only one is in memory at a time.
            say: is given a line from time to time when there are many.

        Raises:
            InputError: there is no reference.
        """
        own = self.settings
        settings = BankSettings(own.matching, self.size, own.top_share, own.tile)
        with self._threads():
            return build_bank(self.encoder, references, settings, say)

    def extract(self, image: Image.Image, bank: MemoryBank | None = None) -> Evidence:
        """Measures one picture, against references if a bank is given, else against itself.

        Raises:
            BackendError: the bank was made with another encoder.
        """
        with self._threads():
            return self._without_reference(image) if bank is None else self._with_references(image, bank)

    def features_of(self, image: Image.Image) -> torch.Tensor:
        """(h, w, C) features of a part, as precise as float16, for `sage_ad.vlm.evidence.peers`."""
        with self._threads():
            return self.encoder.encode([image], self.settings.size)[0].half().float()

    def extract_among(self, image: Image.Image, peers: PeerEvidence) -> Evidence:
        """Evidence of a part that was compared with the other parts of its batch, in place of references."""
        import torch

        distances = torch.from_numpy(peers.distances).float()
        standard = _Standard(
            peers.threshold,
            (peers.score - peers.threshold) / peers.spread,
            (distances - peers.threshold) / peers.spread,
            "batch",
            peers.reason,
            peers.threshold - peers.spread,
        )
        if peers.features is not None and peers.features.is_file():
            features = torch.from_numpy(np.load(peers.features)).float()
        else:
            features = self.features_of(image)
        return self._report(
            image, features, distances, peers.score, standard, warnings=[*peers.warnings, *blank(image)]
        )

    def _confidence_reason(self, source: ThresholdFrom) -> str:
        """How the confidence is known; what was measured with the embedded encoder says nothing of another."""
        if source == "references" and self.encoder.name != DEFAULT_ENCODER:
            return "By the rule of the embedded encoder; whether it holds for this one was not measured."
        return _CONFIDENCE[source]

    def _threads(self) -> contextlib.AbstractContextManager[None]:
        """One thread for the small embedded encoder on a CPU; larger encoders and GPUs are left as they are."""
        return one_thread() if self.encoder.name == DEFAULT_ENCODER else contextlib.nullcontext()

    def _with_references(self, image: Image.Image, bank: MemoryBank) -> Evidence:
        require_same_encoder(bank.encoder, self.encoder.name)
        if (same := bank.copy_of(image)) is not None:
            return self._without_itself(image, bank, same)
        seen = bank.encode(self.encoder, image)
        score, distances = bank.score(seen)
        spread = max(bank.spread, 1e-6)
        standard = _Standard(
            bank.threshold,
            (score - bank.threshold) / spread,
            (distances - bank.threshold) / spread,
            "references",
            bank.threshold_reason,
            bank.threshold - bank.spread,
        )
        whole = bank.side(image) is None
        warnings = [
            *bank.warnings,
            *_doubts(seen.features, distances, bank),
            *differences(measure(image), bank.preparations),
            *(self._reduced(image) if whole else ()),
        ]
        return self._report(image, seen.features, distances, score, standard, bank, warnings)

    def _without_itself(self, image: Image.Image, bank: MemoryBank, same: int) -> Evidence:
        """A part that is among its own references would explain itself: it is compared with the others alone."""
        others = bank.without(same)
        evidence = self._without_reference(image) if others is None else self._with_references(image, others)
        which = f"Reference {bank.given[same] + 1}" if bank.count > 1 else "The reference"
        evidence.warnings.insert(0, f"{which} is the inspected picture itself; it was left out of the comparison.")
        return evidence

    def _reduced(self, image: Image.Image) -> list[str]:
        """A sentence about a picture that is large or narrow and was not cut into tiles."""
        if not is_large(image.width, image.height, self.size):
            return []
        width, height = working_size(image.width, image.height, self.size, 1)
        times = max(image.width / width, image.height / height)
        return [
            f"The picture of {image.width} x {image.height} pixels was reduced {times:.0f} times, so that flaws smaller than "
            f"about {SEEN_FROM * times:.0f} pixels may be lost; give references and --tile auto, or --tile with a number of "
            "pixels."
        ]

    def _without_reference(self, image: Image.Image) -> Evidence:
        """Rarity: how far each patch is from the rest of the same picture."""
        if self.encoder.name != DEFAULT_ENCODER:
            raise InputError(
                f"The encoder {self.encoder.name!r} needs references or the other parts of a batch: how rare patches of good "
                f"parts are is known for {DEFAULT_ENCODER} only; give a good part to compare with, or leave out the encoder."
            )
        # "auto" leaves the picture whole: the built-in threshold is known for whole pictures only.
        tile = self.settings.tile
        side = tile_side(tile, image.width, image.height, self.size) if isinstance(tile, int) else None
        seen = encode(self.encoder, image, self.settings.size, side)
        distances = 1 - within_similarity(seen.features, NEIGHBOURS, most=MAX_PATCHES)
        score = float(top_mean(distances, self.settings.top_share * seen.window / seen.patches))
        standard = _Standard(
            RARITY_THRESHOLD,
            (score - RARITY_THRESHOLD) / RARITY_SPREAD,
            (distances - RARITY_THRESHOLD) / RARITY_SPREAD,
            "builtin",
            BUILTIN_REASON,
            REGION_EDGE * RARITY_THRESHOLD,
        )
        warnings = [*blank(image), *(self._reduced(image) if side is None else ())]
        return self._report(image, seen.features, distances, score, standard, warnings=warnings)

    def _report(
        self,
        image: Image.Image,
        features: torch.Tensor,
        distances: torch.Tensor,
        score: float,
        standard: _Standard,
        bank: MemoryBank | None = None,
        warnings: Sequence[str] = (),
    ) -> Evidence:
        """Everything that follows from the distances of the patches and the standard they are held to."""
        evidence_map = _enlarge(distances, image.width, image.height, self.encoder.offset)
        anomalous = score > standard.threshold
        regions = []
        if anomalous:
            limit = self.settings.max_regions
            regions = find_regions(evidence_map, standard.threshold, down_to=standard.region_edge, limit=limit)
        return Evidence(
            score=score,
            threshold=standard.threshold,
            threshold_from=standard.source,
            threshold_reason=standard.reason,
            verdict="anomalous" if anomalous else "normal",
            confidence=round(standard.confidence, 4),
            confidence_reason=self._confidence_reason(standard.source),
            map=evidence_map,
            regions=regions,
            distinct=distinct_patches(-distances.flatten(), self.settings.distinct),
            features=features,
            distances=distances,
            margins=standard.margins,
            reference_features=bank.first if bank else None,
            warnings=list(warnings),
            margin=standard.margin,
        )


@dataclass(frozen=True)
class _Standard:
    """The threshold a score is held to, by how many spreads score and patches pass it, and where regions end."""

    threshold: float
    margin: float
    margins: torch.Tensor
    source: ThresholdFrom
    reason: str
    region_edge: float

    @property
    def confidence(self) -> float:
        """How probably the verdict is right; without a reference the margin is the log-odds of a fit."""
        margin = abs(self.margin)
        return float(1 / (1 + np.exp(-(margin if self.source == "builtin" else CONFIDENCE * np.log1p(margin)))))


def _doubts(features: torch.Tensor, distances: torch.Tensor, bank: MemoryBank) -> list[str]:
    """A sentence about references that are probably of another product.

    The mean patch tells what a picture is made of, and the median distance whether most of it is explained; a defect hardly
    moves either. The limit is known for the embedded encoder only, so that others give no warning.
    """
    import torch.nn.functional as F

    if bank.encoder != DEFAULT_ENCODER:
        return []
    own = F.normalize(features.mean(dim=(0, 1)), dim=0)
    distance, typical = float((1 - bank.means @ own).min()), float(distances.median())
    if distance * typical <= FOREIGN * bank.rarity:
        return []
    which = "The reference seems" if bank.count == 1 else f"All {bank.count} references seem"
    return [
        f"{which} to be of another product (mean patches differ by {distance:.2f}, and half of the patches by more than "
        f"{typical:.2f}, where those of the reference differ by {bank.rarity:.2f} from each other); check it, or inspect "
        "without a reference."
    ]


def _enlarge(grid: torch.Tensor, width: int, height: int, offset: float) -> np.ndarray:
    """A map of patches at the resolution of the picture, (height, width) float32; bilinear, `PatchEncoder.offset` undone."""
    large = grid.float().cpu().numpy()
    for axis, side in enumerate((height, width)):
        cells = large.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * cells / side - 0.5 + offset, 0, cells - 1).astype(np.float32)
        low = np.minimum(at.astype(int), max(cells - 2, 0))
        share = np.expand_dims(at - low, 1 - axis)
        large = large.take(low, axis) * (1 - share) + large.take(np.minimum(low + 1, cells - 1), axis) * share
    return np.ascontiguousarray(large, dtype=np.float32)
