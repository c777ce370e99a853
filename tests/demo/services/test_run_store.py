"""Runs are kept apart, found again, deleted for good, and reports stand on their own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from visitors import HOSTILE

from sage_ad.demo.services.pictures import Shown
from sage_ad.demo.services.run_store import Run, RunStore
from sage_ad.demo.view.report import delete_downloads, report_html, write_report
from sage_ad.evaluation.inspection import InspectionTrace
from sage_ad.vlm.errors import InputError

ME, YOU = "a" * 24, "b" * 24


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def run(store: RunStore, trace: InspectionTrace, pictures: Shown, originals: list[Path]) -> Run:
    return store.add(ME, trace, pictures, {"references": ["good.png"], "questions": []}, originals)


def test_a_run_comes_back_as_it_was(store: RunStore, run: Run, trace: InspectionTrace, pictures: Shown) -> None:
    again = RunStore(store.root).get(ME, run.id)
    assert again.trace == trace
    assert again.pictures == pictures
    assert again.part == "plate.png"
    assert again.original is not None
    assert again.original_reference is not None
    assert again.original.read_bytes()


def test_nobody_sees_the_runs_of_others(store: RunStore, run: Run) -> None:
    assert store.find(YOU) == []
    for owner, name in ((YOU, run.id), (ME, f"../{ME}/{run.id}"), (ME, "."), (ME, ""), (f"../runs/{ME}", run.id)):
        with pytest.raises(InputError):
            store.get(owner, name)
    with pytest.raises(InputError):
        store.delete(YOU, run.id)
    assert store.get(ME, run.id)


def test_runs_are_found_by_words_and_verdict_newest_first(
    store: RunStore, run: Run, trace: InspectionTrace, pictures: Shown, originals: list[Path]
) -> None:
    other = store.add(ME, trace.model_copy(update={"verdict": "normal", "product": "gear"}), pictures, {}, originals)
    assert {kept.id for kept in store.find(ME)} == {run.id, other.id}
    assert [kept.id for kept in store.find(ME, "GEAR plate")] == [other.id]
    assert [kept.id for kept in store.find(ME, verdict="anomalous")] == [run.id]
    assert store.find(ME, "no such word") == []


def test_a_deleted_run_is_gone_from_the_disk(store: RunStore, run: Run) -> None:
    store.delete(ME, run.id)
    assert store.find(ME) == []
    assert not run.folder.exists()


def test_a_damaged_run_does_not_hide_the_others(
    store: RunStore, run: Run, trace: InspectionTrace, pictures: Shown, originals: list[Path]
) -> None:
    other = store.add(ME, trace, pictures, {}, originals)
    (run.folder / "run.json").write_text("{half")
    assert [kept.id for kept in store.find(ME)] == [other.id]
    with pytest.raises(InputError, match="damaged"):
        store.get(ME, run.id)


def test_the_report_stands_on_its_own(run: Run) -> None:
    report = report_html(run)
    assert report.startswith("<!doctype html>")
    assert run.id in report
    assert "Anomalous" in report
    assert report.count("data:image/webp;base64,") == 3, "test part, good part, evidence"
    assert "default-src 'none'" in report, "a reader's browser runs and loads nothing"
    without_data = re.sub(r"data:image/webp;base64,[\w+/=]+", "", report)
    assert not re.search(r"(?:src|href)=[\"'](?!#|\")", without_data), "it refers to nothing outside itself"
    assert "<script" not in report
    assert HOSTILE not in report, "hostile text is escaped"


def test_what_stands_beside_a_run_is_the_owners(store: RunStore, run: Run) -> None:
    store.keep_beside(ME, run.id, "alarms", {"score": 0.5})
    assert store.beside(ME, run.id, "alarms") == {"score": 0.5}
    assert store.beside(ME, run.id, "other") is None
    with pytest.raises(InputError):
        store.beside(YOU, run.id, "alarms")
    assert json.loads((run.folder / "alarms.json").read_text()) == {"score": 0.5}


def test_prepared_downloads_are_deleted_when_they_are_old(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    old, new = write_report(run), write_report(run)
    os.utime(old.parent, (0, 0))
    delete_downloads(60)
    assert new.is_file()
    assert not old.parent.exists()
