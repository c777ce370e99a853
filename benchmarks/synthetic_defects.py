"""Defects drawn into good pictures: cracks, scratches, spots, stains, misplaced pieces, dents, foreign bodies."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from benchmarks.synthetic_parts import SIDE, Grid, Rng, noise, texture


def _line(rng: Rng, branching: bool) -> Grid:
    """A crack (wandering, branching) or a scratch (nearly straight), as shares of coverage."""
    image = Image.new("L", (2 * SIDE, 2 * SIDE), 0)
    draw = ImageDraw.Draw(image)
    bend = rng.uniform(0, 0.35 if branching else 0.04)
    step, width = rng.uniform(6, 14), int(rng.integers(2, 7))

    def walk(point: Grid, angle: float, length: int, depth: int) -> None:
        points = [tuple(point)]
        for _ in range(length):
            angle += rng.normal() * bend
            point = point + step * np.array([np.cos(angle), np.sin(angle)])
            points.append(tuple(point))
            if branching and depth < 2 and rng.random() < 0.08:
                walk(point, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2), length // 2, depth + 1)
        draw.line(points, fill=255, width=width)

    walk(rng.uniform(60, 2 * SIDE - 60, 2), rng.uniform(0, 6.3), int(rng.integers(4, 40)), 0)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), float) / 255


def _blob(rng: Rng, largest: float) -> Grid:
    """A spot with an uneven edge, hard or soft, from 3 pixels to `largest` in radius."""
    radius, stretch = np.exp(rng.uniform(np.log(3), np.log(largest))), np.exp(rng.uniform(-0.7, 0.7))
    centre, angle = rng.uniform(20, SIDE - 20, 2), rng.uniform(0, 3.2)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    aside = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
    distance = np.hypot(along / radius / stretch, aside / radius * stretch)
    distance += noise(rng, max(1.5, radius / 3)) * rng.uniform(0, 0.3)
    return 1 / (1 + np.exp(np.clip((distance - 1) * rng.uniform(3, 15), -50, 50)))


def _crack(rng: Rng, good: Grid, amount: float) -> Grid:
    return good + _line(rng, True) * (amount if rng.random() < 0.25 else -abs(amount))


def _scratch(rng: Rng, good: Grid, amount: float) -> Grid:
    return good + _line(rng, False) * amount


def _spot(rng: Rng, good: Grid, amount: float) -> Grid:
    where = _blob(rng, rng.choice([12, 30]))
    return good * (1 - where) + (good.mean() + 1.2 * amount + 0.3 * good.std() * noise(rng, 0.8)) * where


def _stain(rng: Rng, good: Grid, amount: float) -> Grid:
    patchy = 0.5 + 0.5 / (1 + np.exp(-3 * noise(rng, rng.uniform(2, 8))))
    return good + _blob(rng, 60) * patchy * 0.6 * amount


def _misplaced(rng: Rng, good: Grid, amount: float) -> Grid:
    height, width = rng.integers(8, 70, 2)
    (y, v), (x, u) = rng.integers(0, SIDE - height, 2), rng.integers(0, SIDE - width, 2)
    piece = good[v : v + height, u : u + width]
    pasted, where = good.copy(), np.zeros((SIDE, SIDE))
    pasted[y : y + height, x : x + width] = piece[::-1, ::-1] if rng.random() < 0.5 else piece
    where[y : y + height, x : x + width] = 1
    where = ndimage.gaussian_filter(where, 0.7)
    return good * (1 - where) + pasted * where


def _dent(rng: Rng, good: Grid, amount: float) -> Grid:
    where = _blob(rng, 45)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    down = noise(rng, rng.uniform(3, 10)) * rng.uniform(3, 12) * where
    right = noise(rng, 6) * rng.uniform(3, 12) * where
    return ndimage.map_coordinates(good, [rows + down, columns + right], order=1, mode="reflect")


def _smear(rng: Rng, good: Grid, amount: float) -> Grid:
    where = _blob(rng, 45)
    return good * (1 - where) + ndimage.gaussian_filter(good, rng.uniform(3, 12)) * where


def _foreign(rng: Rng, good: Grid, amount: float) -> Grid:
    where, other = _blob(rng, 45), texture(rng)
    other = rng.uniform(40, 220) + (other - other.mean()) / (other.std() + 1e-6) * rng.uniform(5, 45)
    return good * (1 - where) + other * where


DEFECTS = (_crack, _scratch, _spot, _spot, _stain, _misplaced, _dent, _smear, _foreign)


def defective_picture(rng: Rng, good: Grid, covered: Grid, tries: int = 20) -> tuple[Grid, Grid] | None:
    """The picture with one visible defect, mostly on the part, and where it is (bool); None if none could be drawn."""
    for _ in range(tries):
        amount = rng.choice([-1, 1]) * rng.uniform(18, 110)
        bad = np.clip(DEFECTS[rng.integers(len(DEFECTS))](rng, good, amount), 0, 255)
        where = ndimage.gaussian_filter(np.abs(bad - good), 1.0) > 6
        if where.sum() < 25 or where.mean() > 0.3:
            continue
        on_part = (where & (covered > 0.5)).sum() >= 0.5 * where.sum()
        if on_part or rng.random() >= 0.85:
            return bad, where
    return None
