"""The same parts through three kinds of model: embedded, wrapped by SAGE, and served behind a URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from plates import plate
from tiny_models import tiny_llava_folder, tiny_wrapped_folder
from transformers_server import shared_server

from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace
from sage_ad.vlm.backends.base import LanguageBackend
from sage_ad.vlm.backends.registry import load_backend

pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn")

pytestmark = pytest.mark.timeout(900)  # twelve inspections and a server
QUESTIONS = ["Is this plate free of defects?", "Which defect is it, and where?"]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[InspectionRequest]:
    """Four small plates, every second one with a gash, against one good plate."""
    folder = tmp_path_factory.mktemp("four-parts")
    good = plate(folder / "good.png", defective=False, seed=99)
    return [
        InspectionRequest(
            image=plate(folder / f"part{number}.png", defective=number % 2 == 1, seed=number),
            references=[good],
            domain="machining",
            questions=QUESTIONS,
            settings={"max_new_tokens": 12, "max_rounds": 0},
        )
        for number in range(4)
    ]


@pytest.fixture(scope="module")
def models(inspector: SageInspector, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageBackend]:
    served = tiny_llava_folder(tmp_path_factory.mktemp("llava"))
    return {
        "embedded": inspector.resources.backend,
        "wrapped": load_backend(str(tiny_wrapped_folder(tmp_path_factory.mktemp("wrapped"))), device="cpu"),
        "served": load_backend(f"{shared_server().url}#{served}"),
    }


class Remembering:
    """The real extractor, which looks at the same picture once: three models are asked about what it saw."""

    def __init__(self, extractor: Any) -> None:
        self.extractor, self.seen = extractor, {}
        self.prepare, self.encoder, self.settings = extractor.prepare, extractor.encoder, extractor.settings

    def extract(self, image: Any, bank: Any = None) -> Any:
        key = (image.tobytes(), bank is None)
        if key not in self.seen:
            self.seen[key] = self.extractor.extract(image, bank)
        return self.seen[key]


@pytest.fixture(scope="module")
def traces(
    inspector: SageInspector, models: dict[str, LanguageBackend], requests: list[InspectionRequest]
) -> dict[str, list[InspectionTrace]]:
    """Traces by model, in the order of the parts."""
    parts, found = inspector.resources, {}
    extractor: Any = Remembering(parts.extractor)
    for name, backend in models.items():
        bench = Resources(
            inspector.settings, extractor=extractor, store=parts.store, judge=parts.judge, backend=backend
        )
        found[name] = list(SageInspector(resources=bench).inspect_many(requests))
    return found


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Every place in a JSON value: "answers[].mle.type", ..."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{at}.{key}")
    if isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{at}[]")


def test_the_json_has_one_shape(traces: dict[str, list[InspectionTrace]]) -> None:
    shapes = {
        name: {place for trace in found for place in paths(trace.model_dump(mode="json"))}
        for name, found in traces.items()
    }
    assert shapes["embedded"] == shapes["wrapped"] == shapes["served"]
    for found in traces.values():
        assert all(InspectionTrace.from_json(trace.to_json()) == trace for trace in found)


def test_the_evidence_decides_alike_whoever_speaks(traces: dict[str, list[InspectionTrace]]) -> None:
    assert len({trace.model for found in traces.values() for trace in found}) == 3
    # Not the confidence: the shipped model's is calibrated, the others' is the evidence's own.
    same = {"image", "references", "anomaly_score", "threshold", "verdict", "regions", "facts", "domain"}
    verdicts = [trace.verdict for trace in next(iter(traces.values()))]
    assert set(verdicts[1::2]) == {"anomalous"}
    assert "normal" in verdicts[0::2]
    for number in range(4):
        of_part = [found[number] for found in traces.values()]
        assert all(trace.model_dump(include=same) == of_part[0].model_dump(include=same) for trace in of_part)
        assert all([a.verdict for a in trace.answers] == [of_part[0].verdict == "normal", None] for trace in of_part)


def test_what_random_weights_say_is_not_passed_off_as_an_answer(traces: dict[str, list[InspectionTrace]]) -> None:
    for name in ("wrapped", "served"):
        for trace in traces[name]:
            note = next(step.summary for step in trace.steps if step.name == "answer")
            assert "of 2 answers in its words" in note
            assert all("the good reference" in answer.text for answer in trace.answers)


def test_the_wrapped_model_reads_pictures_facts_and_evidence(
    models: dict[str, Any], requests: list[InspectionRequest], inspector: SageInspector
) -> None:
    backend = models["wrapped"]
    assert backend.capabilities.soft_facts
    assert backend.capabilities.images
    bad = inspector.resources.view(requests[1].image, requests[1].references)
    ask = {"facts": ["a hole", "a scratch"], "max_new_tokens": 6}
    first = backend.answer_part(bad.image, bad.references, QUESTIONS, log_odds=2.0, **ask)
    assert first.log_odds == pytest.approx(2.0, abs=0.05)  # an untrained shell says what the evidence says
    assert len(first.texts) == 2
    # As a plain model it may begin as it likes: the verdict token is SAGE's own format.
    text = backend.generate([{"role": "user", "content": "Is there a hole?"}], max_new_tokens=6)
    assert not text.startswith(("normal", "anomalous"))


def test_soft_facts_reach_the_wrapped_model(
    inspector: SageInspector, models: dict[str, Any], requests: list[InspectionRequest]
) -> None:
    parts = inspector.resources
    bench = Resources(
        inspector.settings, extractor=parts.extractor, store=parts.store, judge=parts.judge, backend=models["wrapped"]
    )
    request = requests[1].model_copy(update={"settings": {"facts": "soft", "max_new_tokens": 12, "max_rounds": 0}})
    trace = SageInspector(resources=bench).inspect(request)
    assert any("(soft)" in step.summary for step in trace.steps)
    assert any("from its verdict token" in step.summary for step in trace.steps)
