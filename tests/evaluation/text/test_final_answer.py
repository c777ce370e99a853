"""What a model writes around its answer (thinking, tags, JSON, labels) changes nothing about how the answer is judged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sage_ad.evaluation.inspection import Gold, Judge, JudgeRequest
from sage_ad.evaluation.judge.loading import load_judge
from sage_ad.evaluation.reports.judge_run import figures, pairs_of
from sage_ad.evaluation.text.answer_parser import read
from sage_ad.evaluation.text.final_answer import final_answer, without_thinking

BOTTLE = (
    "Is the bottle free of defects?",
    Gold(
        verdict=False,
        anomalous=True,
        defect="broken rim",
        place="upper right",
        reference_answer="No. A piece of the rim is broken off at the upper right.",
    ),
    [
        ("No", "A piece of the rim is broken off at the upper right."),
        ("No", ""),
        ("No", "A scratch runs across the lower left."),
        ("Yes", "The surface is even and nothing stands out."),
    ],
)
SCREW = (
    "Does this screw show a defect?",
    Gold(
        verdict=True,
        anomalous=True,
        defect="damaged thread",
        place="lower centre",
        reference_answer="Yes. The thread is flattened at the lower centre.",
    ),
    [
        ("Yes", "The thread is flattened at the lower centre."),
        ("Yes", ""),
        ("Yes", "The head is rusty at the upper left."),
        ("No", "The surface is even and nothing stands out."),
    ],
)
MISLEADING = "Yes, the part is intact. No, wait, there is a scratch at the lower left. Yes, it is fine."
FORMS: dict[str, Callable[[str, str], str]] = {
    "plain": lambda word, reason: f"{word}. {reason}",
    "answer tag": lambda word, reason: f"<answer>{word}</answer> {reason}",
    "reason first": lambda word, reason: f"{reason}\n<answer>{word}</answer>",
    "xml": lambda word, reason: f"<verdict>{word.lower()}</verdict><explanation>{reason}</explanation>",
    "reasoning tag": lambda word, reason: f"<REASONING>{reason}</REASONING><CONCLUSION>{word}</CONCLUSION>",
    "think": lambda word, reason: f"<think>{MISLEADING}</think>\n\n{word}. {reason}",
    "think without its opening": lambda word, reason: f"{MISLEADING}\n</think>\n{word}. {reason}",
    "think and answer": lambda word, reason: (
        f"<think>{MISLEADING}<answer>{word}</answer></think><answer>{word}. {reason}</answer>"
    ),
    "channels": lambda word, reason: (
        f"<|channel|>analysis<|message|>{MISLEADING}<|end|><|start|>assistant<|channel|>final<|message|>{word}. {reason}"
    ),
    "json": lambda word, reason: f'```json\n{{"explanation": "{reason}", "answer": "{word}"}}\n```',
    "boxed": lambda word, reason: f"\\boxed{{{word}}} {reason}",
    "bold": lambda word, reason: f"<b>{word}</b>. {reason}",
}


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def judged(judge: Judge, question: str, gold: Gold, answers: list[str]) -> list[float | None]:
    scores = judge.judge([JudgeRequest(question=question, answer=answer, gold=gold) for answer in answers])
    return [score.mean for score in scores]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_scored_like_the_plain_one(form: str, judge: Judge) -> None:
    for question, gold, answers in (BOTTLE, SCREW):
        plain = judged(judge, question, gold, [FORMS["plain"](*answer).strip() for answer in answers])
        assert judged(judge, question, gold, [FORMS[form](*answer) for answer in answers]) == plain
        assert figures(pairs_of([plain]))["pairwise_all"]["value"] == 1.0


LABELS = [("OK", "NG"), ("O.K.", "N.G."), ("i.O.", "n.i.O."), ("Ok", "NOK")]
PLACES = ["{}: ", "[{}] ", "{} - "]


@pytest.mark.parametrize(
    ("good", "bad", "where"),
    [(*labels, where) for labels in LABELS for where in PLACES] + [("OK", "NG", "Result: {}. ")],
)
def test_labels_of_inspectors_mean_a_state_whatever_was_asked(good: str, bad: str, where: str, judge: Judge) -> None:
    for question, gold, answers in (BOTTLE, SCREW):
        reasons = [reason[0].lower() + reason[1:] if reason else "" for _, reason in answers]
        texts = [where.format(good if place == 3 else bad) + reason for place, reason in enumerate(reasons)]
        means = judged(judge, question, gold, texts)
        assert figures(pairs_of([means]))["pairwise_all"]["value"] == 1.0, list(zip(texts, means, strict=True))


def test_a_lone_ok_is_no_yes_to_a_question_for_defects(judge: Judge) -> None:
    question, gold, _ = SCREW
    ok, wrong = judged(judge, question, gold, ["OK", "No. The screw is fine."])
    assert ok == wrong


@pytest.mark.parametrize(
    ("text", "state"),
    [("Defect: none", "good"), ("Anomaly detected: yes\nType: scratch", "bad"), ('{"is_defective": false}', "good")],
)
def test_a_line_for_the_state_says_the_state(text: str, state: str) -> None:
    parsed = read(text, "Is the part free of defects?")
    assert {claim.stance for claim in parsed.claims if not claim.weak} == {state}


def test_thinking_that_never_ends_leaves_no_answer() -> None:
    assert final_answer("<think>Yes, the part is intact, but") == ""
    assert without_thinking("<think>The rim is broken. <answer>No") == "<answer>No"


def test_the_last_of_several_tagged_answers_counts() -> None:
    assert final_answer("<answer>Yes</answer> Looking again: <answer>No</answer>").startswith("No.")


@pytest.mark.parametrize(
    "text",
    [
        "No. The crack is < 0.5 mm and > 0.2 mm wide.",
        "OK or not OK?",
        "Not a scratch: a reflection.",
        "No gaps, no burrs.",
        "Okay, but the seal is torn.",
        "The {lid} is bent.",
        "I think <10 pixels are off.",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert final_answer(text) == text


@pytest.mark.parametrize("form", FORMS)
def test_what_has_been_taken_out_is_not_taken_out_twice(form: str) -> None:
    once = final_answer(FORMS[form]("No", "The rim is broken."))
    assert final_answer(once) == once
