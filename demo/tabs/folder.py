"""The Folder tab: many parts at once, the oddest first; without good parts they are compared with one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.tabs.inspect import checked_request
from sage_ad.demo.tabs.widgets import FAILED, domain_list, reference_gallery, stoppable
from sage_ad.demo.view import render
from sage_ad.demo.view.report import download_folder
from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.vlm.errors import InputError, SageError
from sage_ad.vlm.pictures.formats import ENDINGS

MOST = 100
"""Parts that the page takes at once; `sage-batch` takes any number."""

BEGINNING = (
    ("Drop the pictures", f"of one product: twenty or more are best, {MOST} at most."),
    ("Have them compared", "with good parts of yours, or with one another if there are none."),
    ("Look at the oddest", "which come first, with what stands out on each."),
)


class FolderTab:
    """Builds the tab.

    Args:
        engine: models, knowledge and queue.
        token: the browser's secret, which gives each visitor a turn.
    """

    def __init__(self, engine: Engine, token: gr.BrowserState) -> None:
        self.engine = engine
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.parts = gr.File(
                    label="The parts to inspect", file_count="multiple", file_types=[*ENDINGS], height=200,
                    elem_id="fld-parts",
                )  # fmt: skip
                self.references = reference_gallery(engine, "Good parts, if you have any", "fld-references")
                with gr.Row(elem_classes="sg-pair"):
                    self.product = gr.Textbox(
                        label="Product", placeholder="e.g. solar cell", max_length=120, min_width=170
                    )
                    self.domain = domain_list(engine)
                with gr.Row():
                    self.go = gr.Button("Inspect all", variant="primary", elem_id="folder", scale=3, min_width=120)
                    self.stop = gr.Button(
                        "Stop", variant="stop", elem_id="fld-stop", scale=1, min_width=80, interactive=False
                    )
            with gr.Column(scale=9, min_width=300):
                self.message = gr.HTML(render.beginning_html(*BEGINNING), elem_id="fld-message")
                self.report = gr.DownloadButton("Save report (HTML)", elem_id="fld-report", visible=False, size="md")
                self.result = gr.HTML(elem_id="fld-result", visible=False)
        outputs = [self.message, self.report, self.result, self.go, self.stop]
        running = self.go.click(
            self.inspect, [self.parts, self.references, self.product, self.domain, token], outputs,
            show_progress="hidden", trigger_mode="once", api_visibility="private",
        )  # fmt: skip
        stoppable(running, self.stop, self.stopped, self.failed, outputs)

    def inspect(
        self, parts: list[str] | None, references: Any, product: str, domain: str, token: Any, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Inspects the parts and yields what changed on the page: the oddest stand first, from the first one on."""
        owner = safety.owner_of(token, request)
        try:
            yield {
                self.message: self._note("Reading the pictures …"),
                self.report: gr.DownloadButton(visible=False),
                self.result: gr.HTML(value="", visible=False),
                self.go: gr.Button("Inspecting …", interactive=False),
                self.stop: gr.Button(interactive=True),
            }
            asked = self.requests(parts, safety.reference_paths(references), product, domain)
            found: list[dict[str, Any]] = []
            for event in self.engine.queue.submit(owner, lambda: self.engine.folder(asked)):
                if event["event"] == "waiting":
                    yield {self.message: self._note(f"Waiting: {event['ahead']} before you.")}
                elif event["event"] == "comparing":
                    yield {self.message: self._note(f"Comparing {len(asked)} parts …")}
                else:
                    found.append(event)
                    if len(found) % 4 == 0:
                        yield {
                            self.message: self._note(f"{len(found)} of {len(asked)} parts are inspected."),
                            self.result: gr.HTML(render.folder_html(found), visible=True),
                        }
            result = render.folder_html(found)
            yield {
                **self._idle(),
                self.message: gr.HTML(visible=False),
                self.result: gr.HTML(result, visible=True),
                self.report: gr.DownloadButton(value=str(self._written(result)), visible=True),
            }
        except SageError as error:
            yield {**self._idle(), self.message: gr.HTML(render.notice_html(str(error)), visible=True)}

    def requests(
        self, parts: Sequence[str] | None, references: list[str], product: str, domain: str
    ) -> list[InspectionRequest]:
        """A checked request for each part.

        Raises:
            InputError: there are too few or too many parts, or a picture cannot be used.
        """
        if not parts:
            raise InputError("There is no part to inspect; drop pictures into the field.")
        if len(parts) > MOST:
            raise InputError(f"{len(parts)} parts are too many at once; give at most {MOST}.")
        if not references and len(parts) < 4:
            raise InputError(
                f"{len(parts)} of a kind cannot judge one another; give four parts or more, or a good part."
            )
        return [checked_request(self.engine, part, references, product, domain, None) for part in parts]

    def stopped(self) -> dict[Any, Any]:
        """The page after Stop: what was found so far stays."""
        return {**self._idle(), self.message: self._note("Stopped. What was inspected so far stays here.")}

    def failed(self) -> dict[Any, Any]:
        """The page after an error that nobody foresaw: it says so and can be used again."""
        return {**self._idle(), self.message: gr.HTML(render.notice_html(FAILED), visible=True)}

    def _idle(self) -> dict[Any, Any]:
        return {self.go: gr.Button("Inspect all", interactive=True), self.stop: gr.Button(interactive=False)}

    @staticmethod
    def _note(text: str) -> Any:
        return gr.HTML(render.notice_html(text, "plain"), visible=True)

    @staticmethod
    def _written(result: str) -> Path:
        path = download_folder() / "sage-folder.html"
        path.write_text(render.fragment("folderpage", style=render.report_style(), result=result), encoding="utf-8")
        return path
