"""The reference's log-probabilities in a run of two processes: the first decides whether they are asked anew."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

pytest.importorskip("trl")

from forked import in_processes
from reference_ranks import main


def test_a_process_whose_cache_differs_follows_the_first(tmp_path: Path) -> None:
    """Neither a cache that only one process has nor another fingerprint lets it skip what the others wait for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, second = in_processes(2, main, tmp_path, port)
    assert first == second
    asked, kept, asked_again = first
    assert kept == [[value - 1 for value in row] for row in asked]
    assert asked_again == asked
    assert [path.name for path in (tmp_path / "0" / "reference").iterdir()], "the first process keeps them for all"
