"""From an evidence map to boxes with a place in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sage_ad.vlm.places import place_of_box

FOOT = 0.8
"""Share of the threshold above which evidence is summed up to tell the main part of a picture from single peaks."""


@dataclass(frozen=True)
class EvidenceRegion:
    """A region of the picture that stands out.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the original picture, x1 and y1 exclusive.
        place: the place of its middle in words (`sage_ad.vlm.places`).
        score: the highest evidence inside the region, on the scale of the image score.
    """

    box: tuple[int, int, int, int]
    place: str
    score: float


def find_regions(
    evidence: np.ndarray,
    threshold: float,
    *,
    down_to: float | None = None,
    limit: int = 5,
    reach: float = 0.35,
    min_area: float = 2e-4,
) -> list[EvidenceRegion]:
    """Connected regions whose evidence exceeds a threshold somewhere, best first.

    Best are those in the part of the picture with most evidence in all (`FOOT`), then the strongest: a small peak on a glint
    or an edge is often higher than a defect, but has less around it.

    Args:
        evidence: (H, W) map at the resolution of the picture.
        threshold: evidence that a region must exceed at its peak, on the scale of the map.
        down_to: evidence down to which a region extends from its peak, at most `threshold` (the default): a defect does
            not end where it stops being proof.
        limit: how many regions at most.
        reach: how much of the way from `down_to` up to its own peak is cut off from the box: a weak halo around a
            strong defect would otherwise widen it.
        min_area: smaller regions, as a share of the picture, are taken for noise, unless nothing else is found.

    Returns:
        At most `limit` regions; empty if no pixel exceeds the threshold.
    """
    from scipy import ndimage

    height, width = evidence.shape
    low = threshold if down_to is None else min(down_to, threshold)
    labels, _ = ndimage.label(evidence > low, structure=np.ones((3, 3), int))
    main = _heaviest(evidence, threshold)
    found: list[tuple[float, int, EvidenceRegion, bool]] = []
    for index, where in enumerate(ndimage.find_objects(labels), start=1):
        values = np.where(labels[where] == index, evidence[where], -np.inf)
        peak = float(values.max())
        if peak <= threshold:
            continue
        rows, columns = np.nonzero(values >= low + reach * (peak - low))
        top, left = where[0].start, where[1].start
        box = (
            int(left + columns.min()),
            int(top + rows.min()),
            int(left + columns.max() + 1),
            int(top + rows.max() + 1),
        )
        inside = bool((main[where] & (values > -np.inf)).any())
        region = EvidenceRegion(box, place_of_box(box, width, height), round(peak, 6))
        found.append((peak, len(rows), region, inside))
    large = [entry for entry in found if entry[1] >= min_area * height * width] or found
    return [region for _, _, region, _ in sorted(large, key=lambda entry: (not entry[3], -entry[0]))[:limit]]


def _heaviest(evidence: np.ndarray, threshold: float) -> np.ndarray:
    """(H, W) true in the connected part above `FOOT` of the threshold that holds most evidence in all."""
    from scipy import ndimage

    labels, count = ndimage.label(evidence > FOOT * threshold, structure=np.ones((3, 3), int))
    if not count:
        return np.zeros(evidence.shape, bool)
    above = np.clip(evidence - FOOT * threshold, 0, None)
    return labels == 1 + int(np.argmax(ndimage.sum(above, labels, range(1, count + 1))))
