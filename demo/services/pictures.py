"""Pictures as the page and the reports show them: scaled, in WebP, and small enough to travel inside the HTML.

The evidence is a layer of its own over the picture, so that its opacity can be changed while one looks; it has the
colours of `sage_ad.vlm.evidence.visualize`: clear below the threshold, yellow above it, dark red from twice the threshold on.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.agents.resources import View

SHOWN_SIDE = 760
"""Longer side of a shown picture in pixels."""

THUMBNAIL = 260
"""Longer side in pixels of the small pictures of a list."""

BOX_COLOUR = "#00a3d9"

_SHARES = (0.0, 1 / 3, 2 / 3, 1.0)
_COLOURS = np.array([(255, 221, 89), (253, 160, 44), (227, 53, 38), (140, 0, 30)], np.float32)


@dataclass(frozen=True)
class Shown:
    """The pictures of one inspection as WebP files in memory, and the regions in shares of width and height.

    Attributes:
        test, reference, heat: WebP bytes; `reference` is None when there was none.
        size: width and height of the original test image in pixels.
        references: how many good parts there were.
    """

    test: bytes
    reference: bytes | None
    heat: bytes
    size: tuple[int, int]
    references: int


def shown(view: View) -> Shown:
    """Test, first reference and evidence layer of an inspected part."""
    return Shown(
        test=webp(fitted(view.image)),
        reference=webp(fitted(view.references[0])) if view.references else None,
        heat=webp(fitted(heat_layer(view.evidence.map, view.evidence.threshold))),
        size=view.image.size,
        references=len(view.references),
    )


def heat_layer(evidence: np.ndarray, threshold: float) -> Image.Image:
    """An RGBA picture of an evidence map (H, W): transparent up to the threshold, opaque at twice the threshold."""
    from PIL import Image

    above = np.clip(evidence / max(threshold, 1e-9) - 1.0, 0.0, 1.0)
    layer = np.empty((*evidence.shape, 4), np.float32)
    for channel in range(3):
        layer[..., channel] = np.interp(above, _SHARES, _COLOURS[:, channel])
    layer[..., 3] = np.where(above > 0, 255 * (0.6 + 0.4 * above), 0)
    return Image.fromarray(np.rint(layer).astype(np.uint8), "RGBA")


def fitted(image: Image.Image, side: int = SHOWN_SIDE) -> Image.Image:
    """The picture scaled down so that its longer side has at most `side` pixels."""
    from PIL import Image

    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def marked(path: Path, box: Sequence[int] | None, side: int = THUMBNAIL) -> Image.Image:
    """A small copy of a picture with a box drawn into it."""
    from PIL import ImageDraw

    from sage_ad.vlm.images import load_image

    image = load_image(path)
    small = fitted(image, side)
    if box is not None:
        scale = small.width / image.width
        ImageDraw.Draw(small).rectangle([round(edge * scale) for edge in box], outline=BOX_COLOUR, width=2)
    return small


def webp(image: Image.Image) -> bytes:
    """The picture as WebP; nothing that a camera or program noted in the file goes along."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=86, method=2)
    return stream.getvalue()


def data_uri(picture: bytes) -> str:
    """WebP bytes as an address that carries the picture itself."""
    return "data:image/webp;base64," + base64.b64encode(picture).decode()


def boxes(regions: list[Any], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Regions (`TraceRegion`) for drawing: numbered, with left, top, width and height in per cent of the picture."""
    width, height = size
    drawn = []
    for number, region in enumerate(regions, start=1):
        x0, y0, x1, y1 = region.box
        drawn.append(
            {
                "number": number,
                "place": region.place,
                "score": region.score,
                "left": round(100 * x0 / width, 2),
                "top": round(100 * y0 / height, 2),
                "width": round(100 * (x1 - x0) / width, 2),
                "height": round(100 * (y1 - y0) / height, 2),
                "box": (x0, y0, x1, y1),
            }
        )
    return drawn
