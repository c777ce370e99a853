"""The Rank tab: an expert puts four answers in order and adds a better one; the lines are what alignment learns from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.ranking import RankingStore, candidate_answers, gold_of, rankable, ranked_line
from sage_ad.demo.services.run_store import Run
from sage_ad.demo.tabs.widgets import FAILED, stoppable
from sage_ad.demo.view import render
from sage_ad.demo.view.report import download_folder
from sage_ad.evaluation.inspection import TraceAnswer
from sage_ad.vlm.errors import InputError, SageError
from sage_ad.vlm.places import PLACES

UNSAID = ""
LETTERS = "ABCDEFGH"
# The texts come escaped from Python; `${...}` puts them in as they are and evaluates nothing in them.
ORDER_TEMPLATE = """<ol class="sg-order" aria-label="Answers, best first">${(value || []).map((item, index) => `
<li draggable="true"><input type="number" min="1" max="${value.length}" value="${index + 1}"
aria-label="Place of answer ${item.id}">
<span class="sg-order-text">${item.html}</span>
<span class="sg-order-buttons"><button type="button" data-by="-1" aria-label="Move answer ${item.id} up">↑</button>
<button type="button" data-by="1" aria-label="Move answer ${item.id} down">↓</button></span></li>`).join("")}</ol>"""


class RankTab:
    """Builds the tab.

    Args:
        engine: models and kept runs.
        token: the browser's secret, which names this visitor's runs and rankings.
        tab: the tab itself; the list of runs is read anew when it is opened.
        current: id of the run on the Inspect tab, which is offered first.
    """

    def __init__(self, engine: Engine, token: gr.BrowserState, tab: gr.Tab, current: gr.State) -> None:
        self.engine = engine
        self.rankings = RankingStore(engine.settings.home / "rankings")
        self.texts = gr.State({})
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.run = gr.Dropdown([], label="Inspection", elem_id="rank-run")
                self.question = gr.Dropdown([], label="Question", elem_id="rank-question")
                self.picture = gr.HTML(elem_id="rank-picture")
                with gr.Row():
                    self.make = gr.Button(
                        "Get four answers", variant="primary", elem_id="rank-make", scale=3, min_width=120,
                        interactive=False,
                    )  # fmt: skip
                    self.halt = gr.Button(
                        "Stop", variant="stop", elem_id="rank-stop", scale=1, min_width=80, interactive=False
                    )
            with gr.Column(scale=8, min_width=300):
                beginning = render.beginning_html(
                    ("Choose an inspection", "of yours, and one of its questions."),
                    ("Get four answers", "to it, which were made in different ways."),
                    ("Put them in order", "best first: training learns from what experts prefer."),
                )
                self.note = gr.HTML(beginning, elem_id="rank-note")
                with gr.Column(visible=False) as self.sheet:
                    self._build_sheet()
        self._wire(token, tab, current)

    def _build_sheet(self) -> None:
        gr.HTML("<h3 class='sg-h3'>Best first: drag, use the arrows, or type a place</h3>")
        script = (Path(__file__).parent / "order_list.js").read_text(encoding="utf-8")
        self.order = gr.HTML([], html_template=ORDER_TEMPLATE, js_on_load=script, elem_id="rank-order")
        self.better = gr.Textbox(
            label="A better answer, if you know one (it becomes the best)", lines=3, elem_id="rank-better",
            max_length=safety.MAX_TEXT,
        )  # fmt: skip
        with gr.Accordion("What is right about this part (optional)", open=False), gr.Row():
            self.state = gr.Radio(
                [("not said", UNSAID), ("normal", "normal"), ("anomalous", "anomalous")], value=UNSAID,
                label="The part is",
            )  # fmt: skip
            self.defect = gr.Textbox(label="Defect", max_length=120)
            self.place = gr.Dropdown([("not said", UNSAID), *PLACES], value=UNSAID, label="Place")
        with gr.Row():
            self.save = gr.Button("Save this order", variant="primary", elem_id="rank-save")
            self.download = gr.DownloadButton("Download all my rankings (.zip)", elem_id="rank-download", visible=False)
        self.saved = gr.HTML(elem_id="rank-saved")

    def _wire(self, token: gr.BrowserState, tab: gr.Tab, current: gr.State) -> None:
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        sheet = [self.note, self.sheet, self.order, self.texts, self.better, self.saved, self.make, self.halt]
        chosen = [self.run, self.question, self.picture, self.make]
        tab.select(self.list_runs, [token, current, self.run], chosen, **private)
        tab.select(self.bundle, token, self.download, **private)
        self.run.input(self.list_questions, [self.run, token], [self.question, self.picture], **private)
        making = self.make.click(self.answers, [self.run, self.question, token], sheet, trigger_mode="once", **private)
        stoppable(making, self.halt, self.stopped, self.failed, sheet)
        self.save.click(
            self.keep,
            [self.texts, self.order, self.better, self.state, self.defect, self.place, token],
            self.saved,
            **private,
        ).then(self.bundle, token, self.download, **private)

    # -- choosing --------------------------------------------------------------------------------------------------

    def list_runs(self, token: Any, current: str, chosen: str | None, request: gr.Request) -> tuple[Any, ...]:
        """This visitor's runs; the one on the Inspect tab is chosen, unless another one was."""
        runs = self.engine.runs.find(safety.owner_of(token, request))
        ids = [run.id for run in runs]
        wanted = next((run for run in (chosen, current) if run in ids), ids[0] if ids else None)
        field = gr.Dropdown(choices=[(run.label(), run.id) for run in runs], value=wanted)
        if not wanted:
            empty = render.notice_html("No inspection is kept yet; inspect a part first.", "plain")
            return field, gr.Dropdown(choices=[], value=None), empty, gr.Button(interactive=False)
        return field, *self.list_questions(wanted, token, request), gr.Button(interactive=True)

    def list_questions(self, run: str | None, token: Any, request: gr.Request) -> tuple[Any, str]:
        """The questions of a run, and its pictures."""
        try:
            kept = self.engine.runs.get(safety.owner_of(token, request), run or "")
        except SageError as error:
            return gr.Dropdown(choices=[], value=None), render.notice_html(str(error))
        questions = [answer.question for answer in rankable(kept)]
        picture = render.evidence_html(kept.pictures, kept.trace, f"rank-{kept.id}")
        return gr.Dropdown(choices=questions, value=questions[0]), picture

    def _chosen(self, owner: str, run: str | None, question: str | None) -> tuple[Run, TraceAnswer]:
        kept = self.engine.runs.get(owner, run or "")
        answer = next((item for item in rankable(kept) if item.question == question), None)
        if answer is None:
            raise InputError("No question is chosen; choose one of the inspection.")
        return kept, answer

    # -- answers ---------------------------------------------------------------------------------------------------

    def answers(
        self, run: str | None, question: str | None, token: Any, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Has the question answered in four ways and shows the answers in no order."""
        owner = safety.owner_of(token, request)
        try:
            kept, answer = self._chosen(owner, run, question)
            yield {
                self.note: render.notice_html("Answering in four ways …", "plain"),
                self.sheet: gr.Column(visible=False),
                self.make: gr.Button(interactive=False),
                self.halt: gr.Button(interactive=True),
                self.saved: "",
            }
            texts: list[str] = []
            work = lambda: candidate_answers(self.engine, kept, answer)  # noqa: E731
            for event in self.engine.queue.submit(owner, work):
                if event["event"] == "answers":
                    texts = event["answers"]
                elif event["event"] == "way":
                    yield {self.note: render.notice_html(f"Answering {event['way']} …", "plain")}
                else:
                    yield {self.note: render.notice_html(f"Waiting: {event['ahead']} before you.", "plain")}
            items = [{"id": LETTERS[i], "html": safety.escaped(text)} for i, text in enumerate(texts)]
            yield {
                **self._idle(),
                self.note: render.fragment("ranknote", question=answer.question),
                self.sheet: gr.Column(visible=True),
                self.order: items,
                self.texts: {
                    "run": kept.id,
                    "question": answer.question,
                    "texts": dict(zip(LETTERS, texts, strict=False)),
                },
                self.better: "",
            }
        except SageError as error:
            yield {**self._idle(), self.note: render.notice_html(str(error))}

    def stopped(self) -> dict[Any, Any]:
        """The page after Stop."""
        return {**self._idle(), self.note: render.notice_html("Stopped.", "plain")}

    def failed(self) -> dict[Any, Any]:
        """The page after an error that nobody foresaw: it says so and can be used again."""
        return {**self._idle(), self.note: render.notice_html(FAILED)}

    def _idle(self) -> dict[Any, Any]:
        return {self.make: gr.Button(interactive=True), self.halt: gr.Button(interactive=False)}

    # -- keeping ---------------------------------------------------------------------------------------------------

    def keep(
        self, made: dict[str, Any], order: Any, better: str, state: str, defect: str, place: str, token: Any,
        request: gr.Request,
    ) -> str:  # fmt: skip
        """Saves the order as a line of ranked answers."""
        owner = safety.owner_of(token, request)
        try:
            if not made:
                raise InputError("There are no answers to rank yet; get some first.")
            run, answer = self._chosen(owner, made["run"], made["question"])
            ids = [item["id"] for item in order or [] if isinstance(item, dict) and item.get("id") in made["texts"]]
            if sorted(ids) != sorted(made["texts"]):
                raise InputError("The order is not complete; get the answers again.")
            answers = [made["texts"][one] for one in ids]
            if best := safety.check_text(better, "The better answer"):
                answers.insert(0, best)
            gold = gold_of(answer, state, safety.check_text(defect, "The defect", 120), place, best)
            image, reference = self.rankings.pictures(owner, run)
            count = self.rankings.save(owner, ranked_line(run, answer, answers, gold, image, reference))
        except SageError as error:
            return render.notice_html(str(error))
        return render.notice_html(f"Saved. You have ranked {count} question{'' if count == 1 else 's'}.", "done")

    def bundle(self, token: Any, request: gr.Request) -> Any:
        """The button with all rankings of this visitor in a zip file; hidden while there are none."""
        owner = safety.owner_of(token, request)
        if not self.rankings.lines(owner):
            return gr.DownloadButton(visible=False)
        bundle = self.rankings.bundle(owner, download_folder() / "sage-rankings.zip")
        return gr.DownloadButton(value=str(bundle), visible=True)
