"""Everybody gets a turn, anything can be stopped, and what fails tells only its own visitor."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sage_ad.demo.services.fair_queue import MAX_WAITING_EACH, Event, FairQueue
from sage_ad.vlm.errors import BackendError, InputError


def said(word: str, log: list[str]) -> Iterator[Event]:
    """Work that notes when it is done."""
    log.append(word)
    yield {"event": "said", "word": word}


@pytest.fixture
def busy() -> Iterator[tuple[FairQueue, threading.Event]]:
    """A queue whose only worker is held until the event is set."""
    fair_queue, go, held = FairQueue(1), threading.Event(), threading.Event()

    def hold() -> Iterator[Event]:
        held.set()
        go.wait(30)
        yield {"event": "held"}

    fair_queue.submit("somebody", hold)
    assert held.wait(30)
    yield fair_queue, go
    go.set()


def test_a_visitor_with_many_requests_does_not_hold_up_the_others(busy: tuple[FairQueue, threading.Event]) -> None:
    fair_queue, go = busy
    log: list[str] = []
    jobs = [fair_queue.submit("many", lambda n=n: said(f"many {n}", log)) for n in range(4)]
    jobs += [fair_queue.submit(who, lambda who=who: said(who, log)) for who in ("second", "third")]
    assert [fair_queue.ahead_of(job) for job in jobs] == [1, 4, 5, 6, 2, 3]
    go.set()
    for job in jobs:
        assert list(job)[-1]["event"] == "said"
    assert log == ["many 0", "second", "third", "many 1", "many 2", "many 3"]


def test_who_waits_is_told_how_many_are_before(busy: tuple[FairQueue, threading.Event]) -> None:
    fair_queue, go = busy
    events = iter(fair_queue.submit("me", lambda: said("me", [])))
    assert next(events) == {"event": "waiting", "ahead": 1}
    go.set()
    assert [event["event"] for event in events] == ["said"]


def test_what_is_stopped_before_its_turn_is_never_done(busy: tuple[FairQueue, threading.Event]) -> None:
    fair_queue, go = busy
    log: list[str] = []
    stopped, kept = (
        fair_queue.submit("a", lambda: said("stopped", log)),
        fair_queue.submit("b", lambda: said("kept", log)),
    )
    events = iter(stopped)
    next(events)
    events.close()  # type: ignore[attr-defined]  # what Gradio does when the visitor cancels
    go.set()
    list(kept)
    assert log == ["kept"]


def test_what_is_stopped_while_it_runs_ends_at_its_next_event() -> None:
    fair_queue, seen, ended = FairQueue(1), threading.Event(), threading.Event()

    def endless() -> Iterator[Event]:
        try:
            while True:
                yield {"event": "more"}
        finally:
            ended.set()

    events = iter(fair_queue.submit("me", endless))
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert ended.wait(30), "the work went on"
    list(fair_queue.submit("you", lambda: said("you", [])))
    seen.set()


def test_a_sentence_for_the_visitor_reaches_the_visitor() -> None:
    def bad() -> Iterator[Event]:
        raise InputError("The picture is upside down; turn it.")
        yield {}

    with pytest.raises(InputError, match="upside down"):
        list(FairQueue(1).submit("me", bad))


def test_a_fault_of_ours_reaches_the_operator_and_the_queue_goes_on() -> None:
    faults: list[BaseException] = []
    fair_queue = FairQueue(1, complain=faults.append)

    def broken() -> Iterator[Event]:
        raise ZeroDivisionError("secret path /srv/x")
        yield {}

    with pytest.raises(BackendError) as caught:
        list(fair_queue.submit("me", broken))
    assert "/srv/x" not in str(caught.value)
    assert isinstance(faults[0], ZeroDivisionError)
    assert list(fair_queue.submit("me", lambda: said("still there", [])))


def test_nobody_can_fill_the_row(busy: tuple[FairQueue, threading.Event]) -> None:
    fair_queue, _ = busy
    for _ in range(MAX_WAITING_EACH):
        fair_queue.submit("greedy", lambda: said("x", []))
    with pytest.raises(InputError, match="waiting"):
        fair_queue.submit("greedy", lambda: said("x", []))
    fair_queue.submit("modest", lambda: said("x", []))
