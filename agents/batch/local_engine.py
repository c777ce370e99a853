"""Worker processes of one machine: each takes a few parts at a time, and one that dies is replaced.

The parts of a worker that died go to others. The picture that it was at when it died is tried alone, and once more; if it
takes a worker down each time, it is a row with an error, and the batch goes on.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from typing import Any

from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.worker import BatchSettings, Finished, PartWorker, row_of
from sage_ad.vlm.errors import BackendError, InputError, SageError, one_line

LIVES = 2
"""How often a part may take its worker down before it is given up."""

LOADS = 2
"""How often in a row a worker may die while it loads its models before the batch is given up."""

IN_HAND = 2
"""Chunks that a worker holds: one it works on, one whose pictures it decodes meanwhile."""


@dataclass
class _Worker:
    """A process, our end of its pipe, and the chunks that it holds, oldest first."""

    process: Any
    pipe: Any
    ready: bool = False
    chunks: deque[tuple[Part, ...]] = field(default_factory=deque)


class LocalEngine:
    """Inspects parts in worker processes.

    Args:
        settings: how the parts are inspected.
        workers: number of processes.
        chunk: parts that a worker takes at a time.
        body: what a worker process does (see `work`).

    Attributes:
        restarts: how many workers died and were replaced so far.
        processes: process ids of the workers that live.
    """

    name = "local"

    def __init__(
        self,
        settings: BatchSettings,
        *,
        workers: int,
        chunk: int,
        body: Callable[[Any, BatchSettings, int], None] | None = None,
    ) -> None:
        self.settings, self.workers, self.chunk = settings, workers, chunk
        self._body = body or work
        self.restarts = 0
        self._context = get_context("spawn")
        self._alive: list[_Worker] = []
        self._todo: deque[tuple[Part, ...]] = deque()
        self._deaths: Counter[str] = Counter()
        self._failed_loads = 0

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._alive]

    def run(self, parts: Sequence[Part]) -> Generator[Finished, None, None]:
        """Inspects the parts; what is done comes as it is done, in any order. Closing the iterator ends the workers.

        Raises:
            InputError, BackendError: a model cannot be loaded, or workers die as soon as they start.
        """
        self._todo = deque(tuple(parts[at : at + self.chunk]) for at in range(0, len(parts), self.chunk))
        try:
            self._alive = [self._start() for _ in range(min(self.workers, len(self._todo)))]
            while self._todo or any(worker.chunks for worker in self._alive):
                yield from self._next()
        finally:
            self._end()

    def _next(self) -> Iterator[Finished]:
        """Waits for workers and gives what they have done."""
        owner = {worker.pipe: worker for worker in self._alive} | {w.process.sentinel: w for w in self._alive}
        stirred = {id(owner[end]): owner[end] for end in connection.wait(list(owner))}
        for worker in stirred.values():
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._replace(worker)
                continue
            if kind == "failed":
                raise value
            if kind == "ready":
                worker.ready, self._failed_loads = True, 0
            else:
                worker.chunks.popleft()
                yield value
            self._hand_out(worker)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        threads = max(1, cores() // self.workers)
        process = self._context.Process(
            target=self._body, args=(theirs, self.settings, threads), name="sage-batch-worker", daemon=True
        )
        with _ctrl_c_is_ours():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _hand_out(self, worker: _Worker) -> None:
        """Fills a worker's hands; near the end no worker takes a second chunk that another could begin."""
        while self._todo and len(worker.chunks) < IN_HAND:
            if worker.chunks and len(self._todo) < len(self._alive):
                return
            chunk = self._todo.popleft()
            worker.chunks.append(chunk)
            # A worker that died meanwhile is found by its pipe, with this chunk among its own.
            with contextlib.suppress(OSError):
                worker.pipe.send(chunk)

    def _replace(self, worker: _Worker) -> Iterator[Finished]:
        """Starts another worker for one that died, and gives back its parts."""
        self._alive.remove(worker)
        worker.pipe.close()
        _make_sure_of_end(worker.process)
        how = _how_it_ended(worker.process.exitcode)
        if not worker.ready:
            self._failed_loads += 1
            if self._failed_loads >= LOADS:
                raise BackendError(
                    f"The workers die while they load their models ({how}); if memory is short, use fewer --workers."
                )
        self.restarts += 1
        for chunk in reversed(list(worker.chunks)[1:]):
            self._todo.appendleft(chunk)
        if worker.chunks:
            yield from self._suspect(worker.chunks[0], how)
        if self._todo or any(other.chunks for other in self._alive):
            self._alive.append(self._start())
        for other in self._alive:
            if other.ready:
                self._hand_out(other)

    def _suspect(self, chunk: tuple[Part, ...], how: str) -> Iterator[Finished]:
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
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._alive:
            _make_sure_of_end(worker.process)
        self._alive = []


def _make_sure_of_end(process: Any) -> None:
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join(5)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def work(pipe: Any, settings: BatchSettings, threads: int) -> None:
    """Body of a worker process."""

    def make() -> PartWorker:
        from sage_ad.vlm.commandline import quiet_libraries

        quiet_libraries()
        import torch

        torch.set_num_threads(threads)
        worker = PartWorker(settings)
        worker.load()
        return worker

    serve(pipe, make)


def serve(pipe: Any, make: Callable[[], Any]) -> None:
    """Chunks of parts come through the pipe, what was done with them goes back.

    Args:
        pipe: the worker's end; it closes when the process that it works for is gone.
        make: loads a `PartWorker`, or something with its methods.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # standard output is the first process's: it may be printing JSON
    sys.stdout = sys.stderr
    try:
        worker = make()
    except SageError as error:
        pipe.send(("failed", InputError(str(error)) if isinstance(error, InputError) else BackendError(str(error))))
        return
    pipe.send(("ready", None))
    chunks: queue.SimpleQueue[tuple[Part, ...]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, worker, chunks), daemon=True).start()
    while True:
        try:
            done = worker.inspect(chunks.get())
        except RuntimeError as error:
            print(f"A worker ends, another takes its place: {one_line(error)}", file=sys.stderr, flush=True)
            os._exit(1)
        try:
            pipe.send(("done", done))
        except OSError:
            return


def _listen(pipe: Any, worker: Any, chunks: queue.SimpleQueue[tuple[Part, ...]]) -> None:
    """Takes chunks as they come and has their pictures decoded; ends the process with the one that it works for."""
    while True:
        try:
            chunk = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        worker.look_ahead(chunk)
        chunks.put(chunk)
