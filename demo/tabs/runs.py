"""The Runs tab: past inspections, found again, opened, taught from, saved as reports, deleted."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.run_store import Run
from sage_ad.demo.tabs.teach import TeachPanel
from sage_ad.demo.view import render
from sage_ad.demo.view.report import write_report
from sage_ad.vlm.errors import SageError

BEGINNING = (
    ("Inspect a part:", "it is kept here with its pictures, for you alone."),
    ("Choose it", "in the list; search finds it by product, defect, words and verdict."),
    ("Use it:", "read it again, save its report, teach SAGE what it shows, delete it."),
)
VERDICTS = [("all", ""), ("anomalous", "anomalous"), ("normal", "normal")]


class RunsTab:
    """Builds the tab.

    Args:
        engine: models, knowledge and kept runs.
        token: the browser's secret, which names this visitor's runs.
        tab: the tab itself; the list is read anew when it is opened.
    """

    def __init__(self, engine: Engine, token: gr.BrowserState, tab: gr.Tab) -> None:
        self.engine = engine
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.words = gr.Textbox(
                    label="Search", placeholder="product, defect, words", elem_id="runs-words",
                    max_length=200,
                )  # fmt: skip
                self.verdict = gr.Radio(VERDICTS, value="", label="Verdict")
                self.found = gr.Radio([], label="Runs", elem_id="runs-found", elem_classes="sg-list", visible=False)
                self.note = gr.HTML(elem_id="runs-note")
            with gr.Column(scale=8, min_width=300):
                with gr.Row(visible=False, equal_height=True) as self.verbs:
                    self.report = gr.DownloadButton(
                        "Save report (HTML)", elem_id="runs-report", min_width=160, size="md"
                    )
                    self.delete = gr.Button("Delete this run …", elem_id="runs-delete", min_width=120, size="md")
                with gr.Row(visible=False) as self.sure:
                    self.really = gr.Button(
                        "Delete it with its pictures", variant="stop", elem_id="runs-really", min_width=120, size="md"
                    )
                    self.keep = gr.Button("Keep it", elem_id="runs-keep", min_width=120, size="md")
                self.shown = gr.HTML(render.beginning_html(*BEGINNING), elem_id="runs-shown")
                self.teach = TeachPanel(engine, self.found, token, "runs")
        asked = [self.words, self.verdict, self.found, token]
        seen = [self.shown, self.verbs, self.report, self.sure, *self.teach.outputs]
        gr.on(
            [tab.select, self.words.change, self.verdict.input], self.search, asked, [self.found, self.note, *seen],
            api_visibility="private", show_progress="hidden", trigger_mode="always_last",
        )  # fmt: skip
        self.found.input(self.show, [self.found, token], seen, api_visibility="private", show_progress="hidden")
        for button, asks in ((self.delete, True), (self.keep, False)):
            button.click(
                lambda asks=asks: (gr.update(visible=not asks), gr.update(visible=asks)), None, [self.verbs, self.sure],
                api_visibility="private", show_progress="hidden",
            )  # fmt: skip
        self.really.click(
            self.remove, asked, [self.found, self.note, *seen], api_visibility="private", show_progress="hidden"
        )

    def search(self, words: str, verdict: str, chosen: str | None, token: Any, request: gr.Request) -> dict[Any, Any]:
        """This visitor's runs that hold the words, newest first.

        A run that is no longer in the list leaves the page with its buttons: they would act on nothing.
        """
        owner = safety.owner_of(token, request)
        try:
            runs = self.engine.runs.find(owner, safety.check_text(words, "The search", 200), verdict or None)
        except SageError as error:
            return {
                **self._away(render.beginning_html(*BEGINNING)),
                self.found: gr.Radio(choices=[], value=None, visible=False),
                self.note: render.notice_html(str(error)),
            }
        text = "No runs found." if words or verdict else "No runs yet."
        kept = any(run.id == chosen for run in runs)
        choices = [(run.label(), run.id) for run in runs]
        return {
            **({} if kept else self._away(render.beginning_html(*BEGINNING))),
            self.found: gr.Radio(choices=choices, value=chosen if kept else None, visible=bool(runs)),
            self.note: "" if runs else render.notice_html(text, "plain"),
        }

    def _away(self, note: str) -> dict[Any, Any]:
        """No run on the page; `note` is HTML."""
        hidden = {self.verbs: gr.Row(visible=False), self.sure: gr.Row(visible=False), **self.teach.hidden()}
        return {self.shown: note, **hidden}

    def show(self, run: str | None, token: Any, request: gr.Request) -> dict[Any, Any]:
        """One run as it was, its report to be saved, and what it can teach."""
        try:
            kept = self.engine.runs.get(safety.owner_of(token, request), run or "")
        except SageError as error:
            return self._away(render.notice_html(str(error)))
        return {
            self.shown: run_html(self.engine, kept),
            self.verbs: gr.Row(visible=True),
            self.sure: gr.Row(visible=False),
            self.report: gr.DownloadButton(value=str(write_report(kept, self.engine.store))),
            **self.teach.offered(kept),
        }

    def remove(self, words: str, verdict: str, run: str | None, token: Any, request: gr.Request) -> dict[Any, Any]:
        """Deletes the chosen run with its pictures."""
        try:
            self.engine.runs.delete(safety.owner_of(token, request), run or "")
        except SageError as error:
            return {self.shown: render.notice_html(str(error))}
        done = render.notice_html("The run and its pictures are deleted.", "done")
        return {**self.search(words, verdict, None, token, request), self.shown: done}


def run_html(engine: Engine, run: Run) -> str:
    """A kept run as it was shown."""
    return render.result_html(run.trace, run.pictures, f"run-{run.id}", run.part, engine.store)
