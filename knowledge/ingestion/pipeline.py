"""How documents become facts: a LangGraph graph of load, split, extract, classify, embed, check and store.

The graph goes round once for each file, so that a file's facts are on the disk before the next one is opened, memory
stays small, and a bad file ends up in the report as one sentence while the others are read.

A sentence that a person wrote is stored as *proposed* like any other: that a document says so is no expert's approval
of the sentence out of its context. `approve=True` is that approval, given for all sentences taken word for word from
the documents; what a model worded and what contradicts known facts stays proposed even then.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from sage_ad.knowledge.facts import Fact, FactSource, Status, now
from sage_ad.knowledge.ingestion.checks import CheckedFact, StoreEmbedder, check_facts, instruction_reason
from sage_ad.knowledge.ingestion.extraction import (
    OFFLINE_EXTRACTOR,
    Candidate,
    Extraction,
    candidate_of,
    classify,
    extract_offline,
    extract_with_model,
)
from sage_ad.knowledge.ingestion.tags import filed_under, tagger, with_taught
from sage_ad.knowledge.store.sources import IngestedFile, drop_sources, note, taken_in
from sage_ad.knowledge.text.classifier import FactClassifier
from sage_ad.vlm.errors import BackendError, InputError

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph
    from llama_index.core.schema import BaseNode

    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.vlm.backends.base import LanguageBackend

STEPS = ("load", "split", "extract", "classify", "embed", "check", "store")
"""The steps of the graph, in order."""

Progress = Callable[[str, str, str], None]
"""Called with (step, file, one sentence on what it did)."""

Outcome = Literal["added", "updated", "unchanged", "nothing", "failed"]


@dataclass
class FileReport:
    """What became of one file.

    Attributes:
        file: its path.
        outcome: "added", "updated" (a changed file), "unchanged", "nothing" (read, but no fact in it) or "failed".
        sentence: what happened, in one sentence.
        added: new facts; `merged`: facts that were known and got this source; `contradictions`: new facts that
            contradict others and are flagged; `refused`: sentences that were not stored (with reasons in the report);
            `dropped`: sentences that are no facts; `removed`: facts that the changed file no longer has.
        left_out: the sentences that are no facts, each with the reason.
        problems: sentences on text of the file that could not be read.
        notes: sentences on what was left out or completed without losing text (pictures, ratings, repeated cells).
        seconds: time that it took.
    """

    file: str
    outcome: Outcome = "added"
    sentence: str = ""
    added: int = 0
    merged: int = 0
    contradictions: int = 0
    refused: int = 0
    dropped: int = 0
    removed: int = 0
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class IngestionReport:
    """What an ingestion did.

    Attributes:
        domain: where the facts went.
        files: one report a file, in order.
        added: facts that are new (those that contradict others among them).
        merged: facts that were known and got a further source.
        contradictions: candidates stored with a flag, with the facts that they contradict.
        refused: candidates not stored: of another domain, orders to a model, no facts.
        problems: sentences about files, rows and pages that could not be read.
        notes: sentences about what was left out or completed without losing text.
        seconds: time in all.
    """

    domain: str
    files: list[FileReport] = field(default_factory=list)
    added: list[Fact] = field(default_factory=list)
    merged: list[Fact] = field(default_factory=list)
    contradictions: list[CheckedFact] = field(default_factory=list)
    refused: list[CheckedFact] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> list[FileReport]:
        """Files that could not be read."""
        return [file for file in self.files if file.outcome == "failed"]

    def record(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {
            "domain": self.domain,
            "files": [asdict(file) for file in self.files],
            "added": [fact.record() for fact in self.added],
            "merged": [fact.id for fact in self.merged],
            "contradictions": [_checked_record(checked) for checked in self.contradictions],
            "refused": [_checked_record(checked) for checked in self.refused],
            "problems": self.problems,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }


def _checked_record(checked: CheckedFact) -> dict[str, Any]:
    return {
        "id": checked.fact.id,
        "text": checked.fact.text,
        "outcome": checked.outcome,
        "reason": checked.reason,
        "source": checked.fact.source,
        "other": checked.other.id if checked.other else None,
    }


class State(TypedDict, total=False):
    """What the steps hand on; the queue shrinks by one file a round."""

    queue: list[Path]
    file: FileReport
    source: tuple[str, str]  # path and SHA-256 of the file
    began: float
    documents: list[Any]  # llama-index documents and nodes: named at run time, so imported they would slow every start
    nodes: list[Any]
    extraction: Extraction
    refused: list[CheckedFact]
    facts: list[Fact]
    checked: list[CheckedFact]
    report: IngestionReport


def ingest(
    paths: Sequence[Path | str],
    domain: str,
    store: FactStore,
    backend: LanguageBackend | None = None,
    progress: Progress | None = None,
    *,
    approve: bool = False,
) -> IngestionReport:
    """Takes documents into a domain of the knowledge base.

    Args:
        paths: files and folders (with all files in them; hidden ones are passed over).
        domain: an existing domain.
        store: the fact store.
        backend: a language model that words the facts; None takes the authors' sentences as they stand.
        progress: called after every step.
        approve: store sentences taken word for word as approved instead of proposed.

    Returns:
        What became of every file and every fact. Files that cannot be read are named there; nothing is raised for them.

    Raises:
        InputError: for an unknown domain, or when no path was given.
        BackendError: when the store cannot be written.
    """
    if not paths:
        raise InputError("Nothing was given to add; name files or folders.")
    store.facts(domain, source="-")  # an unknown domain is refused before anything is read
    began = time.perf_counter()
    queue, problems = collect_files([Path(path) for path in paths])
    report = IngestionReport(domain, problems=[problem.sentence for problem in problems], files=list(problems))
    graph = Ingestion(store, domain, backend, approve).graph()
    limit = 10 + len(queue) * (len(STEPS) + 1)
    state: State = {"queue": queue, "report": report}
    for update in graph.stream(state, {"recursion_limit": limit}, stream_mode="custom"):
        if progress is not None:
            progress(update["step"], update["file"], update["summary"])
    report.seconds = time.perf_counter() - began
    return report


def collect_files(paths: Sequence[Path]) -> tuple[list[Path], list[FileReport]]:
    """The files to read, each once and in order, and a failed report for each path that cannot be one."""
    from sage_ad.knowledge.ingestion.readers import IMAGE_ENDINGS, READERS

    found: dict[Path, None] = {}
    problems: list[FileReport] = []
    images: dict[Path, list[Path]] = {}
    for path in paths:
        if path.is_dir():
            inside = list(_walk(path))
            if not inside:
                problems.append(_failed(path, f"{path} is an empty folder; put the documents into it or name files."))
        elif path.exists():
            inside = [path]
        else:
            problems.append(_failed(path, f"{path} does not exist; check the path."))
            continue
        for file in inside:
            ending = file.suffix.lower()
            if ending in IMAGE_ENDINGS:
                images.setdefault(file.parent, []).append(file)
            elif ending in READERS:
                found[file] = None
            else:
                known = " ".join(sorted(READERS))
                problems.append(
                    _failed(file, f"{file} cannot be read: ending {ending or '(none)'!r} is none of {known}.")
                )
    for folder, files in images.items():
        captions = [folder / f"captions{ending}" for ending in (".csv", ".jsonl", ".tsv", ".json")]
        caption_file = next((path for path in captions if path.is_file()), None)
        if caption_file is not None:
            found[caption_file] = None
        else:
            name = str(files[0]) if len(files) == 1 else f"{len(files)} images of {folder}"
            verb = "has no caption" if len(files) == 1 else "have no captions"
            problems.append(_failed(folder, f"{name} {verb}; write captions.csv beside with columns file and caption."))
    return list(found), problems


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, linked folders too, each folder once."""
    seen: set[Path] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        if (real := Path(root).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(files):
            if not name.startswith((".", "~$")):
                yield Path(root) / name


def _failed(path: Path, sentence: str) -> FileReport:
    return FileReport(str(path), "failed", sentence, problems=[sentence])


class Ingestion:
    """The steps of the graph, and what they share.

    Args:
        store: the fact store.
        domain: where the facts go.
        backend: a language model that words the facts, or None.
        approve: whether sentences taken word for word are approved.
    """

    def __init__(self, store: FactStore, domain: str, backend: LanguageBackend | None, approve: bool) -> None:
        self.store = store
        self.domain = domain
        self.backend = backend
        self.approve = approve
        self.extractor = OFFLINE_EXTRACTOR if backend is None else f"model {backend.name}"
        self._tools: tuple[StoreEmbedder, FactClassifier] | None = None
        self._pack = with_taught(store.packs()[domain])
        self._tags = tagger(self._pack)

    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The compiled graph: the seven steps in order, and back to "load" while files are left."""
        from langgraph.graph import END, START, StateGraph

        builder = StateGraph(State)
        for name in STEPS:
            builder.add_node(name, self.store_facts if name == "store" else getattr(self, name))
        builder.add_edge(START, "load")
        for before, after in itertools.pairwise(STEPS[1:]):
            if before != "extract":
                builder.add_edge(before, after)
        more: dict[Hashable, str] = {"load": "load", "end": END}
        builder.add_conditional_edges("load", self._after_load, {"split": "split", **more})
        builder.add_conditional_edges("extract", self._after_extract, {"classify": "classify", **more})
        builder.add_conditional_edges("store", self._next_file, more)
        return builder.compile()

    @property
    def tools(self) -> tuple[StoreEmbedder, FactClassifier]:
        """Embedder and classifier, made when the first file needs them."""
        if self._tools is None:
            embedder = StoreEmbedder(self.store)
            self._tools = (embedder, FactClassifier.fitted(embedder))
        return self._tools

    # -- the steps -------------------------------------------------------------------------------------------------

    def load(self, state: State) -> State:
        """Reads the next file of the queue into documents, unless its content was read before."""
        from sage_ad.knowledge.ingestion.readers import read_bytes, reader_for

        if not state["queue"]:
            return {}
        path, *queue = state["queue"]
        report, began = FileReport(str(path)), time.perf_counter()
        documents: list[Any] = []
        source = ("", "")
        try:
            reader = reader_for(path)
            source = (str(path.resolve()), hashlib.sha256(read_bytes(path)).hexdigest())
            if known := taken_in(self.store, self.domain, *source, self.extractor):
                again = "" if known == source[0] else f" as {known}"
                report.outcome = "unchanged"
                anew = f"to read it anew, as after new cards: sage-kb remove --source {known} -d {self.domain}"
                report.sentence = f"{path} was added before{again} and has not changed; {anew}"
            else:
                documents = reader.load_data(path)
                report.problems, report.notes = list(reader.problems), list(reader.notes)
        except InputError as error:
            report.outcome, report.sentence = "failed", str(error)
            report.problems = [str(error)]
        _tell("load", report, report.sentence or f"{len(documents)} part(s) read")
        step: State = {"queue": queue, "file": report, "began": began, "documents": documents, "source": source}
        if report.outcome in {"failed", "unchanged"}:
            self._close(state["report"], report, began)
        return step

    def split(self, state: State) -> State:
        """Cuts the documents into sentences."""
        from sage_ad.knowledge.ingestion.readers import SentenceParser

        parser = SentenceParser()
        nodes = parser.get_nodes_from_documents(state["documents"])
        state["file"].problems += parser.problems
        state["file"].notes += parser.notes
        _tell("split", state["file"], f"{len(nodes)} sentence(s)")
        return {"nodes": nodes}

    def extract(self, state: State) -> State:
        """Sets orders to a model aside, and takes from the other sentences what may become a fact."""
        report, date = state["file"], now()
        nodes, hostile = self._set_aside(state["nodes"], date)
        embedder, classifier = self.tools
        try:
            if self.backend is None:
                extraction = extract_offline(nodes, classifier, embedder, date)
            else:
                extraction = extract_with_model(nodes, self.backend, classifier, embedder, date)
        except BackendError as error:
            report.outcome, report.sentence = "failed", f"{report.file} was not added: {error}"
            report.problems.append(report.sentence)
            self._close(state["report"], report, state["began"])
            extraction = Extraction()
        report.dropped = len(extraction.dropped)
        report.left_out = [f"{text} ({reason})" for text, reason in extraction.dropped]
        report.problems += extraction.notes
        _tell("extract", report, f"{len(extraction.candidates)} candidate(s), {len(extraction.dropped)} no facts")
        return {"extraction": extraction, "refused": hostile}

    def classify(self, state: State) -> State:
        """Gives every candidate its kind."""
        embedder, classifier = self.tools
        extraction = state["extraction"]
        judged = [candidate.judged for candidate in extraction.candidates]
        judgements = classifier.judge(judged, embedder.encode(judged)) if judged else []
        extraction.candidates = classify(extraction.candidates, judgements)
        kinds = [candidate.kind for candidate in extraction.candidates]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        _tell("classify", state["file"], counts or "nothing to classify")
        return {"extraction": extraction}

    def embed(self, state: State) -> State:
        """Embeds the facts as they will be stored; the vectors stay in the store's cache for the steps after it."""
        facts = [self._fact(candidate) for candidate in state["extraction"].candidates]
        self.store.embed(facts)
        _tell("embed", state["file"], f"{len(facts)} vector(s)")
        return {"facts": facts}

    def check(self, state: State) -> State:
        """Compares the candidates with what is known and with one another."""
        checked = check_facts(state["facts"], self.store)
        outcomes = [result.outcome for result in checked]
        counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes))
        _tell("check", state["file"], counts or "nothing to check")
        return {"checked": checked}

    def store_facts(self, state: State) -> State:
        """Stores what passed, merges what was known, and takes away what a changed file no longer says."""
        report, whole = state["file"], state["report"]
        path, sha256 = state["source"]
        changed = any(s.file == path and s.sha256 != sha256 for f in self._of_file(path) for s in f.sources)
        stored = self.store.add(_to_store(state["checked"]))
        contradictions = [result for result in state["checked"] if result.outcome == "contradiction"]
        stored_outcomes = {"new", "duplicate", "contradiction"}
        refused = [*state["refused"], *(r for r in state["checked"] if r.outcome not in stored_outcomes)]
        gone = drop_sources(self.store, path, self.domain, lambda s: s.file == path and s.sha256 != sha256)
        total = len(stored.added) + len(stored.merged) + len(stored.known)
        note(self.store, self.domain, IngestedFile(path, sha256, self.extractor, now(), total))
        report.added, report.merged = len(stored.added), len(stored.merged)
        report.contradictions, report.refused = len(contradictions), len(refused)
        report.removed = len(gone.removed)
        report.outcome = "updated" if changed else "added" if total else "nothing"
        report.sentence = _sentence(report, gone.removed)
        whole.added += stored.added
        whole.merged += stored.merged
        whole.contradictions += contradictions
        whole.refused += refused
        _tell("store", report, report.sentence)
        self._close(whole, report, state["began"])
        return {"documents": [], "nodes": [], "facts": [], "checked": []}

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _of_file(self, path: str) -> list[Fact]:
        return self.store.facts(self.domain, source=path)

    def _fact(self, candidate: Candidate) -> Fact:
        worded_by_model = candidate.source.model is not None
        status: Status = "approved" if self.approve and not worded_by_model else "proposed"
        # What a column or an entry names is the author's word; the sentence and its headings tell the rest.
        pack, (products, defects) = self._pack, self._tags(candidate.text, candidate.headings)
        products = filed_under(candidate.products, pack.products) or products
        defects = filed_under(candidate.defects, pack.defects) or defects
        return replace(candidate, products=products, defects=defects).fact(self.domain, status)

    def _set_aside(self, nodes: Sequence[BaseNode], date: str) -> tuple[list[BaseNode], list[CheckedFact]]:
        """Parts the sentences into those to read on and those that give orders to a model.

        Two neighbours are also read together: an order may be cut in two by a full stop.
        """
        reasons = [instruction_reason(_everything(node)) for node in nodes]
        for row in range(len(nodes) - 1):
            if reasons[row] is None and reasons[row + 1] is None and _neighbours(nodes[row], nodes[row + 1]):
                both = f"{nodes[row].get_content()} {nodes[row + 1].get_content()}"
                reasons[row] = reasons[row + 1] = instruction_reason(both)
        kept = [node for node, reason in zip(nodes, reasons, strict=True) if reason is None]
        hostile = [
            CheckedFact(
                candidate_of(node, date).fact(self.domain, "proposed"),
                "instruction",
                f"Reads like an order to a model: {reason}.",
            )
            for node, reason in zip(nodes, reasons, strict=True)
            if reason is not None
        ]
        return kept, hostile

    def _close(self, whole: IngestionReport, report: FileReport, began: float) -> None:
        report.seconds = round(time.perf_counter() - began, 3)
        whole.files.append(report)
        whole.problems += report.problems
        whole.notes += report.notes

    def _after_load(self, state: State) -> str:
        return "split" if state.get("documents") else self._next_file(state)

    def _after_extract(self, state: State) -> str:
        return "classify" if state["file"].outcome != "failed" else self._next_file(state)

    def _next_file(self, state: State) -> str:
        return "load" if state["queue"] else "end"


