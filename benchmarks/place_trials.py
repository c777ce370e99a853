"""Trials of how a place is read from an evidence map: share of defective parts whose place lies in the mask.

    .venv/bin/python benchmarks/place_trials.py ../shared/data/train ../shared/data/dev

One reference, at most --per-class defective images a category that has masks or boxes. Never run it on *test*: it is there
to choose by.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np

from sage_ad.vlm.places import PLACES, cell_of_place, place_of_box, place_of_point


def ways(evidence: np.ndarray, found: Any) -> dict[str, str]:
    """Each way's place."""
    from scipy import ndimage

    height, width = evidence.shape
    strongest = sorted(found.regions, key=lambda r: -r.score)
    region = strongest[0]
    x0, y0, x1, y1 = region.box
    inside = evidence[y0:y1, x0:x1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    above = np.clip(inside - found.threshold, 0, None) + 1e-6
    rows, columns = np.mgrid[y0:y1, x0:x1]
    cells = np.clip(evidence - found.threshold, 0, None)
    shares = [
        cells[height * r // 3 : height * (r + 1) // 3, width * c // 3 : width * (c + 1) // 3].sum()
        for r in range(3)
        for c in range(3)
    ]
    result = {
        "the product's: first region, middle of its box": place_of_box(found.regions[0].box, width, height),
        "middle of the strongest region's box": place_of_box(region.box, width, height),
        "peak of the strongest region": place_of_point(x0 + column, y0 + row, width, height),
        "centre of mass of the strongest region": place_of_point(
            float((columns * above).sum() / above.sum()), float((rows * above).sum() / above.sum()), width, height
        ),
        "cell with most evidence above the threshold": PLACES[int(np.argmax(shares))],
    }
    for sigma in (0.02, 0.05):
        smooth = ndimage.gaussian_filter(evidence, sigma * min(height, width))
        row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
        result[f"peak after smoothing by {sigma}"] = place_of_point(column, row, width, height)
    for low in (0.9, 0.8, 0.7, 0.6):
        labels, count = ndimage.label(evidence > low * found.threshold, structure=np.ones((3, 3), int))
        over = np.clip(evidence - low * found.threshold, 0, None)
        best = int(np.argmax(ndimage.sum(over, labels, range(1, count + 1)))) + 1
        row, column = ndimage.center_of_mass(over, labels, best)
        name = f"most evidence above {low} of the threshold"
        result[f"{name}: centre of mass"] = place_of_point(column, row, width, height)
        row, column = np.unravel_index(int(np.where(labels == best, evidence, -1).argmax()), evidence.shape)
        result[f"{name}: peak"] = place_of_point(column, row, width, height)
        within = [r for r in strongest if _most_common(labels, r.box) == best] or strongest
        result[f"{name}: box of its strongest region"] = place_of_box(within[0].box, width, height)
    return result


def _most_common(labels: np.ndarray, box: tuple[int, int, int, int]) -> int:
    """The component in which most of a box lies (0 is none)."""
    x0, y0, x1, y1 = box
    counts = np.bincount(labels[y0:y1, x0:x1].ravel())
    counts[0] = 0
    return int(counts.argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--per-class", type=int, default=25)
    args = parser.parse_args()
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.datasets.masks import load_mask as truth_of
    from sage_ad.evaluation.text.localisation import cells_of_mask
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings
    from sage_ad.vlm.images import load_image

    extractor = EvidenceExtractor(EvidenceSettings(max_regions=50))
    hits: dict[str, list[list[bool]]] = {}
    for root in args.data:
        dataset = open_dataset(root)
        for category in dataset.categories:
            own = [s for s in dataset.samples(category, "test") if s.anomalous and s.mask_kind is not None]
            pool = sorted(dataset.normals(category), key=lambda s: s.id)
            if not own or not pool:
                continue
            random.Random(category).shuffle(own)
            rows: dict[str, list[bool]] = {}
            banks: dict[Path, Any] = {}
            for number, sample in enumerate(own[: args.per_class]):
                reference = sample.reference or random.Random(f"{category}/{number}").choice(pool).image
                if reference not in banks:
                    banks[reference] = extractor.prepare([load_image(reference)])
                found = extractor.extract(load_image(sample.image), banks[reference])
                if not found.regions:
                    continue
                truth = cells_of_mask(truth_of(sample))
                for name, place in ways(found.map, found).items():
                    rows.setdefault(name, []).append(cell_of_place(place) in truth)
            if rows:
                print(
                    f"{category}, {len(next(iter(rows.values())))} found: "
                    + ", ".join(f"{np.mean(values):.2f}" for values in rows.values()),
                    flush=True,
                )
            for name, values in rows.items():
                hits.setdefault(name, []).append(values)
    for name, by_category in hits.items():
        mean = np.mean([np.mean(values) for values in by_category])
        print(f"{np.mean([v for values in by_category for v in values]):.3f} of all, {mean:.3f} by category: {name}")


if __name__ == "__main__":
    main()
