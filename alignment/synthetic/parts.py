"""Procedural parts: one seed makes a design, another a piece of it; what may go missing is drawn one by one.

Two pieces of one design are what a test image and its reference are: alike in shape and colours, unlike in grain and
threads. `draw(design, piece, side, skip)` gives `Part(canvas, ground, items)`; with `skip=i` item i is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sage_ad.alignment.synthetic.surfaces import (
    Array,
    around,
    axes,
    blurred,
    box,
    crystals,
    disc,
    grain,
    inside,
    lit,
    noise,
    painted,
    plain,
    relief,
    turned,
)


@dataclass(frozen=True)
class Part:
    """A drawn part.

    Attributes:
        canvas: (side, side, 3) float32.
        ground: (side, side) float32, 1 where the part's surface is.
        items: names of what can be missing, in the order of `skip`.
    """

    canvas: Array
    ground: Array
    items: tuple[str, ...] = ()


Rng = np.random.Generator
Draw = Callable[[Rng, Rng, int, "int | None"], Part]


def _table(design: Rng, piece: Rng, side: int, dark: bool | None = None) -> Array:
    """What a part lies on: a matt mat, dark or light, with a soft fall-off of light."""
    dark = bool(design.random() < 0.6) if dark is None else dark
    tone = design.uniform(0.07, 0.16) if dark else design.uniform(0.6, 0.78)
    tint = design.uniform(-0.02, 0.02, 3)
    canvas = plain(side, tuple(tone + tint))
    return lit(canvas, 0.025 * noise(piece, side, 4)) + grain(piece, side, 0.008)


def _shadow(canvas: Array, distance: Array, reach: float = 0.09, depth: float = 0.45) -> Array:
    """A soft contact shadow around a shape."""
    return lit(canvas, -depth * np.exp(-np.maximum(distance, 0) / reach))


def _brushed(piece: Rng, side: int, tone: float, across: bool = True, strength: float = 0.05) -> Array:
    """Brushed metal: long thin streaks of light."""
    streaks = noise(piece, side, (side // 2, 6) if across else (6, side // 2))
    tint = np.array([-0.01, 0.0, 0.015], np.float32)
    return lit(plain(side, tuple(tone + tint)), strength * streaks + 0.05 * noise(piece, side, 3))


def machined_disc(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A turned metal disc with a bore, a stepped rim and bolt holes."""
    x, y = axes(side)
    table = _table(design, piece, side, dark=True)
    radius, bore, step = design.uniform(0.78, 0.86), design.uniform(0.14, 0.24), design.uniform(0.5, 0.62)
    holes, ring, start = int(design.integers(4, 8)), design.uniform(0.36, 0.42), design.uniform(0, 2 * np.pi)
    tone, warm = design.uniform(0.5, 0.68), float(design.choice([0.0, 0.0, 0.09]))
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    # Turning grooves scatter light into two opposite fans.
    fans = np.cos(2 * (angle - design.uniform(0, np.pi))) ** 2
    grooves = np.interp(r, np.linspace(0, 1.5, side), piece.standard_normal(side)).astype(np.float32)
    metal = lit(
        plain(side, (tone + warm, tone + warm * 0.55, tone - warm * 0.4)), 0.4 * fans**3 - 0.1 + 0.045 * grooves
    )
    height = blurred(inside(r - step, 0.03) * 1.5 + inside(r - radius, 0.04), 1.2)
    metal = lit(metal, relief(height, 1.1))
    cover = inside(r - radius)
    canvas = painted(_shadow(table, r - radius), cover, metal)
    ground = cover.copy()
    hole_radius = design.uniform(0.045, 0.065)
    for i in range(holes):
        turn = start + 2 * math.pi * i / holes
        near = around(side, cx := ring * math.cos(turn), cy := ring * math.sin(turn), 0.14)
        hole = disc(x[near], y[near], cx, cy, hole_radius)
        if i != skip:
            canvas[near] = _drilled(canvas[near], hole)
            ground[near] *= 1 - inside(hole - 0.03)
    canvas = _drilled(canvas, r - bore)
    ground *= 1 - inside(r - bore - 0.03)
    return Part(canvas + grain(piece, side, 0.008), ground, ("bolt hole",) * holes)


