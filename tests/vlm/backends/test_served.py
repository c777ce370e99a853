"""Served models: a real server in a process of its own, sound and with faults."""

from __future__ import annotations

import base64
import functools
import io
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from backend_conformance import OTHERS, QUESTION, BackendConformance
from openai_server import MODEL, ServerProcess
from PIL import Image

from sage_ad.vlm.backends import served
from sage_ad.vlm.backends.registry import load_backend
from sage_ad.vlm.backends.retries import Retrying, retry_after
from sage_ad.vlm.backends.served import ServedBackend
from sage_ad.vlm.errors import BackendError, InputError

KEY = "sk-very-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"verdict": {"type": "boolean"}}, "required": ["verdict"]}


@pytest.fixture(scope="module")
def process() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture
def server(process: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> ServerProcess:
    """The server with an empty plan; the environment holds a key."""
    monkeypatch.setenv("SAGE_API_KEY", KEY)
    process.plan()
    return process


def connect(server: ServerProcess, **settings: Any) -> ServedBackend:
    return ServedBackend(server.url, MODEL, **{"backoff": 0.01, "retries": 2, "timeout": 10.0, **settings})


class TestConformance(BackendConformance):
    @pytest.fixture
    def backend(self, server: ServerProcess) -> ServedBackend:
        server.plan(default={"text": "True, because a crack breaks the current path of the solar cell."})
        return connect(server)


class TestRequests:
    def test_the_embedded_model_can_be_served_and_makes_sense(self, server: ServerProcess) -> None:
        server.plan(default={"embedded": True})
        backend = connect(server, timeout=120.0)
        question = [{"role": "user", "content": "What is the capital of France?"}]
        assert "Paris" in backend.generate(question, max_new_tokens=24)
        assert "Paris" in "".join(backend.stream(question, max_new_tokens=24))

    def test_a_url_names_server_and_model(self, server: ServerProcess) -> None:
        backend = load_backend(f"{server.url}#some/model-7b")
        backend.generate(QUESTION)
        assert backend.name == f"some/model-7b at {server.url}"
        assert server.seen()[0]["body"]["model"] == "some/model-7b"

    def test_the_only_model_is_found_and_several_must_be_named(self, server: ServerProcess) -> None:
        assert load_backend(server.url).name.startswith(MODEL)
        server.plan(models=["b", "a"])
        with pytest.raises(InputError, match=rf"offers these models: a, b; name one as {server.url}#model"):
            load_backend(server.url)

    def test_pictures_travel_as_image_parts_unharmed(self, server: ServerProcess, tmp_path: Path) -> None:
        picture = Image.effect_noise((40, 30), 60).convert("RGB")
        picture.save(tmp_path / "part.png")
        content = [{"type": "image", "image": tmp_path / "part.png"}, {"type": "text", "text": "Is it good?"}]
        connect(server).generate([{"role": "user", "content": content}])
        image, text = server.seen()[0]["body"]["messages"][0]["content"]
        kind, data = image["image_url"]["url"].split(",", 1)
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture.tobytes()
        assert text == {"type": "text", "text": "Is it good?"}

    def test_large_pictures_are_reduced_before_they_are_sent(self, server: ServerProcess) -> None:
        content = [{"type": "image", "image": Image.new("RGB", (300, 150))}]
        connect(server, image_side=100).generate([{"role": "user", "content": content}])
        url = server.seen()[0]["body"]["messages"][0]["content"][0]["image_url"]["url"]
        assert Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).size == (100, 50)

    def test_more_stop_strings_than_servers_take_are_obeyed_too(self, server: ServerProcess) -> None:
        server.plan(default={"text": "one two three"})
        assert connect(server).generate(QUESTION, stop=["a!", "b!", "c!", "d!", " three"]) == "one two"
        assert len(server.seen()[0]["body"]["stop"]) == 4

    def test_settings_are_sent(self, server: ServerProcess) -> None:
        connect(server).generate(QUESTION, max_new_tokens=5, temperature=0.7, seed=3, stop=["\n"])
        body = server.seen()[0]["body"]
        assert (body["max_tokens"], body["temperature"], body["seed"], body["stop"]) == (5, 0.7, 3, ["\n"])

    def test_tokens_are_counted_where_the_server_tells(self, server: ServerProcess) -> None:
        server.plan([{"text": "a b c"}, {"text": "a b"}, {"text": "a", "usage": False}])
        backend = connect(server)
        assert backend.complete(QUESTION).prompt_tokens == 7
        list(backend.stream(QUESTION))
        assert backend.complete(QUESTION).prompt_tokens is None
        assert (backend.usage.requests, backend.usage.prompt_tokens, backend.usage.completion_tokens) == (3, 14, 5)

    def test_no_more_requests_run_at_once_than_allowed(self, server: ServerProcess) -> None:
        server.plan(default={"text": "x", "delay": 0.15})
        assert connect(server, concurrency=3).generate_batch([QUESTION] * 9) == ["x"] * 9
        assert server.peak() == 3


