"""`FairQueue`: a few workers take the work of many visitors, so that everybody gets a turn and anything can be stopped.

Gradio's queue serves in order of arrival: one visitor with fifty requests would make all others wait for fifty. Here the
next turn goes to the waiting visitor with the least work in progress who was served the longest time ago.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sage_ad.vlm.errors import BackendError, InputError, SageError

Event = dict[str, Any]
Work = Callable[[], Iterator[Event]]

MAX_WAITING = 200
MAX_WAITING_EACH = 8
_END = object()


class QueueFull(InputError):
    """Work that is not taken because too much waits; `own` says whether it is the visitor's own."""

    def __init__(self, message: str, own: bool) -> None:
        super().__init__(message)
        self.own = own


class Job:
    """Work that was handed in; iterate over it to get its events as they happen, close the iterator to stop it."""

    def __init__(self, fair_queue: FairQueue, who: str, work: Work, number: int) -> None:
        self.who, self.number = who, number
        self._queue, self._work = fair_queue, work
        self._events: queue.Queue[Any] = queue.Queue()
        self._stopped = threading.Event()
        self.taken = False

    def stop(self) -> None:
        """Stops the work at its next event, or takes it out of the row if it has not begun."""
        self._stopped.set()
        self._queue.withdraw(self)
        self._events.put(_END)  # for a thread that waits for the next event

    def __iter__(self) -> Iterator[Event]:
        """Yields {"event": "waiting", "ahead"} while others are served, then what the work yields.

        Raises:
            SageError: the work failed.
        """
        try:
            ahead = -1
            while True:
                try:
                    event = self._events.get(timeout=0.5)
                except queue.Empty:
                    if not self.taken and (now := self._queue.ahead_of(self)) != ahead:
                        ahead = now
                        yield {"event": "waiting", "ahead": ahead}
                    continue
                if event is _END:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.stop()

    def run(self) -> None:
        """Does the work; called by a worker of the queue."""
        work = self._work()
        try:
            for event in work:
                if self._stopped.is_set():
                    break
                self._events.put(event)
        except SageError as error:
            self._events.put(error)
        except Exception as error:  # a worker outlives what fails on it; the visitor gets a message
            self._queue.complain(error)
            self._events.put(BackendError(f"Something failed that should not ({type(error).__name__}); try it again."))
        finally:
            close = getattr(work, "close", None)
            if close is not None:
                close()
            self._events.put(_END)


class FairQueue:
    """Workers and the row of jobs before them.

    Args:
        places: how many jobs run at the same time.
        waiting: how many may wait; `waiting_each`: how many of one visitor.
        complain: called with an error that is no fault of a visitor's.
    """

    def __init__(
        self,
        places: int = 1,
        complain: Callable[[BaseException], None] | None = None,
        *,
        waiting: int = MAX_WAITING,
        waiting_each: int = MAX_WAITING_EACH,
    ) -> None:
        self.places, self._most, self._most_each = places, waiting, waiting_each
        self.complain = complain or (lambda error: None)
        self._ready = threading.Condition()
        self._waiting: list[Job] = []
        self._running: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._count = 0
        for number in range(places):
            threading.Thread(target=self._serve, name=f"fair-queue-{number}", daemon=True).start()

    def submit(self, who: str, work: Work) -> Job:
        """Hands in work of a visitor.

        Raises:
            QueueFull: this visitor, or all together, have too much waiting already.
        """
        with self._ready:
            mine = sum(job.who == who for job in self._waiting)
            if mine >= self._most_each or len(self._waiting) >= self._most:
                raise QueueFull(
                    f"{mine} of your requests and {len(self._waiting)} in all are waiting; try again when some are done.",
                    mine >= self._most_each,
                )
            self._count += 1
            job = Job(self, who, work, self._count)
            self._waiting.append(job)
            self._ready.notify()
        return job

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many jobs are under way."""
        return self._running.total()

    def ahead_of(self, job: Job) -> int:
        """How many jobs are served before this one, as things stand."""
        with self._ready:
            return sum(self._turn(other) < self._turn(job) for other in self._waiting) + sum(self._running.values())

    def withdraw(self, job: Job) -> None:
        """Takes a job out of the row."""
        with self._ready:
            if job in self._waiting:
                self._waiting.remove(job)

    def _turn(self, job: Job) -> tuple[int, int, int, int]:
        """Smaller is sooner. A visitor's second job comes after every other visitor's first."""
        before = sum(other.who == job.who and other.number < job.number for other in self._waiting)
        return self._running[job.who] + before, before, self._served.get(job.who, 0), job.number

    def _serve(self) -> None:
        while True:
            with self._ready:
                while not self._waiting:
                    self._ready.wait()
                job = min(self._waiting, key=self._turn)
                self._waiting.remove(job)
                job.taken = True
                self._running[job.who] += 1
                self._count += 1
                self._served[job.who] = self._count
                if len(self._served) > 10_000:  # forget the visitors of long ago
                    self._served = dict(sorted(self._served.items(), key=lambda item: item[1])[-1000:])
            try:
                job.run()
            finally:
                with self._ready:
                    self._running[job.who] -= 1
                    if not self._running[job.who]:
                        del self._running[job.who]
