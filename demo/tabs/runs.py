"""The Runs tab: past inspections, found again, opened, saved as reports, deleted."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.run_store import Run
from sage_ad.demo.view import render
from sage_ad.demo.view.report import write_report
from sage_ad.vlm.errors import SageError

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
                with gr.Row(visible=False) as self.verbs:
                    self.report = gr.DownloadButton("Save report (HTML)", elem_id="runs-report", min_width=160)
                    self.delete = gr.Button("Delete this run …", elem_id="runs-delete", min_width=120)
                with gr.Row(visible=False) as self.sure:
                    self.really = gr.Button(
                        "Delete it with its pictures", variant="stop", elem_id="runs-really", min_width=120
                    )
                    self.keep = gr.Button("Keep it", elem_id="runs-keep", min_width=120)
                self.shown = gr.HTML(render.notice_html("Choose a run to see it again.", "plain"), elem_id="runs-shown")
        asked = [self.words, self.verdict, token]
        for trigger in (tab.select, self.words.change, self.verdict.input):
            trigger(
                self.search, asked, [self.found, self.note], api_visibility="private", show_progress="hidden",
                trigger_mode="always_last",
            )  # fmt: skip
        self.found.input(
            self.show,
            [self.found, token],
            [self.shown, self.verbs, self.report, self.sure],
            api_visibility="private",
            show_progress="hidden",
        )
        for button, asks in ((self.delete, True), (self.keep, False)):
            button.click(
                lambda asks=asks: (gr.update(visible=not asks), gr.update(visible=asks)), None, [self.verbs, self.sure],
                api_visibility="private", show_progress="hidden",
            )  # fmt: skip
        self.really.click(
            self.remove, [self.found, *asked], [self.shown, self.verbs, self.sure, self.found, self.note],
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip

    def search(self, words: str, verdict: str, token: Any, request: gr.Request) -> tuple[Any, str]:
        """This visitor's runs that hold the words, newest first."""
        owner = safety.owner_of(token, request)
        try:
            runs = self.engine.runs.find(owner, safety.check_text(words, "The search", 200), verdict or None)
        except SageError as error:
            return gr.Radio(choices=[], visible=False), render.notice_html(str(error))
        choices = [(run.label(), run.id) for run in runs]
        text = "No runs found." if words or verdict else "No runs yet; every inspection is kept here."
        note = "" if runs else render.notice_html(text, "plain")
        return gr.Radio(choices=choices, value=None, visible=bool(runs)), note

    def show(self, run: str | None, token: Any, request: gr.Request) -> tuple[Any, ...]:
        """One run as it was, and its report to be saved."""
        try:
            kept = self.engine.runs.get(safety.owner_of(token, request), run or "")
        except SageError as error:
            return render.notice_html(str(error)), gr.update(visible=False), gr.skip(), gr.update(visible=False)
        report = str(write_report(kept, self.engine.store))
        seen = gr.update(visible=True), gr.DownloadButton(value=report), gr.update(visible=False)
        return run_html(self.engine, kept), *seen

    def remove(self, run: str | None, words: str, verdict: str, token: Any, request: gr.Request) -> tuple[Any, ...]:
        """Deletes the chosen run with its pictures."""
        owner = safety.owner_of(token, request)
        try:
            self.engine.runs.delete(owner, run or "")
        except SageError as error:
            return render.notice_html(str(error)), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        done = render.notice_html("The run and its pictures are deleted.", "done")
        return done, gr.update(visible=False), gr.update(visible=False), *self.search(words, verdict, token, request)


def run_html(engine: Engine, run: Run) -> str:
    """A kept run as it was shown."""
    return render.result_html(run.trace, run.pictures, f"run-{run.id}", run.part, engine.store)