class TestStructured:
    def test_a_schema_is_sent_and_its_reply_marked(self, server: ServerProcess) -> None:
        server.plan([{"text": '{"verdict": true}'}])
        assert connect(server).complete(QUESTION, json_schema=SCHEMA).structured
        sent = server.seen()[0]["body"]["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"]["schema"] == SCHEMA

    def test_a_server_that_refuses_schemas_is_asked_without_from_then_on(self, server: ServerProcess) -> None:
        server.plan(default={"text": '{"verdict": true}', "refuse": ["response_format"]})
        backend = connect(server)
        for _ in range(2):
            done = backend.complete(QUESTION, json_schema=SCHEMA)
            assert (done.text, done.structured) == ('{"verdict": true}', False)
        assert ["response_format" in one["body"] for one in server.seen()] == [True, False, False]
        assert not backend.capabilities.structured

    def test_a_server_that_ignores_the_schema_is_not_believed(self, server: ServerProcess) -> None:
        server.plan([{"text": '{"verdict": tr', "finish": "length"}, {"text": "Sure! The verdict is true."}])
        backend = connect(server)
        assert not backend.complete(QUESTION, json_schema=SCHEMA).structured
        assert backend.capabilities.structured, "a reply that was cut off says nothing about the server"
        assert not backend.complete(QUESTION, json_schema=SCHEMA).structured
        assert not backend.capabilities.structured

    def test_another_bad_request_is_not_blamed_on_the_schema(self, server: ServerProcess) -> None:
        server.plan(default={"status": 400, "text": "maximum context length is 4096 tokens"})
        backend = connect(server)
        with pytest.raises(BackendError, match=r"status 400 \(maximum context length is 4096 tokens\)"):
            backend.complete(QUESTION, json_schema=SCHEMA)
        assert backend.capabilities.structured

    def test_newer_services_get_their_name_for_the_length(self, server: ServerProcess) -> None:
        server.plan(default={"text": "a b c d", "refuse": ["max_tokens"]})
        backend = connect(server)
        assert [backend.generate(QUESTION, max_new_tokens=2) for _ in range(2)] == ["a b", "a b"]
        assert len(server.seen()) == 3


class TestEyes:
    LOOKING: ClassVar = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (8, 8))}]}]

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (400, "some-model is not a multimodal model"),
            (500, "image input is not supported - hint: you may need to provide the mmproj"),
            (400, "Invalid content type. image_url is only supported by certain models."),
            (400, "At most 0 image(s) may be provided in one prompt."),
        ],
    )
    def test_a_model_without_eyes_is_found_out_once(self, server: ServerProcess, status: int, said: str) -> None:
        server.plan([{"status": status, "text": said}])
        backend = connect(server)
        assert backend.capabilities.images
        with pytest.raises(BackendError, match="reads no pictures"):
            backend.generate(self.LOOKING)
        assert not backend.capabilities.images
        with pytest.raises(InputError, match="reads no images"):
            backend.generate(self.LOOKING)
        assert len(server.seen()) == 1

    @pytest.mark.parametrize(
        "said", ["image is too large", "cannot identify image file", "response_format not supported"]
    )
    def test_a_picture_that_is_refused_for_itself_says_nothing_about_the_model(
        self, server: ServerProcess, said: str
    ) -> None:
        server.plan(default={"status": 400, "text": said})
        backend = connect(server)
        with pytest.raises(BackendError, match=said):
            backend.generate(self.LOOKING)
        assert backend.capabilities.images


