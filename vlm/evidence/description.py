"""What stands out, measured: tone, colour, texture, edge, shape, orientation and size, and the words that follow.

Every word is a measurement with a rule (the constants below). Nothing here names a defect: a name is taught
(`sage_ad.knowledge`) or it is not given. A region is compared with the reference at the same place, moved onto the part,
where the two pictures match around it, else with its own surroundings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sage_ad.vlm.places import place_of_point

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.vlm.evidence.regions import EvidenceRegion

TONE = 0.05
"""Change of the mean grey value, as a share of the background's, from which a region is "darker" or "lighter"."""
COLOUR = 6.0
"""Distance in the a*b* plane of CIELAB from which the colour counts as changed."""
NEUTRAL = 10.0
"""Chroma below which a colour is grey, black or white."""
SEEN = 4.0
"""Smallest distance in CIELAB that is taken for a difference of pixels (about twice what an eye can just tell)."""
NOISE = 4.0
"""Differences must also exceed this many standard deviations of the differences around the region."""
TEXTURE = 1.6
"""Ratio of fine contrast from which a region is rougher (or, inverted, smoother) than its background."""
SHARP, SOFT = 0.5, 0.2
"""Share of the whole step that is passed within two pixels: a sharp edge from the first on, none up to the second."""
LINE = 4.0
"""Ratio of length to width from which a region is a line."""
ROUND = 1.5
"""Ratio of the axes up to which a compact region is round."""
DISC = (0.7, 0.9)
"""Share of its box that a round region fills: a disc pi / 4, a triangle half, a square all of it."""
SOLID = 0.85
"""Share of its convex hull that a compact region fills."""
SLIM = 2.5
"""Ratio of the axes below which a line is no straight one."""
STRIP = 2.0
"""Widest place of a line in units of its mean width."""
BENT = 0.6
"""Share of its convex hull below which a region may be a bent line."""
HOLE = 0.2
"""Share of its filled area that is hole, from which a region is a ring."""
AREA = 0.05
"""Share of the picture from which a region is an area."""
APART = 1.5
"""Difference of the pixels that are meant, in units of the difference that 95 % of the other pixels around stay below."""
WITHIN = 0.6
"""Share of them that must lie in the region's box, widened by a quarter."""
MAIN = 0.3
"""Share of them that the largest piece must hold."""
MEASURABLE = 10
"""Width in pixels from which the sharpness of an edge can be told, and a line must be twice as long to be no spot."""
SHIFT = 0.06
"""Share of the shorter side by which a part may lie elsewhere than its reference."""
SLACK = 2
"""Pixels by which the reference may still be off after that: what it shows as near as this is no difference."""
GAP = 4
"""Pixels on either side of a gap by which a line is taken to go on."""
MISSING = 0.35
"""Contrast to what is next to the pixels, in units of the reference's, below which the part lacks what good parts show."""
ALONG = 0.3
"""Share of the peak's difference down to which a line is followed from its clearest stretch."""

POOR_MATCH = ", poor match with "
"""Said of an area in which no pixels stand out: its patches have no like in good parts, and nothing else was measured."""

Shape = Literal["line", "ring", "round spot", "spot", "area"]
Background = Literal["reference", "surroundings"]


