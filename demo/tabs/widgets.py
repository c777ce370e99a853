"""Pieces that several tabs build their pages from: picture fields, the list of domains, the shipped examples."""

from __future__ import annotations

import importlib.util
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.pictures import fitted
from sage_ad.demo.view.report import download_folder, upload_folder
from sage_ad.vlm.errors import SageError
from sage_ad.vlm.pictures.formats import ENDINGS

if TYPE_CHECKING:
    from gradio.events import Dependency

    from sage_ad.demo.services.engine import Engine

EXAMPLES_FOLDER = Path(__file__).parents[1] / "examples"


class Example(NamedTuple):
    """A part to try, with good parts beside it."""

    caption: str
    product: str
    domain: str
    part: Path
    goods: list[Path]


def examples() -> list[Example]:
    """A real cell if the package elpv-dataset is there, and parts drawn for this project (tools/demo_examples.py)."""
    drawn = (
        ("cell", "Cell", "solar cell", "photovoltaics"),
        ("capsule", "Capsule", "capsule", "pharmaceuticals"),
        ("tile", "Tile", "ceramic tile", "ceramics"),
    )
    found = [
        Example(caption, product, domain, EXAMPLES_FOLDER / f"{name}-test.jpg",
                sorted(EXAMPLES_FOLDER.glob(f"{name}-good-*.jpg")))
        for name, caption, product, domain in drawn
    ]  # fmt: skip
    if (cells := real_cells()) is not None:
        goods = [cells / "cell0532.png"]
        found.insert(0, Example("Real cell", "solar cell", "photovoltaics", cells / "cell0404.png", goods))
    return found


def real_cells() -> Path | None:
    """Folder of the cells of the package elpv-dataset (electroluminescence, CC BY-NC-SA 4.0), if it is installed."""
    spec = importlib.util.find_spec("elpv_dataset")
    return (
        Path(next(iter(spec.submodule_search_locations))) / "data/images"
        if spec and spec.submodule_search_locations
        else None
    )


DISPLAYED = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".avif")
"""Endings of pictures that browsers display."""

FAILED = (
    "This failed for a reason that was not foreseen (the server's log has it). If the page was open for long, choose "
    " the pictures again, for uploads are deleted after a while; else please try again."
)
"""What a tab says when its work ends in an error that is none of ours; `Dependency.failure` brings it."""


STOP_SECONDS = 30
"""A failure that is reported so soon after Stop is that of the cancelled work."""


def stoppable(
    running: Dependency, button: gr.Button, stopped: Callable[[], Any], failed: Callable[[], Any], outputs: list[Any]
) -> None:
    """Lets a button stop a work, and says so if the work fails by itself.

    Gradio reports work that was cancelled as failed; such a report is passed over.

    Args:
        running: the event whose work it is.
        button: stops it.
        stopped, failed: what the page shows afterwards.
        outputs: the components that these two change.
    """
    pressed: dict[str | None, float] = {}

    def on_stop(request: gr.Request) -> Any:
        pressed[request.session_hash] = time.monotonic()
        return stopped()

    def on_failure(request: gr.Request) -> Any:
        by_button = time.monotonic() - pressed.pop(request.session_hash, -math.inf) < STOP_SECONDS
        return gr.skip() if by_button else failed()

    running.failure(on_failure, None, outputs, api_visibility="private", show_progress="hidden")
    button.click(on_stop, None, outputs, cancels=[running], api_visibility="private", queue=False)


def part_image(engine: Engine, label: str, elem_id: str, height: int = 250) -> gr.Image:
    """A picture field that hands over the file as it was uploaded and refuses at once what cannot be inspected."""
    field = gr.Image(
        label=label,
        elem_id=elem_id,
        height=height,
        type="filepath",
        image_mode=None,  # depth and orientation are read by sage_ad.vlm.images
        sources=["upload", "webcam", "clipboard"],
        alt_text="The picture that you chose",
        placeholder="Drop a picture here, or click to choose one",
    )

    whole = field.preprocess

    def as_uploaded(payload: Any) -> Any:
        """Path of the upload; Gradio would open it first and fail at formats that Pillow does not know."""
        is_file = payload is not None and payload.path and not (payload.url or "").startswith("data:")
        return original_of(str(payload.path)) if is_file else whole(payload)

    field.preprocess = as_uploaded  # type: ignore[method-assign]  # a subclass would make Gradio write a stub beside this file

    def shown(path: str) -> str | None:
        """What the field shows of an upload: nothing, if it cannot be used."""
        if not usable(engine, path):
            return None
        return path if Path(path).suffix.lower() in DISPLAYED else preview_of(path)

    def check(payload: dict[str, Any] | None) -> Any:
        path = payload and shown(payload["path"])
        return gr.skip() if payload is None or path == payload["path"] else path

    field.upload(check, field, field, preprocess=False, show_progress="hidden", api_visibility="private")
    # Browsers let only what they call an image into the field above; DICOM, for one, is not.
    other = gr.UploadButton("DICOM or another format", file_types=[*ENDINGS], size="sm", elem_id=f"{elem_id}-other")
    other.upload(shown, other, field, show_progress="hidden", api_visibility="private")
    return field


