"""Ranked answers: written by rule, sampled and ranked by the labels, written by a language model; and other forms of them."""

from __future__ import annotations

import json
import random

import pytest

from sage_ad.alignment.data.build_preferences import PreferenceSettings, build_preferences, preference_wordings
from sage_ad.alignment.data.exchange import to_trl, write_preferences
from sage_ad.alignment.data.labelled import LabelledPart, Picture, drawn_parts
from sage_ad.alignment.data.preference_writers import (
    LanguageModelWriter,
    SampledWriter,
    gold_rank,
    plain_answer,
    read_answers,
)
from sage_ad.evaluation.preference_data import from_pairs, read_preferences
from sage_ad.evaluation.questions import build_questions
from sage_ad.evaluation.ranked import AnswerScore, RankedAnswers
from sage_ad.vlm.backends.scripted import ScriptedBackend
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.places import cell_of_place

CRACKED = LabelledPart(
    Picture("file", "cell.png"), Picture("file", "good.png"), "solar cell", True, "crack", "upper left", "cell", "cells"
)
GOOD = LabelledPart(Picture("file", "fine.png"), None, "solar cell", False, None, None, "fine", "cells")


def lists(part=CRACKED, **settings):
    return list(build_preferences([part], settings=PreferenceSettings(**settings)))


def questions(part):
    return build_questions(
        product=part.product, anomalous=part.anomalous, defect=part.defect, place=part.place, group=part.group
    )


class TestWrittenByRule:
    def test_the_ranks_of_the_paper(self):
        """Right with defect and place; right but vague; right with a wrong defect or place; wrong verdict."""
        for line in lists():
            assert len(line.answers) == 4
            best, vague, wrong, opposite = line.answers
            assert "crack" in best
            assert "upper left" in best
            assert "crack" not in vague
            assert not ("crack" in wrong and "upper left" in wrong)
            verdicts = [answer.split(".")[0] for answer in line.answers]
            assert verdicts[:3] == [str(line.gold.verdict)] * 3
            assert verdicts[3] == str(not line.gold.verdict)
            assert "crack" not in opposite

    def test_a_good_part_gets_a_made_up_flaw_third_and_a_complaint_last(self):
        for line in lists(GOOD):
            assert gold_rank(line.answers[0], next(q for q in questions(GOOD) if q.text == line.question))[0]
            assert " area" in line.answers[3]
            assert line.gold.anomalous is False

    def test_lists_with_right_verdicts_differ_in_what_is_said_alone(self):
        """Best, vague, one of defect and place wrong, both wrong; the sentence is the same where more than a hint is given."""
        for seed in range(4):
            for line in lists(verdicts="right", seed=seed):
                best, vague, half, wrong = (a.removeprefix(f"{line.gold.verdict}. ") for a in line.answers)
                assert all(answer.startswith(f"{line.gold.verdict}. ") for answer in line.answers)
                assert ("crack" in best, "upper left" in best) == (True, True)
                assert ("crack" in vague, "area" in vague) == (False, False)
                assert ("crack" in half) != ("upper left" in half)
                assert ("crack" in wrong, "upper left" in wrong) == (False, False)
                # The words before the defect are those of the best answer.
                assert best[: best.index("a crack")] == wrong[: best.index("a crack")]

    def test_what_is_not_known_of_a_defect_cannot_be_wrong_twice(self):
        unnamed = LabelledPart(CRACKED.picture, None, "solar cell", True, None, None, "cell", "cells")
        assert {len(line.answers) for line in lists(unnamed, verdicts="right")} == {3}
        for line in lists(GOOD, verdicts="right"):
            assert {answer.split(".")[0] for answer in line.answers} == {str(line.gold.verdict)}
        with pytest.raises(InputError, match="mixed or right"):
            PreferenceSettings(verdicts="wrong")

    def test_wrong_places_do_not_touch_the_right_one(self):
        row, column = cell_of_place("upper left")
        for seed in range(8):
            for line in lists(seed=seed):
                named = [p for p in ("centre left", "upper centre", "in the centre area") if p in line.answers[2]]
                assert not named
        assert (row, column) == (0, 0)

    def test_the_same_seed_writes_the_same_and_another_does_not(self):
        assert lists(seed=1) == lists(seed=1)
        assert [line.answers for line in lists(seed=1)] != [line.answers for line in lists(seed=2)]

    def test_held_out_wordings_share_no_sentence_with_training(self):
        trained, held = set(), set()
        for group in ("best", "vague", "made_up"):
            for name, into in (("train", trained), ("held_out", held)):
                into |= set(json.dumps(preference_wordings()[group][name]).split('"')[1::2]) - {"normal", "anomalous"}
        sentences = {s for s in trained & held if " " in s and s.endswith(".")}
        assert not sentences

    @pytest.mark.parametrize("answers", [2, 3])
    def test_shorter_lists_keep_the_ends(self, answers):
        for line in lists(answers=answers):
            assert len(line.answers) == answers
            assert line.answers[-1].startswith(str(not line.gold.verdict))

    def test_a_list_of_one_is_refused(self):
        with pytest.raises(InputError, match="2, 3 or 4"):
            PreferenceSettings(answers=1)

    def test_drawn_parts_need_a_folder_and_get_files(self, tmp_path):
        parts = list(drawn_parts(1, size=64))
        with pytest.raises(InputError, match="--out"):
            list(build_preferences(parts))
        line = next(build_preferences(parts, folder=tmp_path))
        assert line.image.endswith(".png")
        assert (tmp_path / "pictures").is_dir()


