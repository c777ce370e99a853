"""Small flaws on large pictures: image AUROC, and how many first places hit, with tiles and without.

    .venv/bin/python benchmarks/large_pictures.py ../shared/data [--width 4000] [--height 1000] [--tile auto --tile off]

A large picture is a mosaic of good pictures of one category at their own scale, every other one mirrored so that seams
match. Half of them get a soft dark spot of 12 x 12 pixels at a random place. Two further mosaics are the references.
Good and flawed pictures are different mosaics.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

CATEGORIES = ("test/pavement", "dev/fabric_02", "dev/solar_cell_mono")


def mosaic(files: list[Path], size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A picture of this width and height from pictures drawn from the files."""
    from sage_ad.vlm.images import load_image

    side = min(load_image(files[0]).size)
    whole = Image.new("RGB", size)
    for row in range(-(-size[1] // side)):
        for column in range(-(-size[0] // side)):
            cell = ImageOps.fit(load_image(files[rng.integers(len(files))]), (side, side))
            cell = ImageOps.mirror(cell) if column % 2 else cell
            whole.paste(ImageOps.flip(cell) if row % 2 else cell, (column * side, row * side))
    return whole


def flawed(
    image: Image.Image, side: int, darker: float, rng: np.random.Generator
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture with a soft dark spot, and the middle of the spot."""
    values = np.asarray(image, np.float32).copy()
    x, y = (int(rng.integers(side, length - side)) for length in image.size)
    axis = np.linspace(-1, 1, side)
    spot = np.clip(1.5 * (1 - np.hypot(*np.meshgrid(axis, axis))), 0, 1)[..., None]
    values[y : y + side, x : x + side] *= 1 - darker * spot
    return Image.fromarray(values.astype(np.uint8)), (x + side // 2, y + side // 2)


def measure(files: list[Path], tile: str, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """AUROC, share of the flawed pictures whose highest evidence is within 24 pixels of the flaw, seconds a picture."""
    from sklearn.metrics import roc_auc_score

    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings

    rng, size = np.random.default_rng(arguments.seed), (arguments.width, arguments.height)
    extractor = EvidenceExtractor(EvidenceSettings(tile=tile))
    bank = extractor.prepare([mosaic(files, size, rng) for _ in range(2)])
    scores, hits, seconds = [], [], []
    for number in range(2 * arguments.pictures):
        image, place = mosaic(files, size, rng), None
        if number % 2:
            image, place = flawed(image, arguments.flaw, arguments.darker, rng)
        start = time.perf_counter()
        evidence = extractor.extract(image, bank)
        seconds.append(time.perf_counter() - start)
        scores.append(evidence.score)
        if place:
            y, x = np.unravel_index(int(evidence.map.argmax()), evidence.map.shape)
            hits.append(np.hypot(x - place[0], y - place[1]) <= 24)
    return roc_auc_score([n % 2 for n in range(len(scores))], scores), float(np.mean(hits)), float(np.median(seconds))


def main() -> None:
    """Prints a row for each category and way of cutting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", nargs="+", default=CATEGORIES)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--flaw", type=int, default=12, help="side of the spot in pixels")
    parser.add_argument("--darker", type=float, default=0.8, help="how much darker its middle is")
    parser.add_argument("--pictures", type=int, default=8, help="good pictures, and as many flawed ones")
    parser.add_argument("--tile", action="append")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        "| category | tile | image AUROC | highest evidence at the flaw | s/picture |\n|---|---|---|---|---|",
        flush=True,
    )
    for category in arguments.categories:
        files = sorted((arguments.data / category / "train" / "good").iterdir())
        for tile in arguments.tile or ["auto", "off"]:
            auroc, hits, seconds = measure(files, tile, arguments)
            print(f"| {category} | {tile} | {auroc:.3f} | {hits:.2f} | {seconds:.1f} |", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
