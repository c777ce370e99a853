"""Nothing acknowledged is ever lost: not by kill -9, not by two writers at once, not by a full disk."""

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from light_embedder import LightEmbedder

from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.knowledge.vectors.index import VectorIndex

WORKER = Path(__file__).parents[2] / "helpers" / "store_worker.py"
ROUNDS = int(os.environ.get("SAGE_KILL_ROUNDS", "50"))


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def finish(process):
    out, error = process.communicate(timeout=250)
    assert process.returncode == 0, error
    return out, error


def reopen(home, cache):
    return FactStore.open(home, LightEmbedder(dimensions=16), cache=cache, shipped=home / "shipped")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked and killed, which Windows cannot do")
def test_every_acknowledged_change_survives_kill_9(tmp_path):
    out, error = finish(start("kill", tmp_path / "home", tmp_path / "cache", ROUNDS, 20261122))
    result = json.loads(out)
    assert result["survived"] == result["rounds"] == ROUNDS, error
    assert result["acknowledged"] > 3 * ROUNDS


def test_two_processes_add_at_once(tmp_path):
    workers = [start("add", tmp_path, tmp_path / "cache", name, 25) for name in ("a", "b", "c")]
    ids = [identity for worker in workers for identity in finish(worker)[0].split()]
    assert len(set(ids)) == 75
    with reopen(tmp_path, tmp_path / "cache") as store:
        assert {fact.id for fact in store.facts("tyres")} == set(ids)
        assert store.problems() == []
        assert len(store.search("worker saw fact", k=75, mode="dense")) == 75


def test_a_reader_never_sees_half_a_change(tmp_path):
    """A writer in another process adds groups of ten; each is seen whole or not at all, through compactions too."""
    code = f"""
import numpy as np
from sage_ad.knowledge.vectors.index import VectorIndex
index = VectorIndex(__import__("pathlib").Path({str(tmp_path)!r}), 8, "m")
rng = np.random.default_rng(0)
for group in range(60):
    index.upsert([f"{{group}}-{{n}}" for n in range(10)], rng.standard_normal((10, 8)), [{{"group": group}}] * 10)
    if group > 5:
        index.delete([f"{{group - 5}}-{{n}}" for n in range(10)])
    if group % 4 == 0:
        index.compact()
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    looks, reader = 0, VectorIndex(tmp_path, 8, "m")
    query = np.ones(8, dtype=np.float32)
    while writer.poll() is None or looks < 20:
        found = [key.split("-")[0] for key, _ in reader.search(query, 1000)]
        assert {found.count(group) for group in found} <= {10}
        looks += 1
    assert writer.wait() == 0, writer.stderr.read()
    assert len(reader.search(query, 1000)) == 60
    reader.close()


def test_an_index_killed_in_any_change_is_whole(tmp_path):
    """A process adds, replaces, deletes and compacts; wherever it is killed, what it acknowledged is there."""
    code = f"""
import sys
import numpy as np
from sage_ad.knowledge.vectors.index import VectorIndex
index = VectorIndex(__import__("pathlib").Path({str(tmp_path)!r}), 8, "m")
for change in range(10**6):
    index.upsert([f"{{change % 50}}-{{n}}" for n in range(40)], np.full((40, 8), change % 1000), [{{}}] * 40)
    print(change % 1000, flush=True)
    index.delete([f"{{(change + 25) % 50}}-{{n}}" for n in range(40)])
    index.compact()
"""
    rng = random.Random(7)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            acknowledged = [process.stdout.readline() for _ in range(rng.randint(1, 40))]
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            acknowledged += process.stdout.readlines()
        last = int(acknowledged[-1])
        with contextlib.closing(VectorIndex(tmp_path, 8, "m")) as index:
            index.verify()
            known = index.vectors(index.keys())
            assert len(index) == len(known)
            assert len(known) % 40 == 0
            assert all(known[f"{last % 50}-{n}"][0] == last for n in range(40))


def test_a_file_that_vanishes_while_it_is_mapped_is_looked_for_again(tmp_path, monkeypatch):
    """Another process compacted the index between our look at its name and our mapping of the file."""
    with contextlib.closing(VectorIndex(tmp_path, 8, "m")) as index:
        index.upsert([f"{n}" for n in range(10)], np.eye(10, 8, dtype=np.float32), [{"group": 0}] * 10)
        index.delete(["0"])
        memmap, failed = np.memmap, []

        def vanished_once(path, *args, **kwargs):
            if not failed:
                failed.append(path)
                index.compact()
            return memmap(path, *args, **kwargs)

        monkeypatch.setattr(np, "memmap", vanished_once)
        with contextlib.closing(VectorIndex(tmp_path, 8, "m")) as reader:
            assert len(reader.search(np.ones(8, dtype=np.float32), 100)) == 9
        assert failed


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 256 KB, and what a process must call to be held to that size."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    if mounted:
        yield folder, None
        subprocess.run(["umount", "-l", str(folder)], check=True)
    else:  # no right to mount: no file may grow beyond the size
        yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, 256 << 10))


def test_a_full_disk_ends_in_one_line_and_loses_nothing(small_disk, tmp_path):
    folder, limit = small_disk
    spare = folder / "spare"
    spare.write_bytes(b"x" * 50_000)
    result = json.loads(finish(start("fill", folder, tmp_path / "cache", preexec_fn=limit))[0])
    assert len(result["acknowledged"]) >= 50
    assert "Nothing was stored" in result["error"]
    assert "\n" not in result["error"]
    with reopen(folder, tmp_path / "cache") as store:
        assert {fact.id for fact in store.facts("tyres")} == set(result["acknowledged"])
        assert store.problems() == []
    spare.unlink()
    (again,) = finish(start("add", folder, tmp_path / "cache", "later", 1))[0].split()
    with reopen(folder, tmp_path / "other-cache") as store:
        assert {fact.id for fact in store.facts("tyres")} == {*result["acknowledged"], again}


def test_a_full_cache_ends_in_one_line_and_loses_nothing(small_disk, tmp_path):
    folder, limit = small_disk
    result = json.loads(finish(start("fill", tmp_path / "home", folder, preexec_fn=limit))[0])
    assert len(result["acknowledged"]) >= 5
    assert "the packs are whole" in result["error"]
    assert "\n" not in result["error"]
    with reopen(tmp_path / "home", tmp_path / "roomy") as store:
        assert {fact.id for fact in store.facts("tyres")} >= set(result["acknowledged"])
        assert store.problems() == []
