"""The Inspect tab: a part in, the verdict as soon as it is known, then an explanation that can be followed to its sources."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine, checked_settings
from sage_ad.demo.tabs.facts import FactReview
from sage_ad.demo.tabs.false_alarms import FalseAlarmPanel
from sage_ad.demo.tabs.teach import TeachPanel
from sage_ad.demo.tabs.widgets import (
    FAILED,
    Examples,
    checked_picture,
    domain_list,
    part_image,
    reference_gallery,
    stoppable,
)
from sage_ad.demo.view import render
from sage_ad.demo.view.progress import Progress
from sage_ad.demo.view.report import write_report
from sage_ad.evaluation.inspection import InspectionRequest
from sage_ad.vlm.errors import InputError, SageError

if TYPE_CHECKING:
    from sage_ad.demo.services.run_store import Run

REDRAW_SECONDS = 0.12
"""Streamed words are drawn at most this often; every step is drawn at once."""


class InspectTab:
    """Builds the tab inside the current `gr.Blocks` and holds its components.

    Args:
        engine: models, knowledge and queue.
        token: the browser's secret (`gr.BrowserState`), which names this visitor's runs.
    """

    def __init__(self, engine: Engine, token: gr.BrowserState) -> None:
        self.engine = engine
        self.run = gr.State("")
        with gr.Row(equal_height=False, elem_id="inspect-row"):
            with gr.Column(scale=4, min_width=300):
                self._build_inputs()
            with gr.Column(scale=9, min_width=300, elem_id="results"):
                self._build_results(token)
        self._wire(token)

    def _build_inputs(self) -> None:
        self.image = part_image(self.engine, "The part to inspect", "part")
        self.references = reference_gallery(self.engine, "Good parts, if you have any", "references")
        with gr.Row(elem_classes="sg-pair"):
            self.product = gr.Textbox(
                label="Product", placeholder="e.g. solar cell", elem_id="product", max_length=120, min_width=170
            )
            self.domain = domain_list(self.engine)
        self.questions = gr.Textbox(
            label="Questions", lines=2, placeholder="Optional; one a line. The explanation comes without.", elem_id="questions",
            max_length=safety.MAX_TEXT,
        )  # fmt: skip
        with gr.Accordion("More", open=False, elem_id="more"):
            self.scale = gr.Number(
                None, label="Millimetres per pixel, if you know them (sizes are then in mm too)", minimum=0
            )
            self.facts = gr.Checkbox(True, label="Use facts of the knowledge base")
            self.learn = gr.Checkbox(False, label="Keep facts that the model writes for its answers, as proposed")
            self.model = gr.Dropdown(
                self.engine.settings.models,
                value=self.engine.settings.model,
                label="Model that answers questions",
                filterable=False,
            )
        with gr.Row():
            self.go = gr.Button("Inspect", variant="primary", elem_id="inspect", scale=3, min_width=120)
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop", scale=1, min_width=80, interactive=False)
        with gr.Column(visible=False) as self.again:
            self._build_examples("examples-again")

    def _build_examples(self, elem_id: str) -> None:
        Examples(self.image, self.references, self.product, self.domain, elem_id=elem_id, button="inspect")

    def _build_results(self, token: gr.BrowserState) -> None:
        self.message = gr.HTML(elem_id="message", visible=False)
        with gr.Column(elem_id="start") as self.start:
            gr.HTML(
                render.beginning_html(
                    ("Give a picture", "of the part, and of a good one if you have it."),
                    ("Read", "the verdict, what was measured, what it may be, and what to do."),
                    ("Check", "it: numbered boxes on the picture, facts with their sources."),
                )
            )
            self._build_examples("examples")
        self.status = gr.HTML(elem_id="status", visible=False)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                self.verdict = gr.HTML(elem_id="verdict", visible=False)
                self.alarms = FalseAlarmPanel(self.engine, self.run)
            with gr.Column(min_width=320):
                self.evidence = gr.HTML(elem_id="evidence", visible=False)
                self.report = gr.DownloadButton("Save report (HTML)", elem_id="report", visible=False, size="md")
        self.answers = gr.HTML(elem_id="answers", visible=False)
        self.teach = TeachPanel(self.engine, self.run, token, "inspect")
        with (
            gr.Accordion("Proposed facts: judge them", open=False, visible=False, elem_id="proposed") as self.proposed,
            gr.Row(equal_height=False),
        ):
            self.review = FactReview(self.engine, "proposed", onward=True)
            with gr.Column(min_width=300):
                self.review.build_list("Nobody has approved these yet")
            with gr.Column(min_width=300):
                self.review.build_sheet()
        self.details = gr.HTML(elem_id="details", visible=False)

    def _wire(self, token: gr.BrowserState) -> None:
        inputs = [self.image, self.references, self.product, self.domain, self.questions, self.facts, self.learn,
                  self.model, self.scale, token]  # fmt: skip
        outputs = [self.message, self.status, self.verdict, self.evidence, self.answers, self.details, self.report,
                   self.go, self.stop, self.run, self.start, self.again, self.proposed, *self.alarms.outputs,
                   *self.teach.outputs, *self.review.outputs]  # fmt: skip
        running = self.go.click(
            self.inspect, inputs, outputs, show_progress="hidden", trigger_mode="once", api_visibility="private"
        )
        stoppable(running, self.stop, self.stopped, self.failed, outputs)
        self.alarms.wire(token)

    # -- what happens ----------------------------------------------------------------------------------------------

    def request(
        self, image: str | None, references: Any, product: str, domain: str, questions: str, facts: bool, learn: bool,
        scale: float | None,
    ) -> InspectionRequest:  # fmt: skip
        """The checked request of what stands in the fields; see `checked_request`."""
        return checked_request(
            self.engine, image, safety.reference_paths(references), product, domain, questions, facts, learn, scale
        )

    def inspect(
        self, image: str | None, references: Any, product: str, domain: str, questions: str, facts: bool, learn: bool,
        model: str, scale: float | None, token: Any, request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        """Inspects and yields what changed on the page."""
        owner = safety.owner_of(token, request)
        progress = Progress(uid=f"i{time.time_ns() % 10**9}")
        try:
            asked = self.request(image, references, product, domain, questions, facts, learn, scale)
            yield self._begun(progress)
            drawn = 0.0
            for event in self.engine.submit(owner, asked, model):
                changed = progress.feed(event)
                if event["event"] == "token" and time.monotonic() - drawn < REDRAW_SECONDS:
                    continue
                drawn = time.monotonic()
                # Gradio takes an empty update for a missing one and ends the work with an error.
                if update := self._changed(progress, changed):
                    yield update
            if not progress.done:
                raise InputError("The inspection ended without a result; try it again.")
            run = keep_run(self.engine, owner, progress, asked, model)
            yield self._finished(progress, run)
        except SageError as error:
            yield {**self._idle(), self.message: gr.HTML(render.notice_html(str(error)), visible=True)}

    def _begun(self, progress: Progress) -> dict[Any, Any]:
        hidden = gr.HTML(value="", visible=False)
        return {
            self.message: hidden,
            self.verdict: hidden,
            self.evidence: hidden,
            self.status: gr.HTML(render.status_html(progress), visible=True),
            self.answers: hidden,
            self.details: hidden,
            self.report: gr.DownloadButton(visible=False),
            self.go: gr.Button("Inspecting …", interactive=False),
            self.stop: gr.Button(interactive=True),
            self.run: "",
            self.start: gr.Column(visible=False),
            self.again: gr.Column(visible=True),
            self.proposed: gr.Accordion(visible=False),
            **self.alarms.hidden(),
            **self.teach.hidden(),
        }

    def _changed(self, progress: Progress, changed: set[str]) -> dict[Any, Any]:
        update: dict[Any, Any] = {}
        if "status" in changed:
            update[self.status] = render.status_html(progress)
        if "answers" in changed:
            text = render.writing_html(progress.answers)
            if progress.done and progress.trace is not None:
                text = render.answers_html(progress.trace, progress.uid)
            update[self.answers] = gr.HTML(text, visible=bool(text))
        if "verdict" in changed and progress.trace is not None:
            drawn = render.verdict_html(progress.trace, Path(progress.trace.image).name, progress.uid)
            update[self.verdict] = gr.HTML(drawn, visible=True)
        if "pictures" in changed and progress.pictures is not None and progress.trace is not None:
            drawn = render.evidence_html(progress.pictures, progress.trace, progress.uid)
            update[self.evidence] = gr.HTML(drawn, visible=True)
        return update

    def _finished(self, progress: Progress, run: Run) -> dict[Any, Any]:
        assert progress.trace is not None
        cited = [fact.id for fact in progress.trace.facts if fact.status == "proposed"]
        proposed = list(render.stored_facts(cited, self.engine.store).values())
        # All of it once more: a page that draws slowly may have missed what came shortly before.
        return {
            **self._changed(progress, {"status", "verdict", "pictures", "answers"}),
            **self._idle(),
            self.run: run.id,
            self.details: gr.HTML(render.details_html(progress.trace, progress.uid, self.engine.store), visible=True),
            # The button downloads what it holds when it is clicked, so the report is written now.
            self.report: gr.DownloadButton(value=str(write_report(run, self.engine.store)), visible=True),
            self.proposed: gr.Accordion(visible=bool(proposed)),
            **self.review.listed(proposed),
            **self.alarms.offered(len(progress.trace.references)),
            **self.teach.offered(run),
        }

    def _idle(self) -> dict[Any, Any]:
        return {self.go: gr.Button("Inspect", interactive=True), self.stop: gr.Button(interactive=False)}

    def stopped(self) -> dict[Any, Any]:
        """The page after Stop: what was found so far stays, nothing is kept."""
        note = render.notice_html("Stopped. Nothing of this inspection was kept.", "plain")
        return {**self._idle(), self.message: gr.HTML(note, visible=True), self.status: gr.HTML(visible=False)}

    def failed(self) -> dict[Any, Any]:
        """The page after an error that nobody foresaw: it says so and can be used again."""
        return {**self._idle(), self.message: gr.HTML(render.notice_html(FAILED), visible=True)}


def checked_request(
    engine: Engine, image: str | None, references: list[str], product: str | None, domain: str | None,
    questions: str | None, facts: bool = True, learn: bool = False, scale: float | None = None,
) -> InspectionRequest:  # fmt: skip
    """What a visitor gave, checked.

    Raises:
        InputError: there is no picture, or one cannot be used, or a text is too long.
    """
    settings = engine.settings
    if not image:
        raise InputError("There is no picture to inspect; drop one into the field, or pick an example.")
    if len(references) > settings.max_references:
        raise InputError(f"{len(references)} good parts are too many; give at most {settings.max_references}.")
    return InspectionRequest(
        image=checked_picture(engine, image),
        references=[checked_picture(engine, path) for path in references],
        questions=safety.questions_of(questions),
        domain=domain or None,
        product=safety.check_text(product, "The product's name", 120) or None,
        settings=checked_settings(facts, learn, scale),
    )


def keep_run(engine: Engine, owner: str, progress: Progress, asked: InspectionRequest, model: str | None) -> Run:
    """Keeps a finished inspection under the visitor's runs; file names in it are without folders."""
    assert progress.trace is not None
    assert progress.pictures is not None
    names = {
        "image": Path(asked.image).name,
        "references": [Path(path).name for path in asked.references],
    }
    record = {**asked.model_dump(mode="json"), **names, "model": model or engine.settings.model}
    originals = [Path(asked.image), *(Path(path) for path in asked.references[:1])]
    trace = progress.trace.model_copy(update=names)
    run = engine.runs.add(owner, trace, progress.pictures, record, originals)
    engine.runs.keep_beside(owner, run.id, "uploads", [str(path) for path in (asked.image, *asked.references)])
    return run
