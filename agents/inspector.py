"""`SageInspector`: the SFE agent as an `Inspector` (request in, trace out), registered under the name "sage"."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sage_ad.agents.resources import AgentContext, Resources
from sage_ad.agents.settings import AgentSettings, make_settings
from sage_ad.evaluation.inspection import MEASURED, InspectionRequest, InspectionTrace
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import expand_references

if TYPE_CHECKING:
    from sage_ad.agents.shared_calls import BatchResources
    from sage_ad.vlm.evidence.peers import PeerEvidence

# Settings of a single request; the others decide what is loaded and belong to the inspector.
PER_REQUEST = (
    "facts",
    "fact_count",
    "fact_tokens",
    "covered_from",
    "write_count",
    "learn",
    "review",
    "pass_mean",
    "max_rounds",
    "max_new_tokens",
    "mm_per_pixel",
    "seed",
)

NO_MODEL = "none (no question was asked)"
"""Name of the model in traces that no language model had a part in."""

TOGETHER = 16
"""Parts that `inspect_many` inspects at a time; more gain little and take memory."""


def with_taught(request: InspectionRequest) -> InspectionRequest:
    """The request with the pack that was shown its product, and with the good looks in there where it names no reference."""
    from sage_ad.knowledge.looks.naming import good_references, taught_domain

    if not request.product:
        return request
    domain = request.domain or taught_domain(request.product)
    if domain is None:
        return request
    references = request.references or good_references(domain, request.product)
    return request.model_copy(update={"domain": domain, "references": references})


def check_words(request: InspectionRequest) -> None:
    """Refuses a request whose questions or product say nothing, before anything is measured.

    Raises:
        InputError: a question is empty, or the product has control characters.
    """
    from sage_ad.evaluation.questions import read_question

    for text in request.questions:
        read_question(text)
    if request.product and not request.product.isprintable():
        raise InputError(f"The product {request.product!r} has control characters in its name; give it without.")


class SageInspector:
    """Inspects parts with the SFE agent. Models load when first used (or with `load()`), and all requests share them.

    Args:
        resources: ready parts; by default they are made from the settings.
        checkpointer: a LangGraph checkpointer; needed when a request asks for expert `review`.
        **settings: fields of `AgentSettings`.

    Example:
        >>> inspector = SageInspector(facts="none")  # doctest: +SKIP
        >>> inspector.inspect(InspectionRequest(image="part.png", references=["good.png"])).verdict  # doctest: +SKIP
        'anomalous'
    """

    def __init__(self, *, resources: Resources | None = None, checkpointer: Any = None, **settings: Any) -> None:
        self.settings: AgentSettings = make_settings(settings)
        self.resources = resources or Resources(self.settings)
        self._checkpointer = checkpointer
        self._graph: Any = None
        self._group: SageInspector | None = None
        self._one_group = threading.Lock()

    @property
    def graph(self) -> Any:
        """The compiled LangGraph graph."""
        if self._graph is None:
            from sage_ad.agents.graph import build_graph

            self._graph = build_graph(self._checkpointer)
        return self._graph

    def load(self, *, language: bool = True) -> None:
        """Loads every model now; without `language` only what an inspection without a question needs."""
        self.resources.load(language=language)
        _ = self.graph

    def inspect(self, request: InspectionRequest) -> InspectionTrace:
        """Inspects one part.

        Raises:
            InputError: the request names something that cannot be used, or asks for review (which needs `stream`).
        """
        if self._settings_of(request).review:
            raise InputError(
                "A review waits for an expert, so it cannot be done in one call; use stream() and resume()."
            )
        for event in self.stream(request):
            if event["event"] == "trace":
                trace: InspectionTrace = event["trace"]
                return trace
        raise InputError(f"The inspection of {request.image} ended without a trace.")

    def inspect_many(
        self, requests: Iterable[InspectionRequest], *, compare: bool = False
    ) -> Iterator[InspectionTrace]:
        """Inspects parts in order, several at a time: their words are written together, which is several times faster.

        The seconds of a trace are its share of the time that the parts written together took.

        Args:
            requests: the parts; without `compare` they may come one by one.
            compare: parts without references are compared with the others of the same product, as `sage-batch` does it: what
                most of them share is taken for normal (`threshold_from` is "batch"). It takes four of a product; under
                eight, each trace has a warning.

        Example:
            >>> parts = [InspectionRequest(image=path) for path in Path("parts").glob("*.png")]  # doctest: +SKIP
            >>> traces = inspector.inspect_many(parts, compare=True)  # doctest: +SKIP
            >>> sorted(traces, key=lambda trace: -trace.anomaly_score)[0].image  # the oddest  # doctest: +SKIP
            'parts/17.png'

        Raises:
            InputError, BackendError: a part cannot be inspected; the traces of those before it were given.
        """
        if not compare:
            yield from self._inspect_groups(requests, {})
            return
        from sage_ad.agents.peers import compared

        requests = list(requests)
        with tempfile.TemporaryDirectory(prefix="sage-peers-") as folder:
            peers = compared(requests, cast("BatchResources", self._together().resources), Path(folder))
            yield from self._inspect_groups(requests, peers)

    def _inspect_groups(
        self, requests: Iterable[InspectionRequest], peers: Mapping[str, PeerEvidence]
    ) -> Iterator[InspectionTrace]:
        waiting = iter(requests)
        while together := list(itertools.islice(waiting, TOGETHER)):
            if len(together) == 1 and not peers:
                yield self.inspect(together[0])
                continue
            start = time.perf_counter()
            outcomes = self._inspect_together(together, peers)
            share = round((time.perf_counter() - start) / len(together), 4)
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome.model_copy(update={"seconds": share})

    def _inspect_together(
        self, requests: Sequence[InspectionRequest], peers: Mapping[str, PeerEvidence]
    ) -> list[InspectionTrace | Exception]:
        """Traces, or what each inspection failed with, in order."""

        def job(request: InspectionRequest) -> Callable[[], InspectionTrace]:
            return lambda: inspector.inspect(request)

        inspector = self._together()
        bench, images = cast("BatchResources", inspector.resources), [str(request.image) for request in requests]
        # One group at a time: the groups of two callers would wait for each other's questions.
        with self._one_group:
            bench.peers = peers
            bench.decoder.will_need(images)
            try:
                return bench.run([job(request) for request in requests], model=any(r.questions for r in requests))
            finally:
                bench.peers = {}
                bench.forget_views()
                bench.decoder.forget(images)

    def _together(self) -> SageInspector:
        """The same models and knowledge, asked for several parts together."""
        from sage_ad.agents.shared_calls import BatchResources

        with self._one_group:
            if self._group is None:
                bench = BatchResources(self.settings, same_as=self.resources)
                self._group = SageInspector(resources=bench, **self.settings.model_dump())
            return self._group

    def stream(self, request: InspectionRequest, thread: str | None = None) -> Iterator[dict[str, Any]]:
        """Inspects one part and tells what happens as it happens.

        Args:
            request: the request.
            thread: name of this inspection for the checkpointer; needed to `resume` a review.

        Yields:
            {"event": "started", "step"}, {"event": "step", "step": TraceStep values}, {"event": "token", "text"},
            {"event": "answer", "question", "text"}, {"event": "explanation", "text"}, then either
            {"event": "trace", "trace"} or, when an expert is waited for, {"event": "review", "thread", "facts"}.
        """
        settings = self._settings_of(request)
        if settings.review and (self._checkpointer is None or thread is None):
            raise InputError(
                "A review needs a checkpointer and a thread: SageInspector(checkpointer=...).stream(..., thread=...)."
            )
        check_words(request)
        self.resources.store.check_domain(request.domain)
        request = with_taught(request.model_copy(update={"references": expand_references(request.references)}))
        state = {
            "request": request.model_dump(mode="json"),
            "settings": settings.model_dump(mode="json"),
            "round": 0,
            "retry_reason": None,
            "defect": None,
            "candidates": [],
            "taught_as": None,
            "explanation": "",
            "cited": [],
            "answers": [],
            "steps": [],
            "warnings": [],
        }
        yield from self._run(state, thread)

    def resume(self, thread: str, decisions: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Continues after a review; `decisions` maps fact ids to "approve" or "reject". Yields what `stream` yields."""
        from langgraph.types import Command

        if self._checkpointer is None:
            raise InputError("There is nothing to resume: this inspector has no checkpointer.")
        yield from self._run(Command(resume=decisions), thread)

    def _settings_of(self, request: InspectionRequest) -> AgentSettings:
        fixed = [name for name in request.settings if name not in PER_REQUEST and name in AgentSettings.model_fields]
        if fixed:
            raise InputError(
                f"The setting {fixed[0]!r} belongs to the inspector, not to a request; give it to SageInspector(...)."
            )
        return self.settings.updated(request.settings)

    def _run(self, state: Any, thread: str | None) -> Iterator[dict[str, Any]]:
        start = time.perf_counter()
        thread = thread or uuid.uuid4().hex
        config = {"configurable": {"thread_id": thread}}
        final: dict[str, Any] = {}
        for mode, chunk in self.graph.stream(
            state, config=config, context=AgentContext(self.resources), stream_mode=["updates", "custom", "values"]
        ):
            if mode == "values":
                final = chunk
            elif mode == "custom":
                yield chunk
            elif "__interrupt__" in chunk:
                yield {"event": "review", "thread": thread, "facts": chunk["__interrupt__"][0].value["facts"]}
                return
            else:
                for update in chunk.values():
                    for done in (update or {}).get("steps", []):
                        yield {"event": "step", "step": done}
        yield {"event": "trace", "trace": self._trace(final, time.perf_counter() - start)}

    def _trace(self, state: dict[str, Any], seconds: float) -> InspectionTrace:
        evidence, request = state["evidence"], state["request"]
        facts = [{key: value for key, value in fact.items() if key != "defects"} for fact in state["facts"]]
        return InspectionTrace.model_validate(
            {
                "image": request["image"],
                "references": request["references"],
                "product": state["product"],
                "domain": state["domain"],
                "anomaly_score": evidence["score"],
                "regions": evidence["regions"],
                **{name: evidence[name] for name in MEASURED},
                "defect": state["defect"],
                "candidates": state["candidates"],
                "explanation": state["explanation"],
                "cited": state["cited"],
                "answers": state["answers"],
                "facts": facts,
                "steps": state["steps"],
                "warnings": state["warnings"],
                "model": self.resources.backend.name if state["answers"] else NO_MODEL,
                "seconds": round(seconds, 4),
            }
        )
