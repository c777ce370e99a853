"""The same functions for programs: named endpoints of Gradio's API, which `--mcp` offers as tools too.

Their docstrings are what the API page and MCP clients show. Files are uploaded first, as Gradio's clients do by
themselves; a path on the server is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.documents import ingestion, keep_documents
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.ranking import RankingStore, rankable, ranked_line
from sage_ad.demo.tabs.compare import both, figures_of, two_sides
from sage_ad.demo.tabs.inspect import checked_request, keep_run
from sage_ad.demo.tabs.knowledge import uploaded
from sage_ad.demo.view.progress import Progress
from sage_ad.demo.view.report import report_html
from sage_ad.evaluation.inspection import InspectionTrace
from sage_ad.vlm.errors import InputError, SageError

T = TypeVar("T")


def answered(work: Callable[[], T]) -> T:
    """Does the work; what goes wrong reaches the caller as one sentence."""
    try:
        return work()
    except SageError as error:
        raise gr.Error(safety.without_places(str(error)), print_exception=False) from None


def add_endpoints(engine: Engine) -> None:
    """Registers all endpoints in the current `gr.Blocks`."""
    api = Endpoints(engine)
    with gr.Column(visible=False):
        # Files come through components, so that Gradio checks where they lie and MCP clients may send addresses.
        image = gr.File(label="image", file_count="single")
        references = gr.File(label="references", file_count="multiple")
        documents = gr.File(label="documents", file_count="multiple")
        product, domain, questions, model, other, key = (
            gr.Textbox("", label=name) for name in ("product", "domain", "questions", "model", "other", "key")
        )
        way = gr.Textbox("reference", label="way")
        facts = gr.Checkbox(True, label="facts")
        scale = gr.Number(None, label="mm_per_pixel")
        result = gr.JSON()
        call = gr.Button()
    about = [image, references, product, domain, questions]
    call.click(api.inspect, [*about, facts, model, key, scale], result, api_name="inspect")
    call.click(api.compare, [*about, way, model, other], result, api_name="compare")
    call.click(api.add_documents, [documents, domain, key], result, api_name="add_documents")
    for function in (
        api.search_facts, api.show_fact, api.judge_fact, api.edit_fact, api.domain_statistics, api.list_runs,
        api.show_run, api.export_run, api.rank_answers,
    ):  # fmt: skip
        gr.api(function, api_name=function.__name__)


class Endpoints:
    """The functions behind the endpoints."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rankings = RankingStore(engine.settings.home / "rankings")

    def _owner(self, key: str | None, request: gr.Request | None) -> str:
        """Whose runs: by login, else by the caller's own key (32 hexadecimal digits), else by the session."""
        if key and not safety.is_token(key):
            raise InputError("The key cannot be used; give 32 hexadecimal digits of your own choice, or none.")
        return safety.owner_of(key, request)

    # -- inspecting ------------------------------------------------------------------------------------------------

    def inspect(
        self, image: str, references: list[str] | None = None, product: str = "", domain: str = "",
        questions: str = "", facts: bool = True, model: str = "", key: str = "", mm_per_pixel: float | None = None,
        request: gr.Request | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Inspects a part and returns the trace: verdict, explanation, regions as measured, candidates for the defect's name.

        Questions are answered beside the explanation; without one no language model has a part in it. A defect is
        named (`defect`) only if the pack was taught its look.

        Args:
            image: picture of the part.
            references: pictures of good parts (may be empty).
            product: name of the product, if known.
            domain: knowledge pack to use; empty finds it by the product.
            questions: one question a line; may be empty.
            facts: whether facts of the knowledge base are used.
            model: one of the offered models, which answers the questions; empty takes the default.
            key: 32 hexadecimal digits of your own choice keep the run for you under this key; empty keeps nothing.
            mm_per_pixel: scale of the picture, if known: sizes are then in millimetres too.
        """

        def work() -> dict[str, Any]:
            owner = self._owner(key, request)
            asked = checked_request(
                self.engine, image, references or [], product, domain, questions, facts, scale=mm_per_pixel
            )
            progress = Progress(uid="api")
            for event in self.engine.submit(owner, asked, model or None):
                progress.feed(event)
            if progress.trace is None or not progress.done:
                raise InputError("The inspection ended without a result; try it again.")
            found = safety.plain_trace(progress.trace)
            if key or getattr(request, "username", None):
                found["run"] = keep_run(self.engine, owner, progress, asked, model or None).id
            return found

        return answered(work)

    def compare(
        self, image: str, references: list[str] | None = None, product: str = "", domain: str = "",
        questions: str = "", way: str = "reference", model: str = "", other: str = "",
        request: gr.Request | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Inspects a part in two ways and returns both traces and the figures that differ.

        Args:
            image: picture of the part.
            references: pictures of good parts (may be empty).
            product: name of the product, if known.
            domain: knowledge pack to use; empty finds it by the product.
            questions: one question a line; empty takes the five standard ones.
            way: reference (with and without good parts), facts (with and without), models (two of them), or stages
                (stage 1 against E-DPO, where such a checkpoint is offered).
            model: the one model, when models are compared; empty takes the default.
            other: the other model, when models are compared.
        """

        def work() -> dict[str, Any]:
            owner = safety.owner_of(None, request)
            asked = checked_request(self.engine, image, references or [], product, domain, questions)
            pair = (model or self.engine.settings.model, other or self.engine.settings.models[-1])
            sides = two_sides(way, asked, pair, self.engine.settings.stages)
            traces: list[InspectionTrace] = []
            for event in self.engine.queue.submit(owner, lambda: both(self.engine, sides)):
                if event["event"] == "trace":
                    traces.append(event["trace"])
            return {
                side.name: {"figures": figures_of(trace), "trace": safety.plain_trace(trace)}
                for side, trace in zip(sides, traces, strict=True)
            }

        return answered(work)

    # -- knowledge -------------------------------------------------------------------------------------------------

    def search_facts(
        self, words: str, domain: str = "", kind: str = "", status: str = "", count: int = 8
    ) -> list[dict]:
        """Finds facts by meaning and words.

        Args:
            words: a question, a defect, a product.
            domain: only this knowledge pack.
            kind: only appearance, cause, consequence, normal-variation or inspection.
            status: only approved, proposed or rejected; empty finds approved and proposed ones.
            count: how many at most, up to 50.
        """

        def work() -> list[dict[str, Any]]:
            query = safety.check_text(words, "The search", 400)
            if not query:
                raise InputError("The search is empty; give a question or some words.")
            found = self.engine.store.search(
                query, domain=domain or None, kind=kind or None, status=status or ("approved", "proposed"),
                k=min(max(int(count), 1), 50),
            )  # fmt: skip
            return [{**plain_fact(item.fact), "score": round(float(item.score), 4)} for item in found]

        return answered(work)

    def show_fact(self, fact: str) -> dict:
        """Returns a fact with its sources.

        Args:
            fact: its id (or the first eight digits).
        """
        return answered(lambda: plain_fact(self.engine.store.get(fact)))

    def judge_fact(self, fact: str, status: str) -> dict:
        """Approves or rejects a fact, or makes it proposed again; returns it as it is now.

        Args:
            fact: its id.
            status: approved, rejected or proposed.
        """
        return answered(lambda: plain_fact(self.engine.store.set_status(fact, status)))

    def edit_fact(self, fact: str, text: str) -> dict:
        """Changes the sentence of a fact; its id and sources stay.

        Args:
            fact: its id.
            text: the new sentence.
        """
        return answered(lambda: plain_fact(self.engine.store.edit(fact, text=safety.check_text(text, "The sentence"))))

    def add_documents(self, documents: list[str] | None, domain: str, key: str, request: gr.Request) -> dict[str, Any]:
        """Adds the facts of documents to a domain, as proposed; returns what became of each file and sentence.

        Args:
            documents: Markdown, text, PDF, DOCX, XLSX, HTML, CSV or JSON files.
            domain: knowledge pack that they are about.
            key: 32 hexadecimal digits of your own choice; a changed file with the same key and name updates its facts.
        """

        def work() -> dict[str, Any]:
            if not domain:
                raise InputError("No domain is named; name the one that the documents are about.")
            owner = self._owner(key, request)
            self.engine.store.facts(domain, source="-")
            kept = keep_documents(uploaded(self.engine, documents), self.engine.settings.home, owner, domain)
            job = self.engine.queue.submit(owner, lambda: ingestion(self.engine.store, kept, domain))
            report = next(event["report"] for event in job if event["event"] == "report")
            return plain_report(report.record(), kept)

        return answered(work)

    def domain_statistics(self) -> list[dict]:
        """Lists the knowledge packs with their numbers of facts by status and by kind."""
        return [
            {"domain": info.name, "title": info.title, "status": info.counts, "kinds": info.kinds}
            for info in self.engine.store.domains()
        ]

    # -- runs and rankings -----------------------------------------------------------------------------------------

    def list_runs(self, key: str, request: gr.Request, words: str = "") -> list[dict]:
        """Lists kept inspections, newest first.

        Args:
            key: the key that they were kept under (empty with a login).
            words: only those that hold these words.
        """

        def work() -> list[dict[str, Any]]:
            runs = self.engine.runs.find(self._owner(key, request), safety.check_text(words, "The search", 200))
            return [{"run": run.id, "created": run.created, "label": run.label()} for run in runs]

        return answered(work)

    def show_run(self, run: str, key: str, request: gr.Request) -> dict:
        """Returns the trace of a kept inspection.

        Args:
            run: its id.
            key: the key that it was kept under (empty with a login).
        """
        return answered(lambda: safety.plain_trace(self.engine.runs.get(self._owner(key, request), run).trace))

    def export_run(self, run: str, key: str, request: gr.Request) -> str:
        """Returns the report of a kept inspection as one self-contained HTML text.

        Args:
            run: its id.
            key: the key that it was kept under (empty with a login).
        """
        return answered(lambda: report_html(self.engine.runs.get(self._owner(key, request), run), self.engine.store))

    def rank_answers(self, run: str, question: str, answers: list[str], key: str, request: gr.Request) -> dict:
        """Keeps answers to a question of a kept inspection in an expert's order; returns the line for alignment.

        Args:
            run: id of the inspection.
            question: one of its questions; of an inspection without one, a standard question.
            answers: at least two, best first.
            key: the key that it was kept under (empty with a login).
        """

        def work() -> dict[str, Any]:
            owner = self._owner(key, request)
            kept = self.engine.runs.get(owner, run)
            answer = next((item for item in rankable(kept) if item.question == question), None)
            if answer is None:
                known = "; ".join(item.question for item in rankable(kept))
                raise InputError(f"This inspection has no such question; its questions are: {known}")
            texts = [safety.check_text(str(text), "An answer") for text in answers]
            line = ranked_line(kept, answer, texts, None, *self.rankings.pictures(owner, kept))
            self.rankings.save(owner, line)
            return line.model_dump(mode="json")

        return answered(work)


def plain_fact(fact: Any) -> dict[str, Any]:
    """A fact as JSON values, with file names in place of the server's paths."""
    values = fact.model_dump(mode="json")
    for source in values["sources"]:
        if source["file"]:
            source["file"] = safety.short_source(source["file"])
    return values


def plain_report(record: dict[str, Any], paths: list[Path]) -> dict[str, Any]:
    """An ingestion's record with file names in place of the server's paths."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return safety.without_folders(value, *paths)
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    cleaned: dict[str, Any] = plain(record)
    return cleaned
