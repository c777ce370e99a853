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
    evidence: np.ndarray, threshold: float, *, limit: int = 5, reach: float = 0.5, min_area: float = 2e-4
) -> list[EvidenceRegion]:
    """Connected regions in which the evidence exceeds a threshold, the strongest first.

    Args:
        evidence: (H, W) map at the resolution of the picture.
        threshold: evidence that a region must exceed somewhere, on the scale of the map.
        limit: how many regions at most.
        reach: how far down a region extends, as a share of the way from the threshold up to its own peak (0: down to
            the threshold; a weak halo around a strong defect would otherwise widen its box).
        min_area: smaller regions, as a share of the picture, are taken for noise, unless nothing else is found.

    Returns:
        At most `limit` regions; empty if no pixel exceeds the threshold.
    """
    from scipy import ndimage

    height, width = evidence.shape
    labels, _ = ndimage.label(evidence > threshold, structure=np.ones((3, 3), int))
    found: list[tuple[float, int, EvidenceRegion]] = []
    for index, where in enumerate(ndimage.find_objects(labels), start=1):
        values = np.where(labels[where] == index, evidence[where], -np.inf)
        peak = float(values.max())
        rows, columns = np.nonzero(values >= threshold + reach * (peak - threshold))
        y0, x0 = where[0].start, where[1].start
        box = (
            int(x0 + columns.min()),
            int(y0 + rows.min()),
            int(x0 + columns.max() + 1),
            int(y0 + rows.max() + 1),
        )
        found.append((peak, len(rows), EvidenceRegion(box, place_of_box(box, width, height), round(peak, 6))))
    large = [entry for entry in found if entry[1] >= min_area * height * width] or found
    return [region for _, _, region in sorted(large, key=lambda entry: -entry[0])[:limit]]
