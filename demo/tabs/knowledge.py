"""The Knowledge tab: find facts and judge them, add a document and watch its facts arrive, see what each domain holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.documents import DOCUMENT_ENDINGS, ingestion, keep_documents
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.tabs.facts import FactReview
from sage_ad.demo.tabs.teach import LooksPage
from sage_ad.demo.tabs.widgets import FAILED, domain_list, stoppable
from sage_ad.demo.view import render
from sage_ad.knowledge.facts import KINDS, STATUSES, Fact, check_domain_name
from sage_ad.vlm.errors import InputError, SageError

FOUND_AT_MOST = 25
ADDING = (
    "Here you will watch the document being read and its facts arrive. A sentence becomes a proposed fact at most; an "
    "expert approves it. The document is kept as its source."
)
ANY = ""


class KnowledgeTab:
    """Builds the tab; four pages: find and judge, add a document, teach by pictures, statistics.

    Args:
        engine: models and knowledge.
        token: the browser's secret, which keeps one visitor's documents apart from another's of the same name.
        tab: the tab itself; the facts that were added last are shown when it is opened.
    """

    def __init__(self, engine: Engine, token: gr.BrowserState, tab: gr.Tab) -> None:
        self.engine = engine
        self.review = FactReview(engine, "kb")
        self.arrived = FactReview(engine, "new", onward=True)
        with gr.Tabs(elem_id="knowledge-pages"):
            with gr.Tab("Find and judge", id="find"):
                self._build_search()
            with gr.Tab("Add a document", id="add"):
                self._build_adding(token)
            with gr.Tab("Teach by pictures", id="looks"):
                LooksPage(engine)
            with gr.Tab("Statistics", id="statistics") as statistics:
                self._build_statistics(statistics)
        asked = [self.words, self.domain, self.kind, self.status]
        tab.select(self.search, asked, self.review.outputs, api_visibility="private", show_progress="hidden")

    # -- find and judge --------------------------------------------------------------------------------------------

    def _build_search(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=300):
                self.words = gr.Textbox(
                    label="Search", placeholder="a question, a defect, a product", elem_id="kb-words", max_length=400
                )
                with gr.Row():
                    self.domain = domain_list(self.engine, empty="all domains")
                    self.kind = gr.Dropdown([("all kinds", ANY), *KINDS], value=ANY, label="Kind")
                    self.status = gr.Dropdown(
                        [("approved or proposed", ANY), *STATUSES], value=ANY, label="Status", elem_id="kb-status"
                    )
                self.find = gr.Button("Search", variant="primary", elem_id="kb-find")
                self.review.build_list()
            with gr.Column(scale=5, min_width=300):
                self.review.build_sheet()
        asked = [self.words, self.domain, self.kind, self.status]
        for trigger in (self.find.click, self.words.submit, self.status.input, self.kind.input, self.domain.input):
            trigger(self.search, asked, self.review.outputs, api_visibility="private", show_progress="minimal")

    def search(self, words: str, domain: str, kind: str, status: str) -> dict[Any, Any]:
        """Facts that fit the words; without words, the ones added last."""
        try:
            facts = self._search(words, domain, kind, status)
        except SageError as error:
            return self.review.listed([], note=render.notice_html(str(error)))
        note = "" if facts else render.notice_html("Nothing found; try other words, or another domain.", "plain")
        return self.review.listed(facts, note=note)

    def _search(self, words: str, domain: str, kind: str, status: str) -> list[Fact]:
        words = safety.check_text(words, "The search", 400)
        limits: dict[str, Any] = {"domain": domain or None, "kind": kind or None}
        statuses = status or ("approved", "proposed")
        if words:
            found = self.engine.store.search(words, k=FOUND_AT_MOST, status=statuses, **limits)
            return [item.fact for item in found]
        facts = self.engine.store.iterate(limits["domain"], kind=limits["kind"], status=statuses)
        return list(deque(facts, maxlen=FOUND_AT_MOST))[::-1]

    # -- add a document --------------------------------------------------------------------------------------------

    def _build_adding(self, token: gr.BrowserState) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.files = gr.File(
                    label="Manuals, data sheets, notes", file_count="multiple", file_types=list(DOCUMENT_ENDINGS),
                    elem_id="kb-files", height=170,
                )  # fmt: skip
                self.target = domain_list(self.engine, label="Domain that it is about", empty="choose one")
                self.new_domain = gr.Textbox(
                    label="Or a new domain", placeholder="lower-case letters, digits, -", max_length=64
                )
                with gr.Row():
                    self.add = gr.Button("Add", variant="primary", elem_id="kb-add", scale=3, min_width=120)
                    self.halt = gr.Button(
                        "Stop", variant="stop", elem_id="kb-stop", scale=1, min_width=80, interactive=False
                    )
            with gr.Column(scale=7, min_width=300):
                self.arrival = gr.HTML(render.notice_html(ADDING, "plain"), elem_id="kb-arrival")
                self.arrived.build_list("New facts, proposed: an inspection that quotes one says so")
                self.arrived.build_sheet()
        outputs = [self.arrival, self.add, self.halt, self.target, *self.arrived.outputs]
        adding = self.add.click(
            self.add_files, [self.files, self.target, self.new_domain, token], outputs, show_progress="hidden",
            trigger_mode="once", api_visibility="private",
        )  # fmt: skip
        stoppable(adding, self.halt, self.halted, self.failed, outputs)

    def add_files(
        self, files: list[str] | None, domain: str, new_domain: str, token: Any, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Adds documents; yields what the page shows after each step, at last the new facts to be judged."""
        owner = safety.owner_of(token, request)
        did: list[dict[str, Any]] = []
        facts: list[dict[str, Any]] = []
        try:
            domain, choices = self._domain(domain, new_domain)
            paths = uploaded(self.engine, files)
            kept = keep_documents(paths, self.engine.settings.home, owner, domain)
            yield {
                self.arrival: arrival_html(did, facts),
                self.add: gr.Button(interactive=False),
                self.halt: gr.Button(interactive=True),
                self.target: choices,
                **self.arrived.listed([]),
            }
            work = lambda: ingestion(self.engine.store, kept, domain)  # noqa: E731
            for event in self.engine.queue.submit(owner, work):
                if event["event"] == "did":
                    did.append(event)
                elif event["event"] == "facts":
                    facts = event["facts"]
                elif event["event"] == "report":
                    report = event["report"]
                    yield {
                        **self._idle(),
                        self.arrival: arrival_html(did, [], report),
                        **self.arrived.listed(report.added),
                    }
                    return
                yield {self.arrival: arrival_html(did, facts)}
        except SageError as error:
            yield {**self._idle(), self.arrival: render.notice_html(str(error))}

    def _idle(self) -> dict[Any, Any]:
        return {self.add: gr.Button(interactive=True), self.halt: gr.Button(interactive=False)}

    def _domain(self, domain: str, new_domain: str) -> tuple[str, Any]:
        name = safety.check_text(new_domain, "The domain's name", 64)
        if not name:
            if not domain:
                raise InputError("No domain is chosen; choose the one that the document is about.")
            return domain, gr.skip()
        if check_domain_name(name) not in self.engine.store.packs():
            self.engine.store.new_domain(name)
        choices = [("choose one", ""), *self.engine.domain_choices()]
        return name, gr.Dropdown(choices=choices, value=name)

    def halted(self) -> dict[Any, Any]:
        """The page after Stop."""
        text = "Stopped. Facts of files that were done are kept; add the others again."
        return {**self._idle(), self.arrival: render.notice_html(text, "plain")}

    def failed(self) -> dict[Any, Any]:
        """The page after an error that nobody foresaw: it says so and can be used again."""
        return {**self._idle(), self.arrival: render.notice_html(f"{FAILED} Facts of files that were done are kept.")}

    # -- statistics ------------------------------------------------------------------------------------------------

    def _build_statistics(self, page: gr.Tab) -> None:
        self.table = gr.HTML(elem_id="kb-statistics")
        page.select(self.statistics, None, self.table, api_visibility="private", show_progress="minimal")

    def statistics(self) -> str:
        """One row a domain: facts by status and by kind."""
        domains = self.engine.store.domains()
        most = max((sum(info.counts.values()) for info in domains), default=1)
        return render.fragment("statistics", domains=domains, most=max(most, 1), statuses=STATUSES, kinds=KINDS)


