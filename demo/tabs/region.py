"""A field in which a visitor marks a region of a picture, with the mouse, by touch or by keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sage_ad.demo.services.pictures import boxes, data_uri
from sage_ad.vlm.errors import InputError

Box = tuple[int, int, int, int]

# All that is put in is numbers, and a picture as a data address; `${...}` evaluates nothing in them.
TEMPLATE = """${picture ? `<div class="sg-pick">
<p>Drag across the defect with the mouse, or tap two opposite corners.</p>
<div class="sg-stack" style="aspect-ratio: ${width} / ${height}; width: min(100%, ${Math.round(360 * width / height)}px)">
<img src="${picture}" alt="The picture in which to mark a region" draggable="false">${found.map(one => `
<span class="sg-box${one.top < 8 ? " sg-box-high" : ""}" style="left: ${one.left}%; top: ${one.top}%; width: ${one.width}%;
height: ${one.height}%"><b>${one.number}</b></span>`).join("")}
<i class="sg-picked" ${value ? `style="left: ${100 * value[0] / width}%; top: ${100 * value[1] / height}%;
width: ${100 * (value[2] - value[0]) / width}%; height: ${100 * (value[3] - value[1]) / height}%"` : "hidden"}></i></div>
<div class="sg-edges">${["Left", "Top", "Right", "Bottom"].map((name, edge) => `<label>${name}
<input type="number" min="0" max="${edge % 2 ? height : width}" value="${value ? value[edge] : ""}"></label>`).join("")}
<button type="button" ${value ? "" : "disabled"}>Undo</button></div></div>` : ""}"""


def region_field(elem_id: str) -> gr.HTML:
    """The field; its value is a box in pixels of the picture, or None. `input` comes when a visitor changes it."""
    script = Path(__file__).with_name("region.js").read_text(encoding="utf-8")
    empty: dict[str, Any] = {"picture": "", "width": 1, "height": 1, "found": []}
    return gr.HTML(None, html_template=TEMPLATE, js_on_load=script, elem_id=elem_id, visible=False, **empty)


def showing(
    picture: bytes, size: tuple[int, int], found: Sequence[Any] = (), box: Box | None = None,
    visible: bool = True,
) -> Any:  # fmt: skip
    """An update of the field.

    Args:
        picture: WebP bytes; it may be smaller than the original.
        size: width and height of the original in pixels.
        found: regions (`TraceRegion`) that an inspection found; drawn with their numbers.
        box: what is marked.
        visible: whether the field is shown.
    """
    about: dict[str, Any] = {"picture": data_uri(picture), "width": size[0], "height": size[1]}
    about["found"] = boxes(list(found), size)
    return gr.HTML(value=box, visible=visible, **about)


def marked_box(value: Any) -> Box | None:
    """The box that the browser sent; whether it lies in its picture is checked where it is used.

    Raises:
        InputError: it is no box.
    """
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 4 and all(type(edge) is int for edge in value)):
        raise InputError("The marked region cannot be read; mark it again.")
    if value[0] >= value[2] or value[1] >= value[3]:
        raise InputError("The marked region is empty; mark it again.")
    return value[0], value[1], value[2], value[3]
