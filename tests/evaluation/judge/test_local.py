"""The local judge as a whole: order of good and bad answers, traps, determinism, speed, judging without gold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sage_ad.evaluation.inspection import Gold, Judge, JudgeRequest, MLEScore
from sage_ad.evaluation.judge.loading import load_judge
from sage_ad.evaluation.ranked import read_ranked
from sage_ad.evaluation.rubric import DIMENSIONS, load_rubric
from sage_ad.vlm.errors import InputError

QUESTION = "Is this part free of defects?"
FLUENT = (
    "True. After a thorough examination of the whole surface, with due regard to lighting and texture, it can be stated "
    "that the part corresponds to the standard in every respect, is free from scratches, dents and contamination, and "
    "deserves to be called exemplary."
)


def test_the_ladder_is_climbed_in_order(score: Callable[..., MLEScore]) -> None:
    ladder = [
        "False. There is a scratch in the upper left, so it should be rejected.",
        "False. There is a scratch.",
        "False, something is wrong.",
        "False. There is a stain in the lower right.",
        "True. It is fine.",
    ]
    means = [score(answer).mean or 0 for answer in ladder]
    assert means == sorted(means, reverse=True)
    assert len(set(means)) == len(means)


def test_terse_and_right_beats_fluent_and_wrong(score: Callable[..., MLEScore]) -> None:
    assert (score("Scratch, upper left.").mean or 0) > 4
    assert (score(FLUENT).mean or 5) < 2


def test_a_negated_copy_of_the_reference_does_not_pass(score: Callable[..., MLEScore]) -> None:
    found = score("It is not true that there is a scratch in the upper left.")
    assert found.type == 1
    assert (found.mean or 5) < 2


@pytest.mark.parametrize("answer", ["", "   ", "asdf qwer zxcv", "I like the colour blue and my cat.", "???"])
def test_what_is_no_answer_gets_the_lowest_levels_with_a_reason(score: Callable[..., MLEScore], answer: str) -> None:
    found = score(answer)
    assert (found.type, found.localisation, found.logic) == (1, 1, 1)
    assert found.deductions


def test_every_point_taken_off_has_its_reason(local_judge: Judge, repository: object) -> None:
    lines = read_ranked(
        "tests/data/ranked_first.jsonl"
        if not hasattr(repository, "joinpath")
        else repository / "tests/data/ranked_first.jsonl"
    )  # type: ignore[operator]
    requests = [JudgeRequest(line.question, answer, gold=line.gold) for line in lines[:25] for answer in line.answers]
    for found in local_judge.judge(requests):
        for name in DIMENSIONS:
            level = getattr(found, name)
            reported = [reason for reason in found.deductions if reason.startswith(f"{name} ")]
            assert (level in (None, 5)) == (not reported)
            if reported:
                assert min(int(reason.split()[1][0]) for reason in reported) == level


def test_with_nothing_known_an_answer_is_unscored(score: Callable[..., MLEScore]) -> None:
    found = score("False.", gold=None)
    assert found.mean is None
    assert found.type is None
    assert found.unscored


def test_without_gold_the_evidence_decides(score: Callable[..., MLEScore]) -> None:
    evidence = {"evidence_verdict": "anomalous", "regions": [(5, 5, 20, 20)], "image_size": (90, 90)}
    right = score("False. A scratch in the upper left.", gold=None, every_level=True, **evidence)
    wrong = score("True. It is fine.", gold=None, every_level=True, **evidence)
    elsewhere = score("False. A scratch in the lower right.", gold=None, every_level=True, **evidence)
    assert right.mean == 5.0
    assert (right.mean or 0) > (elsewhere.mean or 0) > (wrong.mean or 5)


def test_without_gold_an_unheard_of_defect_is_doubted(score: Callable[..., MLEScore]) -> None:
    evidence = {"evidence_verdict": "anomalous", "facts": ("A crack cuts off part of the cell.",)}
    assert score("False. It is cracked.", gold=None, every_level=True, **evidence).type == 5
    assert score("False. It is mouldy.", gold=None, every_level=True, **evidence).type == 4


def test_praise_is_no_report_of_a_defect(score: Callable[..., MLEScore]) -> None:
    evidence = {"evidence_verdict": "normal", "object": "ceramic tile"}
    asked = "Is this part free of visible flaws, and if not, what is wrong with it and where?"
    assert (
        score("Yes. The ceramic tile is clean and undamaged.", asked, gold=None, every_level=True, **evidence).mean
        == 5.0
    )
    assert (
        score(
            "Yes. The ceramic tile is clean, with a chip at the left.", asked, gold=None, every_level=True, **evidence
        ).type
        == 2
    )


def test_a_mask_decides_about_state_and_place(score: Callable[..., MLEScore]) -> None:
    mask = np.zeros((60, 60), bool)
    mask[50:55, 50:55] = True
    assert score("False. A scratch in the lower right.", gold=None, mask=mask).localisation == 5
    assert score("False. A scratch in the upper left.", gold=None, mask=mask).localisation == 1
    assert score("True. It is fine.", gold=None, mask=np.zeros((60, 60), bool)).mean is not None


def test_localisation_is_null_where_no_place_is_known(score: Callable[..., MLEScore]) -> None:
    found = score("False. A scratch in the upper left.", gold=Gold(verdict=False, anomalous=True, defect="scratch"))
    assert found.localisation is None
    assert found.mean == 5.0


def _levels(judge: Judge, requests: list[JudgeRequest]) -> list[tuple[int | None, int | None, int | None]]:
    return [(found.type, found.localisation, found.logic) for found in judge.judge(requests)]


def test_levels_do_not_depend_on_run_batch_order_or_threads(repository: object) -> None:
    lines = read_ranked(repository / "tests/data/ranked_first.jsonl")  # type: ignore[operator]
    requests = [JudgeRequest(line.question, answer, gold=line.gold) for line in lines for answer in line.answers][:120]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = _levels(load_judge("local"), requests)
        torch.set_num_threads(2)
        two = _levels(load_judge("local"), requests[::-1])[::-1]
    finally:
        torch.set_num_threads(before)
    assert one == two
    assert one[:5] == [_levels(load_judge("local"), [request])[0] for request in requests[:5]]


def test_the_rubric_has_five_levels_and_faults_that_fit_them() -> None:
    rubric = load_rubric()
    assert set(rubric.dimensions) == set(DIMENSIONS)
    assert all(set(dimension.levels) == {1, 2, 3, 4, 5} for dimension in rubric.dimensions.values())
    assert all(rule.dimension in DIMENSIONS and 1 <= rule.level <= 4 for rule in rubric.faults.values())
    assert "5:" in rubric.text()


def test_an_unknown_judge_is_refused_with_what_exists() -> None:
    with pytest.raises(InputError, match="'local'"):
        load_judge("oracle")
