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

CHOOSE = "Choose a run to see it again."
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
                self.shown = gr.HTML(render.notice_html(CHOOSE, "plain"), elem_id="runs-shown")
        asked = [self.words, self.verdict, self.found, token]
        listed = [self.found, self.note, self.shown, self.verbs, self.sure]
        gr.on(
            [tab.select, self.words.change, self.verdict.input], self.search, asked, listed, api_visibility="private",
            show_progress="hidden", trigger_mode="always_last",
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
            self.remove, asked, listed, api_visibility="private", show_progress="hidden",
        )  # fmt: skip

    def search(
        self, words: str, verdict: str, chosen: str | None, token: Any, request: gr.Request
    ) -> tuple[Any, Any, Any, Any, Any]:
        """This visitor's runs that hold the words, newest first.

        A run that is no longer in the list leaves the page with its buttons: they would act on nothing.
        """
        owner = safety.owner_of(token, request)
        away = render.notice_html(CHOOSE, "plain"), gr.update(visible=False), gr.update(visible=False)
        try:
            runs = self.engine.runs.find(owner, safety.check_text(words, "The search", 200), verdict or None)
        except SageError as error:
            return gr.Radio(choices=[], value=None, visible=False), render.notice_html(str(error)), *away
        choices = [(run.label(), run.id) for run in runs]
        text = "No runs found." if words or verdict else "No runs yet; every inspection is kept here."
        note = "" if runs else render.notice_html(text, "plain")
        if any(run.id == chosen for run in runs):
            return gr.Radio(choices=choices, value=chosen, visible=True), note, gr.skip(), gr.skip(), gr.skip()
        return gr.Radio(choices=choices, value=None, visible=bool(runs)), note, *away

    def show(self, run: str | None, token: Any, request: gr.Request) -> tuple[Any, ...]:
        """One run as it was, and its report to be saved."""
        try:
            kept = self.engine.runs.get(safety.owner_of(token, request), run or "")
        except SageError as error:
            return render.notice_html(str(error)), gr.update(visible=False), gr.skip(), gr.update(visible=False)
        report = str(write_report(kept, self.engine.store))
        seen = gr.update(visible=True), gr.DownloadButton(value=report), gr.update(visible=False)
        return run_html(self.engine, kept), *seen

    def remove(
        self, words: str, verdict: str, run: str | None, token: Any, request: gr.Request
    ) -> tuple[Any, Any, Any, Any, Any]:
        """Deletes the chosen run with its pictures."""
        owner = safety.owner_of(token, request)
        try:
            self.engine.runs.delete(owner, run or "")
        except SageError as error:
            return gr.skip(), gr.skip(), render.notice_html(str(error)), gr.skip(), gr.skip()
        found, note, _, *hidden = self.search(words, verdict, None, token, request)
        return found, note, render.notice_html("The run and its pictures are deleted.", "done"), *hidden


def run_html(engine: Engine, run: Run) -> str:
    """A kept run as it was shown."""
    return render.result_html(run.trace, run.pictures, f"run-{run.id}", run.part, engine.store)
