"""Synthetic good parts and textures, and defects drawn into them: what the defect head learns from.

None imitates a product that SAGE is measured on; the variety is the point. All pictures are 320 x 320 grey floats from
0 to 255, and everything follows from the random generator that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

SIDE = 320
Grid = np.ndarray
Rng = np.random.Generator


def noise(rng: Rng, sigma: float | tuple[float, float]) -> Grid:
    """Smoothed white noise of mean 0 and spread 1."""
    values = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma, mode="wrap")
    return (values - values.mean()) / (values.std() + 1e-6)


def _brushed(rng: Rng) -> Grid:
    return noise(rng, (rng.uniform(0.3, 1), rng.uniform(8, 40))) + 0.3 * noise(rng, 0.7)


def _clouds(rng: Rng) -> Grid:
    fine = noise(rng, rng.uniform(0.6, 6)) * rng.uniform(0.3, 1)
    return fine + noise(rng, rng.uniform(6, 30)) * rng.uniform(0, 1)


def _weave(rng: Rng) -> Grid:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    first, second = rng.uniform(3, 14, 2)
    jitter = noise(rng, 12) * rng.uniform(0, 1.5)
    warp = np.sin(2 * np.pi * (x + jitter) / first) * rng.uniform(0.3, 1)
    weft = np.sin(2 * np.pi * (y + jitter) / second) * rng.uniform(0.3, 1)
    return warp + weft + noise(rng, 0.8) * rng.uniform(0.1, 0.6)


def _grains(rng: Rng) -> Grid:
    from scipy.spatial import cKDTree

    count = int(rng.integers(30, 400))
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    distance, index = cKDTree(rng.uniform(0, SIDE, (count, 2))).query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    value = rng.normal(size=count)[index[:, 0]].reshape(SIDE, SIDE)
    edge = (distance[:, 1] - distance[:, 0]).reshape(SIDE, SIDE)
    return value * rng.uniform(0.2, 1) - np.exp(-edge / 1.5) * rng.uniform(0, 2) + 0.2 * noise(rng, 0.8)


def _tiles(rng: Rng) -> Grid:
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    across, down = rng.uniform(20, 90, 2)
    width = rng.uniform(1, 3)
    joints = 2.0 * (np.minimum(x % across, across - x % across) < width)
    joints += rng.choice([0, 2]) * (np.minimum(y % down, down - y % down) < width)
    return ndimage.gaussian_filter(0.3 * noise(rng, 1) + 0.4 * noise(rng, 20) - joints, rng.uniform(0.4, 1.5))


def _speckled(rng: Rng) -> Grid:
    specks = np.where(noise(rng, 2) > rng.uniform(1.3, 2.2), rng.choice([-1.5, 1.5]), 0)
    return noise(rng, 0.7) * 0.4 + noise(rng, 2) * rng.uniform(0.2, 0.6) + specks


def _plain(rng: Rng) -> Grid:
    return 0.15 * noise(rng, 0.8) + 0.3 * noise(rng, 40)


def _barred(rng: Rng) -> Grid:
    """A plate with dark bars and a dark frame."""
    y, _ = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    values = 0.1 * noise(rng, 0.8) + 0.6 * noise(rng, 40) * rng.uniform(0.2, 1)
    values += noise(rng, rng.uniform(3, 10)) * rng.choice([0, 0.5])
    bars, width = int(rng.integers(2, 5)), rng.uniform(1.5, 3)
    for index in range(bars):
        values -= 3 * np.exp(-(((y - (index + 0.5) * SIDE / bars) / width) ** 4))
    frame = int(rng.integers(4, 14))
    inside = np.zeros((SIDE, SIDE))
    inside[frame:-frame, frame:-frame] = 1
    return ndimage.gaussian_filter(values - 2 * (1 - inside), 1)


TEXTURES: tuple[Callable[[Rng], Grid], ...] = (
    _clouds, _brushed, _weave, _grains, _tiles, _speckled, _plain, _barred,
)  # fmt: skip


def texture(rng: Rng) -> Grid:
    """A texture of a random kind, often turned."""
    values = TEXTURES[rng.integers(len(TEXTURES))](rng)
    if rng.random() < 0.5:
        values = np.rot90(values, int(rng.integers(4)))
    if rng.random() < 0.35:
        values = ndimage.rotate(values, rng.uniform(-45, 45), reshape=False, mode="reflect", order=1)
    return values


def _surface(rng: Rng) -> Grid:
    """What a part or the table under it is covered with: mostly plain."""
    if rng.random() < 0.2:
        return 0.3 * texture(rng)
    fine = rng.choice([0.1, 0.3]) * noise(rng, 0.8) + rng.choice([0, 0.2, 0.5]) * noise(rng, rng.uniform(2, 8))
    return (fine + rng.uniform(0, 0.6) * noise(rng, 40)) * rng.choice([0.15, 0.5, 1])


def _mask(draw: Callable[[ImageDraw.ImageDraw], object]) -> Grid:
    """A shape drawn at double size, as shares of coverage from 0 to 1."""
    image = Image.new("L", (2 * SIDE, 2 * SIDE), 0)
    draw(ImageDraw.Draw(image))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), float) / 255


def _disc(centre: Grid, radius: float) -> list[float]:
    return [*(centre - radius), *(centre + radius)]


def _ring_part(rng: Rng, centre: Grid, radius: float) -> list[Grid]:
    radii = np.sort(rng.uniform(0.12, 1, int(rng.integers(2, 6))))[::-1] * radius
    radii[0] = radius
    layers = [_mask(lambda d, r=r: d.ellipse(_disc(centre, r), fill=255)) for r in radii]
    holes, phase, size, at = int(rng.integers(0, 9)), rng.uniform(0, 6), rng.uniform(0.04, 0.1), rng.uniform(0.5, 0.85)
    if holes:
        angles = phase + 2 * np.pi * np.arange(holes) / holes
        places = [centre + at * radius * np.array([np.cos(a), np.sin(a)]) for a in angles]
        layers.append(_mask(lambda d: [d.ellipse(_disc(p, size * radius), fill=255) for p in places]))
    return layers


def _rod_part(rng: Rng, centre: Grid, radius: float) -> list[Grid]:
    angle, width, turns = rng.uniform(0, np.pi), radius * rng.uniform(0.08, 0.25), int(rng.integers(4, 14))
    along = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-along[1], along[0]])

    def at(s: float, t: float) -> tuple[float, ...]:
        return tuple(centre + along * s + aside * t)

    shaft = [at(-radius, -width), at(radius, -width), at(1.1 * radius, 0), at(radius, width), at(-radius, width)]
    neck = width * 0.8 - radius
    head = [at(-radius, -2 * width), at(neck, -width), at(neck, width), at(-radius, 2 * width)]
    steps = [radius * (i + 1) / (turns + 1) for i in range(turns)]
    thread = [[at(s - 0.3 * width, -1.25 * width), at(s + 0.3 * width, 1.25 * width)] for s in steps]
    line = int(max(3, width * 0.18))
    return [
        _mask(lambda d: d.polygon(shaft, fill=255)),
        _mask(lambda d: d.polygon(head, fill=255)),
        _mask(lambda d: [d.line(turn, fill=255, width=line) for turn in thread]),
    ]


def _plate_part(rng: Rng, centre: Grid, radius: float) -> list[Grid]:
    corners = int(rng.integers(3, 8))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    if rng.random() < 0.6:
        angles = np.arange(corners) * 2 * np.pi / corners + rng.uniform(0, 6)
    outline = [tuple(centre + radius * np.array([np.cos(a), np.sin(a)])) for a in angles]
    holes = [
        _disc(centre + radius * 0.6 * rng.uniform(-1, 1, 2), radius * rng.uniform(0.04, 0.15))
        for _ in range(int(rng.integers(0, 6)))
    ]
    layers = [_mask(lambda d: d.polygon(outline, fill=255))]
    return [*layers, _mask(lambda d: [d.ellipse(hole, fill=255) for hole in holes])]


def _track_part(rng: Rng, centre: Grid, radius: float) -> list[Grid]:
    width = int(rng.uniform(6, 26))
    steps = np.array([(1, 0), (0, 1), (0.7, 0.7), (-0.7, 0.7)])
    tracks = []
    for _ in range(int(rng.integers(6, 25))):
        moves = [steps[rng.integers(4)] * rng.uniform(-250, 250) for _ in range(int(rng.integers(2, 6)))]
        tracks.append([tuple(p) for p in np.cumsum([rng.uniform(0, 2 * SIDE, 2), *moves], axis=0)])

    def draw(d: ImageDraw.ImageDraw) -> None:
        for points in tracks:
            d.line(points, fill=255, width=width)
            for end in (points[0], points[-1]):
                d.ellipse(_disc(np.array(end), width), fill=255)

    return [_mask(draw)]


PARTS = (_ring_part, _ring_part, _rod_part, _plate_part, _track_part)


def part(rng: Rng) -> tuple[Grid, Grid]:
    """A part on a table, and where the part is (0 to 1)."""
    centre, radius = SIDE + rng.uniform(-40, 40, 2), rng.uniform(0.25, 0.45) * 2 * SIDE
    values, covered = _surface(rng), np.zeros((SIDE, SIDE))
    for layer in PARTS[rng.integers(len(PARTS))](rng, centre, radius):
        surface = _surface(rng) * rng.uniform(0.3, 1) + rng.uniform(-2.5, 2.5)
        down, right = np.gradient(ndimage.gaussian_filter(layer, rng.uniform(1, 4)))
        surface = surface + rng.uniform(-12, 12) * right + rng.uniform(-12, 12) * down
        values = values * (1 - layer) + surface * layer
        covered = np.maximum(covered, layer)
    return ndimage.gaussian_filter(values, rng.uniform(0.3, 0.9)), covered


def good_picture(rng: Rng) -> tuple[Grid, Grid]:
    """A picture of a good part or texture under uneven light, and where the part is."""
    values, covered = (texture(rng), np.ones((SIDE, SIDE))) if rng.random() < 0.5 else part(rng)
    values = (values - values.mean()) / (values.std() + 1e-6)
    if rng.random() < 0.5:
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
        values = values + rng.uniform(-0.6, 0.6) * x + rng.uniform(-0.6, 0.6) * y - rng.uniform(0, 0.6) * (x**2 + y**2)
    values = rng.uniform(80, 190) + values * rng.uniform(15, 50) + rng.normal(size=(SIDE, SIDE)) * rng.uniform(0, 4)
    return np.clip(values, 0, 255), covered
