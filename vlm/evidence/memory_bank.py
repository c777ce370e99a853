"""References made ready: their patches, what is odd among them, and the threshold that they alone suggest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.copies import is_copy, thumbnail
from sage_ad.vlm.evidence.patch_matching import Matching, patch_similarity, top_mean, within_similarity
from sage_ad.vlm.evidence.preparation import Preparation, measure
from sage_ad.vlm.evidence.thresholds import odd_ones, threshold_from_one, threshold_from_several
from sage_ad.vlm.evidence.tiles import Encoded, Tile, encode, tile_side

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from sage_ad.vlm.evidence.encoders import PatchEncoder

    Reference = Image.Image | Callable[[], Image.Image]

MAX_PATCHES = 40_000
"""Reference patches kept at most: more would cost seconds an image and hardly explain anything new."""

MAX_ENCODED = 400_000
"""Patches held at most while references are made ready (270 MB): 250 whole pictures, or 8 of 12 megapixels in tiles."""

LEAST_REFERENCES = 4
"""So many references are used however large they are."""

SAY_EVERY = 25
"""Progress is said each time so many references were read."""

NEIGHBOURS = 2
"""Patches up to so many rows and columns away overlap a patch: they say nothing of how rare it is."""

CHUNK = 1024
"""Patches of a reference compared at a time: 1,024 x 40,000 others take 160 MB."""


@dataclass(frozen=True)
class BankSettings:
    """What a bank depends on; see `sage_ad.vlm.evidence.extractor.EvidenceSettings` for the fields."""

    matching: Matching
    size: int
    top_share: float
    tile: Tile = "auto"


@dataclass(frozen=True)
class Matches:
    """How the other references, or where there are none the rest of the same picture, explain the patches of one.

    Attributes:
        best: (h, w) similarity of each patch to its match among the others.
        owner: (h, w) int64, the reference that the match is from.
        second: (h, w) similarity to the match if that reference were missing; -inf where there is no other.
        window: patches that the encoder sees at a time.
    """

    best: torch.Tensor
    owner: torch.Tensor
    second: torch.Tensor
    window: int

    def without(self, index: int) -> Matches:
        """The same if a reference were missing. It can be taken away once: what comes after `second` is not known."""
        import torch

        return replace(self, best=torch.where(self.owner == index, self.second, self.best))


@dataclass
class MemoryBank:
    """References made ready once, to be compared with many pictures.

    Attributes:
        encoder: name of the encoder that made the features.
        settings: what the bank was made with.
        tile: side of the tiles in units of a picture's shorter side; None where pictures are compared as a whole.
        given: places in the list that was given of the references that are used.
        thumbnails: (128, 128) grey levels of each, by which a copy is known.
        preparations: how each was photographed and saved.
        means: (n, C) mean patch of each.
        grids: (h, w, C) unit-length vectors of the first two.
        patches: (m, C) unit-length vectors of all, thinned evenly where they would be too many.
        owners: (m,) int64, the reference that each is from.
        matches: how each is explained.
        rarity: median distance of the first's patches to the rest of it; of every few of them if it is in tiles.
        threshold: image score above which a picture is anomalous.
        spread: how far scores of good pictures scatter, in the units of the score.
        threshold_reason: one sentence that says how the threshold was found.
        warnings: sentences about references that are odd: pictures given twice, or unlike the others.
    """

    encoder: str
    settings: BankSettings
    tile: float | None
    given: list[int]
    thumbnails: list[np.ndarray]
    preparations: list[Preparation]
    means: torch.Tensor
    grids: list[torch.Tensor]
    patches: torch.Tensor
    owners: torch.Tensor
    matches: list[Matches] = field(default_factory=list)
    rarity: float = 0.0
    threshold: float = 0.0
    spread: float = 0.0
    threshold_reason: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of references."""
        return len(self.given)

    @property
    def first(self) -> torch.Tensor:
        """(h, w, C) unit-length vectors of the first reference."""
        return self.grids[0]

    def encode(self, encoder: PatchEncoder, image: Image.Image) -> Encoded:
        """Patches of a picture at the scale of the references."""
        return encode(encoder, image, self.settings.size, self.side(image))

    def side(self, image: Image.Image) -> int | None:
        """Side in pixels of the tiles in which a picture is compared; None where it is as a whole."""
        return _side(self.settings, self.tile, image)

    def copy_of(self, image: Image.Image) -> int | None:
        """Index of the reference that is this very picture, perhaps saved again; None if there is none."""
        own = thumbnail(image)
        return next((index for index, known in enumerate(self.thumbnails) if is_copy(own, known)), None)

    def score(self, seen: Encoded) -> tuple[float, torch.Tensor]:
        """Score of a picture and its (h, w) distances: the mean of the most distant of them.

        How many is a share of the patches that the encoder sees at a time, so that a flaw counts as much on a large picture as
        it would on the tile that holds it.
        """
        similarity = patch_similarity(seen.features.flatten(0, 1), self.patches, matching=self.settings.matching)
        distances = (1 - similarity).reshape(seen.features.shape[:2])
        return float(_pooled(distances, self.settings, seen.window)), distances

    def without(self, index: int) -> MemoryBank | None:
        """The bank of the other references; None if there is none. Nothing is encoded again."""
        if self.count == 1:
            return None
        others = [i for i in range(self.count) if i != index]
        stay = self.owners != index
        bank = replace(
            self,
            given=[self.given[i] for i in others],
            thumbnails=[self.thumbnails[i] for i in others],
            preparations=[self.preparations[i] for i in others],
            means=self.means[others],
            grids=[grid for i, grid in enumerate(self.grids) if i != index],
            patches=self.patches[stay],
            owners=self.owners[stay],
            matches=[self.matches[i].without(index) for i in others],
            warnings=list(self.warnings),
        )
        if bank.count == 1:
            bank.matches = [_alone(bank.first, bank.matches[0].window)]
        bank.threshold, bank.spread, bank.threshold_reason = _threshold(bank)
        return bank