class TestSampled:
    def test_what_an_answer_has_right(self):
        question = next(q for q in questions(CRACKED) if q.family == "defect identification")
        right = str(question.verdict)
        ranks = [
            gold_rank(text, question)
            for text in (
                f"{right}. There is a crack in the upper left area.",
                f"{right}. There is a crack in the lower right area.",
                f"{right}. There is a stain in the upper left area.",
                f"{not question.verdict}. The solar cell is intact.",
            )
        ]
        assert ranks == [(True, True, True), (True, True, False), (True, False, True), (False, False, False)]
        assert sorted(ranks, reverse=True) == ranks

    def test_samples_are_ranked_by_the_labels_and_rules_fill_up(self):
        def sample(line, count, seed):
            verdict = line.gold.verdict
            return [
                "normal. " + f"{not verdict}. Nothing stands out.",
                f"anomalous. {verdict}. There is a crack in the upper left area.",
            ]

        settings = PreferenceSettings()
        for line in build_preferences([CRACKED], SampledWriter(sample, settings), settings=settings):
            assert line.rank_source == "llm"
            assert line.answers[0] == f"{line.gold.verdict}. There is a crack in the upper left area."
            assert line.answers[-1] == f"{not line.gold.verdict}. Nothing stands out."
            assert len(line.answers) > 2

    def test_samples_with_the_wrong_verdict_are_dropped_where_all_must_be_right(self):
        def sample(line, count, seed):
            verdict = line.gold.verdict
            return [f"{not verdict}. Nothing stands out.", f"{verdict}. There is a stain in the upper left area."]

        settings = PreferenceSettings(verdicts="right")
        for line in build_preferences([CRACKED], SampledWriter(sample, settings), settings=settings):
            assert f"{line.gold.verdict}. There is a stain in the upper left area." in line.answers
            assert all(answer.startswith(str(line.gold.verdict)) for answer in line.answers)

    def test_verdict_tokens_are_removed(self):
        assert plain_answer("anomalous. False.  There is\na crack.") == "False. There is a crack."
        assert plain_answer("False. It is not normal.") == "False. It is not normal."


