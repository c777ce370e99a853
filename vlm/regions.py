"""From an evidence map to boxes with a place in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlm.places import place_of_box


@dataclass(frozen=True)
class EvidenceRegion:
    """A region of the picture that stands out.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the original picture, x1 and y1 exclusive.
        place: the place of its middle in words (`vlm.places`).
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
    """Connected regions whose evidence exceeds a threshold somewhere, the strongest first.

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
    found: list[tuple[float, int, EvidenceRegion]] = []
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
        found.append((peak, len(rows), EvidenceRegion(box, place_of_box(box, width, height), round(peak, 6))))
    large = [entry for entry in found if entry[1] >= min_area * height * width] or found
    return [region for _, _, region in sorted(large, key=lambda entry: -entry[0])[:limit]]
