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
    """Builds the tab; three pages: find and judge, add a document, statistics.

    Args:
        engine: models and knowledge.
        token: the browser's secret, which keeps one visitor's documents apart from another's of the same name.
        tab: the tab itself; the facts that were added last are shown when it is opened.
    """

    def __init__(self, engine: Engine, token: gr.BrowserState, tab: gr.Tab) -> None:
        self.engine = engine
        with gr.Tabs(elem_id="knowledge-pages"):
            with gr.Tab("Find and judge", id="find"):
                self._build_search()
            with gr.Tab("Add a document", id="add"):
                self._build_adding(token)
            with gr.Tab("Statistics", id="statistics") as statistics:
                self._build_statistics(statistics)
        asked = [self.words, self.domain, self.kind, self.status]
        tab.select(self.search, asked, [self.found, self.note], api_visibility="private", show_progress="hidden")

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
                self.note = gr.HTML(elem_id="kb-note")
                self.found = gr.Radio([], label="Facts", elem_id="kb-found", elem_classes="sg-list", visible=False)
            with gr.Column(scale=5, min_width=300):
                self.fact = gr.HTML(
                    render.notice_html("Choose a fact to see where it came from, and to judge it.", "plain"),
                    elem_id="kb-fact",
                )
                with gr.Row():
                    self.approve = gr.Button(
                        "Approve", variant="primary", elem_id="kb-approve", min_width=90, visible=False
                    )
                    self.reject = gr.Button("Reject", variant="stop", elem_id="kb-reject", min_width=90, visible=False)
                with gr.Accordion("Change it", open=False, visible=False, elem_id="kb-edit") as self.editor:
                    self.text = gr.Textbox(label="Sentence", lines=3, elem_id="kb-text", max_length=2000)
                    self.new_kind = gr.Dropdown(list(KINDS), label="Kind")
                    self.products = gr.Textbox(label="Products, separated by commas (none: all of the domain)")
                    self.defects = gr.Textbox(label="Defects, separated by commas")
                    self.save = gr.Button("Save the change", elem_id="kb-save")
        asked = [self.words, self.domain, self.kind, self.status]
        listed = [self.found, self.note]
        shown = [
            self.fact,
            self.approve,
            self.reject,
            self.editor,
            self.text,
            self.new_kind,
            self.products,
            self.defects,
        ]
        for trigger in (self.find.click, self.words.submit, self.status.input, self.kind.input, self.domain.input):
            trigger(self.search, asked, listed, api_visibility="private", show_progress="minimal")
        self.found.input(self.show, self.found, shown, api_visibility="private", show_progress="hidden")
        for button, status in ((self.approve, "approved"), (self.reject, "rejected")):
            button.click(
                self._judge(status), [self.found, *asked], [*shown, *listed], api_visibility="private",
                show_progress="hidden",
            )  # fmt: skip
        self.save.click(
            self.edit, [self.found, self.text, self.new_kind, self.products, self.defects, *asked], [*shown, *listed],
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip

    def search(self, words: str, domain: str, kind: str, status: str) -> tuple[Any, Any]:
        """Facts that fit the words; without words, the ones added last."""
        try:
            facts = self._search(words, domain, kind, status)
        except SageError as error:
            return gr.Radio(choices=[], visible=False), render.notice_html(str(error))
        choices = [(fact_label(fact), fact.id) for fact in facts]
        note = "" if facts else render.notice_html("Nothing found; try other words, or another domain.", "plain")
        return gr.Radio(choices=choices, value=None, visible=bool(facts)), note

    def _search(self, words: str, domain: str, kind: str, status: str) -> list[Fact]:
        words = safety.check_text(words, "The search", 400)
        limits: dict[str, Any] = {"domain": domain or None, "kind": kind or None}
        statuses = status or ("approved", "proposed")
        if words:
            found = self.engine.store.search(words, k=FOUND_AT_MOST, status=statuses, **limits)
            return [item.fact for item in found]
        facts = self.engine.store.iterate(limits["domain"], kind=limits["kind"], status=statuses)
        return list(deque(facts, maxlen=FOUND_AT_MOST))[::-1]

    def show(self, identity: str | None) -> tuple[Any, ...]:
        """One fact with its sources, and the means to judge it."""
        hidden = gr.update(visible=False)
        if not identity:
            return "", hidden, hidden, hidden, "", None, "", ""
        try:
            fact = self.engine.store.get(identity)
        except SageError as error:
            return render.notice_html(str(error)), hidden, hidden, hidden, "", None, "", ""
        seen = gr.update(visible=True)
        verbs = gr.Button(visible=fact.status != "approved"), gr.Button(visible=fact.status != "rejected")
        tags = ", ".join(fact.products), ", ".join(fact.defects)
        return render.fact_html(fact), *verbs, seen, fact.text, fact.kind, *tags

    def _judge(self, status: str) -> Any:
        def judge(identity: str | None, *asked: str) -> tuple[Any, ...]:
            return self._changed(identity, asked, lambda fact: self.engine.store.set_status(fact, status))

        return judge

    def edit(
        self, identity: str | None, text: str, kind: str, products: str, defects: str, *asked: str
    ) -> tuple[Any, ...]:
        """Changes sentence, kind, products and defects of a fact."""

        def change(fact: str) -> Fact:
            names = {
                field: tuple(name.strip() for name in (given or "").split(",") if name.strip())
                for field, given in (("products", products), ("defects", defects))
            }
            return self.engine.store.edit(fact, text=safety.check_text(text, "The sentence"), kind=kind, **names)

        return self._changed(identity, asked, change)

    def _changed(self, identity: str | None, asked: tuple[str, ...], change: Any) -> tuple[Any, ...]:
        """Does a change to the chosen fact and shows it and the list anew (the fact stays in the list)."""
        try:
            if not identity:
                raise InputError("No fact is chosen; choose one in the list.")
            fact = change(identity)
        except SageError as error:
            problem = render.notice_html(str(error))
            return (*self.show(identity)[:4], *[gr.skip()] * 5, problem)
        facts = self._search(*asked)
        if fact.id not in {one.id for one in facts}:
            facts = [fact, *facts]
        choices = [(fact_label(fact if one.id == fact.id else one), one.id) for one in facts]
        note = render.notice_html(f"Fact {fact.id} is {fact.status} now.", "done")
        return (*self.show(identity), gr.Radio(choices=choices, value=identity, visible=True), note)

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
        outputs = [self.arrival, self.add, self.halt, self.target]
        adding = self.add.click(
            self.add_files, [self.files, self.target, self.new_domain, token], outputs, show_progress="hidden",
            trigger_mode="once", api_visibility="private",
        )  # fmt: skip
        stoppable(adding, self.halt, self.halted, self.failed, outputs)

    def add_files(
        self, files: list[str] | None, domain: str, new_domain: str, token: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Adds documents; yields what the page shows after each step."""
        owner = safety.owner_of(token, request)
        on, off = gr.update(interactive=True), gr.update(interactive=False)
        busy, idle = (off, on), (on, off)
        did: list[dict[str, Any]] = []
        facts: list[dict[str, Any]] = []
        try:
            domain, choices = self._domain(domain, new_domain)
            paths = uploaded(self.engine, files)
            kept = keep_documents(paths, self.engine.settings.home, owner, domain)
            yield (render.fragment("arrival", did=did, facts=facts, report=None), *busy, choices)
            report = None
            work = lambda: ingestion(self.engine.store, kept, domain)  # noqa: E731
            for event in self.engine.queue.submit(owner, work):
                if event["event"] == "did":
                    did.append(event)
                elif event["event"] == "facts":
                    facts = event["facts"]
                elif event["event"] == "report":
                    report = event["report"]
                yield (render.fragment("arrival", did=did, facts=facts, report=report), *busy, gr.skip())
            yield (render.fragment("arrival", did=did, facts=facts, report=report), *idle, gr.skip())
        except SageError as error:
            yield (render.notice_html(str(error)), *idle, gr.skip())

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

    def halted(self) -> tuple[Any, ...]:
        """The page after Stop."""
        text = "Stopped. Facts of files that were done are kept; add the others again."
        return render.notice_html(text, "plain"), gr.update(interactive=True), gr.update(interactive=False), gr.skip()

    def failed(self) -> tuple[Any, ...]:
        """The page after an error that nobody foresaw: it says so and can be used again."""
        return (
            render.notice_html(f"{FAILED} Facts of files that were done are kept."),
            gr.update(interactive=True),
            gr.update(interactive=False),
            gr.skip(),
        )

    # -- statistics ------------------------------------------------------------------------------------------------

    def _build_statistics(self, page: gr.Tab) -> None:
        self.table = gr.HTML(elem_id="kb-statistics")
        page.select(self.statistics, None, self.table, api_visibility="private", show_progress="minimal")

    def statistics(self) -> str:
        """One row a domain: facts by status and by kind."""
        domains = self.engine.store.domains()
        most = max((sum(info.counts.values()) for info in domains), default=1)
        return render.fragment("statistics", domains=domains, most=max(most, 1), statuses=STATUSES, kinds=KINDS)


def fact_label(fact: Fact) -> str:
    """A fact in a list: its text, and what one must know before opening it."""
    mark = "" if fact.status == "approved" else f" · {fact.status}"
    return f"{fact.text} ({fact.domain}, {fact.kind}{mark})"


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
