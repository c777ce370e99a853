"""Large pictures and narrow strips cut into overlapping tiles, whose patches make one grid.

An encoder sees a picture at a few hundred pixels a side. A flaw of a dozen pixels on a picture of thousands is gone at
that scale, and a strip is squeezed. Tiles keep the scale bounded; time and memory grow with the area alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from sage_ad.vlm.evidence.encoders import PatchEncoder

Tile = int | str
"""Side of a tile in pixels, "auto" or "off"."""

TILE_HELP = (
    "Cut pictures into tiles: auto (much larger than the encoder sees, or narrow strips), off, or a side in pixels."
)

LARGE, NARROW = 4.0, 4.0
""""auto" cuts pictures longer than so many sides of what the encoder sees, or than so many times their own width."""

REDUCED = 2
"""Pixels of the picture that make one pixel of a tile at most in "auto": a flaw of 12 pixels keeps 6 (docs/detection.md)."""

LEAST_TILE = 16
"""Smaller tiles hold less than one patch."""

OVERLAP = 5
"""Neighbouring tiles share one in so many of their rows or columns of patches; each gives the half far from its edge."""


@dataclass(frozen=True)
class Encoded:
    """Patches of one picture.

    Attributes:
        features: (h, w, C) unit-length vectors.
        window: patches that the encoder sees at a time: all of them, or those of one tile.
    """

    features: torch.Tensor
    window: int

    @property
    def patches(self) -> int:
        """Number of patches h * w."""
        return self.features.shape[0] * self.features.shape[1]


def parse_tile(given: Tile) -> Tile:
    """Checks "auto", "off" or a side in pixels, a number or its digits.

    Raises:
        InputError: it is none of these.
    """
    if given in ("auto", "off"):
        return given
    if isinstance(given, bool) or not str(given).isdecimal() or int(given) < LEAST_TILE:
        raise InputError(f"The tile cannot be {given!r}; use auto, off, or its side in pixels, {LEAST_TILE} or more.")
    return int(given)


def tile_side(tile: Tile, width: int, height: int, size: int) -> int | None:
    """Side in pixels of the tiles of a picture; None where it is encoded as a whole.

    Args:
        tile: "auto", "off" or a side in pixels.
        width: of the picture.
        height: of the picture.
        size: side in pixels at which the encoder sees a square picture.
    """
    long, short = max(width, height), min(width, height)
    if tile == "off":
        return None
    if isinstance(tile, int):
        return tile if tile < long else None
    if not is_large(width, height, size):
        return None
    return max(LEAST_TILE, min(REDUCED * size, max(short, size // 4)))


def is_large(width: int, height: int, size: int) -> bool:
    """Whether a picture is much larger than what the encoder sees, or too narrow for it."""
    long, short = max(width, height), min(width, height)
    return long > LARGE * size or long > NARROW * short


def encode(encoder: PatchEncoder, image: Image.Image, size: int | None, side: int | None) -> Encoded:
    """Patches of a picture as a whole, or (with a side in pixels) tile by tile on one grid."""
    width, height = image.size
    if side is None or side >= max(width, height):
        found = encoder.encode([image], size)[0]
        return Encoded(found, found.shape[0] * found.shape[1])
    across, down = min(side, width), min(side, height)
    first = encoder.encode([image.crop((0, 0, across, down))], size)[0]
    high, wide = first.shape[:2]
    rows, columns = list(_spans(height, down, high)), list(_spans(width, across, wide))
    grid = first.new_empty((rows[-1].stop, columns[-1].stop, first.shape[-1]))
    for row in rows:
        for column in columns:
            box = (column.pixel, row.pixel, column.pixel + across, row.pixel + down)
            tile = encoder.encode([image.crop(box)], size)[0] if any(box[:2]) else first
            grid[row.start : row.stop, column.start : column.stop] = tile[
                row.start - row.cell : row.stop - row.cell, column.start - column.cell : column.stop - column.cell
            ]
    return Encoded(grid, high * wide)


@dataclass(frozen=True)
class _Span:
    """One tile along one axis: its first pixel and cell, and which cells of the whole it gives (stop exclusive)."""

    pixel: int
    cell: int
    start: int
    stop: int


def _spans(length: int, side: int, cells: int) -> Iterator[_Span]:
    """Tiles of `side` pixels and `cells` cells, spread evenly over `length` pixels."""
    total = max(cells, round(length / side * cells))
    step = max(1, cells - max(1, cells // OVERLAP))
    count = 1 + math.ceil((total - cells) / step)
    firsts = [round(i * (total - cells) / max(1, count - 1)) for i in range(count)]
    edges = [0, *((a + cells + b) // 2 for a, b in itertools.pairwise(firsts)), total]
    for index, first in enumerate(firsts):
        pixel = min(round(first * length / total), length - side)
        yield _Span(pixel, first, edges[index], edges[index + 1])
