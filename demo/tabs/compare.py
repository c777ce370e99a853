"""The Compare tab: the same part inspected in two ways, side by side: what a reference, facts or another model change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.fair_queue import Event
from sage_ad.demo.services.models import different
from sage_ad.demo.tabs.inspect import checked_request
from sage_ad.demo.tabs.widgets import FAILED, Examples, domain_list, part_image, reference_gallery, stoppable
from sage_ad.demo.view import render
from sage_ad.demo.view.progress import Progress
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace
from sage_ad.evaluation.questions import standard_questions
from sage_ad.vlm.errors import InputError, SageError

WAYS = {
    "reference": "With and without good parts",
    "facts": "With and without facts",
    "stages": "Stage 1 against E-DPO",
    "models": "Two models",
}


@dataclass(frozen=True)
class Side:
    """One of the two ways: its name, what is asked, and of which model."""

    name: str
    request: InspectionRequest
    model: str | None = None


def two_sides(
    way: str, request: InspectionRequest, chosen: tuple[str, str], stages: tuple[str, str] | None
) -> tuple[Side, Side]:
    """The two inspections of a comparison.

    Args:
        way: a key of `WAYS`.
        request: what is asked of both.
        chosen: the two models to compare, where models are compared.
        stages: a model of stage 1 and one of stage 2, if there are any.

    Models differ in their answers alone: where two are compared and no question is given, both get the five standard ones.

    Raises:
        InputError: there is nothing to compare (no good part to leave out, twice the same model, no E-DPO checkpoint).
    """
    if way in ("stages", "models") and not request.questions:
        request = request.model_copy(update={"questions": [question.text for question in standard_questions()]})
    if way == "reference":
        if not request.references:
            raise InputError("There is no good part to leave out; give one, or compare something else.")
        return Side("With good parts", request), Side("Without", request.model_copy(update={"references": []}))
    if way == "facts":
        without = request.model_copy(update={"settings": {**request.settings, "facts": "none", "learn": False}})
        return Side("With facts", request), Side("Without facts", without)
    if way not in WAYS:
        raise InputError(f"There is no comparison {way!r}; choose one of {', '.join(WAYS)}.")
    if way == "stages" and stages is None:
        raise InputError("There is no E-DPO checkpoint here; train one and start sage-demo with --also FOLDER.")
    first, second = stages if way == "stages" and stages else different(*chosen)
    return Side(first, request, first), Side(second, request, second)


def both(engine: Engine, sides: tuple[Side, Side]) -> Iterator[Event]:
    """Inspects both ways, one after the other; each event says with "side" (0 or 1) whose it is."""
    for number, side in enumerate(sides):
        for event in engine.inspection(side.request, side.model):
            yield {**event, "side": number}


def differences(sides: tuple[Side, Side], traces: list[InspectionTrace | None]) -> list[list[str]]:
    """A row for each figure that both sides have: its name and the two values."""
    rows = [["", *(side.name for side in sides)]]
    figures = [figures_of(trace) if trace else {} for trace in traces]
    for name in figures[0]:
        rows.append([name, *(figure.get(name, "…") for figure in figures)])
    return rows


def figures_of(trace: InspectionTrace) -> dict[str, str]:
    """What the table compares."""
    objections = [reason for answer in trace.answers if answer.mle for reason in answer.mle.deductions]
    trust = f"{100 * trace.confidence:.0f} %" if trace.confidence is not None else "not known"
    return {
        "Verdict": trace.verdict,
        "Score / threshold": f"{trace.anomaly_score:.3f} / {trace.threshold:.3f}",
        "Confidence": trust,
        "Defect": trace.defect or " or ".join(one.name for one in trace.candidates[:2]) or "not named",
        "Places": ", ".join(dict.fromkeys(region.place for region in trace.regions)) or "none",
        "Facts cited": str(len(render.cited_ids(trace))),
        "Objections of the self-check": str(len(objections)),
        "Time": f"{trace.seconds:.1f} s",
    }


class CompareTab:
    """Builds the tab."""

    def __init__(self, engine: Engine, token: gr.BrowserState) -> None:
        self.engine = engine
        models = engine.settings.models
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.image = part_image(engine, "The part to inspect", "cmp-part", height=210)
                self.references = reference_gallery(engine, "Good parts", "cmp-references")
                with gr.Row(elem_classes="sg-pair"):
                    self.product = gr.Textbox(
                        label="Product", placeholder="e.g. solar cell", max_length=120, min_width=170
                    )
                    self.domain = domain_list(engine)
            with gr.Column(scale=4, min_width=300):
                ways = [(title, way) for way, title in WAYS.items() if way != "stages" or engine.settings.stages]
                self.way = gr.Radio(ways, value="reference", label="What to compare", elem_id="cmp-way")
                with gr.Row(visible=False) as self.pair:
                    self.first = gr.Dropdown(models, value=models[0], label="One model", min_width=120)
                    self.second = gr.Dropdown(models, value=models[-1], label="Other model", min_width=120)
                self.questions = gr.Textbox(
                    label="Questions", lines=2, placeholder="Optional; one a line. Two models get the five standard ones.",
                    max_length=safety.MAX_TEXT,
                )  # fmt: skip
                with gr.Row():
                    self.go = gr.Button("Compare", variant="primary", elem_id="compare", scale=3, min_width=120)
                    self.stop = gr.Button(
                        "Stop", variant="stop", elem_id="cmp-stop", scale=1, min_width=80, interactive=False
                    )
            with gr.Column(scale=3, min_width=260):
                Examples(
                    self.image, self.references, self.product, self.domain, elem_id="cmp-examples", button="compare"
                )
        beginning = render.beginning_html(
            ("Give a part", "and good ones, or take an example."),
            ("Choose what differs", "between two inspections of it."),
            ("Read both", "side by side, and in a table what is not the same."),
        )
        self.message = gr.HTML(beginning, elem_id="cmp-message")
        self.table = gr.HTML(elem_id="cmp-table", visible=False)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300):
                self.left = gr.HTML(elem_id="cmp-left")
            with gr.Column(min_width=300):
                self.right = gr.HTML(elem_id="cmp-right")
        self._wire()
        del token  # comparisons are not kept

    def _wire(self) -> None:
        self.way.change(
            lambda way: gr.update(visible=way == "models"), self.way, self.pair, api_visibility="private",
            show_progress="hidden",
        )  # fmt: skip
        inputs = [self.image, self.references, self.product, self.domain, self.questions, self.way, self.first,
                  self.second]  # fmt: skip
        outputs = [self.message, self.table, self.left, self.right, self.go, self.stop]
        running = self.go.click(
            self.compare, inputs, outputs, show_progress="hidden", trigger_mode="once", api_visibility="private"
        )
        stoppable(running, self.stop, self.stopped, self.failed, outputs)

    def compare(
        self, image: str | None, references: Any, product: str, domain: str, questions: str, way: str, first: str,
        second: str, request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        """Inspects both ways and yields what changed on the page."""
        stamp = time.time_ns() % 10**9
        watched = [Progress(uid=f"c{stamp}-{number}") for number in (0, 1)]
        try:
            goods = safety.reference_paths(references)
            asked = checked_request(self.engine, image, goods, product, domain, questions)
            sides = two_sides(way, asked, (first, second), self.engine.settings.stages)
            hidden = gr.HTML(value="", visible=False)
            yield {
                self.message: hidden,
                self.table: hidden,
                self.left: side_html(self.engine, sides[0], watched[0]),
                self.right: side_html(self.engine, sides[1], watched[1]),
                self.go: gr.Button("Comparing …", interactive=False),
                self.stop: gr.Button(interactive=True),
            }
            owner = safety.owner_of(None, request)
            for event in self.engine.queue.submit(owner, lambda: both(self.engine, sides)):
                number = event.get("side", 0)
                watched[number].feed(event)
                if event["event"] == "token":
                    continue
                column = (self.left, self.right)[number]
                yield {column: side_html(self.engine, sides[number], watched[number])}
            rows = differences(sides, [progress.trace for progress in watched])
            yield {**self._idle(), self.table: gr.HTML(render.fragment("table", rows=rows), visible=True)}
        except SageError as error:
            yield {**self._idle(), self.message: gr.HTML(render.notice_html(str(error)), visible=True)}

    def stopped(self) -> dict[Any, Any]:
        """The page after Stop."""
        return {**self._idle(), self.message: gr.HTML(render.notice_html("Stopped.", "plain"), visible=True)}

    def failed(self) -> dict[Any, Any]:
        """The page after an error that nobody foresaw: it says so and can be used again."""
        return {**self._idle(), self.message: gr.HTML(render.notice_html(FAILED), visible=True)}

    def _idle(self) -> dict[Any, Any]:
        return {self.go: gr.Button("Compare", interactive=True), self.stop: gr.Button(interactive=False)}


def side_html(engine: Engine, side: Side, progress: Progress) -> str:
    """One column: what is happening while it runs, and what is known so far."""
    shown = render.fragment("sidehead", title=side.name) + render.status_html(progress)
    if progress.trace is not None and progress.pictures is not None:
        shown += render.result_html(progress.trace, progress.pictures, progress.uid, store=engine.store)
    return f"<div class='sg-pile'>{shown}</div>"
