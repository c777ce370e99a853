"""The evidence picture: test, reference and overlay with boxes, side by side, in absolute colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from sage_ad.vlm.evidence.extractor import Evidence

PANEL = 420
_GAP, _HEAD, _FOOT = 12, 34, 58
_GROUND, _INK, _FAINT = (250, 250, 248), (28, 30, 33), (105, 110, 117)
_BOX = (0, 190, 255)
# From "just above the threshold" to "twice the threshold and more": yellow, orange, red, dark red.
_COLOURS = np.array([(255, 221, 89), (253, 160, 44), (227, 53, 38), (140, 0, 30)], np.float32)


def overlay(image: Image.Image, evidence: Evidence) -> Image.Image:
    """The picture with its evidence laid over it: clear below the threshold, dark red at twice the threshold.

    The colours are absolute: the same distance has the same colour in every picture, and a normal part stays clear.
    """
    from PIL import Image

    base = np.asarray(image.convert("RGB"), np.float32)
    above = np.clip(evidence.map / max(evidence.threshold, 1e-9) - 1.0, 0.0, 1.0)
    colour = _colour(above)
    opacity = np.where(above > 0, 0.25 + 0.4 * above, 0.0)[..., None]
    mixed = base * (1 - opacity) + colour * opacity
    return Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))


def evidence_picture(test: Image.Image, references: Sequence[Image.Image], evidence: Evidence) -> Image.Image:
    """Test, first reference (if there is one) and overlay with boxes, side by side, with captions.

    Args:
        test: the inspected picture.
        references: its references; the first is shown.
        evidence: what was measured on `test`.

    Returns:
        An RGB picture, its panels at most 420 pixels wide and high.
    """
    from PIL import Image, ImageDraw

    panels = [("Test", _fit(test))]
    if references:
        more = f" (1 of {len(references)})" if len(references) > 1 else ""
        panels.append((f"Reference{more}", _fit(references[0])))
    panels.append(("Evidence", marked_picture(test, evidence, PANEL)))

    width = sum(panel.width for _, panel in panels) + _GAP * (len(panels) + 1)
    height = _HEAD + max(panel.height for _, panel in panels) + _FOOT
    canvas = Image.new("RGB", (max(width, 2 * PANEL), height), _GROUND)
    draw = ImageDraw.Draw(canvas)
    x = _GAP
    for caption, panel in panels:
        draw.text((x, 9), caption, fill=_INK, font=_font(16))
        canvas.paste(panel, (x, _HEAD))
        x += panel.width + _GAP
    _draw_foot(draw, evidence, height)
    return canvas


def marked_picture(test: Image.Image, evidence: Evidence, side: int = 768) -> Image.Image:
    """The picture with its evidence laid over it and its regions in numbered boxes, scaled to `side` pixels."""
    marked = _fit(overlay(test, evidence), side)
    _draw_boxes(marked, evidence, marked.width / test.width, marked.height / test.height)
    return marked


def _colour(share: np.ndarray) -> np.ndarray:
    """(H, W) shares from 0 to 1 to (H, W, 3) colours."""
    position = share * (len(_COLOURS) - 1)
    low = np.minimum(position.astype(int), len(_COLOURS) - 2)
    rest = (position - low)[..., None]
    return _COLOURS[low] * (1 - rest) + _COLOURS[low + 1] * rest


def _fit(image: Image.Image, side: int = PANEL) -> Image.Image:
    """The picture scaled (up or down) so that its longer side has `side` pixels, its shape kept."""
    from PIL import Image

    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _draw_boxes(panel: Image.Image, evidence: Evidence, scale_x: float, scale_y: float) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(panel)
    for number, region in enumerate(evidence.regions, start=1):
        x0, y0, x1, y1 = region.box
        # A box of a few pixels is widened a little, so that its frame does not hide what it shows.
        box = [
            max(0, x0 * scale_x - 3),
            max(0, y0 * scale_y - 3),
            min(panel.width - 1, x1 * scale_x + 2),
            min(panel.height - 1, y1 * scale_y + 2),
        ]
        draw.rectangle(box, outline=_BOX, width=2)
        left = min(box[0], panel.width - 16)  # the number of a box at the right edge stays within the picture
        tag = (left, box[1] - 17) if box[1] >= 18 else (left, min(box[3] + 1, panel.height - 17))
        draw.rectangle([tag[0], tag[1], tag[0] + 15, tag[1] + 16], fill=_BOX)
        draw.text((tag[0] + 4, tag[1] + 1), str(number), fill=_INK, font=_font(13))


def _draw_foot(draw: ImageDraw.ImageDraw, evidence: Evidence, height: int) -> None:
    sign = ">" if evidence.verdict == "anomalous" else "<="
    line = f"{evidence.verdict}: score {evidence.score:.3f} {sign} threshold {evidence.threshold:.3f} "
    sources = {"references": "from the references", "batch": "from the other parts of the batch"}
    line += f"({sources.get(evidence.threshold_from, 'built in, no reference')})"
    places = [f"{number} {region.place}" for number, region in enumerate(evidence.regions, start=1)]
    draw.text((_GAP, height - _FOOT + 9), line, fill=_INK, font=_font(15))
    second = "regions: " + ", ".join(places) if places else "no region above the threshold"
    draw.text((_GAP, height - _FOOT + 31), second, fill=_FAINT, font=_font(14))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
