"""What becomes of a SAGE model's words: kept where they hold, dropped where they say more than was measured."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sage_ad.agents.answering.soft_facts import compose, defect_named, explain_as_sage, probability, strange_name
from sage_ad.evaluation.questions import standard_questions
from sage_ad.evaluation.text.answer_parser import read
from sage_ad.vlm.sage.generation import PartReply

QUESTIONS = standard_questions()
SCRATCH = "There is a scratch in the upper left area."
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
            "peak": place, "references": 1,
        },
    }  # fmt: skip


def reply(texts, log_odds: float = 2.0) -> PartReply:
    called = "anomalous" if log_odds > 0 else "normal"
    texts = [texts] * len(QUESTIONS) if isinstance(texts, str) else texts
    return PartReply(log_odds, 0.0, called, tuple(q.polarity == called for q in QUESTIONS), tuple(texts))


def view():
    spots = np.zeros((90, 90), np.float32)
    spots[60:80, 60:80] = 0.45
    picture = Image.new("RGB", (90, 90), (120, 120, 120))
    return SimpleNamespace(evidence=SimpleNamespace(map=spots), image=picture, references=[])


def made(texts, log_odds: float = 2.0, measured: str = "anomalous"):
    return compose(state(measured), view(), FACTS, QUESTIONS, reply(texts, log_odds), "sage")


def named(texts, defect: str):
    """Answers where a name was taught and is asserted."""
    return compose(state(defect=defect), view(), FACTS, QUESTIONS, reply(texts), "sage")


class TestWords:
    def test_words_are_kept_with_a_fact_about_the_named_defect(self):
        said = named(SCRATCH, "scratch")
        assert all(SCRATCH in answer["text"] for answer in said.answers)
        use = next(a for a, q in zip(said.answers, QUESTIONS, strict=True) if q.family == "defect diagnosis")
        assert use["facts"] == ["f1"]
        assert "5 of 5 answers in its words" in said.note
        assert said.warnings == []

    def test_a_place_that_the_model_forgets_is_told_all_the_same(self):
        said = made("There is a defect on the valve.")
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
            ("There is a defect of 17 millimetres in the upper left area.", "number that was not measured"),
            ("There is a defect in the lower right area.", "place that was not measured"),
            ("The defect is a defect in the upper left area.", "defect is a defect"),
        ],
    )
    def test_words_that_do_not_hold_are_dropped_and_the_note_says_why(self, words, why):
        said = made(words)
        assert why in said.note
        assert all(answer["text"].startswith(("Yes.", "No.")) for answer in said.answers)
        assert all("good reference" in answer["text"] for answer in said.answers)

    def test_a_made_up_consequence_is_cut_and_a_known_one_stays(self):
        invented = named(
            "There is a scratch in the upper left area; a scratch on a good part is usual, so it can be used.",
            "scratch",
        )
        assert all("usual" not in answer["text"] for answer in invented.answers)
        assert any("should not be used" in answer["text"] for answer in invented.answers)
        known = "There is a scratch in the upper left area; a scratch lets the coating peel, so it should be rejected."
        stated = named(known, "scratch")
        assert any("lets the coating peel, so it should be rejected" in answer["text"] for answer in stated.answers)
        nameless = made(known)
        assert all("coating" not in answer["text"] for answer in nameless.answers)

    def test_only_whole_sentences_are_used(self):
        said = named(f"{SCRATCH} It may fail in use, so the valve should be rej", "scratch")
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
    def test_a_verdict_that_the_model_shares_is_as_sure_as_the_evidence_says(self):
        said = made(SCRATCH, 1.0)
        assert said.evidence["confidence"] == 0.6
        assert probability(reply(SCRATCH, 900.0)) == pytest.approx(1.0)

    def test_a_model_that_overrules_the_threshold_says_so_and_points_somewhere(self):
        said = made(SCRATCH, 0.5, "normal")
        assert said.evidence["verdict"] == "anomalous"
        assert said.evidence["confidence"] == pytest.approx(0.6225, abs=1e-4)
        (region,) = said.evidence["regions"]
        assert region["place"] == "lower right"
        assert region["description"].startswith("area, ")
        assert region["measured"]["box"] == region["box"]
        assert "although the score 0.300 against the threshold 0.500 alone says normal" in said.warnings[0]

    def test_a_model_that_clears_a_part_leaves_no_region(self):
        said = made("The valve is clean and undamaged.", -0.5, "anomalous")
        assert (said.evidence["verdict"], said.evidence["regions"]) == ("normal", [])
        assert "alone says anomalous" in said.warnings[0]


class TestNames:
    def test_a_name_that_no_candidate_holds_is_never_said(self):
        said = made(SCRATCH)
        assert all("scratch" not in answer["text"].split("About")[0] for answer in said.answers)
        assert "0 of 5 answers in its words" in said.note
        assert "it names a defect (scratch) that no candidate holds" in said.note

    def test_another_name_than_the_asserted_one_is_dropped(self):
        said = named(SCRATCH, "blowhole")
        assert all("a scratch in" not in answer["text"] for answer in said.answers)
        assert any("It is a blowhole." in answer["text"] for answer in said.answers)

    @pytest.mark.parametrize(
        ("words", "held", "strange"),
        [
            ("It may be a stain (0.41) or a crack (0.33).", ["stain", "crack"], None),
            ("It may be a stain (0.41) or a crack (0.33).", ["stain", "dent"], "crack"),
            ("What stands out is a dent.", ["scratch"], "dent"),
            ("There is a grey spot, 12 % darker.", ["grey spot, 9 x 8 px, 12 % darker than its surroundings"], None),
            ("There is a scratch; rust follows in damp air.", ["scratch"], None),
            ("There is a defect in the centre area.", [], None),
        ],
    )
    def test_only_candidates_and_measured_words_may_be_named(self, words, held, strange):
        assert strange_name(words, held) == strange


class Backend:
    """Says one thing, and keeps what it was asked."""

    name, trained_facts = "sage", "soft"

    def __init__(self, text, log_odds=2.0):
        self.reply = reply([text], log_odds)

    def answer_parts(self, queries, **settings):
        self.query, self.settings = queries[0], settings
        return [self.reply]


class TestExplanation:
    WORDS = "In the upper left area the valve shows a dark spot, 9 x 8 px. It may be a stain (0.41) or a crack (0.33)."

    def explained(self, text, log_odds=2.0):
        import torch

        own = state()
        own["evidence"]["regions"][0]["description"] = "dark spot, 9 x 8 px"
        own["candidates"] = [
            {"name": name, "probability": share, "source": "looks", "reason": ""}
            for name, share in (("stain", 0.41), ("crack", 0.33))
        ]
        own |= {"request": {"image": "part.png"}, "settings": {"facts": "auto"}}
        seen = SimpleNamespace(
            features=torch.rand(8, 8, 4), margins=torch.rand(8, 8), margin=1.0, score=0.7, threshold=0.5,
            threshold_from="references", regions=[SimpleNamespace(place="upper left")],
        )  # fmt: skip
        backend = Backend(text, log_odds)
        resources = SimpleNamespace(backend=backend, view=lambda *_: SimpleNamespace(evidence=seen))
        return explain_as_sage(own, resources, FACTS), backend

    def test_the_model_is_given_description_and_candidates_and_its_words_are_used(self):
        words, backend = self.explained(self.WORDS)
        assert words == self.WORDS
        told = backend.query.visual.measured("valve", backend.query.names)
        assert "upper left: dark spot, 9 x 8 px. Names: stain 0.41, crack 0.33, none of them 0.26." in told

    @pytest.mark.parametrize(
        "wrong",
        [
            WORDS.replace("0.41", "0.91"),
            WORDS.replace("upper", "lower"),
            WORDS.replace("a crack (0.33)", "a dent (0.33)"),
            WORDS.replace("a crack (0.33)", "a crack (0.41)"),
            f"{WORDS.partition(' It may')[0]} It is most likely a stain (0.41).",
            f"{WORDS.partition(' It may')[0]} It is a stain (0.41).",
            f"{WORDS.partition(' It may')[0]} It may be a stain, but nobody can see it.",
            f"{WORDS} It will break under load within a year.",
            WORDS.partition(" It may")[0],
            "The valve looks as a good one should.",
            "",
        ],
    )
    def test_words_that_say_more_than_is_known_are_not_used(self, wrong):
        assert self.explained(wrong)[0] is None

    def test_it_is_compared_with_what_it_was_compared_with(self):
        words = "In the upper left area the valve differs from the rest of its picture: a dark spot, 9 x 8 px. "
        rest = "It resembles none of the defects that were taught."
        assert self.explained(words + rest)[0] == words.replace("rest of its picture", "good reference") + rest

    def test_a_model_that_sees_the_part_otherwise_does_not_explain_it(self):
        assert self.explained(self.WORDS, -1.0)[0] is None


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
