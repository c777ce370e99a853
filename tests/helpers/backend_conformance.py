"""What every language back end must do: subclass `BackendConformance` and give it a fixture `backend`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from sage_ad.vlm.backends.base import LanguageBackend
from sage_ad.vlm.errors import InputError

QUESTION = [
    {"role": "system", "content": "You inspect parts and answer in one short sentence."},
    {"role": "user", "content": "Is a cracked solar cell defective? Answer True or False, and why."},
]
OTHERS = [
    [{"role": "user", "content": "Name one defect of a metal screw."}],
    QUESTION,
    [{"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "a scratch?"}]}],
]


class BackendConformance:
    """The interface's promises, one test each."""

    def test_it_is_a_backend_with_a_name(self, backend: Any) -> None:
        assert isinstance(backend, LanguageBackend)
        assert backend.name

    def test_it_writes_text_and_counts_tokens(self, backend: Any) -> None:
        done = backend.complete(QUESTION, max_new_tokens=12)
        assert done.text.strip()
        assert done.prompt_tokens > 0
        assert 0 < done.completion_tokens <= 12
        assert done.finish in ("stop", "length")

    def test_the_same_question_gives_the_same_text(self, backend: Any) -> None:
        assert backend.generate(QUESTION, max_new_tokens=12) == backend.generate(QUESTION, max_new_tokens=12)

    def test_a_stream_joined_is_the_text(self, backend: Any) -> None:
        pieces = list(backend.stream(QUESTION, max_new_tokens=16))
        assert "".join(pieces) == backend.generate(QUESTION, max_new_tokens=16)
        assert (len(pieces) > 1) == backend.capabilities.streaming

    def test_a_stop_string_ends_text_and_stream_alike(self, backend: Any) -> None:
        whole = backend.generate(QUESTION, max_new_tokens=16)
        stop = whole[4:7]
        expected = whole[: whole.index(stop)]
        done = backend.complete(QUESTION, max_new_tokens=16, stop=[stop])
        assert (done.text, done.finish) == (expected, "stop")
        assert "".join(backend.stream(QUESTION, max_new_tokens=16, stop=[stop])) == expected

    def test_a_batch_gives_what_single_calls_give_in_order(self, backend: Any) -> None:
        singles = [backend.generate(messages, max_new_tokens=10) for messages in OTHERS]
        assert backend.generate_batch(OTHERS, max_new_tokens=10) == singles
        assert backend.generate_batch([]) == []

    def test_a_closed_stream_leaves_nothing_running(self, backend: Any) -> None:
        before = threading.active_count()
        stream = backend.stream(QUESTION, max_new_tokens=400)
        next(stream)
        started = time.perf_counter()
        getattr(stream, "close", lambda: None)()
        assert time.perf_counter() - started < 5
        assert threading.active_count() <= before
        assert backend.generate(QUESTION, max_new_tokens=4)

    def test_threads_may_share_it(self, backend: Any) -> None:
        alone = backend.generate(QUESTION, max_new_tokens=8)
        with ThreadPoolExecutor(3) as pool:
            texts = list(pool.map(lambda _: backend.generate(QUESTION, max_new_tokens=8), range(3)))
        assert texts == [alone] * 3

    def test_choices_get_probabilities_that_sum_to_one(self, backend: Any) -> None:
        choice = backend.choose(QUESTION, ["True", "False"])
        assert list(choice.probabilities) == ["True", "False"]
        assert sum(choice.probabilities.values()) == pytest.approx(1)
        assert choice.how == ("logprobs" if backend.capabilities.logprobs else "sampling")

    def test_a_schema_is_never_claimed_to_bind_without_the_capability(self, backend: Any) -> None:
        done = backend.complete(QUESTION, max_new_tokens=8, json_schema={"type": "object"})
        assert done.text
        assert backend.capabilities.structured or not done.structured

    def test_a_picture_is_read_or_refused_by_name(self, backend: Any) -> None:
        part = {"type": "image", "image": Image.new("RGB", (32, 32), "grey")}
        messages = [{"role": "user", "content": [part, {"type": "text", "text": "Is it free of defects?"}]}]
        if backend.capabilities.images:
            assert isinstance(backend.generate(messages, max_new_tokens=4), str)
        else:
            with pytest.raises(InputError, match="reads no images"):
                backend.generate(messages)

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [{"role": "robot", "content": "x"}],
            [{"role": "user", "content": None}],
            [{"role": "user", "content": [{"type": "sound", "sound": b""}]}],
            [{"role": "user", "content": [{"type": "image", "image": None}]}],
        ],
    )
    def test_messages_that_are_none_raise(self, backend: Any, messages: Any) -> None:
        with pytest.raises(InputError):
            backend.generate(messages)
        with pytest.raises(InputError):
            backend.stream(messages)

    @pytest.mark.parametrize("settings", [{"max_new_tokens": 0}, {"temperature": -1}, {"stop": [""]}])
    def test_settings_out_of_range_raise(self, backend: Any, settings: Any) -> None:
        with pytest.raises(InputError):
            backend.generate(QUESTION, **settings)

    def test_choices_that_cannot_be_distinguished_raise(self, backend: Any) -> None:
        for choices in (["True"], ["True", "True"], ["True", " "]):
            with pytest.raises(InputError, match="distinguished"):
                backend.choose(QUESTION, choices)