def preview_of(path: str) -> str:
    """A PNG of an upload that browsers cannot display; its name says which upload it shows (see `original_of`)."""
    from sage_ad.vlm.images import load_image

    original = Path(path)
    preview = download_folder() / f"{original.name}.{original.parent.name}.preview.png"
    fitted(load_image(original)).save(preview)
    return str(preview)


def original_of(path: str) -> str:
    """The upload that a file of `preview_of` shows; any other path as it is."""
    found = re.fullmatch(r"(.+)\.([0-9a-f]{64})\.preview\.png", Path(path).name)
    return path if found is None else str(upload_folder() / found[2] / found[1])


def usable(engine: Engine, path: str) -> bool:
    """Whether an upload is a picture that can be inspected; if not, the visitor reads why."""
    try:
        checked_picture(engine, path)
    except SageError as error:
        gr.Warning(safety.escaped(str(error)), title="This picture cannot be used", duration=8)
        return False
    return True


def checked_picture(engine: Engine, path: str) -> Path:
    """An upload within the limits of the settings; raises `InputError` with what is wrong with it."""
    settings = engine.settings
    limits = {"max_bytes": settings.max_megabytes * 2**20, "max_pixels": settings.max_pixels}
    return safety.check_picture(path, Path(gr.utils.get_upload_folder()), **limits)


def reference_gallery(engine: Engine, label: str, elem_id: str) -> gr.Gallery:
    """A field for any number of good parts; what cannot be used is taken out again, with the reason."""
    field = gr.Gallery(
        label=label,
        elem_id=elem_id,
        elem_classes="sg-goods",
        type="filepath",
        columns=4,
        height=150,
        object_fit="contain",
        allow_preview=False,
        interactive=True,
        file_types=[*ENDINGS],
        sources=["upload"],
        buttons=[],
    )

    def check(chosen: list[Any] | None) -> Any:
        kept = [path for path in safety.reference_paths(chosen) if usable(engine, path)]
        return gr.skip() if len(kept) == len(chosen or []) else kept or None

    field.upload(check, field, field, show_progress="hidden", api_visibility="private")
    return field


def domain_list(engine: Engine, label: str = "Domain", empty: str = "automatic") -> gr.Dropdown:
    """The packs to choose from; read anew whenever the page is opened."""

    def choices() -> gr.Dropdown:
        return gr.Dropdown(choices=[(empty, ""), *engine.domain_choices()])

    field = gr.Dropdown([(empty, ""), *engine.domain_choices()], value="", label=label, min_width=170)
    if (page := gr.context.Context.root_block) is not None:
        page.load(choices, None, field, api_visibility="private", show_progress="hidden")
    return field


# Unless the user has gone on to another field in the meantime: what is typed there would be lost.
NEXT_BUTTON = """() => {
  const now = document.activeElement;
  if (!now || now === document.body || now.closest("#%s")) document.getElementById("%s")?.focus();
}"""


class Examples:
    """Pictures to try at once: choosing one fills the fields and goes to the button that begins.

    Args:
        image, references, product, domain: the fields to fill.
        elem_id: id of the gallery.
        button: id of the button that begins.
    """

    def __init__(
        self, image: gr.Image, references: gr.Gallery, product: gr.Textbox, domain: gr.Dropdown, *,
        elem_id: str, button: str,
    ) -> None:  # fmt: skip
        gr.HTML(
            "<p class='sg-label'>Try one of these (the real cell is of elpv-dataset, CC BY-NC-SA 4.0; the others are drawn)</p>"
        )
        self.gallery = gr.Gallery(
            value=[(str(example.part), example.caption) for example in examples()],
            label="Examples",
            show_label=False,
            elem_id=elem_id,
            columns=len(examples()),
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
        )
        self.gallery.select(
            self.fill, None, [image, references, product, domain], api_visibility="private", show_progress="hidden"
        ).then(None, None, None, js=NEXT_BUTTON % (elem_id, button), api_visibility="private")

    @staticmethod
    def fill(chosen: gr.SelectData) -> tuple[str, list[str], str, str]:
        """Pictures and names of the chosen example."""
        _, product, domain, part, goods = examples()[int(chosen.index)]
        return str(part), [str(path) for path in goods], product, domain
