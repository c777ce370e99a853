"""Whole inspections with the real parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from standard import STANDARD

from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.resources import Resources
from sage_ad.agents.settings import make_settings
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace, Inspector
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import expand_references
from sage_ad.vlm.places import place_of_box


def test_a_cracked_cell_is_anomalous_where_it_is_cracked(trace: InspectionTrace) -> None:
    assert trace.verdict == "anomalous"
    assert trace.anomaly_score > trace.threshold
    assert trace.threshold_from == "references"
    # The dark, torn-off piece lies between (170, 160) and (300, 250) of the picture.
    middles = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (region.box for region in trace.regions)]
    assert any(170 < x < 300 and 160 < y < 250 for x, y in middles)


def test_a_region_has_one_box_and_one_place_wherever_it_is_told(
    inspector: SageInspector, cracked: Path, good: Path, trace: InspectionTrace
) -> None:
    view = inspector.resources.view(cracked, [good])
    assert [region.box for region in view.evidence.regions] == [region.box for region in trace.regions]
    for region in trace.regions:
        assert list(region.box) == region.measured["box"]
        assert region.place == place_of_box(region.box, *view.image.size)
    told = {region.place for region in trace.regions[:3]}
    assert all(place in trace.explanation.lower() and place in trace.steps[0].summary for place in told)


def test_each_question_is_answered_as_asked(trace: InspectionTrace) -> None:
    from sage_ad.evaluation.questions import read_question

    assert len(trace.answers) == 5
    assert {answer.family for answer in trace.answers} == {
        "standard comparison",
        "defect identification",
        "defect diagnosis",
    }
    for answer in trace.answers:
        asks_for_bad = read_question(answer.question).polarity == "anomalous"
        assert answer.verdict is asks_for_bad
        assert answer.text.startswith("Yes." if asks_for_bad else "No.")


def test_no_fact_is_told_of_a_defect_that_was_not_taught(trace: InspectionTrace) -> None:
    """Facts reach the model, but where nobody asserts a crack nothing is said about cracks."""
    assert trace.facts
    assert all(fact.status == "approved" and "photovoltaics" in fact.source for fact in trace.facts)
    told = "\n".join([trace.explanation, *(answer.text for answer in trace.answers)])
    assert not any(fact.text.rstrip(".") in told for fact in trace.facts)
    assert not any(answer.facts for answer in trace.answers)
    assert "About a" not in told


def test_a_live_answer_is_checked_against_itself_and_its_type_is_not_judged(trace: InspectionTrace) -> None:
    for answer in trace.answers:
        assert answer.mle is not None
        assert answer.mle.basis == "self-check"
        assert (answer.mle.type, answer.mle.mean) == (None, None)
        assert "no gold answer says which defect it is" in (answer.mle.unscored or "")


def test_steps_come_in_order_with_time_and_summary(trace: InspectionTrace) -> None:
    assert [step.name for step in trace.steps[:2]] == ["perceive", "recall"]
    assert [step.name for step in trace.steps[-4:]] == ["fuse", "answer", "evaluate", "report"]
    assert all(step.seconds >= 0 and step.summary for step in trace.steps)


def test_the_trace_survives_json_and_names_the_model(trace: InspectionTrace) -> None:
    assert InspectionTrace.from_json(trace.to_json()) == trace
    assert trace.model == "sage-tiny-sft"


def test_the_same_request_gives_the_same_trace_with_another_number_of_threads(
    inspector: SageInspector, trace: InspectionTrace, cracked: Path, good: Path
) -> None:
    request = InspectionRequest(
        image=cracked, references=[good], domain="photovoltaics", product="solar cell", questions=STANDARD
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        again = inspector.inspect(request)
    finally:
        torch.set_num_threads(threads)
    timed = {"seconds", "steps"}
    assert again.model_dump(exclude=timed) == trace.model_dump(exclude=timed)


def test_a_good_cell_has_no_region_and_no_defect(
    inspector: SageInspector, elpv: dict[str, list[Path]], good: Path
) -> None:
    other = next(path for path in elpv["mono good"] if path.name == "cell0423.png")
    trace = inspector.inspect(InspectionRequest(image=other, references=[good], questions=["Is this cell defective?"]))
    assert trace.verdict == "normal"
    assert trace.regions == []
    assert trace.defect is None
    assert trace.answers[0].verdict is False


def test_without_a_reference_the_threshold_is_named_as_built_in(inspector: SageInspector, cracked: Path) -> None:
    trace = inspector.inspect(InspectionRequest(image=cracked, questions=["Is this solar cell free of defects?"]))
    assert trace.threshold_from == "builtin"
    assert trace.references == []
    assert trace.domain == "photovoltaics"  # found from the question's own words
    assert trace.product is not None


def test_nothing_is_invented_when_nothing_is_known(inspector: SageInspector, cracked: Path) -> None:
    trace = inspector.inspect(InspectionRequest(image=cracked, questions=["Is it fine?"]))
    assert trace.product is None
    assert trace.domain == "general"


def test_an_open_question_gets_no_verdict(inspector: SageInspector, cracked: Path, good: Path) -> None:
    trace = inspector.inspect(
        InspectionRequest(image=cracked, references=[good], questions=["Where is the defect on this solar cell?"])
    )
    answer = trace.answers[0]
    assert answer.verdict is None
    assert not answer.text.startswith(("Yes", "No."))
    assert trace.regions[0].place in answer.text.lower()


def test_facts_can_be_switched_off(inspector: SageInspector, cracked: Path, good: Path) -> None:
    trace = inspector.inspect(
        InspectionRequest(
            image=cracked, references=[good], domain="photovoltaics", settings={"facts": "none"}, questions=STANDARD
        )
    )
    assert trace.facts == []
    assert not any(answer.facts for answer in trace.answers)


def test_many_share_the_reference_and_keep_their_order(
    inspector: SageInspector, elpv: dict[str, list[Path]], cracked: Path, good: Path
) -> None:
    images = [cracked, elpv["mono good"][3], cracked]
    question = ["Is this solar cell defective?"]
    traces = list(
        inspector.inspect_many(
            InspectionRequest(image=image, references=[good], questions=question) for image in images
        )
    )
    assert [trace.image for trace in traces] == [str(image) for image in images]
    assert traces[0].anomaly_score == traces[2].anomaly_score
    alone = inspector.inspect(InspectionRequest(image=images[1], references=[good], questions=question))
    assert traces[1].answers == alone.answers
    assert traces[1].regions == alone.regions


def test_many_give_what_was_done_before_one_that_fails(
    inspector: SageInspector, cracked: Path, good: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    images = [cracked, tmp_path / "broken.png", good]
    traces = inspector.inspect_many(
        InspectionRequest(image=image, references=[good], questions=STANDARD) for image in images
    )
    assert next(traces).image == str(cracked)
    with pytest.raises(InputError, match=r"broken\.png"):
        next(traces)


def test_a_folder_of_references_is_its_pictures(tmp_path: Path, good: Path) -> None:
    for name in ("b.PNG", "a.png", "note.txt"):
        (tmp_path / name).write_bytes(good.read_bytes() if name != "note.txt" else b"not a picture")
    assert [path.name for path in expand_references([tmp_path])] == ["a.png", "b.PNG"]


def test_is_an_inspector(inspector: SageInspector) -> None:
    assert isinstance(inspector, Inspector)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"domain": "photovoltaic"}, r"no domain named 'photovoltaic'; the nearest is photovoltaics \("),
        ({"questions": ["Is it fine?", " "]}, "The question is empty"),
        ({"product": "cell\x1b[31m"}, "has control characters in its name"),
        ({"references": ["nowhere.png"]}, r"nowhere\.png does not exist"),
        ({"image": "nowhere.png"}, r"nowhere\.png"),
        ({"settings": {"fats": "none"}}, r"no setting named 'fats'"),
        ({"settings": {"facts": "boiled"}}, r"'facts' cannot be 'boiled'"),
        ({"settings": {"model": "other"}}, r"belongs to the inspector"),
        ({"settings": {"review": True}}, r"stream\(\) and resume\(\)"),
    ],
)
def test_bad_requests_are_one_sentence(
    inspector: SageInspector, cracked: Path, good: Path, change: dict[str, object], said: str
) -> None:
    values: dict[str, object] = {"image": cracked, "references": [good], "domain": "photovoltaics", **change}
    with pytest.raises(InputError, match=said) as caught:
        inspector.inspect(InspectionRequest.model_validate(values))
    assert "\n" not in str(caught.value)


def test_soft_facts_need_a_sage_model(inspector: SageInspector, cracked: Path, good: Path) -> None:
    plain = Resources(make_settings({"model": "smollm2-135m"}), extractor=inspector.resources.extractor)
    request = InspectionRequest(image=cracked, references=[good], settings={"facts": "soft"}, questions=STANDARD)
    with pytest.raises(InputError, match="no fusion attention"):
        SageInspector(resources=plain).inspect(request)


def test_a_sage_model_reads_patches_of_its_own_encoder_only(inspector: SageInspector) -> None:
    other = Resources(make_settings({"encoder": "facebook/dinov2-small"}), extractor=inspector.resources.extractor)
    with pytest.raises(InputError, match=r"cannot read those of facebook/dinov2-small; name another model"):
        _ = other.backend


def test_an_empty_reference_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        expand_references([tmp_path])


def test_a_reference_of_another_product_is_a_warning(inspector: SageInspector, cracked: Path, tmp_path: Path) -> None:
    stripes = Image.new("RGB", (300, 300), "white")
    for x in range(0, 300, 20):
        stripes.paste((200, 30, 30), (x, 0, x + 10, 300))
    stripes.save(tmp_path / "flag.png")
    trace = inspector.inspect(
        InspectionRequest(image=cracked, references=[tmp_path / "flag.png"], questions=["Is it fine?"])
    )
    assert any("reference" in warning for warning in trace.warnings)
