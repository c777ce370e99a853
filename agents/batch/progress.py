"""How far a batch is, in lines of text."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from sage_ad.agents.batch.store import Row


class Progress:
    """Counts what is done; says the rate of the last minute and the time that is left.

    Args:
        total: parts to do in this run.
        say: is given a line of text now and then; None keeps silent.
        every: seconds between lines.
    """

    WINDOW = 60.0

    def __init__(self, total: int, say: Callable[[str], None] | None, every: float = 10.0) -> None:
        self.total, self.done, self.errors = total, 0, 0
        self._say, self._every = say, every
        self._times: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._last = time.monotonic()

    def add(self, rows: Sequence[Row]) -> None:
        """Counts rows, and says so when it is time."""
        now = time.monotonic()
        self.done += len(rows)
        self.errors += sum(row["error"] is not None for row in rows)
        self._times.append((now, self.done))
        while len(self._times) > 2 and now - self._times[0][0] > self.WINDOW:
            self._times.popleft()
        if self._say and (now - self._last >= self._every or self.done == self.total):
            self._last = now
            self._say(self.line())

    def line(self) -> str:
        """'128 of 2000 parts, 7.9 parts/s, 3 min 57 s left, 1 error'."""
        (then, before), (now, done) = self._times[0], self._times[-1]
        rate = (done - before) / (now - then) if now > then and done > before else 0.0
        text = f"{self.done} of {self.total} parts"
        if rate:
            left = round((self.total - self.done) / rate)
            minutes, seconds = divmod(left, 60)
            hours, minutes = divmod(minutes, 60)
            clock = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
            text += f", {rate:.1f} parts/s, {clock} left"
        return text + (f", {self.errors} error{'s' * (self.errors != 1)}" if self.errors else "")
