"""Whole parts at once: state by the evidence, verdict by the question, the same words in any company."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from tiny_sage import GRID, features, make  # noqa: E402

from sage_ad.vlm.sage.generation import PartQuery, answer_parts, evidence_log_odds, opening  # noqa: E402
from sage_ad.vlm.sage.visual_inputs import VisualInputs, visual_input_tensors, visual_inputs_from_tensors  # noqa: E402

CALIBRATION = {"references": [1.0, 0.0], "builtin": [0.5, 0.25]}
QUESTIONS = ("Is there a scratch ?", "Is the part normal ?", "Where is the hole in the area ?")
POLARITIES = ("anomalous", "normal", None)


def visual(seed: int, margin: float) -> VisualInputs:
    generator = torch.Generator().manual_seed(seed)
    return VisualInputs(
        features=features(seed)[0].half(),
        evidence=torch.rand(GRID, GRID, generator=generator).half(),
        distinct=torch.randperm(GRID * GRID, generator=generator)[:4],
        margin=margin,
        score=0.7,
        threshold=0.5,
        compared="references",
        place="lower right",
    )


def query(seed: int, margin: float, facts=("a scratch is a crack", "no hole"), count: int = 3) -> PartQuery:
    return PartQuery(visual(seed, margin), QUESTIONS[:count], POLARITIES[:count], facts)


@pytest.fixture(scope="module")
def sage():
    model, processor = make()
    return model.float(), processor


def ask(sage, queries, **settings):
    return answer_parts(*sage, queries, **{"mode": "soft", "calibration": CALIBRATION, "max_new_tokens": 6, **settings})


class TestVerdicts:
    def test_state_follows_the_evidence_and_verdicts_the_questions(self, sage):
        bad, good = ask(sage, [query(0, 2.0), query(0, -2.0)])
        assert (bad.state, bad.verdicts) == ("anomalous", (True, False, None))
        assert (good.state, good.verdicts) == ("normal", (False, True, None))
        # Untrained, the state's probability is the evidence's and nothing else.
        assert bad.log_odds == pytest.approx(2.0, abs=1e-4)
        assert bad.spread == pytest.approx(0.0, abs=1e-4)

    def test_calibration_depends_on_how_it_was_measured(self):
        alone = dataclasses.replace(visual(0, 2.0), compared="builtin")
        assert evidence_log_odds(visual(0, 2.0), CALIBRATION) == 2.0
        assert evidence_log_odds(alone, CALIBRATION) == 1.25

    def test_an_answer_opens_with_state_and_verdict(self):
        assert opening("anomalous", False) == "anomalous. False."
        assert opening("normal", None) == "normal."


class TestCompany:
    def test_parts_together_are_answered_as_alone(self, sage):
        queries = [query(0, 2.0), query(1, -1.0, facts=("there is a hole in the centre",)), query(2, 0.5, count=1)]
        together = ask(sage, queries)
        for one, reply in zip(queries, together, strict=True):
            (alone,) = ask(sage, [one])
            assert alone.texts == reply.texts
            assert alone.log_odds == pytest.approx(reply.log_odds, abs=1e-4)

    def test_nothing_asked_gives_nothing(self, sage):
        assert ask(sage, []) == []

    def test_pieces_join_to_the_texts(self, sage):
        said: dict[tuple[int, int], str] = {}

        def hear(part: int, question: int, piece: str) -> None:
            said[part, question] = said.get((part, question), "") + piece

        replies = ask(sage, [query(0, 2.0), query(1, -1.0)], on_text=hear, max_new_tokens=9)
        for part, reply in enumerate(replies):
            for question, text in enumerate(reply.texts):
                assert said.get((part, question), "").strip() == text

    def test_facts_change_soft_answers(self, sage):
        model, _ = sage
        before = [param.detach().clone() for param in model.fusion.state_evidence.parameters()]
        with torch.no_grad():
            model.fusion.state_evidence.gain.fill_(1.0)
        try:
            one, other = (
                ask(sage, [query(0, 0.1, facts=facts)])[0].log_odds for facts in (("a crack",), ("normal hole",))
            )
        finally:
            with torch.no_grad():
                for param, value in zip(model.fusion.state_evidence.parameters(), before, strict=True):
                    param.copy_(value)
        assert one != other


def test_visual_inputs_survive_the_disk():
    first = dataclasses.replace(visual(3, 1.5), description="dark line, 9 x 2 px, 18 % darker than the reference there")
    again = visual_inputs_from_tensors(visual_input_tensors(first))
    assert dataclasses.replace(again, **tensors_of(first)) == first
    assert torch.equal(again.features, first.features)


def tensors_of(visual: VisualInputs) -> dict[str, torch.Tensor]:
    return {name: getattr(visual, name) for name in ("features", "evidence", "distinct")}


class TestMeasured:
    def test_place_description_and_taught_names_stand_in_the_prompt(self):
        seen = dataclasses.replace(visual(3, 1.5), description="dark line, 9 x 2 px")
        assert seen.measured("nut", [("scratch", 0.81), ("crack", 0.11)]) == (
            "Part: nut. Measured: ratio 14, lower right: dark line, 9 x 2 px. Names: scratch 0.81, crack 0.11, "
            "none of them 0.08."
        )
        assert seen.measured().endswith("dark line, 9 x 2 px. Names: none was taught.")

    def test_a_part_below_the_threshold_has_nothing_to_name(self):
        good = dataclasses.replace(visual(3, -1.0), score=0.4)
        assert good.measured("nut", [("scratch", 0.81)]) == "Part: nut. Measured: ratio 8, nothing stands out."
