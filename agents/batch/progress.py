"""How far a batch is, in lines of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sage_ad.agents.batch.store import Row


class Progress:
    """Counts what is done; says the rate and the time that is left.

    Args:
        total: parts to do in this run.
        say: is given a line of text now and then; None keeps silent.
        every: seconds between lines.
    """

    def __init__(self, total: int, say: Callable[[str], None] | None, every: float = 10.0) -> None:
        self.total, self.done, self.errors = total, 0, 0
        self._say, self._every = say, every
        self._first: tuple[float, int] | None = None
        self._last = time.monotonic()

    def add(self, rows: Sequence[Row]) -> None:
        """Counts rows, and says so when it is time."""
        now = time.monotonic()
        self.done += len(rows)
        self.errors += sum(row["error"] is not None for row in rows)
        self._first = self._first or (now, self.done)
        if self._say and (now - self._last >= self._every or self.done == self.total):
            self._last = now
            self._say(self.line())

    def line(self) -> str:
        """'128 of 2000 parts, 7.9 parts/s, about 4 min left, 1 error'.

        The rate is the mean since the first parts were done: these hold the loading of the models, and parts come in
        chunks, so that a shorter look would jump.
        """
        text = f"{self.done} of {self.total} parts"
        then, before = self._first or (0.0, 0)
        if self.done > before and (now := time.monotonic()) > then:
            rate = (self.done - before) / (now - then)
            text += f", {rate:.1f} parts/s"
            if left := self.total - self.done:
                text += f", about {_clock(left / rate)} left"
        return text + (f", {self.errors} error{'s' * (self.errors != 1)}" if self.errors else "")


def _clock(seconds: float) -> str:
    """A time no finer than it is known: '40 s', '12 min', '3 h 20 min'."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
