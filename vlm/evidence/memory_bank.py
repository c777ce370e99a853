"""References made ready: their patches, turned copies, and the threshold that they alone suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage_ad.vlm.evidence.patch_matching import Matching, patch_similarity, top_mean
from sage_ad.vlm.evidence.score_terms import Standard, distance_to_references, evidence_without_reference, with_looks
from sage_ad.vlm.evidence.thresholds import DISTURBANCES, disturbed, threshold_of_one, threshold_of_several
from sage_ad.vlm.images import even_exposure

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from sage_ad.vlm.evidence.encoders import PatchEncoder, PatchFeatures

MAX_PATCHES = 40_000
"""Reference patches kept at most: more would cost seconds an image and hardly explain anything new."""

MAX_ALIGNED = 8
"""References compared place by place at most, which bounds the time with many references."""

LOOKS_SHARE = 0.01
"""Share of the highest patches that make the score of what a picture looks like by itself."""

TURNED_SHARE = 4
"""One in this many patches of each turned copy is kept: neighbours are nearly alike, and eight full copies are slow."""


@dataclass
class MemoryBank:
    """References made ready once, to be compared with many pictures.

    Attributes:
        encoder: name of the encoder that made the features.
        method: method that the bank was made for.
        patches: (m, C) unit-length vectors of all references and of their turned and mirrored copies.
        grids: (h, w, C) unit-length vectors of the references as given, for comparison place by place.
        features: (h, w, C) features of the references as given, all scales alike.
        threshold: image score above which a picture is anomalous.
        threshold_reason: one sentence that says how the threshold was found.
        spread: how far scores of good pictures scatter, in the units of the score.
        count: number of references.
    """

    encoder: str
    method: str
    patches: torch.Tensor
    grids: list[torch.Tensor]
    features: list[torch.Tensor]
    threshold: float
    threshold_reason: str
    spread: float
    count: int


@dataclass(frozen=True)
class BankSettings:
    """What a bank depends on; see `sage_ad.vlm.evidence.extractor.EvidenceSettings` for the fields."""

    method: str
    matching: Matching
    size: int | None
    top_share: float


def build_bank(encoder: PatchEncoder, references: Sequence[Image.Image], settings: BankSettings) -> MemoryBank:
    """Encodes references (and turned and mirrored copies of them) and finds the threshold that they suggest.

    Args:
        encoder: the encoder, which must also read the pictures that are compared later.
        references: pictures of good parts of one product, at least one.
        settings: method, matching, size and pooling.
    """
    plain = settings.method == "nearest-neighbour"
    if not plain:
        references = [even_exposure(image) for image in references]
    views = [_Reference.read(encoder, image, settings.size, plain) for image in references]
    bank = _joined(encoder, views, settings)
    scores = _self_scores(encoder, views, references, settings)
    tuned = not plain and encoder.emphasis is not None and settings.matching == "nearest"
    found = threshold_of_several(scores) if len(views) > 1 else threshold_of_one(scores, tuned=tuned)
    bank.threshold, bank.spread, bank.threshold_reason = found
    return bank


def _self_scores(
    encoder: PatchEncoder, views: Sequence[_Reference], references: Sequence[Image.Image], settings: BankSettings
) -> list[float]:
    """Scores of good pictures that the references themselves provide."""
    if len(views) > 1:
        pairs = [
            (view.look, _joined(encoder, [*views[:index], *views[index + 1 :]], settings))
            for index, view in enumerate(views)
        ]
    else:
        bank = _joined(encoder, views, settings)
        plain = settings.method == "nearest-neighbour"
        copies = encoder.encode(
            [disturbed(references[0], *how) for how in DISTURBANCES], settings.size, context=not plain
        )
        pairs = [(View(encoder, copies.maps[index], context_of(copies, index)), bank) for index in range(len(copies))]
    return [image_score(look, bank, settings.matching, settings.top_share)[0] for look, bank in pairs]


@dataclass
class _Reference:
    """One reference: how it looks, its grid under the method's weights, and the patches it gives to the bank."""

    look: View
    grid: torch.Tensor
    patches: torch.Tensor

    @classmethod
    def read(cls, encoder: PatchEncoder, image: Image.Image, size: int | None, plain: bool) -> _Reference:
        import torch
        from PIL import Image

        if plain:
            features = encoder.encode([image], size)[0]
            return cls(View(encoder, features, None), features, features.flatten(0, 1))
        seen = encoder.encode([image], size, context=True)
        turned = encoder.encode([image.transpose(turn) for turn in Image.Transpose], size).maps
        grids = [weighted(features, encoder.emphasis) for features in (seen[0], *turned)]
        thinned = [grid.flatten(0, 1)[index % TURNED_SHARE :: TURNED_SHARE] for index, grid in enumerate(grids[1:])]
        look = View(encoder, seen.maps[0], context_of(seen, 0))
        return cls(look, grids[0], torch.cat([grids[0].flatten(0, 1), *thinned]))


