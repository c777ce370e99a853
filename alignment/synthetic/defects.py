"""Defects painted onto a surface, each with the exact mask of what was changed.

A painter takes the canvas (h, w, 3), the ground (h, w) where a defect may lie and a random generator, and gives the new
canvas and how strongly each pixel was covered (h, w). Sizes are shares of the canvas, so that any picture will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sage_ad.alignment.synthetic.surfaces import Array, blurred, painted, relief, resized

Rng = np.random.Generator
Painter = Callable[[Array, Array, Rng], tuple[Array, Array]]
_FINE = 2
"""Lines are drawn this many times larger and then shrunk, for soft edges."""


def spot(ground: Array, rng: Rng, margin: float = 0.06) -> tuple[float, float]:
    """A place (x, y in pixels) on the ground, not too near the border; the middle where there is no ground."""
    h, w = ground.shape
    edge = int(margin * min(h, w))
    inner = np.zeros_like(ground, dtype=bool)
    inner[edge : h - edge, edge : w - edge] = ground[edge : h - edge, edge : w - edge] > 0.5
    places = np.flatnonzero(inner)
    if not len(places):
        return w / 2, h / 2
    row, column = divmod(int(places[rng.integers(len(places))]), w)
    return float(column), float(row)


def blob(shape: tuple[int, int], x: float, y: float, radius: float, rng: Rng, rough: float = 0.35) -> Array:
    """An irregular filled shape around a place, coverage 0 to 1; `radius` in pixels."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    dx, dy = columns - x, rows - y
    angle = np.arctan2(dy, dx)
    bound = np.ones(shape, np.float32)
    for wave in range(2, 6):
        bound += rough / wave * float(rng.normal()) * np.cos(wave * angle + float(rng.uniform(0, 6.3)))
    stretch, turn = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0, math.pi))
    u, v = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
    distance = np.hypot(u, v / stretch) - radius * np.maximum(bound, 0.35)
    return np.clip(0.5 - distance / 1.5, 0, 1).astype(np.float32)


def stroke(shape: tuple[int, int], points: list[tuple[float, float]], widths: list[float]) -> Array:
    """A line through points with changing width (pixels), coverage 0 to 1."""
    picture = Image.new("L", (shape[1] * _FINE, shape[0] * _FINE))
    draw = ImageDraw.Draw(picture)
    for (a, b), width in zip(pairwise(points), widths, strict=False):
        draw.line([(a[0] * _FINE, a[1] * _FINE), (b[0] * _FINE, b[1] * _FINE)], 255, max(1, round(width * _FINE)))
    small = picture.resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def walk(x: float, y: float, length: float, bend: float, steps: int, rng: Rng) -> list[tuple[float, float]]:
    """A wandering line from a place; `bend` is how much it turns at each step, in radians."""
    heading, points = float(rng.uniform(0, 2 * math.pi)), [(x, y)]
    for _ in range(steps):
        heading += float(rng.normal(0, bend))
        x, y = x + math.cos(heading) * length / steps, y + math.sin(heading) * length / steps
        points.append((x, y))
    return points


def scratch(canvas: Array, ground: Array, rng: Rng) -> tuple[Array, Array]:
    """One to three nearly straight marks, bright with a dark side or dark with a bright one."""
    side, shape = min(ground.shape), ground.shape
    x, y = spot(ground, rng)
    cover = np.zeros(shape, np.float32)
    points = walk(x, y, side * float(rng.uniform(0.16, 0.5)), 0.06, 14, rng)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        dx, dy = rng.normal(0, 0.012 * side, 2)
        ends = np.sin(np.linspace(0.25, math.pi - 0.1, 14)) * float(rng.uniform(0.005, 0.01)) * side
        cover = np.maximum(cover, stroke(shape, [(px + dx, py + dy) for px, py in points], list(ends)))
    cover *= ground
    bright = rng.random() < 0.65
    tone = (0.93, 0.93, 0.92) if bright else (0.06, 0.06, 0.07)
    groove = relief(blurred(cover, 0.8), 0.9 if bright else -0.9)
    canvas = painted(canvas * (1 + groove[..., None]), cover * float(rng.uniform(0.5, 0.95)), tone)
    return canvas, cover