class TestWrittenByALanguageModel:
    def test_a_reply_becomes_a_list(self):
        question = questions(CRACKED)[0]
        right, wrong = question.verdict, not question.verdict
        written = [f"{right}. a", f"{right}. b", f"{right}. c", f"{wrong}. d"]
        writer = LanguageModelWriter(ScriptedBackend([json.dumps({"answers": written})]))
        line = RankedAnswers(question=question.text, answers=["x", "y"])
        assert writer.write(CRACKED, question, line, random.Random(0)) == written

    def test_a_reply_that_is_none_is_asked_again_and_then_counted(self):
        writer = LanguageModelWriter(ScriptedBackend(["no", "nothing"]))
        question = questions(CRACKED)[0]
        line = RankedAnswers(id="7", question=question.text, answers=["x", "y"])
        assert writer.write(CRACKED, question, line, random.Random(0)) == []
        assert len(writer.failed) == 1
        assert "line 7" in writer.failed[0]

    def test_verdicts_that_were_not_asked_for_are_no_list(self):
        question = questions(CRACKED)[0]
        line = RankedAnswers(question=question.text, answers=["x", "y"])
        right, wrong = str(question.verdict), str(not question.verdict)
        mixed = json.dumps({"answers": [f"{right}. a", f"{right}. b", f"{right}. c", f"{wrong}. d"]})
        alike = json.dumps({"answers": [f"{right}. a", f"{right}. b", f"{right}. c", f"{right}. d"]})
        for verdicts, replies in (("mixed", [alike, mixed]), ("right", [mixed, alike])):
            writer = LanguageModelWriter(ScriptedBackend(replies), PreferenceSettings(verdicts=verdicts))
            assert writer.write(CRACKED, question, line, random.Random(0)) == json.loads(replies[1])["answers"]

    @pytest.mark.parametrize("text", ["", "{", '{"answers": ["a"]}', '{"answers": ["a", "a"]}', '{"answers": 3}'])
    def test_what_is_no_list(self, text):
        assert read_answers(text, 2) == []


class TestOtherForms:
    def line(self, **changes):
        return RankedAnswers(
            **{"id": "1", "image": "a.png", "reference": "r.png", "question": "Is it?", "answers": ["True.", "So so.", "False."],
               "pair_type": "standard comparison", "group": "g", "object": "cell", **changes}
        )  # fmt: skip

    def test_trl_rows_and_back(self, tmp_path):
        scored = self.line(scores=[AnswerScore(mean=m) for m in (5, 4, 1)])
        rows = list(to_trl([scored], "edpo", "surprisal"))
        assert [row["id"] for row in rows] == ["1/1-2", "1/1-3"]
        assert [row["entropy_gap"] for row in rows] == pytest.approx([1, 4])
        assert rows[0]["images"] == ["r.png", "a.png"]
        write_preferences([scored], tmp_path / "trl.jsonl", "trl", "edpo", "surprisal")
        again = read_preferences(tmp_path / "trl.jsonl")
        assert [line.answers for line in again] == [["True.", "So so."], ["True.", "False."]]
        files = (str(tmp_path / "a.png"), str(tmp_path / "r.png"))
        assert (again[0].image, again[0].reference, again[0].question) == (*files, "Is it?")

    def test_trl_without_a_prompt_of_its_own(self):
        asked = {"role": "user", "content": "Is it?"}
        row = {
            "chosen": [asked, {"role": "assistant", "content": [{"type": "text", "text": "True."}]}],
            "rejected": [asked, {"role": "assistant", "content": "False."}],
        }
        [line] = from_pairs([row])
        assert (line.question, line.answers) == ("Is it?", ["True.", "False."])

    def test_a_row_with_equal_answers_is_named(self):
        with pytest.raises(InputError, match="row 2"):
            list(
                from_pairs(
                    [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a", "rejected": "a"}]
                )
            )

    def test_adpl_and_back(self, tmp_path):
        write_preferences([self.line(), self.line(id="2", question="And now?")], tmp_path / "adpl.json", "adpl")
        from PIL import Image

        for name in ("a.png", "r.png"):
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        again = read_preferences(tmp_path / "adpl.json")
        assert [line.question for line in again] == ["Is it?", "And now?"]
        assert again[0].answers == ["True.", "So so.", "False."]
        assert again[0].rank_source == "expert"

    def test_a_labelled_set_has_no_answers_yet(self, tmp_path):
        from PIL import Image

        for name in ("train/good", "test/good", "test/crack"):
            (tmp_path / "set" / "cell" / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "set" / "cell" / name / "0.png")
        assert read_preferences(tmp_path / "set") is None
