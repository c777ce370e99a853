"""Figures: detection, localisation, answers, and how sure we are of each (bootstrap).

Image figures come from scikit-learn. Pixel figures are computed from histograms of the scores, so that a set of any
size takes the same memory: `PixelTally` is fed one map at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sage_ad.vlm.errors import InputError

ROUNDS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """A measured value with its bootstrap interval; `n` is how many independent units (images) it rests on."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """As the JSON of reports has it, rounded to what is meaningful."""
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


@dataclass(frozen=True)
class Decisions:
    """Figures of yes/no decisions; null where a class is missing.

    Attributes:
        f1: harmonic mean of precision and recall for "anomalous"; null without anomalous parts.
        overkill: share of good parts that were rejected; null without good parts.
        miss: share of anomalous parts that passed; null without anomalous parts.
    """

    f1: float | None
    overkill: float | None
    miss: float | None


def _both(labels: Sequence[bool] | np.ndarray) -> bool:
    return bool(np.any(labels)) and not bool(np.all(labels))


def image_auroc(labels: Sequence[bool] | np.ndarray, scores: Sequence[float] | np.ndarray) -> float | None:
    """Area under the ROC curve of image scores (higher is more anomalous); None if a class is missing."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if _both(labels) else None


def rank_auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The same value as `image_auroc`, from ranks (Mann-Whitney): quick enough for the many draws of a bootstrap."""
    from scipy.stats import rankdata

    bad = int(np.count_nonzero(labels))
    good = len(labels) - bad
    if not bad or not good:
        return None
    return float((rankdata(scores)[labels].sum() - bad * (bad + 1) / 2) / (bad * good))


def average_precision(labels: Sequence[bool] | np.ndarray, scores: Sequence[float] | np.ndarray) -> float | None:
    """Average precision of image scores with "anomalous" as the positive class; None if a class is missing."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if _both(labels) else None


def decisions(labels: Sequence[bool] | np.ndarray, called: Sequence[bool] | np.ndarray) -> Decisions:
    """F1, overkill and miss rate of the verdicts that the product itself gave.

    Args:
        labels: true for an anomalous part.
        called: true where the verdict was "anomalous".
    """
    from sklearn.metrics import f1_score

    actual, said = np.asarray(labels, bool), np.asarray(called, bool)
    bad, good = int(actual.sum()), int((~actual).sum())
    return Decisions(
        f1=float(f1_score(actual, said, zero_division=0.0)) if bad else None,
        overkill=float((said & ~actual).sum() / good) if good else None,
        miss=float((~said & actual).sum() / bad) if bad else None,
    )


# --- pixels ---------------------------------------------------------------------------------------------------------


