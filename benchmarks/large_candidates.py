"""Small flaws on large pictures by candidates: the encoder looks at full scale only where a blob filter points.

    .venv/bin/python benchmarks/large_candidates.py ../shared/data

For the eight places of a picture where the means over 9 x 9 and 33 x 33 pixels differ most, a tile of 320 pixels around
the place is encoded at full scale; the score is the highest mean over four patches at such a place. Beside it: the score
in tiles as the product takes it, its highest patch, and the filter alone. Pictures and spots are those of
`large_pictures.py --width 2000 --height 500 --pictures 5`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from large_pictures import CATEGORIES, flawed, mosaic
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from sage_ad.vlm.evidence.extractor import EvidenceExtractor
from sage_ad.vlm.evidence.tiles import encode

PICTURES, SIZE, TILE, PLACES, APART = 5, (2000, 500), 320, 8, 24


def blobs(image: Image.Image) -> list[tuple[int, int, float]]:
    """The places where a blob filter answers most, at least 24 pixels apart: x, y, answer."""
    grey = np.asarray(image.convert("L"), np.float32)
    answer = np.abs(ndimage.uniform_filter(grey, 9) - ndimage.uniform_filter(grey, 33))
    found = []
    for _ in range(PLACES):
        y, x = np.unravel_index(int(answer.argmax()), answer.shape)
        found.append((int(x), int(y), float(answer[y, x])))
        answer[max(0, y - APART) : y + APART, max(0, x - APART) : x + APART] = 0
    return found


def main() -> None:
    """Prints a row for each category."""
    torch.set_num_threads(1)
    extractor = EvidenceExtractor()
    encoder = extractor.encoder
    print(
        "| category | tiles | highest patch | filter alone | candidates | candidate at the spot |\n" + "|---" * 6 + "|"
    )
    for category in CATEGORIES:
        files = sorted((Path(sys.argv[1]) / category / "train" / "good").iterdir())
        rng = np.random.default_rng(0)
        references = [mosaic(files, SIZE, rng) for _ in range(2)]
        bank = extractor.prepare(references)
        full = torch.cat([encode(encoder, image, None, TILE).features.flatten(0, 1) for image in references])
        rows, hits = [], []
        for number in range(2 * PICTURES):
            image, place = mosaic(files, SIZE, rng), None
            if number % 2:
                image, place = flawed(image, 12, 0.8, rng)
            score, distances = bank.score(bank.encode(encoder, image))
            found = blobs(image)
            scores = []
            for x, y, _ in found:
                left, top = (
                    int(np.clip(at - TILE // 2, 0, length - TILE)) for at, length in zip((x, y), SIZE, strict=True)
                )
                tile = encoder.encode([image.crop((left, top, left + TILE, top + TILE))])[0]
                row, column = (y - top) // 8, (x - left) // 8
                near = tile[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].flatten(0, 1)
                scores.append(float((1 - (near @ full.T).amax(dim=1)).topk(4).values.mean()))
            rows.append((score, float(distances.max()), found[0][2], max(scores)))
            if place:
                best = found[int(np.argmax(scores))]
                hits.append(np.hypot(best[0] - place[0], best[1] - place[1]) <= APART)
        state = [n % 2 for n in range(len(rows))]
        cells = " | ".join(f"{roc_auc_score(state, column):.2f}" for column in zip(*rows, strict=True))
        print(f"| {category} | {cells} | {np.mean(hits):.2f} |", flush=True)


if __name__ == "__main__":
    main()
