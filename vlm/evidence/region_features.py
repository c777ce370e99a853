"""What a region of a picture looks like, as vectors: the picture's texture, its conspicuous patches, a close-up of them,
and whether it is darker or lighter than a good part.

These vectors compare defects of one product with each other (`sage_ad.knowledge.looks`). They are deeper features than
those that find a defect: finding needs fine detail, naming needs context. Which levels and pools were compared, and with
what result, is in docs/looks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sage_ad.vlm.evidence.encoders import DEFAULT_SIZE, EfficientNetLite2, one_thread, to_tensor, working_size

if TYPE_CHECKING:
    from PIL.Image import Image

    from sage_ad.vlm.evidence.encoders import PatchEncoder

Box = tuple[int, int, int, int]

VERSION = 3
"""Raise it when the vectors change: caches of older ones are then not read."""

HOT_SHARE = 0.015
"""Share of a picture's patches, the most conspicuous ones, that stand for its defect."""

CLOSE_UP = 224
"""Side in pixels at which the close-up is encoded."""

MARGIN = 1.6
"""Side of the close-up in units of the region's longer side."""

SMALLEST = 0.2
"""Side of the smallest close-up, as a share of the picture's shorter side."""

FOCUS = 0.22
"""Standard deviation of the window that weighs the close-up's middle most, as a share of its side."""

GREY, GREY_SIDE = 6.0, 64
"""Grey levels that always count as noise, and side in pixels at which a close-up is held against a reference."""

PLAIN = 6.0
"""How many times the usual difference around it a region must be darker or lighter to count fully."""


class RegionFeatures(NamedTuple):
    """Float32 vectors of one region; the parts of a vector that come from one level of the network have unit length.

    Attributes:
        spread: standard deviation over the picture, which tells textures apart better than the mean does.
        region: mean over the conspicuous patches.
        close_up: the region enlarged, its middle weighing most.
        tone: one number from -1 (plainly darker than a good part at the same place) to 1; 0 where no reference matches.
    """

    spread: np.ndarray
    region: np.ndarray
    close_up: np.ndarray
    tone: np.ndarray


def region_features(
    encoder: PatchEncoder,
    image: Image,
    *,
    heat: np.ndarray | None = None,
    box: Box | None = None,
    references: Sequence[Image] = (),
) -> RegionFeatures:
    """Vectors of the region in a box, or of the most conspicuous one.

    Args:
        encoder: the encoder of the evidence; the embedded one is read deeper than for evidence.
        image: the part.
        heat: (h, w) evidence of the patches (`Evidence.distances`), on any grid; used where there is no box.
        box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        references: good parts.

    Raises:
        ValueError: neither heat nor box was given.
    """
    if box is None:
        if heat is None:
            raise ValueError("region_features needs a heat or a box.")
        weights, box = hottest(heat), hot_box(heat, image.width, image.height)
    else:
        weights = _covered(box, image.width, image.height, encoder.offset)
    if isinstance(encoder, EfficientNetLite2):
        with one_thread():
            picture = _deep_levels(encoder, image, DEFAULT_SIZE)
            close = _deep_levels(encoder, image.crop(close_up_box(box, *image.size)), CLOSE_UP)[-1:]
    else:
        picture = [encoder.encode([image])[0].cpu().numpy()]
        close = [encoder.encode([image.crop(close_up_box(box, *image.size))])[0].cpu().numpy()]
    return RegionFeatures(
        _joined([level.std(axis=(0, 1)) for level in picture]),
        _joined([_weighted(level, weights) for level in picture]),
        _joined([_weighted(level, _window(*level.shape[:2])) for level in close]),
        tone(image, references, close_up_box(box, *image.size)),
    )


def tone(image: Image, references: Sequence[Image], box: Box) -> np.ndarray:
    """How much darker (negative) or lighter the middle of a close-up is than a good part at the same place, (1,) float32.

    The reference that is most alike there counts. What differs most in the middle is held against the usual difference in
    the close-up, so that a part that lies otherwise than its reference has no tone rather than a wrong one.
    """
    if not references:
        return np.zeros(1, np.float32)
    here = _grey(image, box, image.size)
    there = min(
        (_grey(other, box, image.size) for other in references), key=lambda grey: float(abs(here - grey).mean())
    )
    change = here - there
    change -= np.median(change)
    usual = 1.4826 * float(np.median(abs(change))) + GREY
    window = _window(*change.shape)
    weighed = change * window
    most = abs(weighed) >= 0.5 * abs(weighed).max()
    mean = float(weighed[most].sum() / window[most].sum())
    return np.clip(np.array([mean / (PLAIN * usual)], np.float32), -1, 1)