def build_bank(
    encoder: PatchEncoder,
    references: Sequence[Reference],
    settings: BankSettings,
    say: Callable[[str], None] | None = None,
) -> MemoryBank:
    """Encodes references and finds the threshold that they suggest.

    Args:
        encoder: the encoder, which must also read the pictures that are compared later.
        references: pictures of good parts of one product, at least one, or functions that load one, so that only one
            is in memory at a time. A picture given twice counts once. Of too many (`MAX_ENCODED`), a part is used.
        settings: method, matching, size, pooling and tiles.
        say: is given a line from time to time when there are many.

    Raises:
        InputError: there is no reference.
    """
    import torch
    import torch.nn.functional as F

    if not references:
        raise InputError("No reference was given; give a picture of a good part, or inspect without one.")
    warnings: list[str] = []
    given, thumbnails, seen = list[int](), list[np.ndarray](), list[Encoded]()
    preparations: list[Preparation] = []
    tile: float | None = None
    waiting = list(range(len(references)))
    while waiting:
        index = waiting.pop(0)
        reference = references[index]
        image = reference() if callable(reference) else reference
        own = thumbnail(image)
        twin = next((i for i, known in zip(given, thumbnails, strict=True) if is_copy(own, known)), None)
        if twin is not None:
            warnings.append(f"Reference {index + 1} is the same picture as reference {twin + 1}; it counts once.")
            continue
        if not seen and (side := tile_side(settings.tile, *image.size, settings.size)):
            tile = side / min(image.size)
        seen.append(encode(encoder, image, settings.size, _side(settings, tile, image)))
        given.append(index)
        thumbnails.append(own)
        preparations.append(measure(image))
        if len(seen) == 1 and len(waiting) >= (most := _most(seen[0])):
            warnings.append(
                f"Of {len(references)} references {most}, spread evenly, are used; more take too much memory."
            )
            waiting = [waiting[i] for i in np.linspace(0, len(waiting) - 1, most - 1).astype(int)]
        if say and len(seen) % SAY_EVERY == 0:
            say(f"{len(seen)} of {len(seen) + len(waiting)} references read")
    patches = torch.cat([one.features.flatten(0, 1) for one in seen])
    owners = torch.arange(len(seen), device=patches.device)
    owners = owners.repeat_interleave(torch.tensor([one.patches for one in seen], device=patches.device))
    if len(patches) > MAX_PATCHES:
        kept = torch.linspace(0, len(patches) - 1, MAX_PATCHES, device=patches.device).long()
        patches, owners = patches[kept], owners[kept]
    means = torch.stack([F.normalize(one.features.mean(dim=(0, 1)), dim=0) for one in seen])
    grids = [one.features for one in seen[:2]]
    bank = MemoryBank(
        encoder.name, settings, tile, given, thumbnails, preparations, means, grids, patches, owners, warnings=warnings
    )
    every = math.ceil((seen[0].patches / seen[0].window) ** 0.5)
    bank.rarity = float((1 - within_similarity(bank.first[::every, ::every], NEIGHBOURS)).median())
    if bank.count == 1:
        bank.matches = [_alone(bank.first, seen[0].window)]
    else:
        for number, one in enumerate(seen):
            bank.matches.append(_matches(one, number, patches, owners, settings))
            if say and (number + 1) % SAY_EVERY == 0:
                say(f"{number + 1} of {len(seen)} references compared with the others")
        scores = _own_scores(bank)
        bank.warnings += [
            f"Reference {given[index] + 1} of {len(references)} is unlike the others: it scores {scores[index]:.3f} against "
            f"them, where they score {usual:.3f}; it may be defective or of another product."
            for index, usual in odd_ones(scores)
        ]
    bank.threshold, bank.spread, bank.threshold_reason = _threshold(bank)
    return bank


