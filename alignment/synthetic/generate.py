"""Synthetic inspection data: a good reference, a test image, and the exact mask, name and place of the defect.

Parts are drawn from seeds (`parts.py`), defects painted on (`defects.py`); a test image and its reference
are two pieces of one design, placed and lit a little differently. Defects can be pasted onto real pictures of good
parts as well. The same seed gives the same picture, whatever was drawn before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from sage_ad.alignment.synthetic.defects import PAINTERS, painted_defect
from sage_ad.alignment.synthetic.parts import PARTS, Part
from sage_ad.alignment.synthetic.surfaces import Array, blurred, resized
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.places import place_of_box

MISSING = "missing part"
PRODUCTS: tuple[str, ...] = tuple(PARTS)
DEFECTS: tuple[str, ...] = (*PAINTERS, MISSING)
CANVAS = 1.1
"""A part is drawn this much larger than its picture, so that it can be moved and turned without a border."""


@dataclass(frozen=True)
class SyntheticSample:
    """A pair of pictures with its labels.

    Attributes:
        reference: picture of a good part; None where a defect was pasted without one.
        image: picture of the part under test.
        mask: (height, width) bool, true at the defect; all false for a good part.
        defect: one of `DEFECTS`; None for a good part.
        detail: what is missing ("bolt", "tooth", ...) where the defect is a missing part.
        place: where the defect is, in the words of `sage_ad.vlm.places`.
        product: name of the part.
        seed: the sample's seed.
    """

    reference: Image.Image | None
    image: Image.Image
    mask: np.ndarray = field(repr=False)
    defect: str | None
    detail: str | None
    place: str | None
    product: str
    seed: int

    @property
    def anomalous(self) -> bool:
        """Whether there is a defect."""
        return self.defect is not None

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """The defect's box x0, y0, x1, y1 in pixels, x1 and y1 exclusive; None for a good part."""
        return box_of(self.mask)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The box around the true pixels, or None if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def generate(
    seed: int, *, product: str | None = None, defect: str | None = "any", size: int = 256, aligned: bool = True
) -> SyntheticSample:
    """Draws one pair.

    Args:
        seed: decides everything that is not asked for.
        product: one of `PRODUCTS`; default: the seed chooses.
        defect: one of `DEFECTS`, None for a good part, "any" for whatever the seed chooses, "maybe" for a good part in
            half of all seeds.
        size: side of the pictures in pixels.
        aligned: whether reference and test lie alike up to a few pixels; else the test is turned by quarters too.

    Raises:
        InputError: no such product or defect, or nothing of this product can be missing.
    """
    choose, *pieces = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4))
    product = product or PRODUCTS[int(choose.integers(len(PRODUCTS)))]
    if product not in PARTS:
        raise InputError(f"There is no synthetic product {product!r}; use one of: {', '.join(PRODUCTS)}.")
    side, shape = round(size * CANVAS), int(choose.integers(2**62))

    def draw(piece: np.random.Generator, skip: int | None = None) -> Part:
        # All pieces share the design: its generator starts again for each.
        return PARTS[product](np.random.default_rng(shape), piece, side, skip)

    reference = draw(pieces[0])
    defect = _chosen(defect, reference, product, choose)
    mask, detail = np.zeros((side, side), bool), None
    if defect == MISSING:
        item = int(choose.integers(len(reference.items)))
        detail, before = reference.items[item], pieces[1].bit_generator.state
        whole = draw(pieces[1])
        pieces[1].bit_generator.state = before
        test = draw(pieces[1], skip=item)
        mask = _changed(whole.canvas, test.canvas)
        canvas = test.canvas
    else:
        canvas, ground = (part := draw(pieces[1])).canvas, part.ground
        if defect is not None:
            canvas, mask = painted_defect(canvas, _away_from_border(ground), defect, choose)
    quarter = 0 if aligned else int(choose.integers(4))
    canvas, mask = np.rot90(canvas, quarter), np.rot90(mask, quarter)
    image, seen = _photographed(canvas, mask, size, pieces[2])
    shown, _ = _photographed(reference.canvas, None, size, pieces[2])
    return SyntheticSample(shown, image, seen, defect, detail, _place(seen), product, seed)


