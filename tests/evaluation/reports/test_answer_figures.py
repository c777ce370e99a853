"""Figures of answers from rows made by hand, and multiple-choice answers read from free text."""

from __future__ import annotations

from typing import Any

import pytest

from sage_ad.evaluation.reports.answer_figures import acc_g, accuracy, consistency, verdict_auroc
from sage_ad.evaluation.reports.answer_scores import AnswerRow, ImageRow
from sage_ad.evaluation.reports.choices import choice_of


def row(image: str, anomalous: bool, right: bool, verdict: bool = True, category: str = "c") -> AnswerRow:
    return AnswerRow(
        image=image,
        file=image,
        category=category,
        defect="",
        anomalous=anomalous,
        family="standard comparison",
        question="Is it normal?",
        polarity="normal",
        gold=not anomalous,
        verdict=verdict,
        right=right,
        text="",
        reference_answer="",
    )


def test_accuracy_is_balanced_then_averaged_over_categories() -> None:
    rows = [row(f"bad{n}", True, True) for n in range(9)] + [row("good", False, False)]
    rows += [row("b", True, True, category="d"), row("g", False, True, category="d")]
    rows += [row("x", True, False, category="only bad")]
    figure = accuracy(rows)
    assert figure is not None
    assert figure.value == pytest.approx((0.5 + 1.0) / 2)
    assert figure.low <= figure.value <= figure.high
    assert figure.n == 12
    whole = acc_g(rows)
    assert whole is not None
    assert whole.value == figure.value
    assert accuracy(rows[-1:]) is None


def test_contradicting_answers_are_inconsistent() -> None:
    rows = [row("a", True, True, False), row("a", True, False, True), row("b", True, True, False)]
    figure = consistency(rows)
    assert figure is not None
    assert figure.value == 0.5


def test_verdict_auroc_ranks_by_belief() -> None:
    def image(name: str, anomalous: bool, verdict: str, confidence: float | None) -> ImageRow:
        state: Any = verdict
        return ImageRow(name, name, [], "c", anomalous, 0.5, 0.5, state, confidence, 0.1)

    rows = [
        image("1", False, "normal", 0.9),
        image("2", False, "normal", 0.6),
        image("3", True, "normal", 0.55),
        image("4", True, "anomalous", 0.7),
    ]
    figure = verdict_auroc(rows)
    assert figure is not None
    assert figure.value == 1.0
    assert verdict_auroc(rows[:2]) is None


# --- multiple choice ------------------------------------------------------------------------------------------------

OPTIONS = {"A": "A scratch on the surface", "B": "A missing hole", "C": "No defect", "D": "A dent"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("D: a dent", "D"),
        ("The answer is B.", "B"),
        ("Option D", "D"),
        ("I see a missing hole here.", "B"),
        ("A scratch on the surface can be seen.", "A"),
        ("There is a scratched surface.", "A"),
        ("Bananas are yellow and rich in potassium.", None),
        ("", None),
    ],
)
def test_choices_are_read_from_free_text(answer: str, letter: str | None) -> None:
    assert choice_of(answer, OPTIONS) == letter


def test_yes_and_no_choose() -> None:
    options = {"A": "Yes.", "B": "No."}
    assert choice_of("False. The plate is fine.", options) == "B"
    assert choice_of("Yes, there is one.", options) == "A"
