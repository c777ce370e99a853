"""Without a gold answer the judge gives no level for the type and no mean, and only numbers that follow those with gold."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from openai_server import MODEL, ServerProcess

from sage_ad.evaluation.inspection import JudgeRequest, MLEScore
from sage_ad.evaluation.judge.llm import LLMJudge
from sage_ad.evaluation.judge.self_check import measured, shown_levels, without_gold

SEEN: dict[str, Any] = {"evidence_verdict": "anomalous", "regions": [(5, 5, 20, 20)], "image_size": (90, 90)}
QUESTION = "Is this part free of defects?"


@pytest.mark.parametrize("name", ["scratch", "crack", "stain", "missing screw"])
def test_no_name_of_a_defect_gets_a_level(score: Callable[..., MLEScore], name: str) -> None:
    found = score(f"False. A {name} in the upper left.", gold=None, **SEEN)
    assert (found.type, found.mean, found.basis) == (None, None, "self-check")
    assert "no gold answer says which defect it is" in (found.unscored or "")


def test_with_gold_nothing_is_hidden(score: Callable[..., MLEScore]) -> None:
    found = score("False. There is a scratch in the upper left.")
    assert (found.type, found.mean, found.basis, found.unscored) == (5, 5.0, "gold", None)


def test_the_reasons_stand_where_the_number_does_not(score: Callable[..., MLEScore]) -> None:
    full = score("False. A scratch in the lower right.", gold=None, every_level=True, **SEEN)
    live = score("False. A scratch in the lower right.", gold=None, **SEEN)
    assert len(live.deductions) == len(full.deductions) > 0
    for reason, numbered in zip(live.deductions, full.deductions, strict=True):
        assert reason.partition(":")[2] == numbered.partition(":")[2]
        assert ("/5" in reason.partition(":")[0]) == (reason.split(" ")[0] in shown_levels())


@pytest.mark.parametrize("shown", [(), ("localisation",), ("localisation", "logic")])
def test_a_level_is_a_number_only_where_it_is_worth_one(shown: tuple[str, ...]) -> None:
    score = MLEScore(type=5, localisation=2, logic=4, mean=3.6667, deductions=["localisation 2/5: beside it"])
    live = without_gold(score, JudgeRequest(QUESTION, "No.", evidence_verdict="anomalous"), shown)
    assert live.localisation == (2 if "localisation" in shown else None)
    assert live.logic == (4 if "logic" in shown else None)
    assert live.deductions == ["localisation 2/5: beside it" if "localisation" in shown else "localisation: beside it"]
    for level in {"localisation", "logic"} - set(shown):
        assert level in (live.unscored or "")


def test_shown_are_the_levels_that_reach_the_correlation_on_every_kind_of_data() -> None:
    figures = measured()
    assert figures["needed"] == 0.6
    assert len(figures["correlation"]) >= 2
    for level in ("localisation", "logic"):
        reached = [(kind[level] or 0) >= 0.6 for kind in figures["correlation"].values()]
        assert (level in shown_levels()) == all(reached)


def test_a_mask_is_a_label_but_names_no_defect(score: Callable[..., MLEScore]) -> None:
    mask = np.zeros((60, 60), bool)
    mask[5:10, 5:10] = True
    found = score("False. A scratch in the upper left.", gold=None, mask=mask)
    assert (found.type, found.localisation, found.basis) == (None, 5, "gold")
    assert found.mean == ((found.localisation or 0) + (found.logic or 0)) / 2
    assert any(reason.startswith("type: not judged") for reason in found.deductions)


def test_a_served_judge_gives_no_numbers_without_gold() -> None:
    levels = {name: {"reason": "It is vague.", "level": 3} for name in ("type", "localisation", "logic")}
    with ServerProcess() as server:
        server.plan(default={"text": json.dumps(levels)})
        judge = LLMJudge(f"{server.url}#{MODEL}", retries=0, timeout=5.0, cache=False)
        (found,) = judge.judge([JudgeRequest(QUESTION, "No.", **SEEN)])
    assert (found.type, found.localisation, found.logic, found.mean) == (None, None, None, None)
    assert found.deductions == ["type: It is vague.", "localisation: It is vague.", "logic: It is vague."]
    assert found.basis == "self-check"
