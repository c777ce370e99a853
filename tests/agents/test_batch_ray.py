"""What a Ray worker does when another died at its chunk before; whole batches on Ray are in test_batch.py."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from light_workers import LightWorker

from agents import batch_ray
from agents.batch_parts import Part
from agents.batch_ray import Ledger, RayWorker
from agents.batch_worker import BatchSettings, Finished
from vlm.errors import InputError


class Actor:
    """The ledger as an actor is called, without a cluster: the fault is that workers have died, and it knows of it."""

    def __init__(self, inside: Ledger) -> None:
        self.inside = inside

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.inside, name))


def parts_named(*names: str) -> list[Part]:
    return [Part(number, f"k{number}", f"/parts/{name}.png") for number, name in enumerate(names)]


def asked(worker: RayWorker, parts: list[Part]) -> Any:
    import pyarrow as pa

    (done,) = worker(pa.table({"chunk": [pickle.dumps(tuple(parts))]}))["done"].to_pylist()
    return pickle.loads(done)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(batch_ray, "PartWorker", lambda settings: LightWorker())
    return Ledger()


def test_a_part_that_took_two_workers_down_is_a_row_and_the_others_are_done(ledger: Ledger, tmp_path: Path) -> None:
    parts = parts_named("a", "deadly", "b")
    # Two workers died at the second part, alone, after a first one had died at the whole chunk.
    ledger.begin("chunk k0")
    ledger.begin("k1")
    ledger.begin("k1")
    done = asked(RayWorker(BatchSettings(), Actor(ledger)), parts)
    assert isinstance(done, Finished)
    assert [row["key"] for row in done.rows] == ["k0", "k1", "k2"]
    assert [bool(row["error"]) for row in done.rows] == [False, True, False]
    assert "died 2 times" in done.rows[1]["error"]


def test_chunks_that_end_leave_nothing_in_the_ledger(ledger: Ledger) -> None:
    worker = RayWorker(BatchSettings(), Actor(ledger))
    for _ in range(2):
        assert len(asked(worker, parts_named("a", "b")).rows) == 2
    assert ledger.deaths() == 0


def test_a_model_that_cannot_be_loaded_comes_back_as_its_sentence(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(LightWorker):
        def load(self) -> None:
            raise InputError("There is no model 'x'; give another.")

    monkeypatch.setattr(batch_ray, "PartWorker", lambda settings: Broken())
    done = asked(RayWorker(BatchSettings(), Actor(ledger)), parts_named("a"))
    assert isinstance(done, InputError)
