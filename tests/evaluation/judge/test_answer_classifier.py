"""The answer classifier and how its verdict is fused with the rules': what it hears, that it is steady, when it may overrule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sage_ad.evaluation.inspection import Gold, JudgeRequest
from sage_ad.evaluation.judge.answer_classifier import Classification, default_classifier
from sage_ad.evaluation.judge.local import LocalJudge
from sage_ad.evaluation.ranked import read_ranked
from sage_ad.knowledge.vectors.embedding import default_embedder

SOUND = Gold(verdict=True, anomalous=False, reference_answer="Yes. Rails and rungs are firm; the splashes are paint.")
CRACKED = Gold(verdict=False, anomalous=True, defect="crack", place="centre", reference_answer="No. It is cracked.")


class Says:
    """An answer classifier that always hears the same."""

    def __init__(self, yes: float, defect: float) -> None:
        self.classification = Classification(yes, defect, 0.0)

    def classify(self, questions: Sequence[str], answers: Sequence[str]) -> list[Classification]:
        assert len(questions) == len(answers)
        return [self.classification] * len(questions)


def levels(classifier: Says, question: str, answer: str, gold: Gold) -> tuple[int | None, int | None, int | None]:
    request = JudgeRequest(question, answer, gold=gold)
    found = LocalJudge(default_embedder(), classifier).judge([request])[0]
    return found.type, found.localisation, found.logic


class TestReader:
    @pytest.mark.parametrize(
        ("question", "yes", "no"),
        [
            ("Should this casting be taken out of the batch?", "Take it out.", "Leave it in the batch."),
            ("Would you climb this ladder?", "Any time.", "Not me."),
            ("Is replacement of the bolt due?", "Due.", "Not due."),
            ("Am I safe under a car held by this?", "You would be safe.", "You'd be in peril."),
            ("Do the colours deviate from the proof?", "They deviate.", "They agree."),
        ],
    )
    def test_hears_yes_and_no_without_the_words(self, question: str, yes: str, no: str) -> None:
        first, second = default_classifier().classify([question, question], [yes, no])
        assert first.yes > 0 > second.yes

    def test_hears_a_defect_and_an_appearance_explained_away(self) -> None:
        question = "Is this jar the same as the sample?"
        bad, good = default_classifier().classify(
            [question, question],
            ["Yes, only the rim has lost a splinter at the top.", "Yes, the white streak is the lamp mirrored in it."],
        )
        assert bad.defect > 0 > good.defect

    def test_is_sure_of_nothing_where_nothing_is_said(self) -> None:
        texts = ["asdf qwer zxcv", "The train leaves at eight.", "I cannot tell."]
        for found in default_classifier().classify(["Is this part free of defects?"] * 3, texts):
            assert abs(found.yes) < 2.0

    def test_does_not_depend_on_batch_order_or_threads(self, repository: Path) -> None:
        lines = read_ranked(repository / "tests/data/ranked_fourth.jsonl")[:20]
        questions = [line.question for line in lines for _ in line.answers]
        answers = [answer for line in lines for answer in line.answers]
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = default_classifier().classify(questions, answers)
            torch.set_num_threads(2)
            two = default_classifier().classify(questions[::-1], answers[::-1])[::-1]
        finally:
            torch.set_num_threads(before)
        for first, second in zip(one, two, strict=True):
            assert first == pytest.approx(second, abs=0.011)

    def test_nothing_to_read_is_nothing(self) -> None:
        assert default_classifier().classify([], []) == []


class TestVerdictFusion:
    def test_a_plain_yes_needs_more_than_a_sentiment(self) -> None:
        question, answer = "Is this ladder sound?", "Yes. The rungs are firm."
        assert levels(Says(-1.0, -1.0), question, answer, SOUND)[0] == 5

    def test_a_sure_sentiment_gives_a_verdict_where_the_rules_find_none(self) -> None:
        question, answer = "Would the dose be right with this syringe?", "It would be off."
        assert levels(Says(-3.0, 2.0), question, answer, CRACKED)[0] == 3
        assert levels(Says(0.3, 0.0), question, answer, CRACKED)[0] == 1

    def test_a_defect_heard_by_both_is_no_contradiction(self) -> None:
        question = "Is this plank sound?"
        answer = "No. A crack crosses the middle, and the plank beside it is sound and clean."
        assert levels(Says(-4.0, 4.0), question, answer, CRACKED)[0] == 5

    def test_an_exception_counts_though_the_sentiment_is_good(self) -> None:
        question, answer = "Is this ladder sound?", "Yes, it is sound, except for a crack in one rung."
        assert levels(Says(3.0, -3.0), question, answer, SOUND)[0] == 2

    def test_to_deny_the_thing_asked_about_is_not_to_praise_the_part(self) -> None:
        gold = Gold(
            verdict=False,
            anomalous=True,
            defect="open circuit",
            place="centre",
            reference_answer="No, a trace in the centre is interrupted.",
        )
        question = "Is the fault on this board a short circuit?"
        right = levels(Says(-4.0, 2.0), question, "No, a trace is cut through in the centre.", gold)
        vague = levels(Says(-4.0, 0.5), question, "No, not a short.", gold)
        wrong = levels(Says(4.0, 2.0), question, "Yes, a short circuit.", gold)
        assert sum(map(int, right)) > sum(map(int, vague)) > sum(map(int, wrong))  # type: ignore[arg-type]