class TestChoices:
    def test_log_probabilities_are_used_where_offered(self, server: ServerProcess) -> None:
        server.plan([{"text": "True", "logprobs": {"True": -0.5, " False": -1.5, "T": -3.0, "Maybe": -2.0}}])
        choice = connect(server).choose(QUESTION, ["True", "False"])
        assert choice.how == "logprobs"
        e = 2.718281828
        yes = e**-0.5 + e**-3
        assert choice.probabilities["True"] == pytest.approx(yes / (yes + e**-1.5), rel=1e-6)
        assert server.seen()[0]["body"]["max_tokens"] == 1

    @pytest.mark.parametrize("fault", [{}, {"refuse": ["logprobs"]}])
    def test_without_them_repeated_draws_count(self, server: ServerProcess, fault: dict[str, Any]) -> None:
        draws = [{"text": text, **fault} for text in ["true, it is"] * 12 + ["False."] * 3 + ["I cannot say"]]
        refused = [{"text": "", **fault}] * (2 if fault else 1)
        server.plan([*refused, *draws])
        backend = connect(server)
        choice = backend.choose(QUESTION, ["True", "False"])
        assert (choice.how, choice.samples) == ("sampling", 15)
        assert choice.probabilities == {"True": 12 / 15, "False": 3 / 15}
        assert not backend.capabilities.logprobs
        assert len({one["body"]["seed"] for one in server.seen()[-16:]}) == 16

    def test_replies_that_name_no_choice_raise(self, server: ServerProcess) -> None:
        server.plan(default={"text": "Who knows?"})
        with pytest.raises(BackendError, match="None of 4 replies"):
            connect(server).choose(QUESTION, ["True", "False"])


class TestFaults:
    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 429, "headers": {"Retry-After": "0"}},
            {"status": 500},
            {"status": 503},
            {"raw": '{"choices": [{"message": {"con'},
            {"drop": True},
            {"delay": 1.2},
        ],
        ids=lambda fault: next(iter(fault.items()), "")[0] + str(fault.get("status", "")),
    )
    def test_what_may_pass_is_tried_again(self, server: ServerProcess, fault: dict[str, Any]) -> None:
        server.plan([fault, {"text": "well again"}])
        assert connect(server, timeout=0.6).generate(QUESTION) == "well again"
        assert len(server.seen()) == 2

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ({"status": 429}, "too many requests"),
            ({"status": 500, "text": "out of memory"}, r"status 500 \(out of memory\) after 3 tries"),
            ({"raw": "<html>busy</html"}, "cannot be read"),
            ({"drop": True}, "cannot be reached"),
            ({"delay": 1.0}, "did not answer in time"),
        ],
    )
    def test_what_does_not_pass_is_one_sentence(self, server: ServerProcess, fault: dict[str, Any], said: str) -> None:
        server.plan(default=fault)
        with pytest.raises(BackendError, match=said) as caught:
            connect(server, timeout=0.4).generate(QUESTION)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")
        assert len(server.seen()) == 3

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ({"status": 401, "text": f"wrong key {KEY}"}, r"refuses the key.*SAGE_API_KEY"),
            ({"status": 404, "text": "no such model"}, r"does not know the model or address \(no such model\)"),
            ({"status": 400, "text": f"bad picture for {KEY}"}, r"status 400 \(bad picture for \*\*\*\)"),
            ({"text": None, "refusal": "I do not do that"}, "declined: I do not do that"),
            ({"text": None, "finish": "length"}, "holds no text"),
            ({"raw": '{"choices": []}'}, "holds no text"),
            ({"raw": '{"hello": 1}'}, "holds no text"),
            ({"raw": '"hello"'}, "holds no text"),
        ],
    )
    def test_what_cannot_pass_is_not_tried_again(self, server: ServerProcess, fault: dict[str, Any], said: str) -> None:
        server.plan(default=fault)
        with pytest.raises(BackendError, match=said) as caught:
            connect(server).generate(QUESTION)
        assert KEY not in str(caught.value)
        assert len(server.seen()) == 1

    @pytest.mark.parametrize(("bound", "value"), [("LONGEST_REPLY", 1000), ("LONGEST_TIME", 0.0)])
    def test_a_reply_without_end_is_given_up(
        self, server: ServerProcess, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
    ) -> None:
        server.plan(default={"text": "A" * 5000})
        assert len(connect(server).generate(QUESTION)) == 5000
        monkeypatch.setattr(served, bound, value)
        with pytest.raises(BackendError, match="does not end"):
            connect(server).generate(QUESTION)
        assert len(server.seen()) == 2

    def test_nobody_there_is_one_sentence(self) -> None:
        with pytest.raises(BackendError, match=r"127\.0\.0\.1:9/v1 cannot be reached .*refused"):
            ServedBackend("http://127.0.0.1:9/v1", retries=1, backoff=0.01)

    def test_a_server_that_cannot_list_its_models_wants_one_named(self, server: ServerProcess) -> None:
        with pytest.raises(
            BackendError, match=rf"status 404.*name one as {server.root}/v2#model|does not know.*#model"
        ):
            ServedBackend(f"{server.root}/v2", retries=0)

    def test_a_batch_ends_at_the_first_failure(self, server: ServerProcess) -> None:
        server.plan([{"text": "fine"}, {"status": 400, "text": "bad"}], default={"text": "x", "delay": 0.05})
        with pytest.raises(BackendError, match="status 400"):
            connect(server, concurrency=1).generate_batch([QUESTION] * 50)
        assert len(server.seen()) < 50

    @pytest.mark.parametrize("url", ["http://", "http:///v1", "http://host:port/v1"])
    def test_an_address_that_is_none_raises(self, url: str) -> None:
        with pytest.raises(InputError, match="no server address"):
            load_backend(url)


