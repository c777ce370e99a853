"""The reference's log-probabilities in a run of two processes: the first decides whether they are asked anew."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

RANKS = Path(__file__).parents[2] / "helpers" / "reference_ranks.py"


def test_a_process_whose_cache_differs_follows_the_first(repository: Path, tmp_path: Path) -> None:
    """Neither a cache that only one process has nor another fingerprint lets it skip what the others wait for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "tests" / "helpers")]),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(RANKS), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=150) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, error) in zip(processes, said, strict=True):
        assert process.returncode == 0, error[-3000:]
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in said)
    assert first == second
    asked, kept, asked_again = first
    assert kept == [[value - 1 for value in row] for row in asked]
    assert asked_again == asked
    assert [path.name for path in (tmp_path / "0" / "reference").iterdir()], "the first process keeps them for all"
