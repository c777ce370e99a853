"""Pieces that several tabs build their pages from: picture fields, the list of domains, the shipped examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.safety import PICTURE_ENDINGS

if TYPE_CHECKING:
    from demo.engine import Engine

EXAMPLES_FOLDER = Path(__file__).parent / "examples"
# name of the files, caption, product, domain; all are synthetic parts drawn for this project (tools/demo_examples.py)
EXAMPLES = (
    ("cell", "Solar cell", "solar cell", "photovoltaics"),
    ("capsule", "Capsule", "capsule", "pharmaceuticals"),
    ("tile", "Tile, eight good ones", "ceramic tile", "ceramics"),
)


class PartImage(gr.Image):
    """A picture field that hands over the file as it was uploaded: depth and orientation are read by `vlm.images`."""

    is_template = True  # the browser draws it as the plain gr.Image

    def __init__(self, **settings: Any) -> None:
        super().__init__(type="filepath", image_mode=None, sources=["upload", "webcam", "clipboard"], **settings)

    def get_config(self, cls: type[Any] | None = None) -> dict[str, Any]:
        """The settings of a plain picture field (Gradio reads their names from the class's own constructor)."""
        return super().get_config(cls or gr.Image)

    def preprocess(self, payload: Any) -> str | None:
        """The path of the upload; what is no picture is refused later, in one sentence."""
        return payload.path if payload is not None else None


def reference_gallery(label: str, elem_id: str) -> gr.Gallery:
    """A field for any number of good parts."""
    return gr.Gallery(
        label=label,
        elem_id=elem_id,
        type="filepath",
        columns=4,
        height=150,
        object_fit="cover",
        allow_preview=False,
        interactive=True,
        file_types=[*PICTURE_ENDINGS],
        sources=["upload"],
        buttons=[],
    )


def domain_list(engine: Engine, label: str = "Domain", empty: str = "found by the product's name") -> gr.Dropdown:
    """The packs to choose from; read anew whenever the page is opened."""

    def choices() -> gr.Dropdown:
        return gr.Dropdown(choices=[(empty, ""), *engine.domain_choices()])

    field = gr.Dropdown([(empty, ""), *engine.domain_choices()], value="", label=label)
    if (page := gr.context.Context.root_block) is not None:
        page.load(choices, None, field, api_visibility="private", show_progress="hidden")
    return field


class Examples:
    """Pictures to try at once: choosing one fills the fields."""

    def __init__(self, image: gr.Image, references: gr.Gallery, product: gr.Textbox, domain: gr.Dropdown) -> None:
        self.gallery = gr.Gallery(
            value=[(str(EXAMPLES_FOLDER / f"{name}-test.jpg"), caption) for name, caption, _, _ in EXAMPLES],
            label="Or try one of these synthetic parts",
            elem_id="examples",
            columns=3,
            height=150,
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
        )
        self.gallery.select(
            self.fill, None, [image, references, product, domain], api_visibility="private", show_progress="hidden"
        )

    @staticmethod
    def fill(chosen: gr.SelectData) -> tuple[str, list[str], str, str]:
        """Pictures and names of the chosen example."""
        name, _, product, domain = EXAMPLES[int(chosen.index)]
        goods = sorted(EXAMPLES_FOLDER.glob(f"{name}-good-*.jpg"))
        return str(EXAMPLES_FOLDER / f"{name}-test.jpg"), [str(path) for path in goods], product, domain
