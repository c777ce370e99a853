"""The LLM judge's replies: the last levels count, another scale counts nowhere, and no server answers for another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_server import MODEL, ServerProcess

from sage_ad.evaluation.inspection import Gold, JudgeRequest
from sage_ad.evaluation.judge.llm import LLMJudge, read_reply
from sage_ad.evaluation.reports.judge_run import judge_command

GOLD = Gold(verdict=False, anomalous=True, defect="crack", place="upper left", reference_answer="No. A crack.")


def levels(level: Any, reason: str = "It is so.") -> dict[str, Any]:
    return {name: {"reason": reason, "level": level} for name in ("type", "localisation", "logic")}


FINAL, DRAFT = json.dumps(levels(5)), json.dumps(levels(1))


@pytest.mark.parametrize(
    "text",
    [
        FINAL,
        f"Here it is:\n```json\n{FINAL}\n```\nThat is all.",
        f"<think>Draft: {DRAFT}, but that is wrong.</think>\n{FINAL}",
        f"Draft: {DRAFT} is wrong.\n</think>{FINAL}",
        f"The form is {DRAFT}. My evaluation:\n{FINAL}",
        f"{DRAFT}\n{FINAL[:-1]},}}",
        f"{DRAFT} then {levels(5, 'so')}",
        f"{FINAL} (levels {{1 to 5}})",
        json.dumps({"scores": dict.fromkeys(levels(5), 5)}),
        json.dumps([{"dimension": name, "level": 5, "reason": ""} for name in levels(5)]),
        json.dumps({name.capitalize(): {"Level": 5, "Reason": ""} for name in levels(5)}),
        FINAL.replace("localisation", "localization"),
        json.dumps({"evaluation": levels("5/5")}),
    ],
)
def test_the_last_whole_object_counts(text: str) -> None:
    assert read_reply(text).mean == 5.0


@pytest.mark.parametrize("level", [0, 6, 9, 4.5, "4/10", "good", True, None, -1])
def test_a_level_outside_the_scale_is_unscored(level: Any) -> None:
    score = read_reply(f"{FINAL} and, at last: {json.dumps({**levels(5), 'logic': {'reason': '', 'level': level}})}")
    assert score.mean is None
    assert "logic" in (score.unscored or "")
    assert "1 to 5" in (score.unscored or "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON object"),
        ("The answer is good.", "no JSON object"),
        (f"<think>First draft: {DRAFT}. Let me", "thinking"),
    ],
)
def test_a_reply_without_levels_is_unscored(text: str, why: str) -> None:
    score = read_reply(text)
    assert score.mean is None
    assert why in (score.unscored or "")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    with ServerProcess() as one, ServerProcess() as other:
        yield one, other


def request(answer: str, **fields: Any) -> JudgeRequest:
    return JudgeRequest(question="Is the cell free of defects?", answer=answer, gold=GOLD, **fields)


def connect(server: ServerProcess) -> LLMJudge:
    return LLMJudge(f"{server.url}#{MODEL}", retries=0, timeout=5.0, concurrency=1)


def test_a_judge_on_another_scale_scores_nothing(servers: tuple[ServerProcess, ServerProcess]) -> None:
    server = servers[0]
    server.plan([{"text": json.dumps(levels(2))}], default={"text": json.dumps(levels(9))})
    first, second = connect(server).judge([request("a"), request("b")])
    assert first.mean is None
    assert "1 of 2 replies" in (first.unscored or "")
    assert "9" in (second.unscored or "")


def test_one_server_does_not_answer_for_another(servers: tuple[ServerProcess, ServerProcess]) -> None:
    for server, level in zip(servers, (1, 5), strict=True):
        server.plan(default={"text": json.dumps(levels(level))})
    means = [connect(server).judge([request("c")])[0].mean for server in servers]
    assert means == [1.0, 5.0]
    again = connect(servers[0])
    assert again.judge([request("c")])[0].mean == 1.0
    assert (again.usage.calls, again.usage.cached) == (0, 1)


def test_the_report_says_what_came_from_the_cache(
    servers: tuple[ServerProcess, ServerProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"question": "Is the cell free of defects?", "answers": ["No. A crack.", "Yes."], "gold": GOLD.model_dump()}
    (tmp_path / "ranked.jsonl").write_text(json.dumps(line))
    servers[0].plan(default={"text": FINAL})
    said = []
    for _ in range(2):
        judge_command(tmp_path / "ranked.jsonl", judge=f"{servers[0].url}#{MODEL}", seed=0, json=False, out=None)
        said.append(capsys.readouterr().out)
    assert "2 calls of the server; 0 answers" in said[0]
    assert "0 calls of the server; 2 answers" in said[1]


def test_replies_are_kept_under_sage_home(
    servers: tuple[ServerProcess, ServerProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    servers[0].plan(default={"text": FINAL})
    connect(servers[0]).judge([request("d")])
    (file,) = (tmp_path / "home").rglob("*.sqlite3")
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT COUNT(*) FROM replies").fetchone() == (1,)
    assert not (tmp_path / "cache").exists()


def test_the_judge_is_shown_the_final_answer_alone(servers: tuple[ServerProcess, ServerProcess]) -> None:
    servers[0].plan(default={"text": FINAL})
    connect(servers[0]).judge([request("<think>Yes, it is fine.</think><answer>No</answer> A crack.")])
    content = servers[0].seen()[0]["body"]["messages"][1]["content"]
    seen_by_model = json.loads(content if isinstance(content, str) else content[-1]["text"])
    assert seen_by_model["answer"] == "No. A crack."
