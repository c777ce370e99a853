"""The same batch on a Ray cluster, or on Ray in this machine: Ray Data maps chunks of parts over a pool of actors.

Rows and pictures come back to the process that started the batch, which alone writes; the machines of the cluster need the
package, the models and the pictures under the same paths. Ray restarts actors that die and gives their chunk to another;
a ledger counts who died at what, so that one bad picture cannot take actors down for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sage_ad.agents.batch.local_engine import LIVES
from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.worker import BatchSettings, Finished, PartWorker, row_of
from sage_ad.vlm.errors import BackendError, InputError, SageError, one_line

if TYPE_CHECKING:
    import pyarrow

OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Shared memory of a Ray that is started here: chunks are lists of paths, rows a few kilobytes, pictures some more."""


class Ledger:
    """Counts, in an actor of its own, at which chunks and parts workers died: begun and never ended."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._deaths = 0

    def begin(self, key: str) -> int:
        """A worker begins; returns how many workers began this before and never came to its end."""
        before = self._open[key]
        self._open[key] += 1
        self._deaths += before > 0
        return before

    def end(self, key: str) -> None:
        """A worker came to the end."""
        self._open.pop(key, None)

    def deaths(self) -> int:
        """How often something was begun again."""
        return self._deaths


class RayWorker:
    """An actor of Ray Data: a table of chunks in, a table of what was done with them out."""

    def __init__(
        self, settings: BatchSettings, ledger: Any, make: Callable[[BatchSettings], Any] | None = None
    ) -> None:
        from sage_ad.vlm.commandline import quiet_libraries

        quiet_libraries()
        self._ledger = ledger
        self._failed: SageError | None = None
        self._worker = (make or PartWorker)(settings)
        try:
            self._worker.load()
        except SageError as error:
            # An actor that cannot be made is made again and again by Ray; this one says why instead.
            self._failed = error

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Inspects the chunks of a table."""
        import pyarrow as pa

        done = [self._done(pickle.loads(chunk)) for chunk in table["chunk"].to_pylist()]
        return pa.table({"done": pa.array([pickle.dumps(item) for item in done], pa.large_binary())})

    def _done(self, parts: tuple[Part, ...]) -> Finished | SageError:
        if self._failed is not None:
            return self._failed
        chunk = f"chunk {parts[0].key}"
        if not self._begin(chunk):
            done = self._inspect(parts)
        else:
            done = self._one_by_one(parts)
        self._end(chunk)
        return done

    def _one_by_one(self, parts: Sequence[Part]) -> Finished:
        """A worker died at this chunk before: the part that did it is found by doing each alone."""
        together = Finished([])
        for part in parts:
            if self._begin(part.key) >= LIVES:
                error = f"The worker died {LIVES} times on {part.image}; look at this picture apart."
                together.rows.append(row_of(part, error=error))
            else:
                done = self._inspect([part])
                together.rows += done.rows
                together.pictures |= done.pictures
                together.stopped = done.stopped
            self._end(part.key)
            if together.stopped:
                break
        return together

    def _inspect(self, parts: Sequence[Part]) -> Finished:
        try:
            return self._worker.inspect(parts)
        except RuntimeError:
            # The GPU is lost to this process: a new one takes over.
            os._exit(1)

    def _begin(self, key: str) -> int:
        import ray

        before: int = ray.get(self._ledger.begin.remote(key))
        return before

    def _end(self, key: str) -> None:
        import ray

        ray.get(self._ledger.end.remote(key))


class RayEngine:
    """Inspects parts with Ray Data.

    Args:
        settings: how the parts are inspected; with the device "cuda" every worker takes a GPU.
        workers: number of actors; 0 takes one for each processor (or GPU) of the cluster.
        chunk: parts that a worker takes at a time.
        address: cluster to join ("auto", "host:6379"); None takes `$RAY_ADDRESS`, else starts Ray here.
        make: makes what inspects parts in an actor: a `PartWorker`, or something with its methods.

    Raises:
        InputError: the package ray is not installed, or no cluster answers at the address.
    """

    name = "ray"

    def __init__(
        self,
        settings: BatchSettings,
        *,
        workers: int,
        chunk: int,
        address: str | None = None,
        make: Callable[[BatchSettings], Any] | None = None,
    ) -> None:
        import importlib.util

        if importlib.util.find_spec("ray") is None:
            raise InputError("The engine ray needs the package ray; install it with pip install 'ray[data]'.")
        self.settings, self.workers, self.chunk = settings, workers, chunk
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            _check_address(self.address)
        except OSError as error:
            raise _no_cluster(self.address, error) from error
        self._make = make
        self.restarts = 0

    def run(self, parts: Sequence[Part]) -> Generator[Finished, None, None]:
        """Inspects the parts; what is done comes as it is done, in any order. Closing the iterator ends the work.

        Raises:
            InputError: there is no cluster at the address.
            BackendError: a model cannot be loaded, or Ray gives up.
        """
        with ray_running(self.address, self.workers) as ray:
            try:
                ledger = ray.remote(num_cpus=0)(Ledger).remote()
                for table in self._dataset(parts, ledger).iter_batches(batch_size=None, batch_format="pyarrow"):
                    for item in table["done"].to_pylist():
                        done = pickle.loads(item)
                        if isinstance(done, SageError):
                            raise done
                        yield done
                self.restarts = ray.get(ledger.deaths.remote())
            except ray.exceptions.RayError as error:
                raise BackendError(f"Ray gave up ({one_line(error)}); look into the logs of its cluster.") from error

    def _dataset(self, parts: Sequence[Part], ledger: Any) -> Any:
        """The lazy Ray data set: one block a chunk, so that each is a task of its own."""
        import ray

        on_gpu = self.settings.agent.device.startswith("cuda")
        there = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))
        chunks = [parts[at : at + self.chunk] for at in range(0, len(parts), self.chunk)]
        self.workers = min(self.workers or there, len(chunks))
        pool = ray.data.ActorPoolStrategy(min_size=max(1, min(self.workers, there)), max_size=self.workers)
        items = [{"chunk": pickle.dumps(tuple(chunk))} for chunk in chunks]
        return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            RayWorker,
            fn_constructor_args=(self.settings, ledger, self._make),
            batch_size=1,
            batch_format="pyarrow",
            compute=pool,
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
        )


@contextlib.contextmanager
def ray_running(address: str, workers: int) -> Iterator[Any]:
    """The module `ray`, connected; at the end it is left as it was found.

    Args:
        address: "local" starts Ray here; "auto" or "host:port" joins a cluster.
        workers: actors that will run; 0 if all processors are wanted.

    Raises:
        InputError: there is no cluster at the address.
        BackendError: Ray does not start here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's workers stand back behind everything else on the machine; the local engine's do not, and it is the same work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        # One processor more than there are workers is for Ray Data's own tasks.
        settings |= {"num_cpus": workers + 1} if workers else {}
    # Ray puts a handler of its own in the place of ours.
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(address=address, **settings)
        except Exception as error:  # Ray raises the bare class for a node that does not come up
            if address == "local":
                raise BackendError(
                    f"Ray does not start here ({one_line(error, 120)}); start it yourself with ray start --head and add "
                    "--address auto, or use --engine local."
                ) from error
            raise _no_cluster(address, error) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)
        yield ray
    finally:
        ray.shutdown()


def _no_cluster(address: str, error: Exception) -> InputError:
    why = one_line(error, 120)
    return InputError(
        f"There is no Ray cluster at {address!r} ({why}); start one with ray start --head, or leave --address out."
    )


def _check_address(address: str) -> None:
    """Raises OSError for a cluster that does not answer: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), 5).close()