def _grey(picture: Image, box: Box, size: tuple[int, int]) -> np.ndarray:
    """(GREY_SIDE, GREY_SIDE) grey values of the place that a box in a picture of `size` stands for."""
    from PIL import Image

    across, down = picture.width / size[0], picture.height / size[1]
    part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    small = picture.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BICUBIC, box=part)
    return np.asarray(small, np.float32)


def hottest(heat: np.ndarray) -> np.ndarray:
    """(h, w) 1 at the most conspicuous patches, else 0."""
    values = np.asarray(heat, np.float32)
    count = max(1, round(HOT_SHARE * values.size))
    weights = np.zeros(values.size, np.float32)
    weights[np.argsort(-values, axis=None, kind="stable")[:count]] = 1
    return weights.reshape(values.shape)


def hot_box(heat: np.ndarray, width: int, height: int) -> Box:
    """Box in pixels of the part around the highest peak that reaches half-way from the median up to it.

    It takes cells for what they see; `PatchEncoder.offset` made no better names here (docs/looks.md).
    """
    from scipy import ndimage

    smooth = ndimage.uniform_filter(np.asarray(heat, np.float32), 3)
    middle, peak = float(np.median(smooth)), float(smooth.max())
    labels, _ = ndimage.label(smooth >= middle + 0.5 * (peak - middle))
    at = np.unravel_index(int(smooth.argmax()), smooth.shape)
    rows, columns = np.nonzero(labels == labels[at])
    down, across = height / smooth.shape[0], width / smooth.shape[1]
    return (
        int(columns.min() * across),
        int(rows.min() * down),
        min(width, round((columns.max() + 1) * across)),
        min(height, round((rows.max() + 1) * down)),
    )


def close_up_box(box: Box, width: int, height: int) -> Box:
    """Square around a box, inside the picture."""
    x0, y0, x1, y1 = box
    short = min(width, height)
    side = min(max(MARGIN * max(x1 - x0, y1 - y0), SMALLEST * short, 48), short)
    left = min(max((x0 + x1 - side) / 2, 0), width - side)
    top = min(max((y0 + y1 - side) / 2, 0), height - side)
    return round(left), round(top), round(left + side), round(top + side)


def _covered(box: Box, width: int, height: int, offset: float, side: int = 40) -> np.ndarray:
    """(side, side) share that a box covers of what each cell sees."""
    shares = []
    for low, high, length in ((box[1], box[3], height), (box[0], box[2], width)):
        edges = np.linspace(0, length, side + 1) - offset * length / side
        overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        shares.append(np.clip(overlap, 0, None) * side / length)
    covered: np.ndarray = np.outer(*shares).astype(np.float32)
    return covered


def _window(height: int, width: int) -> np.ndarray:
    """(height, width) weights that are highest in the middle."""
    bells = [np.exp(-(((np.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * FOCUS**2)) for n in (height, width)]
    window: np.ndarray = np.outer(*bells).astype(np.float32)
    return window


def _weighted(level: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of (h, w, C) under weights on any grid."""
    import torch
    import torch.nn.functional as F

    grid = torch.from_numpy(weights)[None, None]
    if grid.shape[-2:] != level.shape[:2]:
        fewer = level.shape[0] <= weights.shape[0]
        size = level.shape[:2]
        grid = F.adaptive_avg_pool2d(grid, size) if fewer else F.interpolate(grid, size, mode="bilinear")
    share = (grid / grid.sum().clamp_min(1e-9))[0, 0].numpy()
    mean: np.ndarray = np.tensordot(share, level, axes=2)
    return mean


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    units = [part / (np.linalg.norm(part) + 1e-9) for part in parts]
    vector: np.ndarray = np.concatenate(units).astype(np.float32)
    return vector


def _deep_levels(encoder: EfficientNetLite2, image: Image, size: int) -> list[np.ndarray]:
    """Raw features (h, w, C) at the ends of three stages: 88 and 120 channels at stride 16, 208 at 32."""
    import torch

    width, height = working_size(*image.size, size, multiple=32)
    with torch.inference_mode():
        levels = encoder.levels(to_tensor(image, width, height), until="32 early")
    return [levels[name][0].permute(1, 2, 0).float().cpu().numpy() for name in ("16 early", "16", "32 early")]
