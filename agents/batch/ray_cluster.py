"""Ray for a batch: the cluster that was named, or a Ray of its own in this machine that ends with the batch.

Ray gives the helper processes of a machine 15 seconds, fixed in its raylet (https://github.com/ray-project/ray/issues/65983),
and each of them imports all of Ray first. On busy cores or a cold disk that is too little, so a start here spares them what it
can and is tried several times.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_ad.vlm.errors import BackendError, InputError, one_line

OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Shared memory of a Ray that is started here: chunks are lists of paths, rows a few kilobytes, pictures some more."""

STARTS = 3
"""How often a start here is tried; each attempt finds more of Ray's files in memory."""

SLOW_IMPORT = "rfc3987_syntax"
"""Jupyter brings this package; where it is installed, `import ray` (by way of jsonschema, which takes it for a format that
nobody asks for here) builds a grammar first, and takes four times as long in every process of Ray."""


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
    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    # Ray puts a handler of its own in the place of ours.
    polite_kill = signal.getsignal(signal.SIGTERM)
    try:
        with _quick_imports() if address == "local" else contextlib.nullcontext():
            if address == "local":
                _start(ray, workers)
            else:
                _join(ray, address)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, polite_kill)
            yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, workers: int) -> None:
    """Starts Ray here. It asks everybody who connects for a token, which Ray makes and keeps in the user's folder."""
    # Ray's workers stand back behind everything else on the machine; the local engine's do not, and it is the same work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    settings: dict[str, Any] = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    settings |= {"log_to_driver": False, "logging_level": logging.ERROR}
    if workers:
        # One processor more than there are workers is for Ray Data's own tasks.
        settings["num_cpus"] = workers + 1
    for left in reversed(range(STARTS)):
        before = _processes_of_ray()
        try:
            ray.init(address="local", **settings)
            return
        except Exception as error:  # Ray raises the bare class for a node that does not come up
            ray.shutdown()
            # What the attempt did start is known to nobody any more, and would go on until this process ends.
            for process in _processes_of_ray() - before:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            if not left:
                raise BackendError(
                    f"Ray does not start here, tried {STARTS} times ({one_line(error, 120)}); free the machine and try "
                    "again, or use --engine local."
                ) from error


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise _no_cluster(address, one_line(error, 120)) from error


def _processes_of_ray() -> set[int]:
    """Process ids of Ray's programs among this process's children and theirs."""
    import psutil  # comes with Ray

    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(f"{os.sep}ray{os.sep}" in word for word in child.cmdline()):
                found.add(child.pid)
    return found


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Processes started inside do not find the package that makes `import ray` slow; it is optional to who asks for it."""
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="sage-ray-") as folder:
        Path(folder, f"{SLOW_IMPORT}.py").write_text('raise ImportError("hidden from Ray")\n', encoding="utf-8")
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *([before] if before else [])])
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def _check_address(address: str) -> None:
    """A cluster that does not answer is said at once: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, why: str) -> InputError:
    return InputError(
        f"There is no Ray cluster at {address!r} ({why}); start one with ray start --head, or leave --address out."
    )
