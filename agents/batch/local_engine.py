"""Worker processes of one machine: each takes a few parts at a time, and one that dies is replaced.

Every worker is a process pool of one, so that it is known who died at what. The parts of a worker that died go to others. The
picture that it was at when it died is tried alone, and once more; if it takes a worker down each time, it is a row with an
error, and the batch continues.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.worker import BatchSettings, Finished, PartWorker, row_of
from sage_ad.vlm.devices import cores
from sage_ad.vlm.errors import BackendError, InputError, SageError, one_line

LIVES = 2
"""How often a part may take its worker down before it is given up."""

LOADS = 2
"""How often in a row a worker may die while it loads its models before the batch is given up."""

ASK_SECONDS = 0.5
"""How often arriving parts are asked for."""

Chunk = tuple[Part, ...]


@dataclass
class _Worker:
    """A process, what it does (None: it waits), the chunk that it is at, and the one whose pictures it decodes meanwhile."""

    pool: ProcessPoolExecutor
    process: Any
    doing: Future[Any] | None
    ready: bool = False
    chunk: Chunk = ()
    ahead: Chunk = ()


class LocalEngine:
    """Inspects parts in worker processes.

    Args:
        settings: how the parts are inspected.
        workers: number of processes.
        chunk: parts that a worker takes at a time.
        make: makes what inspects parts in a process: a `PartWorker`, or something with its methods.

    Attributes:
        restarts: how many workers died and were replaced so far.
    """

    name = "local"

    def __init__(
        self,
        settings: BatchSettings,
        *,
        workers: int,
        chunk: int,
        make: Callable[[BatchSettings], Any] | None = None,
    ) -> None:
        self.settings, self.workers, self.chunk = settings, workers, chunk
        self._make = make or functools.partial(_part_worker, threads=max(1, cores() // workers))
        self.restarts = 0
        self._alive: list[_Worker] = []
        self._todo: deque[Chunk] = deque()
        self._arriving: Callable[[], Sequence[Part] | None] | None = None
        self._deaths: Counter[str] = Counter()
        self._failed_loads = 0

    def run(
        self, parts: Sequence[Part], arriving: Callable[[], Sequence[Part] | None] | None = None
    ) -> Generator[Finished, None, None]:
        """Inspects the parts; what is done comes as it is done, in any order. Closing the iterator ends the workers.

        Args:
            parts: what is there.
            arriving: is asked now and then for parts that came since; None says that no more will be begun.

        Raises:
            InputError, BackendError: a model cannot be loaded, or workers die as soon as they start.
        """
        self._todo = deque(self._chunks(parts))
        self._arriving = arriving
        try:
            for _ in range(self.workers if arriving else min(self.workers, len(self._todo))):
                self._start()
            while self._left():
                self._ask()
                for worker in self._alive:
                    if worker.doing is None:
                        self._hand_out(worker)
                busy = [worker.doing for worker in self._alive if worker.doing]
                if self._arriving and not busy:
                    time.sleep(ASK_SECONDS)
                done, _ = wait(busy, ASK_SECONDS if self._arriving else None, return_when=FIRST_COMPLETED)
                for worker in [worker for worker in self._alive if worker.doing in done]:
                    yield from self._finish(worker)
        finally:
            self._end()

    def _chunks(self, parts: Sequence[Part]) -> Iterator[Chunk]:
        return (tuple(parts[at : at + self.chunk]) for at in range(0, len(parts), self.chunk))

    def _ask(self) -> None:
        if self._arriving is None:
            return
        more = self._arriving()
        if more is None:
            self._arriving = None
            self._todo.clear()
        else:
            self._todo.extend(self._chunks(more))

    def _left(self) -> bool:
        under_way = any(worker.chunk or worker.ahead for worker in self._alive)
        return bool(self._todo) or under_way or self._arriving is not None

    def _start(self) -> None:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        before = set(multiprocessing.active_children())
        with _ctrl_c_is_ours():
            loading = pool.submit(_load, self._make, self.settings)
        (process,) = set(multiprocessing.active_children()) - before
        self._alive.append(_Worker(pool, process, loading))

    def _hand_out(self, worker: _Worker) -> None:
        """Gives a worker a chunk, and one to look ahead to; near the end nobody holds a chunk that another could begin."""
        worker.chunk, worker.ahead = worker.ahead or (self._todo.popleft() if self._todo else ()), ()
        if not worker.chunk:
            return
        if len(self._todo) >= len(self._alive):
            worker.ahead = self._todo.popleft()
        try:
            worker.doing = worker.pool.submit(_inspect, worker.chunk, worker.ahead)
        except BrokenProcessPool as error:  # it died while it waited
            worker.doing = Future()
            worker.doing.set_exception(error)

    def _finish(self, worker: _Worker) -> Iterator[Finished]:
        """Gives what a worker has done, or replaces it."""
        assert worker.doing is not None
        try:
            done = worker.doing.result()
        except (BrokenProcessPool, SystemExit):
            yield from self._replace(worker)
            return
        worker.doing, worker.ready, self._failed_loads = None, True, 0
        if worker.chunk:
            worker.chunk = ()
            yield done

    def _replace(self, worker: _Worker) -> Iterator[Finished]:
        """Starts another worker for one that died, and gives back its parts."""
        self._alive.remove(worker)
        _make_sure_of_end(worker)
        how = _how_it_ended(worker.process.exitcode)
        if not worker.ready:
            self._failed_loads += 1
            if self._failed_loads >= LOADS:
                raise BackendError(
                    f"The workers die while they load their models ({how}); if memory is short, use fewer --workers."
                )
        self.restarts += 1
        if worker.ahead:
            self._todo.appendleft(worker.ahead)
        if worker.chunk:
            yield from self._suspect(worker.chunk, how)
        if self._left():
            self._start()

    def _suspect(self, chunk: Chunk, how: str) -> Iterator[Finished]:
        """The parts of a chunk during which a worker died come one by one; the same one again is given up."""
        if len(chunk) > 1:
            self._todo.extendleft((part,) for part in reversed(chunk))
            return
        part = chunk[0]
        self._deaths[part.key] += 1
        if self._deaths[part.key] < LIVES:
            self._todo.appendleft(chunk)
            return
        error = f"The worker died {LIVES} times on {part.image} ({how}); look at this picture apart."
        yield Finished([row_of(part, error=error)])

    def _end(self) -> None:
        for worker in self._alive:
            worker.process.terminate()
        for worker in self._alive:
            _make_sure_of_end(worker)
        self._alive = []


def _make_sure_of_end(worker: _Worker) -> None:
    worker.pool.shutdown(wait=False, cancel_futures=True)
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
    worker.pool.shutdown()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


@contextlib.contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Processes started inside do not hear Ctrl-C: it goes to all of a terminal, but only the first may answer it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# --- what runs in a worker's process -----------------------------------------------------------------------------------

_worker: Any = None


def _part_worker(settings: BatchSettings, threads: int) -> PartWorker:
    from sage_ad.vlm.commandline import quiet_libraries

    quiet_libraries()
    import torch

    torch.set_num_threads(threads)
    return PartWorker(settings)


def _load(make: Callable[[BatchSettings], Any], settings: BatchSettings) -> None:
    """Loads the models of this process."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ended by an exception, a process gives back its semaphores; ended by the signal, it leaks them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # standard output is the first process's: it may be printing JSON
    sys.stdout = sys.stderr
    try:
        _worker = make(settings)
        _worker.load()
    except SageError as error:  # plain ones, since not every kind of error can travel
        raise (InputError if isinstance(error, InputError) else BackendError)(str(error)) from None


def _inspect(chunk: Chunk, ahead: Chunk) -> Finished:
    """Inspects a chunk; the pictures of the next one are decoded meanwhile."""
    _worker.look_ahead([*chunk, *ahead])
    try:
        done: Finished = _worker.inspect(chunk)
    except Exception as error:
        print(f"A worker ends, another takes its place: {one_line(error)}", file=sys.stderr, flush=True)
        os._exit(1)
    return done


def _end_with_parent() -> None:
    """Ends this process with the one that it works for, however that one ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
