"""Thresholds with a promised false-alarm rate, from good images only (split conformal prediction).

If the next good image comes from where the calibration images came from, it exceeds the threshold with at most the
asked probability, whatever the distribution of scores (Vovk et al., "Algorithmic Learning in a Random World", 2005;
Angelopoulos and Bates, arXiv 2107.07511, section 1). The promise is about good images; nothing is said of misses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sage_ad.evaluation.reports.metrics import Figure, bootstrap_mean
from sage_ad.vlm.errors import InputError


@dataclass(frozen=True)
class FalseAlarm:
    """A threshold calibrated for a false-alarm rate, and what it did on good images that it had not seen.

    Attributes:
        asked: the rate that was asked for.
        threshold: scores above it are called anomalous; None if there were too few normals.
        normals: how many good images calibrated it.
        measured: share of held-out good images above it; None without held-out images (or threshold).
        refused: why there is no threshold, in one sentence; None if there is one.
    """

    asked: float
    threshold: float | None
    normals: int
    measured: Figure | None = None
    refused: str | None = None

    def to_json(self) -> dict[str, object]:
        """As the JSON of reports has it."""
        return {
            "asked": self.asked,
            "threshold": self.threshold,
            "normals": self.normals,
            "measured": self.measured.to_json() if self.measured else None,
            "refused": self.refused,
        }


def check_rate(rate: float) -> float:
    """The rate itself; raises `InputError` unless it lies between 0 and 1."""
    if not 0 < rate < 1:
        raise InputError(f"A false-alarm rate lies between 0 and 1, not {rate:g}; 0.05 means one good part in twenty.")
    return rate


def needed_normals(rate: float) -> int:
    """How many good images a false-alarm rate takes at least: 1/rate - 1, rounded up (19 for 0.05)."""
    # 1/0.05 - 1 is 19.000000000000004 in floating point.
    return max(1, math.ceil(round(1 / check_rate(rate) - 1, 9)))


def conformal_threshold(normal_scores: Sequence[float], rate: float) -> float:
    """The score that a new good image exceeds with probability at most `rate`.

    With n scores it is the ceil((n + 1)(1 - rate))-th smallest.

    Raises:
        InputError: fewer than `needed_normals(rate)` scores; the message says how many are missing.
    """
    count = len(normal_scores)
    missing = needed_normals(rate) - count
    if missing > 0:
        instead = f" or ask for {1 / (count + 1):.2g} or higher" if count else ""
        raise InputError(
            f"A false-alarm rate of {rate:g} needs at least {needed_normals(rate)} good images beside the references "
            f"and there are {count}: add {missing} more{instead}."
        )
    rank = math.ceil(round((count + 1) * (1 - rate), 9))
    return float(np.sort(np.asarray(normal_scores, float))[rank - 1])


def conformal_p_value(score: float, normal_scores: Sequence[float]) -> float:
    """The chance that a good image scores at least as high: a small value is suspicious."""
    scores = np.asarray(normal_scores, float)
    return float((1 + (scores >= score).sum()) / (1 + len(scores)))


def calibrate(normal_scores: Sequence[float], held_out: Sequence[float], rate: float, *, seed: int = 0) -> FalseAlarm:
    """Calibrates on some good images and measures on others.

    Args:
        normal_scores: scores of good images that are neither references nor held out.
        held_out: scores of good images to measure the real rate on.
        rate: the false-alarm rate asked for.
    """
    try:
        threshold = conformal_threshold(normal_scores, rate)
    except InputError as error:
        if not 0 < rate < 1:
            raise
        return FalseAlarm(rate, None, len(normal_scores), refused=str(error))
    measured = bootstrap_mean([float(score > threshold) for score in held_out], seed=seed)
    return FalseAlarm(rate, threshold, len(normal_scores), measured)