STEPS = {
    "load": "Read the document",
    "split": "Split it into sentences",
    "extract": "Picked what reads like a fact",
    "classify": "Told the kinds apart",
    "embed": "Made them searchable",
    "check": "Compared them with what is known",
    "store": "Stored them as proposed",
}
"""The steps of the ingestion as the page names them."""


def arrival_html(did: list[dict[str, Any]], facts: list[dict[str, Any]], report: Any = None) -> str:
    """What the page shows of an ingestion.

    Args:
        did: events of the steps that were taken.
        facts: sentences as they are known now.
        report: the `IngestionReport`, once there is one.
    """
    return render.fragment("arrival", did=did, facts=facts, report=report, steps=STEPS)


def uploaded(engine: Engine, files: list[str] | None) -> list[Path]:
    """The uploaded documents, checked for where they lie and how large they are.

    Raises:
        InputError: there is none, or one cannot be taken.
    """
    if not files:
        raise InputError("There is no document to add; drop one into the field.")
    if len(files) > 20:
        raise InputError(f"{len(files)} documents are too many at once; add at most twenty.")
    paths = [safety.inside(path, Path(gr.utils.get_upload_folder())) for path in files]
    for path in paths:
        if path.stat().st_size > engine.settings.max_megabytes * 2**20:
            raise InputError(f"{path.name} is larger than {engine.settings.max_megabytes} MB; split it.")
    return paths
