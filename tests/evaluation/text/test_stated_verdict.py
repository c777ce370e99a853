"""The verdict is found in free text: negation, hedges, polarity of the question, yes or no wherever it stands."""

from __future__ import annotations

import pytest

from sage_ad.evaluation.judge.gold import question_polarity
from sage_ad.evaluation.text.answer_parser import read
from sage_ad.evaluation.text.stated_verdict import spoken_verdict
from sage_ad.evaluation.text.yes_no import parse_yes_no

FREE = "Is this part free of defects?"
BAD = "Is this part defective?"


def state(answer: str, question: str = FREE) -> str | None:
    return spoken_verdict(read(answer, question), question_polarity(question)).state


@pytest.mark.parametrize(
    "answer",
    [
        "The part is free of defects.",
        "No scratches, dents or cracks are visible.",
        "Nothing wrong here.",
        "It matches the reference in every respect.",
        "There is nothing about it that isn't normal.",
        "I cannot find a single flaw.",
        "Undamaged and complete.",
        "What looks like a scratch is only a reflection; the part is fine.",
        "The dark specks are only dust, so it is in order.",
        "It does not deviate from the standard.",
        "Verdict: normal. Defects: none.",
        "Far from defective.",
        "No crack can be seen, and the surface is smooth.",
    ],
)
def test_praise_without_a_yes_reads_as_normal(answer: str) -> None:
    assert state(answer) == "normal"


@pytest.mark.parametrize(
    "answer",
    [
        "It is not free of defects.",
        "A crack runs across the upper left.",
        "It would be wrong to call this part normal.",
        "Anything but perfect.",
        "It does not conform to the standard.",
        "The rest is fine, but the rim is chipped.",
        "Not a scratch, but a dent.",
        "Unlike the clean reference, this one is torn.",
        "A crack cannot be ruled out.",
        "This part should be scrapped.",
        "It fails to meet the standard.",
        "No crack, but a dent near the rim.",
        "It cannot be said that it is intact.",
    ],
)
def test_complaint_without_a_no_reads_as_anomalous(answer: str) -> None:
    assert state(answer) == "anomalous"


@pytest.mark.parametrize(
    ("text", "yes_no"),
    [
        ("No, the rim is chipped.", False),
        ("No scratch is visible.", None),
        ("True. It is fine.", True),
        ("True to the reference, it shows three holes.", None),
        ("Definitely not.", False),
        ("I'd say so.", True),
        ("The surface is closed and even, so: yes.", True),
        ("My answer is no, there is a hole.", False),
        ("Right side is scratched.", None),
        ("**False** - a scratch", False),
    ],
)
def test_yes_and_no_are_told_from_other_uses_of_the_words(text: str, yes_no: bool | None) -> None:
    assert parse_yes_no(text)[0] is yes_no


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        (FREE, "It isn't.", "anomalous"),
        (FREE, "It is.", "normal"),
        (BAD, "It isn't.", "normal"),
        (BAD, "Yes.", "anomalous"),
        (FREE, "Yes.", "normal"),
        ("Is the valve not defective?", "It isn't.", "normal"),
        ("Is there nothing wrong with it?", "There is: the seal is torn.", "anomalous"),
        ("Can it be shipped?", "It cannot.", "anomalous"),
        ("Does any area show an anomaly?", "Some area does.", "anomalous"),
        ("Is the parachute airworthy?", "Not airworthy.", None),
    ],
)
def test_echoes_take_their_sense_from_the_question(question: str, answer: str, expected: str | None) -> None:
    parsed = read(answer, question)
    assert parsed.yes_no is not None
    if expected:
        assert spoken_verdict(parsed, question_polarity(question)).state == expected


@pytest.mark.parametrize(
    ("question", "polarity"),
    [
        (FREE, "normal"),
        (BAD, "anomalous"),
        ("Does it deviate from the standard?", "anomalous"),
        ("Isn't it intact?", "normal"),
        ("Can we rule out that it is damaged?", "normal"),
        ("Which defect does it have?", None),
        ("Where is the scratch?", None),
    ],
)
def test_the_polarity_of_any_question_is_read(question: str, polarity: str | None) -> None:
    assert question_polarity(question) == polarity


def test_hedges_are_noticed_and_permissions_are_not_hedges() -> None:
    assert read("It might be fine.").hedges
    assert not read("It may be delivered.").hedges
    assert not read("There is no doubt that it is fine.").hedges


def test_an_answer_that_leaves_the_question_open_has_no_verdict() -> None:
    assert state("I cannot tell from this picture.") is None


def test_yes_against_the_words_is_split() -> None:
    verdict = spoken_verdict(read("Yes. A deep crack crosses the part.", FREE), "normal")
    assert verdict.split
    assert verdict.state == "normal"


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("lol no, the handle is gone", False),
        ("Contaminated, no. Broken, yes.", False),
        ("First quality? No way, a thread is missing.", False),
        ("Dear, rather not.", False),
        ("They'd better not.", False),
        ("I'm no pharmacist, but yes, it might be.", True),
        ("y, freckles = ripe", True),
    ],
)
def test_yes_and_no_behind_a_short_lead_in(answer: str, value: bool) -> None:
    assert parse_yes_no(answer)[0] is value


@pytest.mark.parametrize(
    ("question", "answer", "value"),
    [
        ("Would an honest seller call it new?", "An honest one wouldn't.", False),
        ("Will the tent keep us dry?", "Won't.", False),
        ("Is there a deviation?", "Deviation not confirmed.", False),
        ("Must the rail be reworked?", "Rework not required.", False),
        ("Can it hurt anybody?", "Nobody.", False),
        ("Is the wood rotten somewhere?", "Somewhere it is.", True),
        ("Nowhere a hole in this membrane?", "Somewhere.", False),
        ("No objections to this bolt head?", "No objections.", True),
        ("Is there any reason not to play with this ball?", "There is.", True),
    ],
)
def test_answers_that_only_take_up_the_question(question: str, answer: str, value: bool) -> None:
    assert read(answer, question).yes_no is value