class PixelTally:
    """Pixel AUROC and AUPRO, fed map by map in constant memory.

    Scores go into 2^20 bins that keep their order whatever their scale (the leading bits of the float's own
    representation, a relative width below 0.05 %). AUPRO needs each defect region to weigh the same however large it
    is, which is the same as weighting each of its pixels by 1 / (its region's area): so one weighted histogram serves.
    """

    BITS = 20

    def __init__(self) -> None:
        bins = 1 << self.BITS
        self._good = np.zeros(bins, np.int64)
        self._bad = np.zeros(bins, np.int64)
        self._region = np.zeros(bins, np.float64)
        self.regions = 0
        self.images = 0

    def add(self, evidence: np.ndarray, mask: np.ndarray | None) -> None:
        """Adds one image.

        Args:
            evidence: (H, W) map, higher is more anomalous.
            mask: boolean (H, W), None for a good image.

        Raises:
            InputError: shapes differ, or the map holds values that are no numbers.
        """
        from scipy import ndimage

        if mask is not None and mask.shape != evidence.shape:
            raise InputError(f"The map has the shape {evidence.shape} and the mask {mask.shape}; scale one of them.")
        if not np.isfinite(evidence).all():
            raise InputError("The evidence map holds values that are no numbers; they cannot be ranked.")
        places = self._place(evidence)
        self.images += 1
        if mask is None or not mask.any():
            self._good += np.bincount(places.ravel(), minlength=len(self._good))
            return
        self._good += np.bincount(places[~mask], minlength=len(self._good))
        self._bad += np.bincount(places[mask], minlength=len(self._bad))
        # 8-neighbourhood, as in the evaluation code of MVTec AD.
        labels, count = ndimage.label(mask, structure=np.ones((3, 3), int))
        area = np.bincount(labels.ravel())
        self._region += np.bincount(places[mask], weights=1.0 / area[labels[mask]], minlength=len(self._region))
        self.regions += count

    @classmethod
    def _place(cls, evidence: np.ndarray) -> np.ndarray:
        """Bin of each score: float bits, with the sign turned so that the order of integers is the order of floats."""
        bits = np.ascontiguousarray(evidence, np.float32).view(np.uint32)
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        return (ordered >> np.uint32(32 - cls.BITS)).astype(np.int64)

    def auroc(self) -> float | None:
        """Pixel AUROC over all images added; None unless both marked and unmarked pixels were."""
        if not self._bad.any() or not self._good.any():
            return None
        false, true = self._rates(self._bad)
        return float(np.trapezoid(true, false))

    def aupro(self, limit: float = 0.3) -> float | None:
        """Area under the per-region overlap curve up to a false positive rate, divided by that rate (1 is perfect).

        Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5: at each threshold, the share of
        each connected defect region that is found, averaged over regions, against the share of unmarked pixels that is
        flagged.

        Args:
            limit: the false positive rate up to which the area is taken.
        """
        if not self.regions or not self._good.any():
            return None
        false, overlap = self._rates(self._region)
        inside = int(np.searchsorted(false, limit, side="right"))
        # The curve is cut exactly at the limit, on the line between the two points around it.
        x = np.append(false[:inside], limit)
        y = np.append(overlap[:inside], np.interp(limit, false, overlap))
        return float(np.trapezoid(y, x) / limit)

    def _rates(self, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """False and true positive rates from the strictest threshold to the loosest, each starting at 0."""
        used = np.flatnonzero((self._good > 0) | (positive > 0))[::-1]
        false = np.cumsum(self._good[used], dtype=np.float64)
        true = np.cumsum(positive[used], dtype=np.float64)
        return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


# --- answers --------------------------------------------------------------------------------------------------------


def macro(values: Iterable[float | None]) -> float | None:
    """Mean over categories, of those that have the figure; None if none has."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


# --- how sure -------------------------------------------------------------------------------------------------------


def bootstrap(
    statistic: Callable[[np.ndarray], float | None],
    groups: Sequence[Hashable] | int,
    *,
    strata: Sequence[Hashable] | None = None,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Figure | None:
    """A statistic with its percentile bootstrap interval (95 %).

    Whole groups are drawn with replacement, because the answers about one image are not independent; with `strata`, as
    many groups from each stratum as it has (categories and states stay balanced as they are).

    Args:
        statistic: takes row indices (with repeats), gives the value or None if it is not defined for them.
        groups: the group of each row, or the number of rows if each is its own group.
        strata: the stratum of each row.
        seed: the same seed gives the same interval.
        rounds: number of draws.

    Returns:
        None if the statistic is not defined on the data themselves.
    """
    names: Sequence[Hashable] = range(groups) if isinstance(groups, int) else groups
    value = statistic(np.arange(len(names))) if len(names) else None
    if value is None:
        return None
    rows: dict[Hashable, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault((strata[row], name) if strata is not None else (None, name), []).append(row)
    members = [np.asarray(indices) for indices in rows.values()]
    layers: dict[Any, list[int]] = {}
    for place, key in enumerate(rows):
        layers.setdefault(key[0], []).append(place)  # type: ignore[index]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(rounds):
        chosen = np.concatenate([generator.choice(layer, len(layer)) for layer in layers.values()])
        sample = statistic(np.concatenate([members[place] for place in chosen]))
        if sample is not None:
            drawn.append(sample)
    return _figure(float(value), drawn, len(members))


def bootstrap_mean(
    values: Sequence[float | None],
    groups: Sequence[Hashable] | None = None,
    *,
    strata: Sequence[Hashable] | None = None,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Figure | None:
    """The mean of the values that exist, with its interval; with strata, the mean of the strata's means.

    What `bootstrap` would give for such a mean, but all draws at once: a group counts by its sum and its number of
    rows. A group belongs to the stratum of each of its rows (an image has one category and one state).

    Returns:
        None if there are no values.
    """
    known = [place for place, value in enumerate(values) if value is not None]
    if not known:
        return None
    layers: dict[Hashable, dict[Hashable, list[float]]] = {}
    for place in known:
        layer = layers.setdefault(strata[place] if strata is not None else None, {})
        group = layer.setdefault(groups[place] if groups is not None else place, [0.0, 0.0])
        group[0] += float(values[place])  # type: ignore[arg-type]
        group[1] += 1
    generator = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(rounds)
    for layer in layers.values():
        sums, counts = np.array(list(layer.values())).T
        value += float(sums.sum() / counts.sum()) / len(layers)
        drawn += _drawn_means(sums, counts, generator, rounds) / len(layers)
    return _figure(value, drawn, sum(map(len, layers.values())))


def _drawn_means(sums: np.ndarray, counts: np.ndarray, generator: np.random.Generator, rounds: int) -> np.ndarray:
    """Means of `rounds` draws of whole groups, in blocks so that a large set needs no large memory."""
    means = np.empty(rounds)
    block = max(1, 2_000_000 // len(sums))
    for start in range(0, rounds, block):
        chosen = generator.integers(0, len(sums), (min(block, rounds - start), len(sums)))
        means[start : start + block] = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return means


def _figure(value: float, drawn: Sequence[float] | np.ndarray, n: int) -> Figure:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (value, value)
    # A percentile interval may miss the value itself in tiny samples, which would read as a mistake.
    return Figure(value, min(float(low), value), max(float(high), value), n)


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram: how sure the verdicts were, how often right, and how many there are."""

    confidence: float
    accuracy: float
    n: int


def reliability(confidence: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[ReliabilityBin]:
    """Bins of confidence from 0.5 to 1 with the accuracy in each; empty bins are left out."""
    sure, ok = np.asarray(confidence, float), np.asarray(right, float)
    place = np.clip(((sure - 0.5) * 2 * bins).astype(int), 0, bins - 1)
    return [
        ReliabilityBin(float(sure[place == b].mean()), float(ok[place == b].mean()), int((place == b).sum()))
        for b in range(bins)
        if (place == b).any()
    ]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """Mean distance between confidence and accuracy over the bins, weighted by how many verdicts are in them."""
    total = sum(entry.n for entry in bins)
    return sum(entry.n * abs(entry.confidence - entry.accuracy) for entry in bins) / total if total else None
