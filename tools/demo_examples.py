"""Draws the example pictures of the demo and of `sage-inspect --example` (run once; kept in git).

.venv/bin/python tools/demo_examples.py demo/examples cell capsule tile
.venv/bin/python tools/demo_examples.py agents/example leather

All are synthetic parts of `alignment.synthetic.parts`, drawn for this project (Apache-2.0). Neither may import
`alignment`, so the pictures are shipped.
Each set is one design: good pieces differ in grain, light and position, as real ones do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sage_ad.alignment.synthetic.defects import painted_defect
from sage_ad.alignment.synthetic.parts import PARTS

SIDE, MARGIN = 320, 16
# name: product, design seed, pieces of good parts, defect of the test piece (a name, an item to leave out, or None)
SETS: dict[str, tuple[str, int, int, str | int | None]] = {
    "cell": ("solar cell", 4, 1, "crack"),
    "capsule": ("capsule", 4, 1, "stain"),
    "tile": ("ceramic tile", 8, 8, None),
    "leather": ("leather", 3, 1, "stain"),
}


def photographed(canvas: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A picture of a canvas, moved by a few pixels and exposed a little differently each time."""
    dx, dy = (int(v) for v in rng.integers(-3, 4, 2))
    window = canvas[MARGIN + dy : MARGIN + dy + SIDE, MARGIN + dx : MARGIN + dx + SIDE]
    exposed = np.clip(window * (1 + float(rng.normal(0, 0.02))), 0, 1)
    return Image.fromarray((exposed * 255 + 0.5).astype(np.uint8))


def draw_set(name: str, folder: Path) -> None:
    """Writes <name>-test.jpg and <name>-good-1.jpg, ..."""
    product, design, goods, defect = SETS[name]
    big = SIDE + 2 * MARGIN
    for number in range(goods + 1):
        piece, photo = (np.random.default_rng([design, number, kind]) for kind in (0, 1))
        leave_out = defect if number == 0 and isinstance(defect, int) else None
        part = PARTS[product](np.random.default_rng(design), piece, big, leave_out)
        canvas = part.canvas
        if number == 0 and isinstance(defect, str):
            ground = np.zeros_like(part.ground)
            ground[48:-48, 48:-48] = part.ground[48:-48, 48:-48]
            canvas, _ = painted_defect(canvas, ground, defect, np.random.default_rng([design, 99]))
        ending = "test" if number == 0 else f"good-{number}"
        photographed(canvas, photo).save(folder / f"{name}-{ending}.jpg", quality=84, optimize=True)


def main() -> None:
    """Draws sets into a folder, both named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        draw_set(name, folder)


if __name__ == "__main__":
    main()