def hole(canvas: Array, ground: Array, rng: Rng) -> tuple[Array, Array]:
    """One pit or a few: dark inside, with a bright lip on the far side."""
    side, shape = min(ground.shape), ground.shape
    x, y = spot(ground, rng)
    cover = np.zeros(shape, np.float32)
    for i in range(int(rng.choice([1, 1, 1, 3]))):
        radius = side * float(rng.uniform(0.016, 0.05)) * (1 if i == 0 else 0.5)
        dx, dy = (0, 0) if i == 0 else rng.normal(0, 0.06 * side, 2)
        cover = np.maximum(cover, blob(shape, x + dx, y + dy, radius, rng, 0.22))
    cover *= ground
    canvas = canvas * (1 + relief(blurred(cover, 1.2), -1.3)[..., None])
    depth = np.clip(blurred(cover, 0.012 * side) * 1.3, 0, 1)
    dark = np.asarray(rng.uniform(0.02, 0.06, 3), np.float32) + 0.1 * (1 - depth[..., None])
    return painted(canvas, cover * 0.96, dark.astype(np.float32)), cover


def stain(canvas: Array, ground: Array, rng: Rng) -> tuple[Array, Array]:
    """A liquid that dried: see-through, darker at its rim."""
    side, shape = min(ground.shape), ground.shape
    x, y = spot(ground, rng)
    cover = blob(shape, x, y, side * float(rng.uniform(0.05, 0.12)), rng, 0.4)
    if rng.random() < 0.5:
        dx, dy = rng.normal(0, 0.08 * side, 2)
        cover = np.maximum(cover, blob(shape, x + dx, y + dy, side * float(rng.uniform(0.025, 0.06)), rng))
    cover *= ground
    soft = blurred(cover, 0.006 * side)
    rim = np.clip(4 * soft * (1 - soft), 0, 1) * cover
    patches = 0.85 + 0.15 * resized(rng.standard_normal((5, 5)), max(shape))[: shape[0], : shape[1]]
    bright_ground = float(canvas[cover > 0.5].mean()) > 0.22 if (cover > 0.5).any() else True
    dark = [(0.24, 0.14, 0.05), (0.1, 0.09, 0.09), (0.42, 0.2, 0.07)]
    pale = [(0.75, 0.76, 0.74), (0.62, 0.5, 0.3)]
    tint = (dark if bright_ground else pale)[int(rng.integers(3 if bright_ground else 2))]
    alpha = float(rng.uniform(0.35, 0.65)) * patches * soft + 0.25 * rim
    return painted(canvas, np.clip(alpha, 0, 0.9), tint), cover


def crack(canvas: Array, ground: Array, rng: Rng) -> tuple[Array, Array]:
    """A jagged dark line that tapers and branches."""
    side, shape = min(ground.shape), ground.shape
    x, y = spot(ground, rng)
    length = side * float(rng.uniform(0.22, 0.55))
    trunk = walk(x, y, length, 0.42, 26, rng)
    width = side * float(rng.uniform(0.006, 0.011))
    cover = stroke(shape, trunk, list(np.linspace(width, width * 0.35, 26)))
    for start in rng.choice(20, int(rng.integers(0, 4)), replace=False):
        branch = walk(*trunk[int(start) + 3], length * float(rng.uniform(0.15, 0.4)), 0.45, 12, rng)
        cover = np.maximum(cover, stroke(shape, branch, list(np.linspace(width * 0.6, width * 0.25, 12))))
    cover *= ground
    canvas = canvas * (1 + relief(blurred(cover, 0.9), -0.9)[..., None])
    return painted(canvas, np.clip(cover * 1.25, 0, 0.92), tuple(rng.uniform(0.02, 0.07, 3))), cover