def _pooled(distances: torch.Tensor, settings: BankSettings, window: int) -> torch.Tensor:
    return top_mean(distances, settings.top_share * window / distances.numel())


def _side(settings: BankSettings, tile: float | None, image: Image.Image) -> int | None:
    """Side of tiles: as given in pixels, or in proportion to the references, whose scale a part must be compared at."""
    if isinstance(settings.tile, int):
        return tile_side(settings.tile, *image.size, settings.size)
    return None if tile is None else round(tile * min(image.size))


def _most(one: Encoded) -> int:
    """How many references as large as this one are used at most."""
    return max(LEAST_REFERENCES, MAX_ENCODED // one.patches)


def _matches(one: Encoded, index: int, patches: torch.Tensor, owners: torch.Tensor, settings: BankSettings) -> Matches:
    """How the other references explain one: its patches against those of each other reference."""
    import torch

    counts = owners.bincount(minlength=int(owners[-1]) + 1).tolist()
    sign = 1 if settings.matching == "nearest" else -1
    found = []
    for part in one.features.flatten(0, 1).split(CHUNK):
        similarity = sign * (part @ patches.T)
        by_owner = torch.stack([own.amax(dim=1) for own in similarity.split(counts, dim=1)], dim=1)
        by_owner[:, index] = -torch.inf
        found.append(by_owner.topk(2, dim=1))
    values = sign * torch.cat([top.values for top in found])
    owner = torch.cat([top.indices[:, 0] for top in found])
    shape = one.features.shape[:2]
    return Matches(values[:, 0].reshape(shape), owner.reshape(shape), values[:, 1].reshape(shape), one.window)


def _alone(grid: torch.Tensor, window: int) -> Matches:
    """How the rest of a single reference explains it."""
    import torch

    best = within_similarity(grid, NEIGHBOURS, most=MAX_PATCHES)
    return Matches(best, torch.zeros_like(best, dtype=torch.int64), torch.full_like(best, -torch.inf), window)


def _own_scores(bank: MemoryBank) -> list[float]:
    """Score of each reference against the others, or of a single one against the rest of itself."""
    return [float(_pooled(1 - one.best, bank.settings, one.window)) for one in bank.matches]


def _threshold(bank: MemoryBank) -> tuple[float, float, str]:
    scores = _own_scores(bank)
    return threshold_from_one(scores[0]) if bank.count == 1 else threshold_from_several(scores)
