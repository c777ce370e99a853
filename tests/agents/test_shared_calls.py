"""Several inspections ask one back end together, and each gets its own reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage_ad.agents.shared_calls import SharedBackend
from sage_ad.vlm.backends.base import Capabilities, LanguageBackend
from sage_ad.vlm.backends.scripted import ScriptedBackend
from sage_ad.vlm.errors import BackendError, InputError


def says(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


class CountingBackend(ScriptedBackend):
    """Echoes, and remembers how many texts came in each call."""

    def __init__(self, echo: Callable[[list[dict[str, Any]]], Any] | None = None) -> None:
        super().__init__(echo or (lambda checked: f"echo {checked[0]['content'][0]['text']}"))
        self.batches: list[int] = []

    def generate_batch(self, list_of_messages: Any, **settings: Any) -> list[str]:
        self.batches.append(len(list_of_messages))
        return super().generate_batch(list_of_messages, **settings)


def test_it_is_a_language_backend_and_passes_on_what_is_asked_outside() -> None:
    shared = SharedBackend(CountingBackend())
    assert isinstance(shared, LanguageBackend)
    assert shared.name == "scripted"
    assert shared.generate(says("hello")) == "echo hello"
    assert "".join(shared.stream(says("hello"))) == "echo hello"
    assert shared.usage.requests == 2
    assert not hasattr(shared, "answer_parts")
    assert shared.batches == [1, 1]  # what goes beyond the interface is the back end's own


def test_what_each_asks_alone_is_asked_together_and_answered_apart() -> None:
    backend = CountingBackend()
    shared = SharedBackend(backend)

    def inspect(number: int) -> Callable[[], str]:
        def job() -> str:
            first = shared.generate(says(f"part {number}"))
            return "".join(shared.stream(says(f"more of {first}"))) if number % 2 else first

        return job

    outcomes = shared.run([inspect(number) for number in range(5)])
    assert outcomes == [f"echo more of echo part {n}" if n % 2 else f"echo part {n}" for n in range(5)]
    assert backend.batches == [5, 2]


def test_the_same_words_are_written_once() -> None:
    backend = CountingBackend()
    shared = SharedBackend(backend)
    assert shared.run([lambda: shared.generate(says("good"))] * 4) == ["echo good"] * 4
    assert shared.run([lambda: shared.generate(says("good"))] * 2) == ["echo good"] * 2
    assert backend.batches == [1]
    # What is sampled may differ from one time to the next, and is never taken from an earlier one.
    shared.run([lambda: shared.generate(says("good"), temperature=0.7)] * 2)
    assert backend.batches == [1, 2]


def test_other_settings_and_other_calls_are_not_mixed_up() -> None:
    backend = CountingBackend()
    shared = SharedBackend(backend)
    jobs: list[Callable[[], Any]] = [
        lambda: shared.generate(says("one two three"), max_new_tokens=2),
        lambda: shared.generate(says("one two three"), max_new_tokens=3),
        lambda: shared.complete(says("one")).completion_tokens,
        lambda: shared.choose(says("yes"), ["echo", "no"]).probabilities,
        lambda: shared.generate_batch([says("a"), says("b")]),
    ]
    assert shared.run(jobs) == ["echo one", "echo one two", 2, {"echo": 1.0, "no": 0.0}, ["echo a", "echo b"]]


def test_parts_of_a_sage_model_are_answered_in_one_call() -> None:
    class Sage(CountingBackend):
        asked: list[int] = []  # noqa: RUF012

        def answer_parts(self, queries: list[object], **settings: Any) -> list[str]:
            self.asked.append(len(queries))
            return [f"about {query}" for query in queries]

    shared = SharedBackend(Sage())
    outcomes = shared.run(
        [
            lambda: shared.answer_parts(["a"], mode="soft", on_text=print),
            lambda: shared.answer_parts(["b", "c"], mode="soft", on_text=lambda *_: None),
        ]
    )
    assert outcomes == [["about a"], ["about b", "about c"]]
    assert Sage.asked == [3]


def test_completions_are_put_together_where_the_back_end_can_do_that() -> None:
    class Batching(CountingBackend):
        def complete_batch(self, list_of_messages: Any, **settings: Any) -> list[Any]:
            self.batches.append(len(list_of_messages))
            return [self.complete(messages, **settings) for messages in list_of_messages]

    backend = Batching()
    shared = SharedBackend(backend)
    jobs = [lambda text=text: shared.complete(says(text), json_schema={}).text for text in ("a", "b")]
    assert shared.run(jobs) == ["echo a", "echo b"]
    assert backend.batches == [2]


def test_one_bad_question_spoils_no_other() -> None:
    def echo(checked: list[dict[str, Any]]) -> Any:
        text = checked[0]["content"][0]["text"]
        return InputError(f"{text} is too long.") if "long" in text else text

    shared = SharedBackend(CountingBackend(echo))
    jobs = [lambda text=text: shared.generate(says(text)) for text in ("a", "long", "b")]
    first, bad, last = shared.run(jobs)
    assert (first, last) == ("a", "b")
    assert isinstance(bad, InputError)
    assert shared.down is None


def test_a_failing_inspection_does_not_hold_up_the_others() -> None:
    shared = SharedBackend(CountingBackend())

    def broken() -> str:
        raise InputError("no picture")

    outcomes = shared.run([broken, lambda: shared.generate(says("a")), broken])
    assert outcomes[1] == "echo a"
    assert all(isinstance(outcomes[place], InputError) for place in (0, 2))


def test_a_back_end_that_is_gone_is_not_asked_again_for_each() -> None:
    backend = CountingBackend(lambda checked: BackendError("The server does not answer."))
    shared = SharedBackend(backend)
    outcomes = shared.run([lambda number=number: shared.generate(says(str(number))) for number in range(6)])
    assert all(isinstance(outcome, BackendError) for outcome in outcomes)
    assert str(shared.down) == "The server does not answer."
    asked = len(backend.calls)
    assert asked <= 3
    assert isinstance(shared.run([lambda: shared.generate(says("x"))])[0], BackendError)
    assert len(backend.calls) == asked


@pytest.mark.parametrize("deterministic", [True, False])
def test_replies_are_kept_only_where_the_same_words_get_the_same_reply(deterministic: bool) -> None:
    backend = ScriptedBackend(
        [str(number) for number in range(9)], capabilities=Capabilities(deterministic=deterministic)
    )
    shared = SharedBackend(backend)
    outcomes = shared.run([lambda: shared.generate(says("same"))] * 3)
    assert outcomes == (["0"] * 3 if deterministic else ["0", "1", "2"])
