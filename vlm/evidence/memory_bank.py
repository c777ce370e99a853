"""References made ready: their patches, what is odd among them, and the threshold that they alone suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.patch_matching import Matching, patch_similarity, top_mean, within_similarity
from sage_ad.vlm.evidence.thresholds import disturbed_copies, odd_ones, threshold_from_one, threshold_from_several
from sage_ad.vlm.images import even_exposure

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from sage_ad.vlm.evidence.encoders import PatchEncoder

MAX_PATCHES = 40_000
"""Reference patches kept at most: more would cost seconds an image and hardly explain anything new."""

SAME_PICTURE = 0.04
"""Mean cosine distance, place by place, up to which two pictures may be one, perhaps lightly compressed again."""

SAME_LEVEL, BLOCKS = 2.0, 32
"""Grey levels (of 255) by which no block of 32 x 32 may then differ: a small flaw in a flat drawing moves few features."""

NEIGHBOURS = 2
"""Patches up to so many rows and columns away overlap a patch: they say nothing of how rare it is."""


@dataclass(frozen=True)
class BankSettings:
    """What a bank depends on; see `sage_ad.vlm.evidence.extractor.EvidenceSettings` for the fields."""

    method: str
    matching: Matching
    size: int | None
    top_share: float

    def seen(self, image: Image.Image) -> Image.Image:
        """The picture as it is compared: as photographed by the plain baseline, else brought to one exposure."""
        return image if self.method == "nearest-neighbour" else even_exposure(image)


@dataclass
class MemoryBank:
    """References made ready once, to be compared with many pictures.

    Attributes:
        encoder: name of the encoder that made the features.
        settings: what the bank was made with.
        images: the references as given.
        features: (h, w, C) unit-length vectors of each.
        patches: (m, C) unit-length vectors of all, thinned evenly where they would be too many.
        threshold: image score above which a picture is anomalous.
        spread: how far scores of good pictures scatter, in the units of the score.
        threshold_reason: one sentence that says how the threshold was found.
        warnings: sentences about references that are odd: pictures given twice, or unlike the others.
    """

    encoder: str
    settings: BankSettings
    images: list[Image.Image]
    features: list[torch.Tensor]
    patches: torch.Tensor
    threshold: float = 0.0
    spread: float = 0.0
    threshold_reason: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of references."""
        return len(self.features)

    def same_picture(self, image: Image.Image, features: torch.Tensor) -> list[int]:
        """Indices of the references that are this very picture, which has these (h, w, C) features."""
        return [i for i, known in enumerate(self.features) if _is_same(image, features, self.images[i], known)]


def build_bank(encoder: PatchEncoder, references: Sequence[Image.Image], settings: BankSettings) -> MemoryBank:
    """Encodes references and finds the threshold that they suggest.

    Args:
        encoder: the encoder, which must also read the pictures that are compared later.
        references: pictures of good parts of one product, at least one. A picture given twice counts once.
        settings: method, matching, size and pooling.

    Raises:
        InputError: there is no reference.
    """
    if not references:
        raise InputError("No reference was given; give a picture of a good part, or inspect without one.")
    features = encoder.encode([settings.seen(image) for image in references], settings.size).maps
    kept, warnings = _distinct(references, features)
    bank = MemoryBank(
        encoder.name,
        settings,
        [references[index] for index in kept],
        [features[index] for index in kept],
        _patches([features[index] for index in kept]),
        warnings=warnings,
    )
    if bank.count == 1:
        copies = encoder.encode([settings.seen(copy) for copy in disturbed_copies(bank.images[0])], settings.size)
        scores = [image_score(copy, bank.patches, settings)[0] for copy in copies.maps]
        elsewhere = 1 - within_similarity(bank.features[0], NEIGHBOURS)
        found = threshold_from_one(scores, float(top_mean(elsewhere, settings.top_share)))
    else:
        scores = _leave_one_out(bank)
        bank.warnings += [
            f"Reference {kept[index] + 1} of {len(references)} is unlike the others: it scores {scores[index]:.3f} against "
            f"them, where they score {usual:.3f}; it may be defective or of another product."
            for index, usual in odd_ones(scores)
        ]
        found = threshold_from_several(scores)
    bank.threshold, bank.spread, bank.threshold_reason = found
    return bank


def image_score(features: torch.Tensor, patches: torch.Tensor, settings: BankSettings) -> tuple[float, torch.Tensor]:
    """Score of a picture against reference patches, and its (h, w) distances: the mean of the highest share of them."""
    similarity = patch_similarity(features.flatten(0, 1), patches, matching=settings.matching)
    distances = (1 - similarity).reshape(features.shape[:2])
    return float(top_mean(distances, settings.top_share)), distances


def _is_same(one: Image.Image, features: torch.Tensor, other: Image.Image, known: torch.Tensor) -> bool:
    """Whether two pictures with these (h, w, C) features are one."""
    if features.shape != known.shape or float(1 - (features * known).sum(-1).mean()) > SAME_PICTURE:
        return False
    from PIL.Image import Resampling

    # BOX averages each block; whole grey levels are fine enough here.
    levels = [
        np.asarray(image.convert("L").resize((BLOCKS, BLOCKS), Resampling.BOX), np.float32) for image in (one, other)
    ]
    return bool(np.abs(levels[0] - levels[1]).max() <= SAME_LEVEL)


def _distinct(images: Sequence[Image.Image], features: Sequence[torch.Tensor]) -> tuple[list[int], list[str]]:
    """Indices of the references without those that repeat an earlier one, and a sentence about each of these."""
    kept: list[int] = []
    warnings = []
    for index, own in enumerate(features):
        twin = next((e for e in kept if _is_same(images[index], own, images[e], features[e])), None)
        if twin is None:
            kept.append(index)
        else:
            warnings.append(f"Reference {index + 1} is the same picture as reference {twin + 1}; it counts once.")
    return kept, warnings


def _patches(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Patches of several references, thinned evenly where they would be too many."""
    import torch

    patches = torch.cat([grid.flatten(0, 1) for grid in features])
    if len(patches) <= MAX_PATCHES:
        return patches
    return patches[torch.linspace(0, len(patches) - 1, MAX_PATCHES, device=patches.device).long()]


def _leave_one_out(bank: MemoryBank) -> list[float]:
    """Score of each reference against the others."""
    return [
        image_score(own, _patches([*bank.features[:index], *bank.features[index + 1 :]]), bank.settings)[0]
        for index, own in enumerate(bank.features)
    ]
