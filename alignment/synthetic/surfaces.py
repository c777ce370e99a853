"""Brushes for procedural parts: noise, shapes with soft edges, relief lighting. Arrays are float32, colours 0 to 1.

Everything works on a square canvas with coordinates x, y from -1 to 1 (y downwards): parts know no pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

Array = np.ndarray
Colour = tuple[float, float, float]


@cache
def axes(side: int) -> tuple[Array, Array]:
    """x and y of every pixel, (side, side) each."""
    line = np.linspace(-1, 1, side, dtype=np.float32)
    return np.broadcast_to(line, (side, side)), np.broadcast_to(line[:, None], (side, side))


def around(side: int, cx: float, cy: float, reach: float, reach_down: float | None = None) -> tuple[slice, slice]:
    """Rows and columns of the box of half width `reach` about a point: small things are drawn there only."""

    def span(centre: float, half: float) -> slice:
        low, high = (int((edge + 1) / 2 * (side - 1)) for edge in (centre - half, centre + half))
        return slice(max(0, low), max(1, min(side, high + 2)))

    return span(cy, reach if reach_down is None else reach_down), span(cx, reach)


def resized(values: Array, side: int) -> Array:
    """A small map (h, w) drawn out smoothly to (side, side)."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))


def noise(rng: np.random.Generator, side: int, cells: int | tuple[int, int], octaves: int = 1) -> Array:
    """Smooth noise of about unit spread; `cells` (rows, columns) is its coarseness, an octave is finer and weaker."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        small = rng.standard_normal((min(side, rows << octave), min(side, columns << octave)), dtype=np.float32)
        total += resized(small, side) / 2**octave
    return total / np.float32(1e-6 + total.std())


def crystals(rng: np.random.Generator, u: Array, v: Array, cells: int) -> tuple[Array, Array, Array]:
    """Irregular cells, one about each whole number of u and v (0 to `cells`).

    Returns:
        Distance to the nearest cell's middle, to the second nearest's, and a tone of the cell itself (about -1 to 1).
    """
    middles = rng.uniform(0.05, 0.95, (2, cells + 2, cells + 2)).astype(np.float32)
    tones = rng.uniform(-1, 1, (cells + 2, cells + 2)).astype(np.float32)
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    first, second = np.full(u.shape, 9, np.float32), np.full(u.shape, 9, np.float32)
    tone = np.zeros(u.shape, np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            i, j = np.clip(row + dy, 0, cells + 1), np.clip(column + dx, 0, cells + 1)
            distance = np.hypot(u - (column + dx) - middles[0, i, j], v - (row + dy) - middles[1, i, j])
            second = np.minimum(second, np.maximum(first, distance))
            tone = np.where(distance < first, tones[i, j], tone)
            first = np.minimum(first, distance)
    return first, second, tone


def grain(rng: np.random.Generator, side: int, strength: float) -> Array:
    """Fine grain, pixel by pixel, (side, side, 1)."""
    values = rng.standard_normal((side, side, 1), dtype=np.float32)
    values *= np.float32(strength)
    return values


def inside(distance: Array, softness: float = 0.012) -> Array:
    """Coverage 0 to 1 from a signed distance (negative inside), with an edge of one or two pixels."""
    return np.clip(0.5 - distance / softness, 0, 1).astype(np.float32)


def disc(x: Array, y: Array, cx: float, cy: float, radius: float) -> Array:
    """Signed distance to a circle."""
    return np.hypot(x - cx, y - cy) - radius


def box(x: Array, y: Array, cx: float, cy: float, half_width: float, half_height: float, corner: float = 0.0) -> Array:
    """Signed distance to an upright rectangle with rounded corners."""
    dx, dy = np.abs(x - cx) - half_width + corner, np.abs(y - cy) - half_height + corner
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner


def turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """Coordinates turned by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)


def plain(side: int, colour: Colour) -> Array:
    """A canvas (side, side, 3) of one colour."""
    return np.broadcast_to(np.asarray(colour, np.float32), (side, side, 3)).copy()


def painted(canvas: Array, cover: Array, colour: Colour | Array) -> Array:
    """A colour (or a picture) laid over the canvas where `cover` is 1."""
    # One new array instead of three: at these sizes, asking for memory costs more than the arithmetic.
    result = np.subtract(np.asarray(colour, np.float32), canvas, dtype=np.float32)
    result *= cover[..., None]
    result += canvas
    return result


def relief(height: Array, strength: float = 1.0, angle: float = -2.2) -> Array:
    """Brightness change of a surface of this height under light from an angle; about zero where it is flat."""
    down, right = np.gradient(height)
    return (strength * (np.cos(angle) * right + np.sin(angle) * down)).astype(np.float32)


def lit(canvas: Array, light: Array) -> Array:
    """The canvas brightened and darkened by `light` (0 changes nothing)."""
    result = np.multiply(canvas, light[..., None], dtype=np.float32)
    result += canvas
    return result


def blurred(values: Array, pixels: float) -> Array:
    """Gaussian blur of a map (h, w)."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, pixels, mode="nearest", truncate=2.5)