def contamination(canvas: Array, ground: Array, rng: Rng) -> tuple[Array, Array]:
    """Foreign matter that lies on top: crumbs, a fibre or a drop, with shadows."""
    side, shape = min(ground.shape), ground.shape
    x, y = spot(ground, rng)
    colours = [
        (0.85, 0.84, 0.8),
        (0.5, 0.32, 0.16),
        (0.12, 0.12, 0.13),
        (0.72, 0.2, 0.14),
        (0.2, 0.36, 0.62),
        (0.3, 0.5, 0.2),
    ]
    local = canvas[int(y), int(x)]
    colour = max((colours[i] for i in rng.permutation(6)[:3]), key=lambda c: float(np.abs(np.asarray(c) - local).sum()))
    cover = np.zeros(shape, np.float32)
    if rng.random() < 0.4:
        thread = walk(x, y, side * float(rng.uniform(0.25, 0.5)), 0.3, 30, rng)
        cover = stroke(shape, thread, [side * float(rng.uniform(0.007, 0.012))] * 30)
    else:
        for _ in range(int(rng.integers(2, 8))):
            dx, dy = rng.normal(0, 0.04 * side, 2)
            cover = np.maximum(cover, blob(shape, x + dx, y + dy, side * float(rng.uniform(0.01, 0.028)), rng, 0.5))
    cover *= ground
    shade = np.roll(blurred(cover, 0.008 * side), (max(1, side // 90), max(1, side // 90)), (0, 1))
    canvas = canvas * (1 - 0.55 * (shade * (1 - cover))[..., None])
    body = np.asarray(colour, np.float32) * (1 + relief(blurred(cover, 1.0), 0.8)[..., None])
    return painted(canvas, cover * 0.95, body), cover


def deformation(canvas: Array, ground: Array, rng: Rng) -> tuple[Array, Array]:
    """The surface is pushed, twisted or pinched where it has edges to show it, and catches the light differently."""
    side, shape = min(ground.shape), ground.shape
    radius = side * float(rng.uniform(0.07, 0.14))
    edges = np.hypot(*np.gradient(blurred(canvas.mean(axis=2), 1.5)))
    spots = [spot(ground, rng, 0.1) for _ in range(12)]
    x, y = max(spots, key=lambda place: float(_near(edges, place[0], place[1], radius).mean()))
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    dx, dy = columns - x, rows - y
    weight = np.exp(-(dx**2 + dy**2) / (0.5 * radius**2))
    kind, heading = rng.integers(3), float(rng.uniform(0, 2 * math.pi))
    if kind == 0:
        push = radius * 0.65
        mx, my = push * math.cos(heading) * weight, push * math.sin(heading) * weight
    elif kind == 1:
        turn = float(rng.choice([-1, 1])) * 1.3 * weight
        mx, my = dx * (np.cos(turn) - 1) - dy * np.sin(turn), dx * np.sin(turn) + dy * (np.cos(turn) - 1)
    else:
        pull = float(rng.choice([-0.5, 0.9])) * weight
        mx, my = dx * pull, dy * pull
    moved = _warped(canvas, columns + mx, rows + my)
    light = relief(blurred(weight, 2.0) * radius, 0.4, heading)
    return moved * (1 + light[..., None]), (weight > 0.3).astype(np.float32)


def _near(values: Array, x: float, y: float, radius: float) -> Array:
    r = int(radius)
    return values[max(0, int(y) - r) : int(y) + r + 1, max(0, int(x) - r) : int(x) + r + 1]


def _warped(canvas: Array, x: Array, y: Array) -> Array:
    """The canvas read at other places (bilinear)."""
    from scipy.ndimage import map_coordinates

    return np.stack([map_coordinates(canvas[..., c], [y, x], order=1, mode="nearest") for c in range(3)], axis=-1)


PAINTERS: dict[str, Painter] = {
    "scratch": scratch,
    "hole": hole,
    "stain": stain,
    "crack": crack,
    "contamination": contamination,
    "deformation": deformation,
}
"""Defects that can be painted onto any surface."""


def painted_defect(
    canvas: Array, ground: Array, name: str, rng: Rng, visible: float = 0.045, tries: int = 6
) -> tuple[Array, Array]:
    """Paints a defect that can be seen; the mask is what really changed.

    Args:
        canvas: (h, w, 3) colours 0 to 1.
        ground: (h, w), 1 where a defect may lie.
        name: a key of `PAINTERS`.
        visible: least mean change of colour inside the mask.
        tries: places that are tried; the clearest is taken if none is clear enough.

    Returns:
        The new canvas, and the mask (h, w) bool.
    """
    best: tuple[float, Array, Array] | None = None
    for _ in range(tries):
        changed, cover = PAINTERS[name](canvas, ground, rng)
        changed = np.clip(changed, 0, 1)
        difference = np.abs(changed - canvas).max(axis=2)
        mask = (
            (cover > 0.3) & (difference > 0.02)
            if name != "deformation"
            else _solid((cover > 0.3) & (difference > 0.03))
        )
        size = int(mask.sum())
        clear = float(difference[mask].mean()) if size >= max(9, mask.size * 7e-4) else 0.0
        if best is None or clear > best[0]:
            best = clear, changed, mask
        if clear >= visible:
            break
    assert best is not None
    return best[1], best[2]


def _solid(mask: Array) -> Array:
    """A mask without its pinholes and specks."""
    picture = Image.fromarray((mask * 255).astype(np.uint8))
    picture = (
        picture.filter(ImageFilter.MaxFilter(7)).filter(ImageFilter.MinFilter(7)).filter(ImageFilter.MedianFilter(5))
    )
    return np.asarray(picture) > 127
