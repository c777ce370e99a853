"""Processes that have the libraries of training in them already: a server imports them once, and forks."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

IMPORTED = ["trl", "peft", "datasets", "sage_ad.alignment.edpo.run", "sage_ad.alignment.edpo.trainer"]
"""Seven processor seconds, which every process of its own would pay."""


def in_processes(count: int, function: Callable[..., Any], *arguments: Any, timeout: float = 280) -> list[Any]:
    """Calls `function(rank, *arguments)` in so many processes at once; gives what they return, in order of the ranks.

    Raises:
        Exception: whatever a call raised.
        BrokenProcessPool: a process was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        calls = [pool.submit(_called, dict(os.environ), function, rank, *arguments) for rank in range(count)]
        return [call.result(timeout) for call in calls]


def _called(environment: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    os.environ.update(environment)  # the server has that of an earlier test
    return function(*arguments)
