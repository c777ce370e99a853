"""What becomes of a SAGE model's words: kept where they hold, dropped where they say more than was measured."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sage_ad.agents.answering.defect_naming import known_defects, ranked_names
from sage_ad.agents.answering.soft_facts import about, compose, defect_named, placed, probability
from sage_ad.evaluation.questions import standard_questions
from sage_ad.evaluation.text.answer_parser import read
from sage_ad.vlm.sage.generation import PartReply

QUESTIONS = standard_questions()
SCRATCH = "There is a dark scratch in the lower right area."
FACTS = [
    {"id": "f1", "text": "A scratch lets the coating peel.", "kind": "consequence", "status": "approved", "defects": ["scratch"]},
    {"id": "f2", "text": "A dent changes the fit.", "kind": "consequence", "status": "approved", "defects": ["dent"]},
    {"id": "f3", "text": "A scratch is a thin bright line.", "kind": "appearance", "status": "approved", "defects": ["scratch"]},
]  # fmt: skip


def state(verdict: str = "anomalous", place: str = "upper left", defect: str | None = None):
    regions = [{"box": [0, 0, 9, 9], "place": place, "score": 0.7}] if verdict == "anomalous" else []
    return {
        "product": "valve",
        "defect": defect,
        "appearances": ["dark patch"] if regions else [],
        "evidence": {
            "score": 0.7 if regions else 0.3, "threshold": 0.5, "threshold_from": "references", "threshold_reason": "",
            "verdict": verdict, "confidence": 0.6, "confidence_reason": "", "regions": regions, "size": [90, 90],
        },
    }  # fmt: skip


def reply(texts, log_odds: float = 2.0) -> PartReply:
    called = "anomalous" if log_odds > 0 else "normal"
    texts = [texts] * len(QUESTIONS) if isinstance(texts, str) else texts
    return PartReply(log_odds, 0.0, called, tuple(q.polarity == called for q in QUESTIONS), tuple(texts))


def view():
    spots = np.zeros((90, 90), np.float32)
    spots[60:80, 60:80] = 0.45
    return SimpleNamespace(evidence=SimpleNamespace(map=spots))


def made(texts, log_odds: float = 2.0, measured: str = "anomalous"):
    return compose(state(measured), view(), FACTS, QUESTIONS, reply(texts, log_odds), "sage")


class TestWords:
    def test_words_are_kept_with_the_measured_place_and_a_fact_about_the_named_defect(self):
        said = compose(state(defect="scratch"), view(), FACTS, QUESTIONS, reply(SCRATCH), "sage")
        texts = [answer["text"] for answer in said.answers]
        assert all("upper left" in text and "lower right" not in text for text in texts)
        use = next(a for a, q in zip(said.answers, QUESTIONS, strict=True) if q.family == "defect diagnosis")
        assert use["facts"] == ["f1"]
        assert "5 of 5 answers in its words" in said.note
        assert said.warnings == []

    def test_a_place_that_the_model_forgets_is_told_all_the_same(self):
        said = made("There is a dark scratch on the valve.")
        assert all("upper left" in answer["text"] for answer in said.answers)

    def test_a_part_that_is_normal_never_gets_a_defect(self):
        said = made(SCRATCH, -2.0, "normal")
        for answer in said.answers:
            assert not read(answer["text"], answer["question"]).asserted("bad", "defect"), answer["text"]
        assert "0 of 5 answers in its words" in said.note

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            ("", "no answer was given"),
            ("The valve is in order and can pass the inspection.", "reads as normal"),
            ("There is a scratch of 17 millimetres in the upper left area.", "number that was not measured"),
        ],
    )
    def test_words_that_do_not_hold_are_dropped_and_the_note_says_why(self, words, why):
        said = made(words)
        assert why in said.note
        assert all(answer["text"].startswith(("Yes.", "No.")) for answer in said.answers)
        assert all("good reference" in answer["text"] for answer in said.answers)

    def test_a_made_up_consequence_is_cut_and_a_known_one_stays(self):
        invented = made(
            "There is a scratch in the upper left area; a scratch on a good part is usual, so it can be used."
        )
        assert all("usual" not in answer["text"] for answer in invented.answers)
        assert any("should not be used" in answer["text"] for answer in invented.answers)
        known = "There is a scratch in the upper left area; a scratch lets the coating peel, so it should be rejected."
        stated = compose(state(defect="scratch"), view(), FACTS, QUESTIONS, reply(known), "sage")
        assert any("lets the coating peel, so it should be rejected" in answer["text"] for answer in stated.answers)
        nameless = made(known)
        assert all("coating" not in answer["text"] for answer in nameless.answers)

    def test_only_whole_sentences_are_used(self):
        said = made(f"{SCRATCH} It may fail in use, so the valve should be rej")
        assert all("rej" not in answer["text"] for answer in said.answers)

    def test_a_fact_about_several_defects_is_cited_for_the_named_one(self):
        facts = [{**FACTS[2], "defects": ["isolated area", "scratch"]}]
        said = compose(state(defect="scratch"), view(), facts, QUESTIONS, reply(SCRATCH), "sage")
        assert any("About a scratch: " in answer["text"] for answer in said.answers)

    @pytest.mark.parametrize("defect", [None, "surface dent", "blowhole"])
    @pytest.mark.parametrize("words", [SCRATCH, "", FACTS[0]["text"]])
    def test_no_fact_stands_about_a_defect_that_nobody_asserted(self, defect, words):
        said = compose(state(defect=defect), view(), FACTS, QUESTIONS, reply(words), "sage")
        assert not any(answer["facts"] for answer in said.answers)
        assert not any(fact["text"].rstrip(".") in answer["text"] for fact in FACTS for answer in said.answers)


class TestState:
    def test_confidence_is_the_models_probability(self):
        said = made(SCRATCH, 1.0)
        assert said.evidence["confidence"] == pytest.approx(0.7311, abs=1e-4)
        assert probability(reply(SCRATCH, 900.0)) == pytest.approx(1.0)

    def test_a_model_that_overrules_the_threshold_says_so_and_points_somewhere(self):
        said = made(SCRATCH, 0.5, "normal")
        assert said.evidence["verdict"] == "anomalous"
        assert [region["place"] for region in said.evidence["regions"]] == ["lower right"]
        assert "although the score 0.300 against the threshold 0.500 alone says normal" in said.warnings[0]

    def test_a_model_that_clears_a_part_leaves_no_region(self):
        said = made("The valve is clean and undamaged.", -0.5, "anomalous")
        assert (said.evidence["verdict"], said.evidence["regions"]) == ("normal", [])
        assert "alone says anomalous" in said.warnings[0]


class TestNames:
    def test_a_name_that_was_not_taught_is_not_asserted(self):
        said = made(SCRATCH)
        assert all("scratch" not in answer["text"].split("About")[0] for answer in said.answers)
        assert any("There is a defect in the upper left area" in answer["text"] for answer in said.answers)
        assert "it said dark scratch, which nothing taught supports" in said.note

    def test_the_taught_name_takes_the_place_of_the_models(self):
        taught = state(defect="blowhole")
        said = compose(taught, view(), FACTS, QUESTIONS, reply(SCRATCH), "sage")
        assert any("a blowhole in the upper left area" in answer["text"] for answer in said.answers)
        assert all("dark scratch" not in answer["text"] for answer in said.answers)
        assert "it said dark scratch, the taught looks say blowhole" in said.note

    def test_what_a_pack_tells_more_of_and_what_the_kinds_fit_comes_first(self):
        kinds = {"hole": 0.7, "scratch": 0.2, "stain": 0.1}
        first = [name for name, _ in ranked_names({"scratch": 9, "blowhole": 2, "crack": 1, "fuzz": 5}, kinds)]
        assert first[0] == "blowhole"
        assert "fuzz" not in first
        assert ranked_names({"scratch": 9, "blowhole": 2}, {"scratch": 0.6, "hole": 0.4})[0][0] == "scratch"
        assert ranked_names({}, kinds) == []

    def test_the_packs_defects_of_a_product_are_those_of_its_facts(self, inspector):
        known = known_defects(inspector.resources.store, "photovoltaics", "solar cell")
        assert known["crack"] > 1
        assert known_defects(inspector.resources.store, None, "solar cell") == {}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("There is a crack in the upper left area.", "crack"),
        ("The valve shows a dark stain; it may fail in use.", "dark stain"),
        ("It departs from the standard: a missing screw head can be seen.", "missing screw head"),
        ("The valve differs from a good one by an open circuit in the centre area.", "open circuit"),
        ("The defect is a scratch on the valve.", "scratch"),
        ("There is contamination on the valve in the centre area.", "contamination"),
        ("It differs from a good one: scratches can be seen.", "scratches"),
        ("There is a defect in the upper left area.", None),
        ("There is damage to be feared; it is always in use.", None),
        ("The valve is clean and undamaged.", None),
    ],
)
def test_a_defect_is_read_from_the_models_phrases(words, name):
    assert defect_named(words) == name


def test_any_way_to_name_a_place_gives_way_to_the_measured_one():
    said = placed("There is a scratch on the lower centre area.", state()["evidence"])
    assert said == "There is a scratch in the upper left area."


def test_a_part_without_a_name_is_called_the_part():
    said = "There is contamination on the defect in the centre area."
    assert about(said, None) == "There is contamination on the part in the centre area."
    assert about(said, "valve") == said


def test_a_place_without_a_region_is_left_out():
    evidence = state("normal")["evidence"]
    assert placed("There is a crack in the centre area.", evidence) == "There is a crack."