def paste_defect(
    image: Image.Image,
    seed: int,
    *,
    defect: str = "any",
    product: str = "part",
    reference: Image.Image | None = None,
) -> SyntheticSample:
    """Paints a defect onto a real picture of a good part, where the part is.

    Args:
        image: the picture, any size.
        seed: decides what is not asked for.
        defect: one of `DEFECTS` except a missing part, or "any".
        product: name for the label.
        reference: another picture of a good part, passed on.

    Raises:
        InputError: the defect cannot be painted.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    if defect == "any":
        defect = list(PAINTERS)[int(rng.integers(len(PAINTERS)))]
    if defect not in PAINTERS:
        raise InputError(f"The defect {defect!r} cannot be pasted onto a picture; use one of: {', '.join(PAINTERS)}.")
    canvas = np.asarray(image.convert("RGB"), np.float32) / 255
    changed, mask = painted_defect(canvas, foreground(canvas), defect, rng)
    return SyntheticSample(reference, _picture(changed), mask, defect, None, _place(mask), product, seed)


def foreground(canvas: Array) -> Array:
    """Where the part is, (h, w) float32: what differs from the picture's border; everything, if that tells nothing.

    Args:
        canvas: (h, w, 3) colours 0 to 1.
    """
    smooth = np.stack([blurred(canvas[..., c], 2.0) for c in range(3)], axis=-1)
    band = max(2, min(canvas.shape[:2]) // 40)
    border = np.concatenate([smooth[:band].reshape(-1, 3), smooth[-band:].reshape(-1, 3),
                             smooth[:, :band].reshape(-1, 3), smooth[:, -band:].reshape(-1, 3)])  # fmt: skip
    middle = np.median(border, axis=0)
    spread = np.abs(border - middle).max(axis=1)
    differs = np.abs(smooth - middle).max(axis=2) > max(0.06, 2.5 * float(np.median(spread)))
    everything = np.ones(canvas.shape[:2], np.float32)
    # A border that varies as much as the rest belongs to a texture that fills the picture.
    if not 0.08 < differs.mean() < 0.92 or np.percentile(spread, 90) > 0.2:
        return everything
    return (blurred(differs.astype(np.float32), 3.0) > 0.75).astype(np.float32)


def _chosen(defect: str | None, part: Part, product: str, rng: np.random.Generator) -> str | None:
    possible = [d for d in DEFECTS if d != MISSING or part.items]
    if defect == "maybe":
        defect = "any" if rng.random() < 0.5 else None
    if defect == "any":
        return possible[int(rng.integers(len(possible)))]
    if defect is not None and defect not in DEFECTS:
        raise InputError(f"There is no synthetic defect {defect!r}; use one of: {', '.join(DEFECTS)}.")
    if defect is not None and defect not in possible:
        raise InputError(f"Nothing of a {product} can be missing; use another defect or product.")
    return defect


def _away_from_border(ground: Array) -> Array:
    """The ground without the margin that a picture may not show."""
    edge = round(len(ground) * (1 - 1 / CANVAS) / 2) + 2
    inner = np.zeros_like(ground)
    inner[edge:-edge, edge:-edge] = ground[edge:-edge, edge:-edge]
    return inner


def _changed(whole: Array, without: Array) -> Array:
    """What a missing part leaves: where the two pictures differ, closed and without specks."""
    from scipy.ndimage import binary_closing, binary_fill_holes, binary_opening

    differs = np.abs(whole - without).max(axis=2) > 0.06
    return binary_fill_holes(binary_closing(binary_opening(differs, iterations=1), iterations=2))


def _photographed(canvas: Array, mask: Array | None, size: int, rng: np.random.Generator) -> tuple[Image.Image, Array]:
    """A picture of the canvas: placed, turned, lit and exposed a little differently each time; the mask goes along."""
    side, margin = len(canvas), (len(canvas) - size) / 2
    angle, scale = float(rng.normal(0, 0.012)), 1 + float(rng.normal(0, 0.006))
    dx, dy = (float(v) for v in np.clip(rng.normal(0, 0.006 * size, 2), -0.4 * margin, 0.4 * margin))
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    middle = side / 2
    matrix = (c, s, middle + dx - (c + s) * size / 2, -s, c, middle + dy - (c - s) * size / 2)
    slope = resized(rng.normal(0, 0.03, (3, 3)), side)[..., None]
    exposed = canvas * (1 + float(rng.normal(0, 0.025)) + slope)
    picture = _picture(exposed).transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    seen = np.zeros((size, size), bool)
    if mask is not None and mask.any():
        drawn = Image.fromarray((mask * 255).astype(np.uint8))
        seen = (
            np.asarray(drawn.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)) > 127
        )
    return picture, seen


def _picture(canvas: Array) -> Image.Image:
    return Image.fromarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))


def _place(mask: Array) -> str | None:
    box = box_of(mask)
    return None if box is None else place_of_box(box, mask.shape[1], mask.shape[0])