class TestStreams:
    def test_pieces_arrive_as_they_are_written(self, server: ServerProcess) -> None:
        server.plan([{"text": "one two three four five", "pause": 0.1}])
        times = []
        for _ in connect(server).stream(QUESTION):
            times.append(time.perf_counter())
        assert times[-1] - times[0] > 0.3

    @pytest.mark.parametrize("fault", [{"cut": 3}, {"garbled": True}])
    def test_a_stream_that_breaks_off_raises_after_what_came(
        self, server: ServerProcess, fault: dict[str, Any]
    ) -> None:
        server.plan([{"text": "The cell has a crack in it", **fault}])
        pieces: list[str] = []
        with pytest.raises(BackendError):
            pieces.extend(connect(server).stream(QUESTION))
        assert "".join(pieces).startswith("The cell has")
        assert len(server.seen()) == 1

    def test_a_failure_before_the_first_piece_is_tried_again(self, server: ServerProcess) -> None:
        server.plan([{"status": 503}, {"text": "here"}])
        assert "".join(connect(server).stream(QUESTION)) == "here"

    def test_closing_a_stream_ends_the_work_at_the_server(self, server: ServerProcess) -> None:
        server.plan([{"text": "word " * 400, "pause": 0.02}])
        stream = connect(server).stream(QUESTION)
        next(stream)
        stream.close()
        time.sleep(0.3)
        server.plan([{"text": "free"}])
        assert connect(server).generate(QUESTION) == "free"
        assert server.peak() == 1


class TestVanishing:
    def test_a_server_that_is_killed_is_one_sentence_each_time(self) -> None:
        with ServerProcess() as doomed:
            doomed.plan(default={"text": "one two three four five six", "pause": 0.2})
            backend = connect(doomed)
            stream = backend.stream(QUESTION)
            next(stream)
            doomed.process.kill()
            doomed.process.wait(timeout=10)
            for work in (lambda: list(stream), lambda: backend.generate(QUESTION)):
                with pytest.raises(BackendError, match=r"cannot be reached|failed while answering|broke off") as caught:
                    work()
                assert "\n" not in str(caught.value)


