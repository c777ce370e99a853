"""Parts of one batch compared with one another: without a reference, what most of them share is taken for normal.

After MuSc (Li et al., ICLR 2024): a patch of a good part has its like in many others, a patch of a defect in few. So a
patch counts by its distances to the parts that explain it best, and no part needs to be known as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sage_ad.vlm.evidence.thresholds import LEAST_SCATTER

if TYPE_CHECKING:
    import torch

PEERS = 32
"""Other parts that a part is compared with at most: the cost of a batch grows with its size, not with the square of it."""

NEAREST_SHARE = 0.2
"""Share of the compared parts, those that explain a patch best, over which its distance is averaged (docs/detection.md)."""

FEWEST, ENOUGH = 4, 8
"""Parts below which nobody can say which is the odd one, and below which a warning is given."""

USUAL_SCATTERS = 1.25
"""A part so many scatters above the middle of its batch is anomalous (docs/detection.md)."""

CLEAR_SCATTERS, POSSIBLE_SCATTERS = 3.0, 0.5
"""Between the numbers of parts so many scatters above the middle lies the number of odd parts."""

LABEL = "Judged by the other parts of this batch"


@dataclass(frozen=True)
class PeerEvidence:
    """How a part differs from the other parts of its batch.

    Attributes:
        distances: (h, w) float16, for each patch the mean cosine distance to the parts that explain it best.
        score: mean of the highest share of `distances`.
        threshold: score above which the part is anomalous.
        spread: how far scores of usual parts scatter, in the units of the score.
        reason: one sentence that says how the threshold was found.
        warnings: sentences about what makes the judgement doubtful.
        features: file of the part's features, (h, w, C) float16; where it is out of reach they are computed again.
    """

    distances: np.ndarray
    score: float
    threshold: float
    spread: float
    reason: str
    warnings: tuple[str, ...] = ()
    features: Path | None = None


@dataclass(frozen=True)
class BatchThreshold:
    """What the scores of a batch say of it.

    Attributes:
        threshold: score above which a part is anomalous.
        spread: how far scores of usual parts scatter.
        odd: least and greatest number of parts that are probably odd.
        reason: one sentence that says how the threshold was found.
        warnings: why it is doubtful, if it is.
    """

    threshold: float
    spread: float
    odd: tuple[int, int]
    reason: str
    warnings: tuple[str, ...] = ()


def draw_peers(contents: Sequence[str]) -> list[list[int]]:
    """Up to `PEERS` others for each part: its neighbours in a ring in the order of digests, which is a random one.

    The draw depends on the content alone, not on names or their order, and who is a peer of whom is mutual, so that one
    product of matrices serves both.

    Args:
        contents: a digest of each part's content; parts of equal content would explain one another, and stand for one.

    Returns:
        For each part the indices of the parts that it is compared with.
    """
    first = {content: index for index, content in reversed(list(enumerate(contents)))}
    ring = sorted(first)
    place = {content: at for at, content in enumerate(ring)}
    reach = min(PEERS, len(ring)) // 2
    steps = [step for step in range(-reach, reach + 1) if step]
    drawn = []
    for content in contents:
        near = dict.fromkeys(ring[(place[content] + step) % len(ring)] for step in steps)
        drawn.append([first[other] for other in near if other != content])
    return drawn


def nearest_mean(maps: torch.Tensor) -> torch.Tensor:
    """Distance of each patch to the other parts: the mean over the `NEAREST_SHARE` of them that explain it best.

    Args:
        maps: (n, patches) cosine distance of each patch to the nearest patch of each of the others, at least one.

    Returns:
        (patches,) cosine distances.
    """
    nearest = maps.topk(max(1, round(NEAREST_SHARE * len(maps))), dim=0, largest=False).values
    return nearest.mean(dim=0)


def batch_threshold(scores: Sequence[float]) -> BatchThreshold:
    """Threshold from the scores of a batch, from its lower half, which odd parts cannot reach while most parts are good.

    Args:
        scores: score of each part against its peers.
    """
    logs = np.log(np.maximum(np.asarray(scores, float), 1e-6))
    middle = float(np.median(logs))
    lower = logs[logs <= middle]
    scatter = float(np.hypot(np.sqrt(np.mean((lower - middle) ** 2)), LEAST_SCATTER))

    def level(scatters: float) -> float:
        # Student's t to first order: the scatter of a few parts may be small by chance.
        return middle + scatter * (scatters + (scatters**3 + scatters) / (4 * len(lower)))

    threshold = float(np.exp(level(USUAL_SCATTERS)))
    odd = [int((logs > level(scatters)).sum()) for scatters in (CLEAR_SCATTERS, POSSIBLE_SCATTERS)]
    reason = (
        f"{LABEL}: half of its {len(logs)} parts score at most {np.exp(middle):.3f}; a usual part may score up to "
        f"{threshold:.3f}, {USUAL_SCATTERS:g} scatters of the lower half more. This finds what differs from most parts: a fault "
        "that most of them share is taken for normal."
    )
    warnings: tuple[str, ...] = ()
    if len(logs) < ENOUGH:
        warnings = (
            f"Only {len(logs)} parts were compared with one another; with fewer than {ENOUGH} nobody can tell well which are "
            "odd. Give a good part, or more parts.",
        )
    return BatchThreshold(threshold, threshold - float(np.exp(middle)), (odd[0], odd[1]), reason, warnings)