@dataclass(frozen=True)
class Description:
    """One region in numbers and words.

    Attributes:
        box: x0, y0, x1, y1 of the largest piece of what differs, in pixels of the picture, x1 and y1 exclusive.
        background: what it was compared with.
        tone: change of the mean grey value as a share of the background's (-0.18: 18 % darker); None where no pixels stand
            out from what the picture shows around them anyway (the part's own structure). Nothing but box and size is
            known of such a region, and all that follows up to `angle` is None too but for the shape, which is "area".
        colour: change of a* and b* (CIELAB).
        colour_change: the same in a word ("redder", "less colourful"), or None below `COLOUR`.
        colour_name: name of the region's own colour ("dark brown").
        texture: fine contrast in units of the background's; None where too few pixels tell.
        edge: share of the step to the background that is passed within two pixels.
        shape: one of `Shape`.
        angle: direction of a straight line in degrees from horizontal, 0 to 180, counter-clockwise; else None.
        length, width: in pixels; of a line along and across it, else of the axes.
        area: pixels that differ; share: the same as a share of the picture.
        count: how many separate pieces the pixels form; two with a gap that the eye closes are one.
        missing: the reference shows something there that the part lacks.
    """

    box: tuple[int, int, int, int]
    background: Background
    tone: float | None
    colour: tuple[float, float] | None
    colour_change: str | None
    colour_name: str | None
    texture: float | None
    edge: float | None
    shape: Shape
    angle: float | None
    length: float
    width: float
    area: int
    share: float
    count: int
    missing: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them; `Description.from_dict` gives an equal description back."""
        return {**asdict(self), "box": list(self.box), "colour": self.colour and list(self.colour)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """The inverse of `to_dict`."""
        return cls(**{**values, "box": tuple(values["box"]), "colour": values["colour"] and tuple(values["colour"])})

    def in_brief(self) -> str:
        """Tone and shape alone ("dark line"), for a search in facts."""
        tone = "" if self.tone is None or abs(self.tone) < TONE else "dark " if self.tone < 0 else "bright "
        return tone + self.shape

    def in_words(self, mm_per_pixel: float | None = None) -> str:
        """What, how large and against what, in one line.

        Args:
            mm_per_pixel: scale of the picture; sizes are then in millimetres too.
        """
        size = self.size_in_words(mm_per_pixel)
        changes = self._changes()
        if not changes:
            return f"area, {size}{POOR_MATCH}{'good parts' if self.background == 'reference' else 'the rest of the picture'}"
        if self.share >= 0.001:
            size += f", {100 * self.share:.1f} % of the picture"
        what = self.shape if self.angle is None else f"{orientation_word(self.angle)} {self.shape}"
        if self.shape == "line" and self.angle is None:
            what = "bent line"
        pieces = f" in {self.count} pieces, the largest" if self.count > 1 else ","
        if self.missing:
            found = f"{self.count} pieces, the largest " if self.count > 1 else ""
            return f"a structure of good parts is missing: {found}{size}"
        against = "the reference there" if self.background == "reference" else "its surroundings"
        change = " and ".join(filter(None, (", ".join(changes[:-1]), changes[-1])))
        line = f"{self.colour_name} {what}{pieces} {size}, {change} than {against}"
        if self.edge is None or self.shape == "line" or SOFT < self.edge < SHARP:
            return line
        return line + (", sharp edge" if self.edge >= SHARP else ", no clear edge")

    def size_in_words(self, mm_per_pixel: float | None = None) -> str:
        """Length and width of a line or of one of several pieces; else width and height as they lie in the picture."""
        line = self.shape == "line"
        first, second = self.length, self.width
        if not line and self.count == 1:
            first, second = float(self.box[2] - self.box[0]), float(self.box[3] - self.box[1])
        size = f"{first:.0f} px long and {second:.0f} px wide" if line else f"{first:.0f} x {second:.0f} px"
        if mm_per_pixel is not None:
            size += f" ({first * mm_per_pixel:.2g} x {second * mm_per_pixel:.2g} mm)"
        return size

    def _changes(self) -> list[str]:
        """Words for what changed against the background; none where nothing stands apart from it."""
        changes = []
        if self.tone is not None and abs(self.tone) >= TONE:
            # Against a dark ground a share says little ("400 % lighter"): "much" is what can be said.
            step = f"{100 * abs(self.tone):.0f} %" if abs(self.tone) <= 1 else "much"
            changes.append(f"{step} {'darker' if self.tone < 0 else 'lighter'}")
        if self.colour_change:
            changes.append(self.colour_change)
        if self.texture is not None and not 1 / TEXTURE < self.texture < TEXTURE:
            changes.append("rougher" if self.texture > 1 else "smoother")
        return changes


def describe(
    image: Image.Image,
    heat: np.ndarray,
    regions: Sequence[EvidenceRegion],
    references: Sequence[Image.Image] = (),
) -> list[Description]:
    """Measures each region.

    Args:
        image: the part.
        heat: (H, W) evidence map of the picture; tells which pixels of a region's box are meant.
        regions: regions of the evidence.
        references: good parts; the one that is most alike around a region is its background, if one matches there.
    """
    return [own for own, _ in _described(image, heat, regions, references)]


def _described(
    image: Image.Image, heat: np.ndarray, regions: Sequence[EvidenceRegion], references: Sequence[Image.Image]
) -> list[tuple[Description, tuple[float, float]]]:
    """The descriptions, each with the point (x, y) that tells where it is."""
    if not regions:
        return []
    pixels = np.asarray(image.convert("RGB"))
    good = [np.asarray(reference.convert("RGB").resize(image.size)) for reference in references]
    placed = [(picture, shift) for picture in good for shift in {(0, 0), _shift(pixels, picture)}]
    return [_describe_region(pixels, heat, region, placed) for region in regions]


def _describe_region(
    pixels: np.ndarray,
    heat: np.ndarray,
    region: EvidenceRegion,
    references: Sequence[tuple[np.ndarray, tuple[int, int]]],
) -> tuple[Description, tuple[float, float]]:
    """One region of (H, W, 3) pixels; the references with the rows and columns by which they are moved."""
    from scipy import ndimage

    height, width = heat.shape
    window = _window(region.box, width, height)
    here = _lab(pixels[window])
    box_heat = heat[window]
    hot = box_heat >= 0.85 * region.score
    if not hot.any():
        hot = box_heat >= np.quantile(box_heat, 0.9)
    warm = box_heat >= 0.5 * region.score
    around = ~ndimage.binary_dilation(warm, iterations=2)
    if around.mean() < 0.05:
        around = ~hot if (~hot).any() else np.ones_like(hot)
    background, source = _background(here, around, window, references)
    difference = _difference(here, background, source)
    found = _differing(difference, hot, warm, around)
    if found is None or not _stands_apart(difference, found[0], region.box, window, (height, width)):
        x0, y0, x1, y1 = region.box
        plain = _structure(region.box, "reference" if references else "surroundings", warm, height * width)
        return plain, ((x0 + x1) / 2, (y0 + y1) / 2)
    return _describe(here, background, source, *found, window, (height, width))


def describe_regions(
    image: Image.Image, heat: np.ndarray, found: Sequence[EvidenceRegion], references: Sequence[Image.Image] = ()
) -> tuple[list[EvidenceRegion], list[Description]]:
    """Measures the regions of a picture; each gets box and place of the pixels that are meant.

    Those lie nearer to a defect than the boxes of the evidence, whose patches reach beyond it (benchmarks/places.py). A
    region whose pixels a stronger one holds is left out.

    Args:
        image: the part.
        heat: (H, W) evidence map of the picture.
        found: its regions, the strongest first.
        references: good parts.
    """
    regions: list[EvidenceRegion] = []
    descriptions: list[Description] = []
    for region, (own, at) in zip(found, _described(image, heat, found, references), strict=True):
        if not any(_mostly_shared(own.box, other.box) for other in regions):
            regions.append(replace(region, box=own.box, place=place_of_point(*at, *image.size)))
            descriptions.append(own)
    return regions, descriptions


def _mostly_shared(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    """Whether two boxes share half of the smaller one."""
    sides = [min(first[i + 2], second[i + 2]) - max(first[i], second[i]) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(0, sides[0]) * max(0, sides[1]) >= 0.5 * min(areas)


def _stands_apart(
    difference: np.ndarray,
    mask: np.ndarray,
    box: tuple[int, int, int, int],
    window: tuple[slice, slice],
    picture: tuple[int, int],
) -> bool:
    """Whether the pixels are a thing of their own and not the part's structure: strong, within the region, whole."""
    from scipy import ndimage

    others = ~ndimage.binary_dilation(mask, iterations=3)
    if others.any() and difference[mask].mean() < APART * np.quantile(difference[others], 0.95):
        return False
    x0, y0, x1, y1 = box
    right, down = max(4, (x1 - x0) // 4), max(4, (y1 - y0) // 4)
    inside = np.zeros(picture, bool)
    inside[max(0, y0 - down) : y1 + down, max(0, x0 - right) : x1 + right] = True
    if inside[window][mask].mean() < WITHIN:
        return False
    labels, _ = ndimage.label(mask, np.ones((3, 3), int))
    if np.bincount(labels[mask]).max() < MAIN * mask.sum():
        return False
    # What runs on beyond the window and fills half of the region is the part's own outline.
    (rows, columns), (height, width) = window, picture
    ends = ((rows.start > 0, mask[0]), (rows.stop < height, mask[-1]), (columns.start > 0, mask[:, 0]),
            (columns.stop < width, mask[:, -1]))  # fmt: skip
    return 2 * mask.sum() <= (x1 - x0) * (y1 - y0) or not any(inner and side.any() for inner, side in ends)


def _structure(box: tuple[int, int, int, int], source: Background, warm: np.ndarray, pixels: int) -> Description:
    """A region of which only place and size are known, and how many of the picture's pixels are meant."""
    sides, area = (box[2] - box[0], box[3] - box[1]), int(warm.sum())
    return Description(
        box=box, background=source, tone=None, colour=None, colour_change=None, colour_name=None, texture=None, edge=None,
        shape="area", angle=None, length=float(max(sides)), width=float(min(sides)), area=area,
        share=round(area / pixels, 5), count=1,
    )  # fmt: skip


def _window(box: tuple[int, int, int, int], width: int, height: int) -> tuple[slice, slice]:
    """The box with a margin of half its size (at least 12 pixels), within the picture."""
    x0, y0, x1, y1 = box
    right, down = max(12, (x1 - x0) // 2), max(12, (y1 - y0) // 2)
    return slice(max(0, y0 - down), min(height, y1 + down)), slice(max(0, x0 - right), min(width, x1 + right))


def _lab(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) CIELAB of 8-bit RGB."""
    from skimage.color import rgb2lab

    lab: np.ndarray = rgb2lab(pixels[..., :3])
    return lab


def _background(
    here: np.ndarray,
    around: np.ndarray,
    window: tuple[slice, slice],
    references: Sequence[tuple[np.ndarray, tuple[int, int]]],
) -> tuple[np.ndarray, Background]:
    """What a good part would show: the reference if it matches around the region better than the surroundings do."""
    ys, xs = np.mgrid[: here.shape[0], : here.shape[1]]
    grid = np.stack([np.ones(here.shape[:2]), xs / max(1, xs.max()), ys / max(1, ys.max())], axis=-1)
    keep = around.copy()
    best = np.broadcast_to(np.median(here[keep], axis=0), here.shape)
    for _ in range(2):  # a plane through the surroundings; the second pass leaves outliers out
        fit, *_ = np.linalg.lstsq(grid[keep], here[keep], rcond=None)
        best = grid @ fit
        off = np.linalg.norm(here - best, axis=2)
        keep = around & (off <= 2.5 * np.median(off[around]) + 1e-6)
        if keep.sum() < 10:
            break
    source: Background = "surroundings"
    misfit = float(np.mean(np.linalg.norm(here - best, axis=2)[around]))
    for good, shift in references:
        rows, columns = (
            np.clip(np.arange(part.start, part.stop) - by, 0, side - 1)
            for part, by, side in zip(window, shift, good.shape, strict=False)
        )
        other = _lab(good[np.ix_(rows, columns)])
        other = other + np.median((here - other)[around], axis=0)  # light differs between two photographs
        off = float(np.mean(np.linalg.norm(here - other, axis=2)[around]))
        # The surroundings are the simpler explanation: a reference must be clearly better, not by a breath.
        if off < (0.9 * misfit if source == "surroundings" else misfit):
            best, misfit, source = other, off, "reference"
    return best, source


def _shift(part: np.ndarray, good: np.ndarray) -> tuple[int, int]:
    """Rows and columns by which a reference must be moved to lie on the part; none beyond `SHIFT` of the shorter side."""
    height, width = part.shape[:2]
    step = max(1, round(max(height, width) / 256))
    grey, other = (picture[::step, ::step].mean(axis=2) for picture in (part, good))
    alike = np.fft.irfft2(np.fft.rfft2(grey - grey.mean()) * np.conj(np.fft.rfft2(other - other.mean())), grey.shape)
    peak = np.unravel_index(alike.argmax(), alike.shape)
    # Beyond half of the picture it was moved the other way.
    down, right = (
        step * (int(at) - (side if at > side / 2 else 0)) for at, side in zip(peak, alike.shape, strict=True)
    )
    return (down, right) if max(abs(down), abs(right)) <= SHIFT * min(height, width) else (0, 0)


def _difference(here: np.ndarray, background: np.ndarray, source: Background) -> np.ndarray:
    """(h, w) distance in CIELAB to the background; to the nearest that a reference shows within `SLACK` pixels."""
    from scipy import ndimage

    here, background = (ndimage.gaussian_filter(lab, (1, 1, 0)) for lab in (here, background))
    least = np.linalg.norm(here - background, axis=2)
    if source == "reference":
        padded = np.pad(background, ((SLACK, SLACK), (SLACK, SLACK), (0, 0)), mode="edge")
        for down, right in np.ndindex(3, 3):
            near = padded[down * SLACK :, right * SLACK :][: here.shape[0], : here.shape[1]]
            least = np.minimum(least, np.linalg.norm(here - near, axis=2))
    return least


def _differing(
    difference: np.ndarray, hot: np.ndarray, warm: np.ndarray, around: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels that differ from the background, connected to the hottest, and what a line runs on to; None if none does."""
    from scipy import ndimage

    usual = difference[around]
    middle = float(np.median(usual))
    scatter = 1.4826 * float(np.median(np.abs(usual - middle)))
    level = max(SEEN, middle + NOISE * scatter)
    peak = float(np.quantile(difference[warm], 0.98)) if warm.any() else float(difference.max())
    if peak < level:
        return None
    # Half-way between the usual and the peak is where a blurred edge stands.
    labels, _ = ndimage.label(difference >= max(level, middle + 0.5 * (peak - middle)), np.ones((3, 3), int))
    # On a textured ground much differs a little: what touches the hottest pixels is meant, what else is warm only if
    # nothing does.
    touched = set(np.unique(labels[hot])) - {0} or set(np.unique(labels[warm])) - {0}
    if not touched:
        return None
    mask = np.isin(labels, list(touched))
    sizes = ndimage.sum(mask, labels, range(1, labels.max() + 1))
    small = {index for index, count in enumerate(sizes, start=1) if count < 0.05 * sizes.max()}
    mask &= ~np.isin(labels, list(small))
    weak = difference >= max(level, middle + ALONG * (peak - middle))
    return mask, ndimage.binary_propagation(mask, np.ones((3, 3), bool), mask | weak)


def _describe(
    here: np.ndarray,
    background: np.ndarray,
    source: Background,
    mask: np.ndarray,
    further: np.ndarray,
    window: tuple[slice, slice],
    picture: tuple[int, int],
) -> tuple[Description, tuple[float, float]]:
    from scipy import ndimage

    mask |= further & ndimage.binary_fill_holes(mask)  # what differs less inside is still no hole
    missing = source == "reference" and _contrast(here, mask) < MISSING * _contrast(background, mask)
    if missing:  # as far as `SLACK`, what is next to it in the reference hid its rim
        mask, further = (ndimage.binary_dilation(pixels, iterations=SLACK) for pixels in (mask, further))
    shape, angle, length, width = _shape(mask, picture)
    if shape == "line":
        # A faint stretch belongs to the line as long as the whole is still one, and hardly wider.
        whole = _shape(further, picture)
        if whole[0] == "line" and whole[2] > length and whole[3] <= 1.5 * width:
            mask, (shape, angle, length, width) = further, whole
    main, count, length = _main(mask, shape, length, width, picture)
    core = _core(mask)
    inside, behind = np.median(here[core], axis=0), np.median(background[core], axis=0)
    grey, grey_behind = _luminance(inside[0]), _luminance(behind[0])
    tone = (grey - grey_behind) / max(grey_behind, 2.0)
    colour = (float(inside[1] - behind[1]), float(inside[2] - behind[2]))
    name = colour_name(*(float(value) for value in inside))
    # What is lighter than its ground is not called black, nor white what is darker, however little light there is.
    name = {("black", True): "dark grey", ("white", False): "light grey"}.get((name, tone > 0), name)
    rows, columns = np.nonzero(main)
    top, left = window[0].start, window[1].start
    box = (
        int(left + columns.min()),
        int(top + rows.min()),
        int(left + columns.max() + 1),
        int(top + rows.max() + 1),
    )
    # An arc or a bent line may leave the middle of its box empty: its pixel nearest to there tells where it is.
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    xs, ys = left + columns + 0.5, top + rows + 0.5
    nearest = np.hypot(xs - middle[0], ys - middle[1]).argmin()
    area = int(mask.sum())
    own = Description(
        box=box,
        background=source,
        tone=round(float(tone), 3),
        colour=(round(colour[0], 1), round(colour[1], 1)),
        colour_change=colour_change(colour, (float(behind[1]), float(behind[2]))),
        colour_name=name,
        texture=_texture(here, background, source, mask),
        edge=_edge(here, background, mask) if width >= MEASURABLE else None,
        shape=shape,
        angle=angle,
        length=round(length, 1),
        width=round(width, 1),
        area=area,
        share=round(area / (picture[0] * picture[1]), 5),
        count=count,
        missing=missing,
    )
    return own, middle if shape == "ring" else (float(xs[nearest]), float(ys[nearest]))


def _main(
    mask: np.ndarray, shape: Shape, length: float, width: float, picture: tuple[int, int]
) -> tuple[np.ndarray, int, float]:
    """Pixels of the largest piece, number of pieces, length of the largest. Gaps that the eye closes part no pieces.

    A line goes on beyond a gap of up to twice `GAP` pixels, or its double width if that is less, in pieces as wide as it is.
    """
    from scipy import ndimage

    wide = np.ones((3, 3), int)
    pieces, count = ndimage.label(mask, wide)
    largest = np.bincount(pieces[mask]).argmax()
    if shape != "line":
        _, count = ndimage.label(ndimage.binary_dilation(mask, iterations=SLACK), wide)
        return pieces == largest, count, length
    near, _ = ndimage.label(ndimage.binary_dilation(mask, iterations=max(1, min(GAP, round(width)))), wide)
    main = pieces == largest
    for piece in np.unique(pieces[mask & (near == near[main][0])]):
        own = _shape(pieces == piece, picture)
        if piece != largest and own[0] == "line" and max(own[3], width) <= 1.5 * min(own[3], width):
            main, count, length = main | (pieces == piece), count - 1, length + own[2]
    return main, count, length


def _core(mask: np.ndarray) -> np.ndarray:
    """The pixels away from the rim, or all where there are few."""
    from scipy import ndimage

    inner: np.ndarray = ndimage.binary_erosion(mask)
    return inner if inner.sum() >= 12 else mask


def _contrast(lab: np.ndarray, mask: np.ndarray) -> float:
    """Distance in CIELAB between the pixels and what is next to them; infinite where nothing is."""
    from scipy import ndimage

    near = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask, iterations=2)
    if not near.any():
        return math.inf
    return float(np.linalg.norm(np.median(lab[_core(mask)], axis=0) - np.median(lab[near], axis=0)))


def _luminance(lightness: float) -> float:
    """Grey value (0 to 255) of a neutral pixel of this L*: what an inspector's histogram shows."""
    y = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3
    return 255 * (1.055 * y ** (1 / 2.4) - 0.055 if y > 0.0031308 else 12.92 * y)


def _texture(here: np.ndarray, background: np.ndarray, source: Background, mask: np.ndarray) -> float | None:
    """Fine contrast inside (pixels away from the rim) in units of the background's; None if it cannot be measured."""
    from scipy import ndimage

    inner = ndimage.binary_erosion(mask, iterations=4)  # four standard deviations: the rim is no texture
    outer = ~ndimage.binary_dilation(mask, iterations=4)
    if inner.sum() < 40 or outer.sum() < 40:
        return None

    def fine(lab: np.ndarray, where: np.ndarray) -> float:
        return float(np.std((lab[..., 0] - ndimage.gaussian_filter(lab[..., 0], 1))[where]))

    usual = fine(background, inner) if source == "reference" else fine(here, outer)
    return round((fine(here, inner) + 0.2) / (usual + 0.2), 2)


def _edge(here: np.ndarray, background: np.ndarray, mask: np.ndarray) -> float:
    """Share of the step between region and background that is passed within two pixels of the rim."""
    from scipy import ndimage

    offset = here - background
    inner = ndimage.binary_erosion(mask, iterations=3)
    deep = offset[inner] if inner.any() else offset[mask]
    outer = ~ndimage.binary_dilation(mask, iterations=3)
    direction = np.median(deep, axis=0) - (np.median(offset[outer], axis=0) if outer.any() else 0)
    size = float(np.linalg.norm(direction))
    if size < 1e-6:
        return 0.0
    along = offset @ (direction / size)
    inside = mask & ~ndimage.binary_erosion(mask)
    just_in = mask & ~ndimage.binary_erosion(mask, iterations=2) & ~inside
    outside = ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_dilation(mask)
    rim_in = just_in if just_in.any() else inside
    if not outside.any():
        return 0.0
    return round(float(np.clip((np.median(along[rim_in]) - np.median(along[outside])) / size, 0, 1)), 2)


def _shape(mask: np.ndarray, picture: tuple[int, int]) -> tuple[Shape, float | None, float, float]:
    """Shape, angle of a line, length and width of the largest piece."""
    from skimage.measure import label, regionprops

    piece = max(regionprops(label(mask, connectivity=2)), key=lambda p: p.area)
    area = float(piece.area)
    length, width = _extents(piece)
    if 1 - area / piece.image_filled.sum() >= HOLE:
        return "ring", None, length, width
    if area / (picture[0] * picture[1]) >= AREA:
        return "area", None, length, width
    # regionprops counts from the vertical axis, counter-clockwise.
    angle = float(round(math.degrees(piece.orientation) + 90) % 180)
    from scipy import ndimage

    thick = 2 * float(ndimage.distance_transform_edt(np.pad(piece.image, 1)).max())
    slim = length >= SLIM * width or piece.solidity < BENT
    if slim and length * length / area >= _line_from(area / length) and thick <= STRIP * area / length:
        straight = width <= 3 * area / length
        return "line", angle if straight else None, length, area / length
    if piece.solidity < BENT:
        # A bent strip of length L and width w has the area L w and the perimeter 2 (L + w).
        half = piece.perimeter / 2
        along = (half + math.sqrt(max(0.0, half * half - 4 * area))) / 2
        if along * along / area >= _line_from(area / along) and thick <= STRIP * area / along:
            return "line", None, along, area / along
    compact = length / width <= ROUND and piece.solidity >= SOLID
    # Below 30 pixels a disc and a square cannot be distinguished.
    if compact and (DISC[0] <= piece.extent <= DISC[1] or area < 30):
        return "round spot", None, length, width
    return "spot", None, length, width


def _line_from(width: float) -> float:
    """Ratio of length to width from which something as wide as this is a line."""
    return LINE if width < MEASURABLE else 2 * LINE


def _extents(piece: Any) -> tuple[float, float]:
    """Length and width of a piece in pixels: along its principal axes, or of its box where it has no clear axis."""
    rows, columns = piece.coords[:, 0], piece.coords[:, 1]
    if piece.axis_major_length <= 1.25 * piece.axis_minor_length:
        sides = (np.ptp(rows) + 1, np.ptp(columns) + 1)
    else:
        along = rows * math.cos(piece.orientation) + columns * math.sin(piece.orientation)
        across = columns * math.cos(piece.orientation) - rows * math.sin(piece.orientation)
        sides = (np.ptp(along) + 1, np.ptp(across) + 1)
    return float(max(sides)), float(min(sides))


def colour_name(lightness: float, a: float, b: float) -> str:
    """Name of a colour in CIELAB: "black", "light grey", "dark red", ..."""
    chroma, hue = math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360
    if chroma < NEUTRAL:
        if lightness < 18:
            return "black"
        if lightness > 93:
            return "white"
        return "dark grey" if lightness < 42 else "light grey" if lightness > 74 else "grey"
    if hue < 20 or hue >= 345:
        name = "pink" if lightness > 65 else "red"
    elif hue < 50:
        name = "red" if chroma > 45 and lightness < 62 else "brown" if lightness < 60 else "orange"
    elif hue < 80:
        name = "brown" if lightness < 62 else "orange" if chroma > 45 else "beige"
    elif hue < 112:
        name = "olive" if lightness < 55 else "yellow" if chroma > 30 else "beige"
    elif hue < 190:
        name = "green"
    elif hue < 235:
        name = "turquoise"
    elif hue < 312:
        name = "blue"
    else:
        name = "purple"
    return f"dark {name}" if lightness < 30 else name


def orientation_word(angle: float) -> str:
    """A line's direction in a word: within 15 degrees of horizontal or vertical, else diagonal."""
    if angle <= 15 or angle >= 165:
        return "horizontal"
    return "vertical" if 75 <= angle <= 105 else "diagonal"


def colour_change(colour: tuple[float, float], behind: tuple[float, float]) -> str | None:
    """Change of colour in a word: "redder", "yellower", "greener", "bluer", "less colourful"; None below `COLOUR`."""
    a, b = colour
    if math.hypot(a, b) < COLOUR:
        return None
    was, now = math.hypot(*behind), math.hypot(behind[0] + a, behind[1] + b)
    if was >= NEUTRAL and now < 0.6 * was:
        return "less colourful"
    hue = math.degrees(math.atan2(b, a)) % 360
    for limit, word in ((45, "redder"), (135, "yellower"), (205, "greener"), (320, "bluer"), (360, "redder")):
        if hue < limit:
            return word
    raise AssertionError(hue)