def _drilled(canvas: Array, distance: Array) -> Array:
    """A hole with a bright chamfer."""
    canvas = lit(canvas, 0.35 * np.exp(-(((distance - 0.012) / 0.012) ** 2)))
    return painted(canvas, inside(distance), (0.035, 0.035, 0.04))


def perforated_plate(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A brushed steel plate with a grid of round or slotted holes."""
    x, y = axes(side)
    rows, columns = int(design.integers(3, 6)), int(design.integers(3, 6))
    slot = bool(design.random() < 0.4)
    plate = box(x, y, 0, 0, 0.86, design.uniform(0.66, 0.86), 0.08)
    metal = _brushed(piece, side, design.uniform(0.52, 0.7), across=bool(design.random() < 0.7))
    metal = lit(metal, relief(blurred(inside(plate, 0.05), 1.5), 0.8))
    cover = inside(plate)
    canvas = painted(_shadow(_table(design, piece, side, dark=True), plate), cover, metal)
    ground = cover.copy()
    radius = 0.36 / max(rows, columns) * design.uniform(0.8, 1.1)
    xs, ys = np.linspace(-0.6, 0.6, columns), np.linspace(-0.48, 0.48, rows)
    for i in range(rows * columns):
        cx, cy = float(xs[i % columns]), float(ys[i // columns])
        near = around(side, cx, cy, 0.3)
        u, v = x[near] - cx, y[near] - cy
        hole = box(u, v, 0, 0, radius * 1.2, radius * 0.55, radius * 0.55) if slot else disc(u, v, 0, 0, radius)
        if i != skip:
            canvas[near] = _drilled(canvas[near], hole)
            ground[near] *= 1 - inside(hole - 0.02)
    return Part(canvas + grain(piece, side, 0.008), ground, ("hole",) * (rows * columns))


def screw(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A countersunk screw from the side: head, shank, thread, tip."""
    x, y = axes(side)
    u, v = turned(x, y, design.uniform(0, 2 * np.pi))
    thick, head = design.uniform(0.1, 0.14), design.uniform(0.24, 0.3)
    pitch, brass = design.uniform(0.055, 0.085), design.random() < 0.45
    colour = np.array((0.72, 0.56, 0.26) if brass else (0.6, 0.61, 0.64), np.float32)
    thread = np.where(u > -0.25, 0.022 * np.cos(2 * np.pi * (u / pitch + 0.35 * v / thick)), 0)
    taper = np.clip((0.86 - u) / 0.2, 0, 1)
    shank = np.maximum(np.abs(v) - (thick + thread) * taper, np.maximum(-u - 0.72, u - 0.86))
    cone = np.maximum(
        np.abs(v) - (head - np.clip((u + 0.78) / 0.26, 0, 1) * (head - thick)), np.maximum(-0.84 - u, u + 0.52)
    )
    body = np.minimum(shank, cone)
    width = np.where(
        u < -0.52, np.maximum(head - np.clip((u + 0.78) / 0.26, 0, 1) * (head - thick), thick), thick
    ) * np.maximum(taper, 0.2)
    across = np.clip(v / width, -1, 1)
    shine = 0.75 * np.exp(-(((across + 0.35) / 0.28) ** 2)) - 0.55 * np.abs(across) ** 2.5
    shine = shine + np.where((u > -0.25) & (u < 0.84), 0.28 * np.sin(2 * np.pi * (u / pitch + 0.35 * v / thick)), 0)
    metal = lit(plain(side, tuple(colour)), shine.astype(np.float32) + 0.04 * noise(piece, side, 24))
    metal = lit(metal, -0.5 * inside(np.maximum(np.abs(u + 0.825), np.abs(v) - 0.06) - 0.018))
    # The shadow follows the shank without its thread: a thread's distance is no true distance away from the screw.
    smooth = np.minimum(np.maximum(np.abs(v) - thick * taper, np.maximum(-u - 0.72, u - 0.86)), cone)
    table = _shadow(_table(design, piece, side, dark=bool(design.random() < 0.4)), smooth)
    canvas = painted(table, inside(body), metal)
    return Part(canvas + grain(piece, side, 0.01), inside(body + 0.015))


def circuit_board(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A printed circuit board: tracks, pads, vias, chips and small components."""
    x, y = axes(side)
    base = np.asarray(design.choice([(0.04, 0.27, 0.13), (0.03, 0.17, 0.32), (0.09, 0.1, 0.1)]), np.float32)
    canvas = lit(plain(side, tuple(base)), 0.05 * noise(piece, side, 6, 3))
    copper = np.zeros((side, side), np.float32)
    lanes = np.linspace(-0.9, 0.9, 13)
    for _ in range(int(design.integers(12, 18))):
        a, b, c, d = (float(lane) for lane in design.choice(lanes, 4))
        half = float(design.choice([0.011, 0.017, 0.026]))
        # A track runs along, turns once, and runs down.
        for cx, cy, w, h in (
            ((a + c) / 2, b, abs(c - a) / 2 + half, half),
            (c, (b + d) / 2, half, abs(d - b) / 2 + half),
        ):
            near = around(side, cx, cy, w + 0.03, h + 0.03)
            copper[near] = np.maximum(copper[near], inside(box(x[near], y[near], cx, cy, w, h, half)))
        for px, py in ((a, b), (c, d)):
            near = around(side, px, py, 0.08)
            pad = inside(np.abs(disc(x[near], y[near], px, py, 0.036)) - 0.016)
            copper[near] = np.maximum(copper[near], pad)
    track = np.clip(base * 1.75 + np.array([0.05, 0.09, 0.03], np.float32), 0, 1)
    canvas = lit(painted(canvas, copper, track), relief(blurred(copper, 1.0), 0.5))
    items = []
    spots = [(cx, cy) for cx in (-0.6, 0.0, 0.6) for cy in (-0.6, 0.0, 0.6)]
    for i, spot in enumerate(design.permutation(9)[: int(design.integers(4, 7))]):
        cx, cy = spots[spot]
        big = design.random() < 0.5
        items.append("chip" if big else "capacitor")
        draw = np.random.default_rng(int(design.integers(2**62)))
        near = around(side, cx, cy, 0.32)
        canvas[near] = _component(canvas[near], draw, x[near], y[near], (cx, cy), big, present=i != skip)
    return Part(canvas + grain(piece, side, 0.008), np.ones((side, side), np.float32), tuple(items))


def _component(
    canvas: Array, design: Rng, x: Array, y: Array, centre: tuple[float, float], big: bool, present: bool
) -> Array:
    cx, cy = centre
    w, h = (design.uniform(0.15, 0.2), design.uniform(0.11, 0.15)) if big else (0.085, 0.045)
    upright = bool(design.random() < 0.5)
    if upright:
        w, h = h, w
    solder = (0.74, 0.74, 0.7)
    if big:
        legs = np.abs((((y - cy) if upright else (x - cx)) / 0.055) % 1 - 0.5) < 0.26
        frame = box(x, y, cx, cy, w + (0.035 if upright else -0.01), h + (-0.01 if upright else 0.035))
        canvas = painted(canvas, inside(frame) * legs, solder)
    else:
        canvas = painted(canvas, inside(box(x, y, cx, cy, w + 0.02, h + 0.02, 0.01)), solder)
    if not present:
        return canvas
    body = box(x, y, cx, cy, w, h, 0.012)
    canvas = _shadow(canvas, body, 0.02, 0.5)
    colour = (0.09, 0.09, 0.1) if big else tuple(design.choice([(0.62, 0.47, 0.3), (0.2, 0.2, 0.22)]))
    canvas = lit(painted(canvas, inside(body), colour), relief(blurred(inside(body), 1.0), 0.7))
    if big:
        return painted(canvas, 0.5 * inside(disc(x, y, cx - w * 0.6, cy - h * 0.6, 0.014)), (0.5, 0.5, 0.5))
    ends = np.abs(y - cy) > h * 0.55 if upright else np.abs(x - cx) > w * 0.55
    return painted(canvas, inside(body) * ends, (0.8, 0.8, 0.78))


def solar_cell(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A solar cell with busbars and fingers: even blue, or crystals of many blues."""
    x, y = axes(side)
    poly = bool(design.random() < 0.5)
    blue = np.array((0.06, 0.11, 0.27), np.float32) * design.uniform(0.9, 1.3)
    canvas = plain(side, tuple(blue))
    if poly:
        u, v = (5 * (x + 1) + 0.5 * noise(piece, side, 9), 4 * (y + 1) + 0.5 * noise(piece, side, 9))
        _, _, tone = crystals(piece, u, v, 10)
        canvas = lit(canvas, 0.32 * tone)
    canvas = lit(canvas, 0.05 * noise(piece, side, 4))
    fingers = int(design.integers(26, 36))
    line = np.clip(1 - np.abs(((y + 1) / 2 * fingers) % 1 - 0.5) * 7, 0, 1)
    canvas = painted(canvas, 0.5 * line, (0.45, 0.5, 0.58))
    bars = int(design.integers(2, 5))
    for i in range(bars):
        bar = np.abs(x - (-1 + 2 * (i + 0.5) / bars)) - 0.028
        if i != skip:
            canvas = painted(canvas, inside(bar), (0.78, 0.79, 0.8))
            canvas = lit(canvas, relief(inside(bar, 0.03), 0.3))
    corner = 0.0 if poly else 0.16
    edge = np.maximum(box(x, y, 0, 0, 0.93, 0.93), (np.abs(x) + np.abs(y) - 1.86 + corner) / np.sqrt(2))
    cover = inside(edge)
    canvas = painted(plain(side, (0.82, 0.83, 0.85)), cover, canvas)
    return Part(canvas + grain(piece, side, 0.01), inside(edge + 0.03), ("busbar",) * bars)


def woven_fabric(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A plain or twill weave."""
    x, y = axes(side)
    threads = int(design.integers(22, 38))
    # Threads never run quite straight nor are they quite alike.
    u = (x + 1) / 2 * threads + 0.16 * noise(piece, side, 6, 2)
    v = (y + 1) / 2 * threads + 0.16 * noise(piece, side, 6, 2)
    twill = int(design.choice([1, 1, 2, 3]))
    over = (np.floor(u) + twill * np.floor(v)) % (2 if twill == 1 else 4) < (1 if twill == 1 else 2)
    hu, hv = np.abs(u % 1 - 0.5) * 2, np.abs(v % 1 - 0.5) * 2
    height = np.where(over, (1 - hu**2) * (1 - 0.5 * hv**2), (1 - hv**2) * (1 - 0.5 * hu**2))
    colours = [(0.68, 0.63, 0.54), (0.33, 0.4, 0.52), (0.55, 0.57, 0.56), (0.52, 0.3, 0.28), (0.36, 0.44, 0.36)]
    warp = np.asarray(colours[design.integers(len(colours))], np.float32)
    weft = np.clip(warp * design.uniform(0.75, 1.2), 0, 0.9)
    shade = 0.85 * (height.astype(np.float32) - 0.62) + 0.05 * noise(piece, side, 5) + 0.05 * noise(piece, side, 60)
    canvas = lit(np.where(over[..., None], warp, weft), shade)
    return Part(canvas + grain(piece, side, 0.014), np.ones((side, side), np.float32))


def ceramic_tile(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A glazed tile with speckles or veins, bevelled edges and grout."""
    x, y = axes(side)
    glaze = np.asarray(
        design.choice([(0.82, 0.8, 0.75), (0.68, 0.74, 0.74), (0.8, 0.71, 0.64), (0.55, 0.6, 0.66)]), np.float32
    )
    tile = lit(plain(side, tuple(glaze)), 0.022 * noise(piece, side, 4, 3))
    if design.random() < 0.5:
        veins = np.abs(noise(piece, side, 4, 4))
        tile = lit(tile, -0.16 * np.exp(-((veins / 0.07) ** 2)))
    else:
        speckles = np.clip(noise(piece, side, 70) - 1.75, 0, 1)
        tile = painted(tile, np.clip(speckles * 1.6, 0, 1), tuple(glaze * 0.55))
    edge = box(x, y, 0, 0, 0.9, 0.9, 0.05)
    bevel = relief(blurred(inside(edge, 0.1), 2.0), 1.6)
    glow = 0.07 * np.exp(-(((x + 0.35) ** 2 + (y + 0.4) ** 2) / 0.2))
    grout = lit(plain(side, (0.5, 0.49, 0.47)), 0.08 * noise(piece, side, 90))
    canvas = painted(grout, inside(edge), lit(tile, bevel + glow.astype(np.float32)))
    return Part(canvas + grain(piece, side, 0.006), inside(edge + 0.02))


def bottle_from_above(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """The mouth of a glass bottle, seen from above against bright light."""
    x, y = axes(side)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    tint = np.asarray(design.choice([(0.5, 0.3, 0.1), (0.18, 0.34, 0.16), (0.42, 0.5, 0.52)]), np.float32)
    outer, neck, mouth = design.uniform(0.86, 0.9), design.uniform(0.6, 0.66), design.uniform(0.3, 0.36)
    profile = 0.22 + 0.55 * np.exp(-(((r - neck) / 0.05) ** 2)) + 0.9 * np.exp(-(((r - mouth) / 0.035) ** 2))
    profile += 0.35 * np.exp(-(((r - (neck + outer) / 2) / 0.025) ** 2)) - 0.18 * np.exp(-(((r - outer) / 0.05) ** 2))
    glints = np.cos(angle - design.uniform(0, 6)) ** 8 * np.exp(-(((r - outer + 0.1) / 0.03) ** 2))
    light = (
        profile + 0.8 * glints + 0.05 * np.cos(3 * angle + design.uniform(0, 6)) * np.exp(-(((r - neck) / 0.12) ** 2))
    )
    glass = plain(side, tuple(tint)) * (0.55 + 1.1 * light[..., None]) + 0.3 * np.clip(light - 0.75, 0, 1)[..., None]
    bottom = 0.3 + 0.25 * np.clip(1 - r / mouth, 0, 1)
    glass = painted(glass, inside(r - mouth + 0.03, 0.03), (tint * 0.6)[None, None] * bottom[..., None])
    back = lit(plain(side, (0.9, 0.91, 0.9)), -0.06 * r)
    canvas = painted(_shadow(back, r - outer, 0.05, 0.25), inside(r - outer), glass)
    return Part(canvas.astype(np.float32) + grain(piece, side, 0.008), inside(r - outer + 0.03))


def granular_surface(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A cast or stone surface: grains of several sizes."""
    tone = design.uniform(0.4, 0.62)
    tint = np.asarray(design.choice([(0.0, 0.0, 0.0), (0.03, 0.0, -0.04), (-0.02, 0.0, 0.03)]), np.float32)
    height = noise(piece, side, 100) + 0.7 * noise(piece, side, 45) + 0.4 * noise(piece, side, 14)
    canvas = lit(
        plain(side, tuple(tone + tint)), relief(height, design.uniform(0.05, 0.1)) + 0.05 * noise(piece, side, 8, 2)
    )
    if design.random() < 0.6:
        flakes = np.clip(noise(piece, side, 55) - 1.3, 0, 1)
        canvas = painted(
            canvas, np.clip(flakes * 1.3, 0, 1), tuple(np.clip(tone + design.choice([-0.28, 0.26]) + tint, 0, 1))
        )
    return Part(canvas + grain(piece, side, 0.012), np.ones((side, side), np.float32))


def gear(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A gear wheel with a hub, a keyed bore and teeth."""
    x, y = axes(side)
    teeth, start = int(design.integers(14, 24)), design.uniform(0, 2 * np.pi)
    r, angle = np.hypot(x, y), (np.arctan2(y, x) - start) % (2 * np.pi)
    phase = angle / (2 * np.pi) * teeth
    tooth = np.clip((0.34 - np.abs(phase % 1 - 0.5)) * 7, 0, 1)
    if skip is not None:
        tooth = np.where(np.floor(phase).astype(int) == skip, 0, tooth)
    rim = 0.72 + 0.15 * tooth
    body = r - rim
    tone = design.uniform(0.45, 0.6)
    metal = _brushed(piece, side, tone, across=False, strength=0.03)
    fans = np.cos(2 * (angle + 0.7)) ** 4
    height = inside(r - 0.6, 0.03) * -1.4 + inside(r - 0.34, 0.03) * 2 + inside(body, 0.04)
    metal = lit(metal, 0.22 * fans.astype(np.float32) - 0.06 + relief(blurred(height, 1.3), 1.0))
    table = _shadow(_table(design, piece, side, dark=bool(design.random() < 0.5)), r - 0.8, 0.1)
    canvas = painted(table, inside(body), metal)
    bore = np.minimum(disc(x, y, 0, 0, 0.15), box(x, y, 0, -0.16, 0.045, 0.05))
    canvas = _drilled(canvas, bore)
    ground = inside(body + 0.02) * (1 - inside(bore - 0.03))
    return Part(canvas + grain(piece, side, 0.008), ground, ("tooth",) * teeth)


def capsule(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A two-coloured gelatin capsule."""
    x, y = axes(side)
    u, v = turned(x, y, design.uniform(0, 2 * np.pi))
    length, thick = design.uniform(0.68, 0.76), design.uniform(0.25, 0.31)
    body = box(u, v, 0, 0, length, thick, thick - 0.001)
    pairs = [
        ((0.75, 0.16, 0.14), (0.88, 0.84, 0.76)),
        ((0.16, 0.4, 0.6), (0.86, 0.87, 0.88)),
        ((0.2, 0.5, 0.32), (0.87, 0.78, 0.32)),
    ]
    left, right = pairs[design.integers(len(pairs))]
    cap = inside(u - design.uniform(-0.05, 0.1), 0.01)
    across = np.clip(v / thick, -1, 1)
    shine = (
        0.5 * np.exp(-(((across + 0.42) / 0.16) ** 2))
        - 0.45 * np.abs(across) ** 3
        + 0.12 * np.exp(-(((across - 0.6) / 0.12) ** 2))
    )
    skin = lit(painted(plain(side, right), cap, left), shine.astype(np.float32) + relief(blurred(cap, 1.5), 0.5))
    canvas = painted(_shadow(_table(design, piece, side), body, 0.12), inside(body), skin)
    return Part(canvas + grain(piece, side, 0.006), inside(body + 0.02))


def bolted_cover(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """A painted cover plate held by bolts, with a stamped frame."""
    x, y = axes(side)
    plate = box(x, y, 0, 0, 0.84, design.uniform(0.6, 0.84), 0.1)
    colour = np.asarray(
        design.choice([(0.25, 0.34, 0.42), (0.62, 0.6, 0.55), (0.52, 0.2, 0.14), (0.2, 0.33, 0.26)]), np.float32
    )
    paint = lit(plain(side, tuple(colour)), 0.025 * noise(piece, side, 80) + 0.05 * noise(piece, side, 3))
    half = design.uniform(0.34, 0.46)
    height = inside(plate, 0.06) + 0.8 * inside(np.abs(box(x, y, 0, 0, half, half * 0.8, 0.08)) - 0.03, 0.03)
    canvas = painted(
        _shadow(_table(design, piece, side), plate), inside(plate), lit(paint, relief(blurred(height, 1.5), 1.3))
    )
    ground = inside(plate + 0.02)
    spots = [(sx * 0.66, sy * 0.42) for sx in (-1, 1) for sy in (-1, 1)] + (
        [(0.0, -0.5), (0.0, 0.5)] if design.random() < 0.4 else []
    )
    for i, (cx, cy) in enumerate(spots):
        turn, near = piece.uniform(0, np.pi), around(side, cx, cy, 0.26)
        u, v = x[near] - cx, y[near] - cy
        canvas[near] = _bolt(canvas[near], u, v, turn) if i != skip else _drilled(canvas[near], disc(u, v, 0, 0, 0.04))
        ground[near] *= 1 - inside(disc(u, v, 0, 0, 0.1))
    return Part(canvas + grain(piece, side, 0.008), ground, ("bolt",) * len(spots))


def _bolt(canvas: Array, u: Array, v: Array, turn: float) -> Array:
    """A hexagonal bolt head on a washer."""
    washer = disc(u, v, 0, 0, 0.09)
    canvas = lit(
        painted(_shadow(canvas, washer, 0.03), inside(washer), (0.58, 0.58, 0.57)),
        relief(blurred(inside(washer), 1), 0.6),
    )
    angle = (np.arctan2(v, u) - turn) % (np.pi / 3) - np.pi / 6
    hexagon = (np.hypot(u, v) * np.cos(angle) - 0.062).astype(np.float32)
    metal = lit(np.full((*u.shape, 3), 0.48, np.float32), relief(blurred(inside(hexagon, 0.03), 1), 0.9))
    return painted(_shadow(canvas, hexagon, 0.02, 0.6), inside(hexagon), metal)


def leather(design: Rng, piece: Rng, side: int, skip: int | None = None) -> Part:
    """Grained leather: small cells between fine creases."""
    x, y = axes(side)
    cells = int(design.integers(20, 32))
    u = (x + 1) / 2 * cells + 0.25 * noise(piece, side, 12)
    v = (y + 1) / 2 * cells + 0.25 * noise(piece, side, 12)
    first, second, _ = crystals(piece, u, v, cells)
    crease = np.clip((second - first) / 0.28, 0, 1)
    colour = np.asarray(
        design.choice([(0.4, 0.24, 0.14), (0.2, 0.15, 0.13), (0.52, 0.36, 0.22), (0.42, 0.12, 0.11)]), np.float32
    )
    light = relief(blurred(crease, 0.8), 0.75) + 0.28 * (crease - 0.8) + 0.07 * noise(piece, side, 4, 2)
    return Part(lit(plain(side, tuple(colour)), light) + grain(piece, side, 0.01), np.ones((side, side), np.float32))


PARTS: dict[str, Draw] = {
    "machined disc": machined_disc,
    "perforated plate": perforated_plate,
    "screw": screw,
    "circuit board": circuit_board,
    "solar cell": solar_cell,
    "woven fabric": woven_fabric,
    "ceramic tile": ceramic_tile,
    "glass bottle": bottle_from_above,
    "granular casting": granular_surface,
    "gear": gear,
    "capsule": capsule,
    "bolted cover": bolted_cover,
    "leather": leather,
}
"""What can be drawn, by product name."""