def weighted(features: torch.Tensor, emphasis: torch.Tensor | None) -> torch.Tensor:
    """Features under the encoder's weights of scales (still of unit length)."""
    return features if emphasis is None else features * emphasis


def _joined(encoder: PatchEncoder, views: Sequence[_Reference], settings: BankSettings) -> MemoryBank:
    """One bank of several references, thinned evenly where it would grow too large."""
    import torch

    patches = torch.cat([view.patches for view in views])
    if len(patches) > MAX_PATCHES:
        keep = torch.linspace(0, len(patches) - 1, MAX_PATCHES, device=patches.device).long()
        patches = patches[keep]
    return MemoryBank(
        encoder=encoder.name,
        method=settings.method,
        patches=patches,
        grids=[view.grid for view in views[:MAX_ALIGNED]],
        features=[view.look.features for view in views],
        threshold=0.0,
        threshold_reason="",
        spread=0.0,
        count=len(views),
    )


class View:
    """One picture as the encoder sees it.

    Args:
        encoder: the encoder, for its weights of scales.
        features: (h, w, C) unit-length vectors, all scales alike.
        context: (h, w, D) raw features for the defect head, or None.

    Attributes:
        tokens: `features` under the encoder's weights of scales.
    """

    def __init__(self, encoder: PatchEncoder, features: torch.Tensor, context: torch.Tensor | None) -> None:
        self.features, self.context = features, context
        self.tokens = weighted(features, encoder.emphasis)


def context_of(seen: PatchFeatures, index: int) -> torch.Tensor | None:
    """Raw features of one of several pictures, where the encoder gives them."""
    return seen.context[index] if seen.context else None


def image_score(look: View, bank: MemoryBank, matching: Matching, share: float) -> tuple[float, torch.Tensor]:
    """Score of a picture against a bank, and its map (h, w).

    Four weighted explanations and, for encoders with a defect head, what the picture looks like by itself; or the plain
    match of the baseline, or Eq. 1 as printed.

    Args:
        look: the picture.
        bank: the references.
        matching: inner operator of Eq. 1.
        share: share of the highest patches whose mean is the score.
    """
    import torch

    if bank.method == "nearest-neighbour":
        similarity = patch_similarity(look.features.flatten(0, 1), bank.patches, matching=matching)
        distances = (1 - similarity).reshape(look.features.shape[:2])
        return float(top_mean(distances, share)), distances
    plain = torch.cat([known.flatten(0, 1) for known in bank.features])[:MAX_PATCHES]
    standard = Standard(bank.patches, bank.grids, plain)
    distances = distance_to_references(look.features, look.tokens, standard, matching)
    if look.context is None or matching == "paper":
        return float(top_mean(distances, share)), distances
    log_odds, _ = evidence_without_reference(look.tokens, look.context, LOOKS_SHARE)
    return with_looks(distances, log_odds, share)
