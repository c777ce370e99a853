"""The graph's paths: fact writing, review by an expert, another round after a failing score, streaming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from standard import STANDARD

from sage_ad.agents.graph import build_graph
from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest, MLEScore
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.vlm.backends.base import Capabilities
from sage_ad.vlm.backends.registry import load_backend
from sage_ad.vlm.backends.scripted import ScriptedBackend
from sage_ad.vlm.errors import InputError

WRITTEN = [
    "An umbrella with a cracked rib shows a thin dark line across the metal that starts at a rivet.",
    "Cracks in the ribs of an umbrella come from repeated opening in strong wind that bends them unevenly.",
    "A cracked umbrella can break under wind and must be replaced.",
    "Fine folds in the cloth along the ribs of an umbrella are normal wear.",
]


@pytest.fixture
def written(inspector: SageInspector) -> SageInspector:
    """The warm inspector, with a scripted writer and a knowledge base in this test's own user folder."""
    bench = Resources(
        inspector.settings,
        extractor=inspector.resources.extractor,
        judge=inspector.resources.judge,
        store=FactStore.open(),
        backend=ScriptedBackend(WRITTEN * 5),
    )
    return SageInspector(resources=bench, checkpointer=InMemorySaver())


def request_for(image: Path, good: Path, **settings: Any) -> InspectionRequest:
    return InspectionRequest(
        image=image,
        references=[good],
        product="umbrella",
        questions=["Is this umbrella defective?"],
        settings=settings,
    )


def test_the_drawn_graph_is_the_documented_one(repository: Path) -> None:
    drawn = build_graph().get_graph().draw_mermaid().strip()
    assert drawn in (repository / "docs" / "agent.md").read_text(encoding="utf-8")


def test_facts_are_written_for_an_unknown_product_and_stay_proposed(
    written: SageInspector, cracked: Path, good: Path
) -> None:
    trace = written.inspect(request_for(cracked, good))
    assert "extract" in [step.name for step in trace.steps]
    proposed = [fact for fact in trace.facts if fact.status == "proposed"]
    assert any("umbrella" in fact.text for fact in proposed)
    assert all("model" in fact.source for fact in proposed)
    # Without --learn nothing is kept, so that the same inspection gives the same result.
    assert not {fact.id for fact in proposed} & {fact.id for fact in FactStore.open().facts()}


def test_learn_keeps_them_as_proposed(written: SageInspector, cracked: Path, good: Path) -> None:
    trace = written.inspect(request_for(cracked, good, learn=True))
    proposed = [fact for fact in trace.facts if fact.status == "proposed"]
    assert proposed
    again = FactStore.open()
    assert all(again.get(fact.id).status == "proposed" for fact in proposed)


def test_a_model_that_cannot_write_facts_names_the_missing_pack(
    inspector: SageInspector, cracked: Path, good: Path
) -> None:
    trace = inspector.inspect(request_for(cracked, good, learn=True))
    assert not any(fact.status == "proposed" for fact in trace.facts)
    told = next(step.summary for step in trace.steps if step.name == "extract")
    assert "No pack knows umbrella, and sage-tiny" in told
    assert "sage-kb new-domain" in told
    assert "No pack knows umbrella" in trace.explanation


def test_an_expert_reviews_and_the_inspection_goes_on(written: SageInspector, cracked: Path, good: Path) -> None:
    events = list(written.stream(request_for(cracked, good, review=True, learn=True), thread="t1"))
    assert events[-1]["event"] == "review"
    waiting = events[-1]["facts"]
    assert len(waiting) >= 2
    decisions = {fact["id"]: "reject" for fact in waiting} | {waiting[0]["id"]: "approve"}
    trace = list(written.resume("t1", decisions))[-1]["trace"]
    status = {fact.id: fact.status for fact in trace.facts}
    assert status[waiting[0]["id"]] == "approved"
    assert status[waiting[1]["id"]] == "rejected"
    assert FactStore.open().get(waiting[0]["id"]).status == "approved"
    cited = {identifier for answer in trace.answers for identifier in answer.facts}
    assert not cited & {identifier for identifier, state in status.items() if state == "rejected"}


def test_a_review_without_a_checkpointer_is_refused(inspector: SageInspector, cracked: Path, good: Path) -> None:
    with pytest.raises(InputError, match="needs a checkpointer"):
        next(inspector.stream(request_for(cracked, good, review=True)))


class HarshJudge:
    """Fails every answer of the first round, and cannot judge at all if asked to fail."""

    name = "harsh"

    def __init__(self, unscored: bool = False) -> None:
        self.calls = 0
        self.unscored = unscored

    def judge(self, requests: Any) -> list[MLEScore]:
        self.calls += 1
        if self.unscored:
            return [MLEScore(unscored="the judge did not answer") for _ in requests]
        level = 1 if self.calls == 1 else 5
        return [MLEScore(type=level, localisation=level, logic=level, mean=level, deductions=["no"]) for _ in requests]


def harsh(written: SageInspector, judge: HarshJudge) -> SageInspector:
    parts = written.resources
    bench = Resources(
        written.settings, extractor=parts.extractor, store=parts.store, backend=parts.backend, judge=judge
    )
    return SageInspector(resources=bench)


def test_a_failing_score_goes_back_with_a_reason_and_a_bound(written: SageInspector, cracked: Path, good: Path) -> None:
    trace = harsh(written, HarshJudge()).inspect(request_for(cracked, good))
    names = [step.name for step in trace.steps]
    assert names.count("answer") == 2
    second = [step for step in trace.steps if step.name == "extract"][-1]
    assert "scored below" in second.summary
    none = harsh(written, HarshJudge()).inspect(request_for(cracked, good, max_rounds=0))
    assert [step.name for step in none.steps].count("answer") == 1


def test_an_unscored_answer_is_no_failing_answer(written: SageInspector, cracked: Path, good: Path) -> None:
    trace = harsh(written, HarshJudge(unscored=True)).inspect(request_for(cracked, good))
    assert [step.name for step in trace.steps].count("answer") == 1
    assert trace.answers[0].mle is not None
    assert trace.answers[0].mle.unscored == "the judge did not answer"
    assert "unscored" in trace.steps[-2].summary


def test_steps_and_words_stream_before_the_trace(inspector: SageInspector, cracked: Path, good: Path) -> None:
    request = InspectionRequest(image=cracked, references=[good], product="solar cell", questions=["Is it good?"])
    kinds = [event["event"] for event in inspector.stream(request)]
    assert kinds[-1] == "trace"
    assert kinds.index("token") < kinds.index("answer") < kinds.index("trace")
    assert kinds.count("step") == kinds.count("started") >= 5


def test_a_wording_that_contradicts_the_evidence_is_dropped(
    inspector: SageInspector, cracked: Path, good: Path
) -> None:
    parts = inspector.resources
    lie = ScriptedBackend(
        ["The solar cell matches the good reference perfectly in the lower right and the centre."],
        capabilities=Capabilities(streaming=True),
    )
    bench = Resources(inspector.settings, extractor=parts.extractor, store=parts.store, judge=parts.judge, backend=lie)
    request = InspectionRequest(
        image=cracked, references=[good], domain="photovoltaics", product="solar cell", questions=STANDARD
    )
    trace = SageInspector(resources=bench).inspect(request)
    assert not any("perfectly" in answer.text for answer in trace.answers)
    assert any("wording was dropped" in step.summary for step in trace.steps)


def test_the_model_before_training_is_named_as_untuned() -> None:
    assert "untuned" in load_backend("smollm2-135m").name
