"""Names for a region, from the taught examples that resemble it most.

Every vector is compared with the mean of what was taught taken off: what all defects of a product have in common (the
product) says nothing about which one it is. The kinds of vectors (texture, region, close-up, tone) then count by how well
each tells the taught examples apart when one of them is left out. docs/looks.md tells how probable the names are and how
that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sage_ad.vlm.evidence.region_features import RegionFeatures

PRIOR = (0.1, 1.0, 1.0, 0.5)
"""Weights of the vectors of `RegionFeatures` before anything is known about the product."""

PRIOR_WITHOUT_REFERENCE = (3.0, 1.0, 1.0, 0.0)
"""The same for regions found without a reference: their places are less sure, so the picture's texture counts more.

There is no tone without a reference."""

TRUST = 5.0
"""Log of how much more a vector counts that tells all examples apart than one that tells none."""

DOUBT = 12.0
"""Examples named by chance that are counted beside the taught ones: nine that agree are no proof yet."""

FIRST_OF_ONE = (-1.07, 0.81, 1.37)
"""Log-odds that the first name is right where no name has a second example: intercept, similarity, lead over the second."""

FIRST = (-1.06, -0.86, 11.46, 7.28)
"""The same elsewhere: intercept, reliability, and similarity and lead, each times the reliability."""

NONE = (-0.09, -1.56)
"""Log-odds that a region whose first name is wrong shows none of the taught kinds: intercept, similarity."""

SHARPNESS = 4.0
"""Of the softmax that shares what is left among the other names."""

ASSERTED = 0.9
"""Probability from which a name may be asserted."""


@dataclass(frozen=True)
class Candidate:
    """A name that a region may bear.

    Attributes:
        name: name of the defect, as it was taught.
        probability: calibrated, over all taught names and "none of them".
        agree: how many of the `examples` pictures most like the region were taught as this defect.
        examples: how many pictures of this defect were taught.
        source: where the name comes from.
    """

    name: str
    probability: float
    agree: int
    examples: int
    source: Literal["looks"] = "looks"


@dataclass(frozen=True)
class Naming:
    """Names for one region.

    Attributes:
        candidates: all taught names, the most probable first.
        unknown: probability that it is none of them.
    """

    candidates: list[Candidate]
    unknown: float

    @property
    def asserted(self) -> str | None:
        """The name that may be asserted, or None; never one with a single example (docs/looks.md)."""
        best = self.candidates[0]
        return best.name if best.probability >= ASSERTED and best.examples > 1 else None

    def in_words(self) -> str:
        """One line: the likely names, or that it is probably none of those taught."""
        told = [
            f"{c.name} ({c.probability:.2f}, like {c.agree} of your {c.examples} example{'s' * (c.examples > 1)})"
            for c in self.candidates[:3]
            if c.probability >= 0.05
        ]
        if self.unknown > self.candidates[0].probability:
            line = f"Probably not one of the known kinds ({self.unknown:.2f})"
            return line + (f"; if it is, {', '.join(told)}" if told else "")
        return f"Most likely {told[0]}" + (f"; else {', '.join(told[1:])}" if told[1:] else "")


class LooksIndex:
    """The taught looks of one product, ready for comparison.

    Args:
        features: vectors of each taught look.
        names: the defect that each shows.
        prior: weights of the vectors before anything is known (`PRIOR`).

    Raises:
        ValueError: nothing was taught.
    """

    def __init__(
        self, features: Sequence[RegionFeatures], names: Sequence[str], prior: Sequence[float] = PRIOR
    ) -> None:
        if not features or len(features) != len(names):
            raise ValueError("An index of looks needs at least one look, and a name for each.")
        self.names = sorted(set(names))
        self._labels = np.array([self.names.index(name) for name in names])
        members = np.eye(len(self.names))[self._labels]
        self._counts = members.sum(axis=0)
        blocks = [np.stack(block).astype(np.float64) for block in zip(*features, strict=True)]
        # Each name counts once in the mean, however many examples it has. One name alone leaves nothing to compare.
        self._means = [(members.T @ block / self._counts[:, None]).mean(axis=0) for block in blocks]
        units = [_unit(block - mean) for block, mean in zip(blocks, self._means, strict=True)]
        rates = [_left_out(unit @ unit.T, self._labels, members) for unit in units]
        weights = np.array([p * np.exp(TRUST * (rate or 0)) for p, rate in zip(prior, rates, strict=True)])
        self._roots = np.sqrt(weights / weights.sum())
        vectors = np.concatenate([root * unit for root, unit in zip(self._roots, units, strict=True)], axis=1)
        self._vectors = vectors.astype(np.float32)
        gram = vectors @ vectors.T
        self._lengths = np.sqrt(np.maximum(np.einsum("ik,ij,jk->k", members, gram, members), 1e-9))
        rate, tried = _left_out(gram, self._labels, members), float(self._counts[self._counts > 1].sum())
        self.reliability = None if rate is None else (rate * tried + DOUBT / len(self.names)) / (tried + DOUBT)
        """Share of the taught examples that the others name rightly, with `DOUBT`; None where no name has two."""

    def __len__(self) -> int:
        return len(self._labels)

    @cached_property
    def _index(self) -> Any:
        import faiss

        index = faiss.IndexFlatIP(self._vectors.shape[1])
        index.add(self._vectors)
        return index

    def similarity(self, features: RegionFeatures) -> tuple[np.ndarray, np.ndarray]:
        """How much a region is like what was taught.

        Returns:
            Similarity to each of `names` (at most 1), and the label of each taught look, the most alike first.
        """
        parts = [
            root * _unit(block[None].astype(np.float64) - mean)[0]
            for root, block, mean in zip(self._roots, features, self._means, strict=True)
        ]
        query = np.concatenate(parts).astype(np.float32)[None]
        found, order = self._index.search(query, len(self))
        labels = self._labels[order[0]]
        return np.bincount(labels, found[0], len(self.names)) / self._lengths, labels

    def name(self, features: RegionFeatures) -> Naming:
        """Names for a region, each with its probability."""
        similarity, nearest = self.similarity(features)
        shares, unknown = probabilities(similarity, self.reliability)
        candidates = [
            Candidate(
                name,
                round(float(shares[i]), 4),
                int((nearest[: int(self._counts[i])] == i).sum()),
                int(self._counts[i]),
            )
            for i, name in enumerate(self.names)
        ]
        # Names of equal probability are listed in the order of the alphabet.
        return Naming(sorted(candidates, key=lambda candidate: -candidate.probability), round(unknown, 4))


def probabilities(similarity: np.ndarray, reliability: float | None) -> tuple[np.ndarray, float]:
    """Similarity to probability.

    Args:
        similarity: (k,) similarity to each name.
        reliability: `LooksIndex.reliability`.

    Returns:
        Probability of each name, (k,), and the probability that it is none of them; they sum to 1.
    """
    if len(similarity) == 1:
        # With one name taught there is nothing to tell it from.
        return np.array([0.5]), 0.5
    first = int(similarity.argmax())
    others = np.delete(similarity, first)
    p = _share(float(np.dot(*terms(similarity, reliability))))
    unknown = (1 - p) * _share(NONE[0] + NONE[1] * float(similarity[first]))
    shares = np.exp(SHARPNESS * (others - others.max()))
    return np.insert((1 - p - unknown) * shares / shares.sum(), first, p), unknown


def terms(similarity: np.ndarray, reliability: float | None) -> tuple[np.ndarray, np.ndarray]:
    """What the probability of the first name follows from, and the constants that weigh it.

    Reliability is counted from what guessing would give.
    """
    second, best = np.sort(similarity)[-2:]
    if reliability is None:
        return np.array([1.0, best, best - second]), np.array(FIRST_OF_ONE)
    above = reliability - 1 / len(similarity)
    return np.array([1.0, above, best * above, (best - second) * above]), np.array(FIRST)


def _share(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; single numbers (the tone) keep their size, which says how plain they are."""
    if rows.shape[1] == 1:
        return rows
    unit: np.ndarray = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
    return unit


def _left_out(gram: np.ndarray, labels: np.ndarray, members: np.ndarray) -> float | None:
    """Share of the examples that the mean similarity to the others names rightly; None where no name has two examples."""
    others = members.sum(axis=0) - members
    sums = gram @ members - np.diag(gram)[:, None] * members
    similarity = np.where(others > 0, sums / np.maximum(others, 1), -np.inf)
    again = members.sum(axis=0)[labels] > 1
    if not again.any() or members.shape[1] < 2:
        return None
    return float((similarity.argmax(axis=1) == labels)[again].mean())