class TestCancelling:
    def test_a_running_request_is_given_up_at_once(self, server: ServerProcess) -> None:
        server.plan(default={"text": "late", "delay": 8})
        cancelled, started = threading.Event(), time.perf_counter()
        threading.Timer(0.3, cancelled.set).start()
        with pytest.raises(BackendError, match="cancelled"):
            connect(server, timeout=30.0).complete(QUESTION, cancelled=cancelled)
        assert time.perf_counter() - started < 5

    def test_a_failure_in_a_batch_does_not_wait_for_slow_neighbours(self, server: ServerProcess) -> None:
        late = {"text": "late", "delay": 8}
        server.plan([late, late, {"status": 400, "text": "bad"}], default=late)
        started = time.perf_counter()
        with pytest.raises(BackendError, match="status 400"):
            connect(server, timeout=30.0, concurrency=4).generate_batch([QUESTION] * 4)
        assert time.perf_counter() - started < 5


class TestSecrets:
    def test_the_key_is_sent_and_shown_nowhere(
        self, server: ServerProcess, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.plan([{"status": 500, "text": KEY}, {"text": "fine"}])
        backend = connect(server)
        backend.generate(QUESTION)
        assert server.seen()[1]["headers"]["authorization"] == f"Bearer {KEY}"
        shown = caplog.text + "".join(capfd.readouterr()) + repr(backend) + backend.name
        assert KEY not in shown

    def test_the_project_has_its_own_variable(self, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
        connect(server).generate(QUESTION)
        monkeypatch.delenv("SAGE_API_KEY")
        connect(server).generate(QUESTION)
        assert [one["headers"]["authorization"] for one in server.seen()] == [f"Bearer {KEY}", "Bearer sk-other"]

    @pytest.mark.parametrize("url", ["http://me:sk-1@host/v1#m", "https://host/v1?api_key=sk-1#m"])
    def test_a_key_in_the_address_is_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(InputError, match="SAGE_API_KEY") as caught:
            load_backend(url)
        assert "sk-1" not in str(caught.value)


class TestWaiting:
    def test_waits_grow_with_jitter_and_the_server_is_obeyed(
        self, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        server.plan(
            [{"status": 500}, {"status": 500}, {"status": 429, "headers": {"Retry-After": "5"}}, {"text": "ok"}]
        )
        monkeypatch.setattr(served, "Retrying", functools.partial(Retrying, sleep=waits.append))
        backend = connect(server, retries=3, backoff=1.0)
        assert backend.generate(QUESTION) == "ok"
        assert 0.5 <= waits[0] <= 1.0 <= waits[1] <= 2.0
        assert waits[2] == 5.0

    def test_an_interrupted_batch_is_not_waited_for(
        self, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.plan(default={"status": 503, "headers": {"Retry-After": "30"}})
        backend = connect(server, concurrency=2)
        real = backend.generate

        def generate(messages: Any, **settings: Any) -> str:
            if messages is OTHERS[0]:
                raise KeyboardInterrupt
            return real(messages, **settings)

        monkeypatch.setattr(backend, "generate", generate)
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            backend.generate_batch([OTHERS[0], QUESTION, QUESTION])
        assert time.perf_counter() - started < 10

    def test_a_server_that_asks_for_too_much_patience_is_reported(self, server: ServerProcess) -> None:
        server.plan([{"status": 429, "headers": {"Retry-After": "7200"}}])
        with pytest.raises(BackendError, match="asks to wait 7200 s"):
            connect(server).generate(QUESTION)

    def test_retry_after_may_be_a_date(self) -> None:
        now = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)
        for value, expected in {"12": 12.0, format_datetime(now + timedelta(seconds=30)): 30.0, "soon": None}.items():
            error = Exception()
            error.response = type("R", (), {"headers": {"retry-after": value}})  # type: ignore[attr-defined]
            assert retry_after(error, lambda: now) == expected

    def test_other_threads_go_on_while_one_waits(self, server: ServerProcess) -> None:
        server.plan([{"text": "late", "delay": 0.5}], default={"text": "soon"})
        backend = connect(server, concurrency=2)
        slow = threading.Thread(target=backend.generate, args=(QUESTION,))
        slow.start()
        time.sleep(0.1)
        assert backend.generate(QUESTION) == "soon"
        assert slow.is_alive()
        slow.join()
