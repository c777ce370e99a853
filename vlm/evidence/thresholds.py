"""What score a good picture may have, judged by the references alone; the same rule for every encoder.

Several references are compared with one another, each against the rest. One reference tells less: how far its own rarest
patches are from the rest of it, since what is rare in one good part is what differs between good parts. All steps are
ratios, so that the scale of an encoder's distances does not matter. `benchmarks/evidence_trials.py` measures the rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ONE_REFERENCE = 1.15
"""A good part may score so many times what one reference scores against the rest of itself (docs/detection.md)."""

LEAST_SCATTER = 0.05
"""Relative scatter of good pictures that is never undercut: a few references may agree by chance."""

ODD_SCATTERS = 4.0
"""A reference so many scatters above the others is named as unlike them."""


def threshold_from_one(rarity: float) -> tuple[float, float, str]:
    """Threshold, spread and reason from the score of one reference's patches against the rest of the same picture."""
    threshold = ONE_REFERENCE * max(rarity, 1e-6)
    reason = (
        f"The reference scores {rarity:.3f} patch by patch against the rest of itself; a good part may score up to "
        f"{threshold:.3f}. One reference cannot tell how far good parts scatter, so the share of false alarms is unknown; "
        "with four or more it is estimated."
    )
    return threshold, 2 * LEAST_SCATTER * threshold, reason


def threshold_from_several(scores: Sequence[float]) -> tuple[float, float, str]:
    """Threshold, spread and reason from the scores of each reference against the others: one scatter above their mean."""
    level, scatter = _log_normal(scores)
    threshold = level * float(np.exp(scatter))
    reason = (
        f"Each of the {len(scores)} references scores {level:.3f} on average against the others; "
        f"a good part may score up to {threshold:.3f}, one scatter more. Where this was measured, one good part in seven "
        "scored higher; more good parts of your own give a threshold with a known share of false alarms."
    )
    return threshold, threshold - level, reason


def odd_ones(scores: Sequence[float]) -> list[tuple[int, float]]:
    """References that score far above the others when each is compared with the rest: index, and what is usual.

    Needs four of them: of fewer, nobody can say which is the odd one.
    """
    found = []
    for index, score in enumerate(scores):
        others = [*scores[:index], *scores[index + 1 :]]
        if len(others) < 3:
            continue
        usual, scatter = float(np.median(others)), _log_normal(others)[1]
        if score > usual * np.exp(ODD_SCATTERS * scatter):
            found.append((index, usual))
    return found


def _log_normal(scores: Sequence[float]) -> tuple[float, float]:
    """Geometric mean of positive scores, and their relative scatter (standard deviation of the logarithms)."""
    logs = np.log(np.maximum(np.asarray(scores, float), 1e-6))
    own = float(logs.std(ddof=1)) if len(logs) > 1 else 0.0
    return float(np.exp(logs.mean())), float(np.hypot(own, LEAST_SCATTER))
