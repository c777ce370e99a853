"""Asynchronous calls from ordinary threads, which can be cancelled while they wait.

One event loop runs in a thread of its own for the whole process. A call that is given up (Ctrl-C, an event that is set)
is cancelled there at once, so that its connection closes and the server stops working for nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

from sage_ad.vlm.errors import BackendError

T = TypeVar("T")
_POLL = 0.1
"""Seconds between two looks at the event that cancels a call."""

_starting = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


class CancelledCallError(BackendError):
    """A call was cancelled before it ended."""


def background_loop() -> asyncio.AbstractEventLoop:
    """The process's event loop, started at the first call."""
    with _starting:
        if not _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="sage-calls", daemon=True).start()
            _loops.append(loop)
        return _loops[0]


def run_call(call: Coroutine[Any, Any, T], cancelled: threading.Event | None = None) -> T:
    """Runs a coroutine in the background loop and waits for its result.

    Args:
        call: what to run.
        cancelled: ends the call as soon as it is set; None waits to the end (or for Ctrl-C, which ends it too).

    Raises:
        CancelledCallError: the event was set.
    """
    future = asyncio.run_coroutine_threadsafe(call, background_loop())
    try:
        while True:
            try:
                return future.result(None if cancelled is None else _POLL)
            except NotYet:
                if future.done():  # the call's own time-out, not ours
                    raise
                if cancelled is not None and cancelled.is_set():
                    raise CancelledCallError("The request was cancelled before its answer came; ask again.") from None
    finally:
        future.cancel()  # does nothing to a call that has ended


def start_call(call: Coroutine[Any, Any, Any]) -> None:
    """Runs a coroutine in the background loop without waiting for it (closing a connection, for instance)."""
    asyncio.run_coroutine_threadsafe(call, background_loop())
