"""Which box tells where a defect is: that of the region in the evidence, or that of the pixels that are described.

The first column takes the cells of the evidence for what they see, without the encoder's offset (`PatchEncoder.offset`).

    python benchmarks/places.py ../shared/data [--references 1 4] [--parts 36]

Of each category with pixel masks the first region of so many defective parts, with references drawn by seed (or the part's own).
"place" is the share whose place in words names a ninth of the picture that holds some of a defect, "middle" the share whose
middle lies on one, "overlap" the mean intersection over union with the best box around a connected part of the mask. Parts
that pass have no region and do not count.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

CATEGORIES = (
    ("train", "pcb_pattern"), ("train", "cookie"), ("dev", "screw"), ("test", "magnetic_tile"), ("test", "pavement"),
    ("test", "glass_panel"),
)  # fmt: skip
Box = tuple[int, int, int, int]


def overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    sides = [max(0, min(first[i + 2], second[i + 2]) - max(first[i], second[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def told(box: Box, mask: np.ndarray, place: str) -> list[float]:
    """Place, middle and overlap of one region."""
    from scipy import ndimage

    from sage_ad.vlm.places import cell_of_place

    height, width = mask.shape
    labels, _ = ndimage.label(mask, np.ones((3, 3), int))
    parts = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
    row, column = cell_of_place(place)
    right = mask[row * height // 3 : (row + 1) * height // 3, column * width // 3 : (column + 1) * width // 3].any()
    on = mask[min((box[1] + box[3]) // 2, height - 1), min((box[0] + box[2]) // 2, width - 1)]
    return [float(right), float(on), max(overlap(box, part) for part in parts)]


def main() -> None:
    from sage_ad.evaluation.datasets import load_mask, open_dataset
    from sage_ad.vlm.evidence.description import describe_regions
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.images import load_image

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--references", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--parts", type=int, default=36)
    args = parser.parse_args()
    extractor = EvidenceExtractor()
    offset = extractor.encoder.offset
    for count in args.references:
        means = []
        print(f"\n{count} reference(s): place, middle, overlap\n")
        print("| category | parts | without the offset | region | described pixels |\n|---|---|---|---|---|")
        for group, category in CATEGORIES:
            dataset = open_dataset(args.data / group, None, [category])
            bad = sorted((s for s in dataset.samples(category, "test") if s.masks), key=lambda sample: sample.id)
            random.Random(category).shuffle(bad)
            found = []
            for sample in bad[: args.parts]:
                drawn = random.Random(f"{sample.id} {count}").sample(dataset.normals(category), count)
                good = [
                    load_image(path) for path in ([sample.reference] if sample.reference else [s.image for s in drawn])
                ]
                image, mask = load_image(sample.image), load_mask(sample)
                bank = extractor.prepare(good)
                seen = extractor.extract(image, bank)
                extractor.encoder.offset = 0.0
                before = extractor.extract(image, bank)
                extractor.encoder.offset = offset
                if seen.regions and before.regions:
                    (own,), _ = describe_regions(image, seen.map, seen.regions[:1], good)
                    boxes = [(region.box, region.place) for region in (before.regions[0], seen.regions[0], own)]
                    found.append([told(box, mask, place) for box, place in boxes])
            if found:
                means.append(np.mean(found, axis=0))
                cells = [", ".join(f"{value:.2f}" for value in row) for row in means[-1]]
                print(f"| {category} | {len(found)} | {' | '.join(cells)} |", flush=True)
        cells = [", ".join(f"{value:.2f}" for value in row) for row in np.mean(means, axis=0)]
        print(f"| mean | | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
