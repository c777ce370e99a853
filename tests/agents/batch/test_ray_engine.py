"""Workers on Ray that die, and a Ray that does not start, and the same rows from Ray as from here."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from light_workers import LightWorker, light_worker

from sage_ad.agents.batch import ray_engine
from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.ray_engine import Ledger, RayEngine, RayWorker
from sage_ad.agents.batch.run import run_batch
from sage_ad.agents.batch.store import read_table
from sage_ad.agents.batch.worker import BatchSettings, Finished, PartWorker
from sage_ad.agents.inspector import SageInspector
from sage_ad.vlm.errors import BackendError, InputError


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
    monkeypatch.setattr(ray_engine, "PartWorker", lambda settings: LightWorker())
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

    monkeypatch.setattr(ray_engine, "PartWorker", lambda settings: Broken())
    done = asked(RayWorker(BatchSettings(), Actor(ledger)), parts_named("a"))
    assert isinstance(done, InputError)


def test_a_worker_that_is_killed_is_replaced_and_its_parts_are_done_once(tmp_path: Path, ray_cluster: None) -> None:
    names = [f"{number}.png" for number in range(8)] + ["a.png", "fatal once.png", "b.png"]
    parts = [Part(number, f"k{number}", str(tmp_path / name)) for number, name in enumerate(names, start=1)]
    kept: Counter[str] = Counter()
    made = RayEngine(BatchSettings(), workers=2, chunk=3, make=light_worker)
    summary = run_batch(
        parts, tmp_path / "out", engine=made, on_rows=lambda rows: kept.update(row["key"] for row in rows)
    )
    assert (tmp_path / "fatal once.png.died").exists()
    assert (summary.normal, summary.errors, summary.restarts) == (11, 0, 1)
    assert set(kept.values()) == {1}
    rows = list(read_table(tmp_path / "out" / "results.parquet"))
    assert [row["part"] for row in rows] == [part.number for part in parts]


def test_ray_gives_the_same_rows_as_one_worker_here(
    inspector: SageInspector, elpv: dict[str, list[Path]], good: Path, tmp_path: Path, ray_cluster: None
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"half a picture")
    images = [*elpv["mono bad"][:3], *elpv["mono good"][3:5], broken]
    parts = [Part(n, f"k{n}", str(image), (str(good),), "solar cell") for n, image in enumerate(images, start=1)]
    settings = BatchSettings(language=False, pictures=True, chunk=2)
    summary = run_batch(parts, tmp_path / "ray", settings, engine="ray", workers=1)
    assert (summary.engine, summary.parts, summary.errors, summary.restarts) == ("ray", 6, 1, 0)
    here = PartWorker(settings, extractor=inspector.resources.extractor).inspect(parts).rows
    for ours, theirs in zip(read_table(tmp_path / "ray" / "results.parquet"), here, strict=True):
        assert (ours["key"], ours["verdict"], ours["error"]) == (theirs["key"], theirs.get("verdict"), theirs["error"])
        if ours["error"] is None:
            assert ours["anomaly_score"] == pytest.approx(theirs["anomaly_score"], abs=1e-3)
            assert (tmp_path / "ray" / ours["picture"]).read_bytes().startswith(b"\x89PNG")


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def slow(**settings: Any) -> None:
        asked.append(settings)
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(BackendError, match=r"timed out during startup.*ray start --head.*--engine local\.") as said,
        ray_engine.ray_running("local", 2),
    ):
        pytest.fail("Ray did not start")
    assert "\n" not in str(said.value)
    assert [settings["num_cpus"] for settings in asked] == [3]