def _tell(step: str, report: FileReport, summary: str) -> None:
    from langgraph.config import get_stream_writer

    get_stream_writer()({"step": step, "file": report.file, "summary": summary})


def _everything(node: BaseNode) -> str:
    """A sentence with the names that would be stored with it: an order may hide in a product's name."""
    names = (*(node.metadata.get("products") or ()), *(node.metadata.get("defects") or ()))
    return "\n".join((node.get_content(), *names))


def _neighbours(first: BaseNode, second: BaseNode) -> bool:
    keys = ("page", "entry", "block")
    return all(first.metadata.get(key) == second.metadata.get(key) for key in keys)


def _to_store(checked: Sequence[CheckedFact]) -> list[Fact]:
    """What to store: new facts (flagged where they contradict) and known ones with their further sources."""
    facts: dict[str, Fact] = {}
    for result in checked:
        fact = result.fact
        if result.outcome == "new":
            facts[fact.id] = fact
        elif result.outcome == "contradiction" and result.other is not None:
            flags = (*fact.flags, f"contradicts {result.other.id}")
            facts[fact.id] = fact.model_copy(update={"status": "proposed", "flags": flags})
        elif result.outcome == "duplicate" and result.other is not None:
            base = facts.get(result.other.id, result.other)
            fresh = tuple(source for source in fact.sources if _place(source) not in map(_place, base.sources))
            approved = fact.status == "approved" and base.status == "proposed" and not base.flags
            status = "approved" if approved else base.status
            facts[base.id] = base.model_copy(update={"sources": (*base.sources, *fresh), "status": status})
    return list(facts.values())


def _place(source: FactSource) -> tuple[Any, ...]:
    """What tells two sources of one fact apart; a second mention on the same page adds nothing."""
    location = source.location
    page, entry = (location.page, location.entry) if location else (None, None)
    return source.file, source.model, source.sha256, page, entry


def _sentence(report: FileReport, removed: Sequence[Fact]) -> str:
    parts = [f"{report.added} new fact(s)"]
    parts += [f"{report.merged} known, now with this source too"] if report.merged else []
    parts += [f"{report.contradictions} flagged as contradicting others"] if report.contradictions else []
    parts += [f"{report.refused} refused"] if report.refused else []
    parts += [f"{report.dropped} sentence(s) that do not read like facts left out"] if report.dropped else []
    if removed:
        approved = sum(fact.status == "approved" for fact in removed)
        parts.append(f"{len(removed)} removed that the file no longer has ({approved} of them approved)")
    return f"{Path(report.file).name}: {', '.join(parts)}."
