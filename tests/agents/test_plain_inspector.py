"""The plain inspector, to which ours is compared: what it asks a language model, and what it makes of the replies."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.plain_inspector import LanguageModelInspector
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace, Inspector
from sage_ad.vlm.backends.base import plain_text
from sage_ad.vlm.backends.scripted import Reply, ScriptedBackend
from sage_ad.vlm.errors import BackendError, InputError

GOOD, BAD = "Is this solar cell free of defects?", "Does this solar cell have a crack?"


@pytest.fixture
def ask(inspector: SageInspector, cracked: Path, good: Path) -> Callable[..., tuple[InspectionTrace, list[str]]]:
    """Inspects the cracked cell with a scripted model; gives the trace and the prompts."""

    def inspect(
        replies: list[Reply] | Callable[[Any], Reply], settings: dict[str, Any] | None = None, **request: Any
    ) -> tuple[InspectionTrace, list[str]]:
        backend = ScriptedBackend(replies)
        warm = inspector.resources
        ready = Resources(inspector.settings, extractor=warm.extractor, store=warm.store, backend=backend)
        plain = LanguageModelInspector(resources=ready, **(settings or {}))
        values = {"references": [good], "domain": "photovoltaics", "product": "solar cell", "questions": [BAD]}
        (trace,) = plain.inspect_many([InspectionRequest(image=cracked, **values | request)])
        return trace, [plain_text(message) for call in backend.calls for message in call]

    return inspect


def test_it_is_published_as_an_inspector() -> None:
    (entry,) = entry_points(group="sage.inspectors", name="language-model")
    assert entry.load() is LanguageModelInspector
    assert isinstance(LanguageModelInspector(facts="none"), Inspector)


def test_the_model_gets_facts_measurement_and_question_in_words(
    ask: Callable[..., Any], trace: InspectionTrace
) -> None:
    plain, (prompt,) = ask(["True. A crack runs along a busbar."])
    assert plain.facts
    assert all(fact.text in prompt for fact in plain.facts)
    ratio = round(10 * trace.anomaly_score / trace.threshold)
    assert f"Measured: ratio {ratio}, {trace.regions[0].place}." in prompt
    assert BAD in prompt
    assert [answer.text for answer in plain.answers] == ["True. A crack runs along a busbar."]
    assert plain.answers[0].facts == [fact.id for fact in plain.facts]
    assert plain.anomaly_score == trace.anomaly_score
    assert [region.box for region in plain.regions] == [region.box for region in trace.regions]
    assert plain.model == "scripted"


def test_without_facts_the_prompt_and_the_trace_have_none(ask: Callable[..., Any]) -> None:
    plain, (prompt,) = ask(["False."], settings={"facts": "none"})
    assert plain.facts == []
    assert "Facts about" not in prompt


@pytest.mark.parametrize(
    ("replies", "verdicts", "verdict"),
    [
        (["False. A crack is at the lower right.", "True. There is a crack."], [False, True], "anomalous"),
        (["True. It is free of defects.", "False. There is no crack."], [True, False], "normal"),
        (["False. A crack is at the lower right.", "False. There is no crack."], [False, False], "normal"),
        (["The sky is blue.", "True. There is a crack."], [None, True], "anomalous"),
        (["The sky is blue.", "Hm."], [None, None], "normal"),
    ],
)
def test_the_verdict_is_what_most_answers_say_whatever_was_measured(
    ask: Callable[..., Any], replies: list[str], verdicts: list[bool | None], verdict: str
) -> None:
    plain, _ = ask(replies, questions=[GOOD, BAD])
    assert [answer.verdict for answer in plain.answers] == verdicts
    assert plain.verdict == verdict
    assert plain.confidence is None


def test_without_a_question_it_asks_the_five_of_evaluations(ask: Callable[..., Any]) -> None:
    plain, prompts = ask(lambda _messages: "True. There is a crack.", questions=[])
    assert len(prompts) == len(plain.answers) == 5


def test_an_empty_reply_is_shown_as_no_answer(ask: Callable[..., Any]) -> None:
    plain, _ = ask([""])
    assert (plain.answers[0].text, plain.answers[0].verdict) == ("(no answer)", None)


def test_faults_reach_the_caller(ask: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="the server is gone"):
        ask([BackendError("the server is gone")])
    with pytest.raises(InputError, match="none\\.png"):
        ask(["True."], references=[tmp_path / "none.png"])
    with pytest.raises(InputError, match="max_rounds"):
        LanguageModelInspector(max_rounds="many")
