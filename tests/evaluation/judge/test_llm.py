"""The LLM judge against a real server with faults: a score that can be trusted, or none and the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai_server import MODEL, ServerProcess
from PIL import Image

from sage_ad.evaluation.inspection import Gold, Judge, JudgeRequest
from sage_ad.evaluation.judge.llm import LLMJudge, read_reply, reply_schema
from sage_ad.evaluation.judge.loading import load_judge
from sage_ad.evaluation.judge.reply_cache import ReplyCache
from sage_ad.evaluation.rubric import load_rubric
from sage_ad.vlm.errors import BackendError

QUESTION = "Is the solar cell free of defects?"
GOLD = Gold(
    verdict=False, anomalous=True, defect="crack", place="upper left", reference_answer="False. A crack, upper left."
)
WRITE = """
import sys
from pathlib import Path
from sage_ad.evaluation.judge.reply_cache import ReplyCache
cache = ReplyCache(Path(sys.argv[1]))
for number in range(150):
    cache.put(f"key {number}", "model", f"reply {number}", 1, 1)
    assert cache.get(f"key {number}") == f"reply {number}"
"""


@pytest.fixture(scope="module")
def process() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture
def server(process: ServerProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ServerProcess:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    process.plan(default={"text": reply()})
    return process


def reply(type: Any = 5, localisation: Any = 4, logic: Any = 3, around: str = "{}") -> str:
    levels = {"type": type, "localisation": localisation, "logic": logic}
    body = {name: {"reason": f"The {name} is off.", "level": level} for name, level in levels.items()}
    return around.replace("{}", json.dumps(body))


def connect(server: ServerProcess, **settings: Any) -> LLMJudge:
    return LLMJudge(f"{server.url}#{MODEL}", **{"backoff": 0.01, "retries": 1, "timeout": 5.0, **settings})


def request(answer: str = "False. There is a crack in the upper left area.", **fields: Any) -> JudgeRequest:
    return JudgeRequest(**{"question": QUESTION, "answer": answer, "gold": GOLD, "object": "solar cell", **fields})


def seen_by_model(server: ServerProcess, number: int = 0) -> dict[str, Any]:
    """What the model was given about an answer."""
    content = server.seen()[number]["body"]["messages"][1]["content"]
    return json.loads(content if isinstance(content, str) else content[-1]["text"])


class TestScores:
    def test_levels_mean_and_reasons_come_from_the_reply(self, server: ServerProcess) -> None:
        (score,) = connect(server).judge([request()])
        assert (score.type, score.localisation, score.logic, score.mean) == (5, 4, 3, 4.0)
        assert score.deductions == ["localisation 4/5: The localisation is off.", "logic 3/5: The logic is off."]
        assert score.unscored is None

    def test_it_is_found_by_its_url(self, server: ServerProcess) -> None:
        judge = load_judge(f"{server.url}#{MODEL}", cache=False)
        assert isinstance(judge, Judge)
        assert judge.name == f"llm:{MODEL} at {server.url}"
        assert judge.judge([]) == []

    def test_scores_keep_the_order_of_the_requests(self, server: ServerProcess) -> None:
        server.plan([{"text": reply(type=level), "delay": 0.2 / level} for level in (1, 2, 3, 4, 5)])
        judge = connect(server, concurrency=1)
        assert [score.type for score in judge.judge([request(f"answer {n}") for n in range(5)])] == [1, 2, 3, 4, 5]

    def test_the_rubric_is_told_word_for_word(self, server: ServerProcess) -> None:
        connect(server).judge([request()])
        system = server.seen()[0]["body"]["messages"][0]["content"]
        for dimension in load_rubric().dimensions.values():
            assert all(meaning in system for meaning in dimension.levels.values())

    def test_truth_facts_and_answer_are_told_and_the_reply_is_bound_to_a_schema(self, server: ServerProcess) -> None:
        connect(server).judge([request(facts=["A crack is a dark line."])])
        body = server.seen()[0]["body"]
        assert body["response_format"]["json_schema"]["schema"] == reply_schema()
        assert body["temperature"] == 0
        said = seen_by_model(server)
        assert said["answer"].startswith("False. There is a crack")
        assert said["facts"] == ["A crack is a dark line."]
        assert said["truth"]["state"] == "anomalous"
        assert said["truth"]["right_answer"] is False
        assert said["truth"]["places"] == ["upper left"]

    def test_without_gold_the_mask_decides(self, server: ServerProcess) -> None:
        mask = np.zeros((90, 90), dtype=bool)
        mask[70:85, 65:80] = True
        connect(server).judge([request(gold=None, mask=mask)])
        gold = seen_by_model(server)["truth"]
        assert (gold["known_from"], gold["state"], gold["places"]) == ("measured", "anomalous", ["lower right"])

    def test_a_defect_of_unknown_place_gets_no_level_for_it(self, server: ServerProcess) -> None:
        (score,) = connect(server).judge([request(gold=Gold(anomalous=True, defect="crack"))])
        assert (score.localisation, score.mean) == (None, 4.0)
        schema = server.seen()[0]["body"]["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["localisation"]["properties"]["level"] == {"type": "null"}

    def test_nothing_to_hold_it_against_is_unscored_and_not_asked(self, server: ServerProcess) -> None:
        (score,) = connect(server).judge([request(gold=None)])
        assert "Neither a gold answer" in (score.unscored or "")
        assert score.mean is None
        assert server.seen() == []

    def test_the_picture_goes_along_when_asked(self, server: ServerProcess, tmp_path: Path) -> None:
        Image.new("RGB", (64, 64), "grey").save(tmp_path / "cell.png")
        picture = str(tmp_path / "cell.png")
        connect(server, with_image=True).judge([request(image=picture)])
        connect(server).judge([request("another", image=picture)])
        kinds = [
            [part["type"] for part in content] if isinstance(content, list) else "text"
            for content in (one["body"]["messages"][1]["content"] for one in server.seen())
        ]
        assert kinds == [["image_url", "text"], "text"]

    def test_a_missing_picture_leaves_that_answer_unscored(self, server: ServerProcess, tmp_path: Path) -> None:
        judge = connect(server, with_image=True)
        scores = judge.judge([request(image=str(tmp_path / "gone.png")), request()])
        assert "gone.png" in (scores[0].unscored or "")
        assert scores[1].mean == 4.0

    def test_an_empty_answer_is_judged_like_any_other(self, server: ServerProcess) -> None:
        server.plan([{"text": reply(1, 1, 1)}])
        assert connect(server).judge([request("")])[0].mean == 1.0
        assert seen_by_model(server)["answer"] == ""


class TestReplies:
    @pytest.mark.parametrize(
        "text",
        [
            reply(),
            reply(around="Here is my verdict:\n```json\n{}\n```\nI hope {this} helps."),
            reply(around="<think>{not yet}</think> {}"),
            reply("5", 4.0, "3/5"),
            '{"type": 5, "localisation": 4, "logic": 3}',
        ],
    )
    def test_tolerable_forms_are_read(self, text: str) -> None:
        score = read_reply(text)
        assert (score.type, score.localisation, score.logic, score.mean) == (5, 4, 3, 4.0)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("I would say it is quite good.", "holds no JSON object"),
            ("", "holds no JSON object"),
            (reply()[:40], "holds no JSON object"),
            ('{"score": 4}', "holds no JSON object"),
            ("[5, 4, 3]", "holds no JSON object"),
            (reply(type=0), "level for type is 0"),
            (reply(logic=6), "level for logic is 6"),
            (reply(type=-3), "level for type is -3"),
            (reply(logic=3.5), "level for logic is 3.5"),
            (reply(type=True), "level for type is True"),
            (reply(type="good"), "level for type is 'good'"),
            (reply(localisation=None), "level for localisation is None"),
            (reply(type=float("nan")), "level for type is nan"),
            (reply(type=10**30), "level for type is 1000"),
            ('{"type": 5, "logic": 5}', "level for localisation is None"),
        ],
    )
    def test_anything_else_is_unscored_with_the_reason_and_no_number(self, text: str, why: str) -> None:
        score = read_reply(text)
        assert why in (score.unscored or "")
        assert (score.type, score.localisation, score.logic, score.mean) == (None, None, None, None)


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "why"),
        [
            ({"delay": 1.0}, "did not answer in time"),
            ({"status": 429}, "too many requests"),
            ({"status": 500, "text": "out of memory"}, "out of memory"),
            ({"status": 401, "text": "no"}, "refuses the key"),
            ({"raw": '{"choices": [{"mess'}, "cannot be read"),
            ({"raw": '{"choices": []}'}, "holds no text"),
            ({"drop": True}, "cannot be reached"),
            ({"text": "no idea"}, "holds no JSON object"),
            ({"text": reply(type=7)}, "level for type is 7"),
            ({"text": reply()[:50], "finish": "length"}, "holds no JSON object"),
        ],
    )
    def test_a_fault_leaves_the_answer_unscored_and_is_not_kept(
        self, server: ServerProcess, fault: dict[str, Any], why: str
    ) -> None:
        server.plan(default=fault)
        judge = connect(server, timeout=0.4)
        (score,) = judge.judge([request()])
        assert why in (score.unscored or "")
        assert score.mean is None
        assert judge.usage.unscored == 1
        server.plan(default={"text": reply()})
        assert connect(server).judge([request()])[0].mean == 4.0, "the failure was kept"

    def test_one_bad_answer_spoils_no_other(self, server: ServerProcess) -> None:
        server.plan([{"status": 400, "text": "bad"}, {"text": reply(2, 2, 2)}], default={"text": reply()})
        scores = connect(server, concurrency=1).judge([request(f"answer {n}") for n in range(3)])
        # The first request is sent again without the schema, in case it was this that the server refused.
        assert [score.mean for score in scores] == [2.0, 4.0, 4.0]

    def test_an_unreadable_reply_is_asked_for_anew_with_another_seed(self, server: ServerProcess) -> None:
        server.plan([{"text": "hm"}, {"text": reply()}])
        assert connect(server).judge([request()])[0].mean == 4.0
        assert [one["body"]["seed"] for one in server.seen()] == [0, 1]

    def test_a_server_that_refuses_schemas_still_judges(self, server: ServerProcess) -> None:
        server.plan(default={"text": reply(), "refuse": ["response_format"]})
        assert connect(server).judge([request()])[0].mean == 4.0

    def test_a_server_that_is_gone_does_not_cost_hours(self, server: ServerProcess) -> None:
        server.plan(default={"drop": True})
        scores = connect(server, concurrency=1, retries=0).judge([request(f"answer {n}") for n in range(40)])
        assert all(score.unscored for score in scores)
        assert "Not asked: the last 5 calls failed" in (scores[-1].unscored or "")
        assert len(server.seen()) == 5

    def test_no_server_at_the_start_raises_one_sentence(self) -> None:
        with pytest.raises(BackendError, match="cannot be reached"):
            LLMJudge("http://127.0.0.1:9/v1", retries=0)


class TestCache:
    def test_nothing_is_asked_or_paid_for_twice(self, server: ServerProcess) -> None:
        requests = [request(), request("True."), request()]
        first = connect(server, prices=(1.0, 10.0))
        scores = first.judge(requests)
        assert len(server.seen()) == 2
        assert first.usage.calls == 2
        assert first.usage.cost == pytest.approx((14 * 1.0 + first.usage.completion_tokens * 10.0) / 1e6)
        second = connect(server)
        assert second.judge(requests) == scores
        assert len(server.seen()) == 2
        assert (second.usage.calls, second.usage.cached, second.usage.cost) == (0, 3, None)

    @pytest.mark.parametrize(
        "change", [{"answer": "True."}, {"question": "Is it good?"}, {"facts": ["x"]}, {"object": "nut"}]
    )
    def test_another_request_is_asked_anew(self, server: ServerProcess, change: dict[str, Any]) -> None:
        connect(server).judge([request()])
        connect(server).judge([request(**change)])
        assert len(server.seen()) == 2

    def test_another_model_is_asked_anew(self, server: ServerProcess) -> None:
        connect(server).judge([request()])
        LLMJudge(f"{server.url}#other").judge([request()])
        assert len(server.seen()) == 2

    def test_two_processes_may_write_at_once(self, tmp_path: Path) -> None:
        file = tmp_path / "replies.sqlite3"
        started = [subprocess.Popen([sys.executable, "-c", WRITE, str(file)]) for _ in range(4)]
        assert [process.wait(timeout=120) for process in started] == [0] * 4
        assert len(ReplyCache(file)) == 150

    def test_a_damaged_file_is_put_aside(self, server: ServerProcess, tmp_path: Path) -> None:
        file = tmp_path / "replies.sqlite3"
        file.write_bytes(b"this is no database, " * 300)
        judge = connect(server, cache=file)
        assert judge.judge([request()])[0].mean == 4.0
        assert judge.cache is not None
        assert judge.cache.damaged is not None
        assert judge.cache.damaged.read_bytes().startswith(b"this is no database")

    def test_a_cache_that_cannot_be_made_raises_one_sentence(self, server: ServerProcess, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(BackendError, match=r"cache of replies .* cannot be used"):
            connect(server, cache=tmp_path / "file" / "replies.sqlite3")
        with pytest.raises(BackendError, match=r"cache of replies .* cannot be used"):
            connect(server, cache=tmp_path)
