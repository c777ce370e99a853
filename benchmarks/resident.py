"""How much memory a process holds, and the most that it holds while something runs."""

from __future__ import annotations

import threading


def resident(process: int | None = None) -> float:
    """Resident set of a process (None: this one) in MiB."""
    import psutil

    return float(psutil.Process(process).memory_info().rss / 2**20)


class ResidentPeak(threading.Thread):
    """The resident set before a block, and the highest while it runs.

    Args:
        process: its id; None watches this process.
        every: seconds between two looks.
    """

    def __init__(self, process: int | None = None, every: float = 0.02) -> None:
        super().__init__(daemon=True)
        self.process, self.every, self._done = process, every, threading.Event()
        self.before = self.highest = resident(process)

    def run(self) -> None:
        while not self._done.wait(self.every):
            self.highest = max(self.highest, resident(self.process))

    def __enter__(self) -> ResidentPeak:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
