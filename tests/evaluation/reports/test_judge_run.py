"""`sage-eval judge`: order measured against the ranks, beside the baselines; what the first set demands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sage_ad.evaluation.inspection import Judge, JudgeRequest, MLEScore
from sage_ad.evaluation.judge.self_check import shown_levels
from sage_ad.evaluation.ranked import RankedAnswers, read_ranked
from sage_ad.evaluation.reports.judge_run import figures, judge_command, measure_judge, pairs_of


class LengthJudge:
    """Knows only how long an answer is, and refuses empty ones."""

    name = "length"

    def judge(self, requests: Sequence[JudgeRequest]) -> list[MLEScore]:
        return [
            MLEScore(mean=1 + min(4.0, len(request.answer) / 10))
            if request.answer
            else MLEScore(unscored="it is empty")
            for request in requests
        ]


def line(*answers: str) -> RankedAnswers:
    return RankedAnswers(id="x", question="Is it fine?", answers=list(answers), pair_type="standard comparison")


def test_ties_count_a_half_and_are_told() -> None:
    found = figures(pairs_of([[3.0, 2.0, 2.0]]))
    assert found["pairs"] == 3
    assert found["ties"] == 1
    assert found["pairwise_all"]["value"] == pytest.approx(2.5 / 3, abs=1e-4)
    assert found["pairwise_adjacent"]["value"] == 0.75


def test_a_judge_that_is_always_right_or_wrong_gets_the_ends_of_the_scale() -> None:
    assert figures(pairs_of([[4.0, 3.0, 1.0]] * 3))["kendall_tau"]["value"] == 1.0
    assert figures(pairs_of([[1.0, 3.0, 4.0]] * 3))["kendall_tau"]["value"] == -1.0


def test_unscored_answers_are_left_out_counted_and_named() -> None:
    result = measure_judge([line("long enough answer", "short", "")], LengthJudge())
    assert result["unscored"] == 1
    assert result["pairs"] == 1
    assert "answer 3: unscored: it is empty" in result["problems"][0]
    assert result["scored"][0].scores[2] is None


def test_scores_come_back_to_their_own_answers_whatever_the_shuffle() -> None:
    lines = [line("a" * n, "b" * (n + 1)) for n in range(1, 20)]
    means = [
        [[s.mean for s in one.scores] for one in measure_judge(lines, LengthJudge(), seed=seed)["scored"]]
        for seed in (0, 1)
    ]
    assert means[0] == means[1]
    assert means[0][4] == [1.5, 1.6]


def test_the_first_set_is_ordered_as_demanded(local_judge: Judge, repository: Path) -> None:
    lines = read_ranked(repository / "tests/data/ranked_first.jsonl")
    result = measure_judge(lines, local_judge)
    assert len(lines) >= 60
    assert result["unscored"] == 0
    assert result["pairwise_all"]["value"] >= 0.95
    assert result["pairwise_adjacent"]["value"] >= 0.90
    for baseline in result["baselines"].values():
        assert baseline["pairwise_all"]["value"] < result["pairwise_all"]["value"] - 0.1
    assert result["without_gold"]["mean"]["kendall_tau"] > 0.6
    for level in shown_levels():
        assert result["without_gold"][level]["spearman"] >= 0.6
    assert set(result["by_family"]) == {"standard comparison", "defect identification", "defect diagnosis"}


def test_the_command_prints_json_and_writes_the_scored_file(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "some.jsonl"
    text = (repository / "tests/data/ranked_first.jsonl").read_text(encoding="utf-8")
    source.write_text("".join(text.splitlines(keepends=True)[:4]), encoding="utf-8")
    judge_command(source, judge="local", seed=0, json=True, out=tmp_path / "out")
    result = json.loads(capsys.readouterr().out)
    assert {"pairwise_all", "pairwise_adjacent", "kendall_tau", "by_family", "by_dimension", "baselines"} <= set(result)
    scored = read_ranked(tmp_path / "out" / "scored.jsonl")
    assert scored[0].judge == "local"
    assert all(one is not None and one.mean for entry in scored for one in entry.scores or [None])
