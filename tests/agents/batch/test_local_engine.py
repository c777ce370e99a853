"""Worker processes that die, hang on to nothing, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from light_workers import cannot_load, dies_loading, light_worker

from sage_ad.agents.batch.local_engine import LocalEngine
from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.run import BatchSettings, run_batch
from sage_ad.agents.batch.store import BatchStopped, Row, read_table
from sage_ad.vlm.errors import BackendError, InputError


def parts_named(folder: Path, *names: str) -> list[Part]:
    # With a reference of their own, so that no other processes compare them with one another first.
    return [
        Part(number, f"key-{number}", str(folder / name), ("good.png",)) for number, name in enumerate(names, start=1)
    ]


def plain(folder: Path, count: int) -> list[Part]:
    return parts_named(folder, *[f"{number}.png" for number in range(count)])


def engine(make: Callable[..., Any] = light_worker, workers: int = 2, chunk: int = 3) -> LocalEngine:
    return LocalEngine(BatchSettings(), workers=workers, chunk=chunk, make=make)


def each_once(out: Path, parts: list[Part]) -> list[Row]:
    rows = list(read_table(out / "results.parquet"))
    assert [row["part"] for row in rows] == [part.number for part in parts]
    return rows


def test_parts_are_shared_out_and_come_back_in_order(tmp_path: Path) -> None:
    parts = plain(tmp_path, 20)
    said: list[str] = []
    summary = run_batch(parts, tmp_path / "out", engine=engine(), say=said.append)
    assert (summary.parts, summary.normal, summary.errors, summary.restarts) == (20, 20, 0, 0)
    assert len({row["worker"] for row in each_once(tmp_path / "out", parts)}) == 2
    assert said[-1].startswith("20 of 20 parts, ")
    assert "parts/s" in said[-1]


def test_a_worker_that_is_killed_is_replaced_and_its_parts_are_done_once(tmp_path: Path) -> None:
    parts, made = plain(tmp_path, 30), engine()
    kept: Counter[str] = Counter()

    def kill_one(rows: list[Row]) -> None:
        kept.update(row["key"] for row in rows)
        if len(kept) == len(rows):
            os.kill(int(rows[0]["worker"]), 9)

    summary = run_batch(parts, tmp_path / "out", engine=made, on_rows=kill_one)
    assert summary.restarts == 1
    assert set(kept.values()) == {1}
    each_once(tmp_path / "out", parts)
    assert multiprocessing.active_children() == []


def test_a_picture_that_takes_workers_down_is_one_row_with_an_error(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "deadly.png", "fatal once.png", "gpu lost.png", "c.png", "d.png"]
    parts = parts_named(tmp_path, *names)
    summary = run_batch(parts, tmp_path / "out", engine=engine(chunk=4))
    rows = each_once(tmp_path / "out", parts)
    assert [Path(row["image"]).name for row in rows if row["error"]] == ["deadly.png"]
    assert "died 2 times" in rows[2]["error"]
    assert "SIGKILL" in rows[2]["error"]
    assert summary.errors == 1
    assert summary.errors_shown == [{"part": 3, "image": parts[2].image, "error": rows[2]["error"]}]
    assert summary.restarts >= 4


def test_a_model_that_cannot_be_loaded_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model 'x'"):
        run_batch(plain(tmp_path, 4), tmp_path / "out", engine=engine(cannot_load))


def test_workers_that_die_while_loading_are_not_started_for_ever(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"SIGKILL.*fewer --workers"):
        run_batch(plain(tmp_path, 4), tmp_path / "out", engine=engine(dies_loading))


def test_what_was_finished_is_not_done_again(tmp_path: Path) -> None:
    parts = plain(tmp_path, 12)
    out = tmp_path / "out"

    def stop(rows: list[Row]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(parts, out, engine=engine(workers=1), on_rows=stop)
    again: list[Any] = []
    summary = run_batch(parts, out, engine=engine(workers=1), resume=True, on_rows=again.extend)
    assert summary.resumed == 3
    assert len(again) == 9
    each_once(out, parts)
    # A complete batch needs no worker at all.
    assert run_batch(parts, out, engine=engine(dies_loading), resume=True).resumed == 12


def test_a_disk_that_cannot_be_written_says_what_is_safe(tmp_path: Path) -> None:
    parts, out = plain(tmp_path, 12), tmp_path / "out"

    def full(rows: list[Row]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(BatchStopped, match=r"No space left.*3 of 12 parts are safe in .*out; .*--resume"):
        run_batch(parts, out, engine=engine(workers=1), on_rows=full)
    run_batch(parts, out, engine=engine(), resume=True)
    each_once(out, parts)


@pytest.mark.parametrize("change", [{"workers": -1}, {"engine": "abacus"}, {"settings": BatchSettings(chunk=-1)}])
def test_impossible_engines_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        run_batch(plain(tmp_path, 2), tmp_path / "out", **change)
