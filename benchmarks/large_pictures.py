"""Small flaws on large pictures: image AUROC, and how many first places hit, with tiles and without.

    .venv/bin/python benchmarks/large_pictures.py ../shared/data [--width 4000] [--height 1000] [--tile auto --tile off]
    .venv/bin/python benchmarks/large_pictures.py ../shared/data --categories dev/fabric_03 test/bottle --defects

A large picture is a mosaic of good pictures of one category at their own scale, every other one mirrored so that seams
match. Half of them get a soft dark spot of 12 x 12 pixels at a random place, or with --defects one picture of a defective
part among good ones of the test images. Two further mosaics of good training images are the references. Good and flawed
pictures are different mosaics. Beside the product's score (the mean over as many patches as are 1 % of a tile) stands that
of the highest patch alone.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

CATEGORIES = ("test/pavement", "dev/fabric_02", "dev/solar_cell_mono")


def mosaic(
    files: list[Path],
    size: tuple[int, int],
    rng: np.random.Generator,
    odd: Path | None = None,
    at: tuple[int, int] = (0, 0),
) -> Image.Image:
    """A picture of this width and height from pictures drawn from the files; `odd` takes the cell `at` (column, row)."""
    from sage_ad.vlm.images import load_image

    side = side_of(files)
    whole = Image.new("RGB", size)
    for row in range(-(-size[1] // side)):
        for column in range(-(-size[0] // side)):
            drawn = files[rng.integers(len(files))]
            cell = ImageOps.fit(load_image(odd if odd and (column, row) == at else drawn), (side, side))
            cell = ImageOps.mirror(cell) if column % 2 else cell
            whole.paste(ImageOps.flip(cell) if row % 2 else cell, (column * side, row * side))
    return whole


def side_of(files: list[Path]) -> int:
    """Side of the cells in pixels."""
    from sage_ad.vlm.images import load_image

    return min(load_image(files[0]).size)


def with_defect(
    files: list[Path], defective: list[Path], size: tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, tuple[int, int]]:
    """A mosaic with one defective part that lies in it as a whole, and the middle of that cell."""
    side = side_of(files)
    if side > min(size):
        raise SystemExit(f"A part of {side} pixels does not fit into {size[0]} x {size[1]}; give --width and --height.")
    column, row = (int(rng.integers(length // side)) for length in size)
    image = mosaic(files, size, rng, defective[rng.integers(len(defective))], (column, row))
    return image, (column * side + side // 2, row * side + side // 2)


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


def measure(
    files: list[Path], tests: list[Path], defective: list[Path], tile: str, arguments: argparse.Namespace
) -> tuple[float, float, float, float]:
    """AUROC of the score and of the highest patch, share of the flawed pictures with the highest evidence at the flaw,
    seconds a picture. "At" is within 24 pixels of a spot, or in the cell of a defective part.
    """
    from sklearn.metrics import roc_auc_score

    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings

    rng, size = np.random.default_rng(arguments.seed), (arguments.width, arguments.height)
    extractor = EvidenceExtractor(EvidenceSettings(tile=tile))
    bank = extractor.prepare([mosaic(files, size, rng) for _ in range(2)])
    near = side_of(files) / 2 if defective else 24
    scores, highest, hits, seconds = [], [], [], []
    for number in range(2 * arguments.pictures):
        place = None
        if number % 2 and defective:
            image, place = with_defect(tests, defective, size, rng)
        else:
            image = mosaic(tests, size, rng)
            if number % 2:
                image, place = flawed(image, arguments.flaw, arguments.darker, rng)
        start = time.perf_counter()
        evidence = extractor.extract(image, bank)
        seconds.append(time.perf_counter() - start)
        scores.append(evidence.score)
        highest.append(float(evidence.distances.max()))
        if place:
            y, x = np.unravel_index(int(evidence.map.argmax()), evidence.map.shape)
            off = abs(x - place[0]), abs(y - place[1])
            hits.append((max(off) if defective else np.hypot(*off)) <= near)
    state = [n % 2 for n in range(len(scores))]
    return (
        roc_auc_score(state, scores),
        roc_auc_score(state, highest),
        float(np.mean(hits)),
        float(np.median(seconds)),
    )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


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
    parser.add_argument("--defects", action="store_true", help="defective parts in place of drawn spots")
    parser.add_argument("--tile", action="append")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        "| category | tile | image AUROC | of the highest patch | highest evidence at the flaw | s/picture |\n"
        "|---|---|---|---|---|---|",
        flush=True,
    )
    for category in arguments.categories:
        files, own = _files(arguments.data / category / "train" / "good"), arguments.data / category / "test"
        tests = _files(own / "good") if arguments.defects else files
        odd = [folder for folder in sorted(own.iterdir()) if folder.name != "good"] if arguments.defects else []
        defective = [file for folder in odd for file in _files(folder)]
        for tile in arguments.tile or ["auto", "off"]:
            auroc, highest, hits, seconds = measure(files, tests, defective, tile, arguments)
            print(f"| {category} | {tile} | {auroc:.3f} | {highest:.3f} | {hits:.2f} | {seconds:.1f} |", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
