"""The shapes that cross rooms: JSON round trips, refused keys, inspectors found by name."""

from __future__ import annotations

import json

import pytest

from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace, MLEScore, load_inspector
from sage_ad.vlm.errors import InputError

TRACE = {
    "image": "part.png",
    "references": ["good.png"],
    "product": "solar cell",
    "domain": "photovoltaics",
    "anomaly_score": 0.4,
    "threshold": 0.3,
    "threshold_from": "references",
    "verdict": "anomalous",
    "confidence": 0.8,
    "regions": [{"box": [1, 2, 30, 40], "place": "upper left", "score": 0.5}],
    "answers": [
        {
            "question": "Is it good?",
            "family": "standard comparison",
            "verdict": False,
            "text": "No. It is cracked.",
            "facts": ["0123456789abcdef"],
            "mle": {"type": 5, "localisation": None, "logic": 4, "mean": 4.5, "deductions": ["no reason given"]},
        }
    ],
    "facts": [
        {
            "id": "0123456789abcdef",
            "text": "A crack is dark.",
            "kind": "appearance",
            "source": "x",
            "status": "approved",
        }
    ],
    "steps": [{"name": "perceive", "seconds": 0.1, "summary": "seen"}],
    "model": "sage-tiny",
    "seconds": 1.5,
}


def test_trace_survives_json() -> None:
    trace = InspectionTrace.model_validate(TRACE)
    again = InspectionTrace.from_json(trace.to_json())
    assert again == trace
    assert json.loads(trace.to_json())["regions"][0]["box"] == [1, 2, 30, 40]


def test_a_file_name_that_is_no_text_does_no_harm() -> None:
    name = b"pr\xfcf.png".decode(errors="surrogateescape")
    trace = InspectionTrace.model_validate({**TRACE, "image": name, "warnings": [name]})
    assert InspectionTrace.from_json(trace.to_json()).image == "pr?f.png"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"verdict": "broken"}, "verdict"),
        ({"anomaly_score": "high"}, "anomaly_score"),
        ({"no_such_key": 1}, "no_such_key"),
        ({"threshold_from": "guess"}, "threshold_from"),
    ],
)
def test_a_wrong_trace_is_named_in_one_sentence(change: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        InspectionTrace.from_json(json.dumps({**TRACE, **change}))
    assert "\n" not in str(caught.value)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(InputError, match="no inspection trace"):
        InspectionTrace.from_json('{"image": ')


def test_levels_stay_on_the_rubric() -> None:
    with pytest.raises(ValueError, match="less than or equal to 5"):
        MLEScore(type=6)
    assert MLEScore(unscored="the server did not answer").mean is None


def test_request_refuses_a_misspelt_key() -> None:
    with pytest.raises(ValueError, match="refrence"):
        InspectionRequest(image="a.png", refrence=["b.png"])


def test_unknown_inspector_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"known: .*sage"):
        load_inspector("nobody")


def test_the_agent_is_found_by_name() -> None:
    assert hasattr(load_inspector("sage"), "inspect_many")
