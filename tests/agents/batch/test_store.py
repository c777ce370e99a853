"""What a batch has finished stays finished: journal, table, and every way in which a run may end."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.store import JOURNAL, BatchStore, read_table
from sage_ad.agents.batch.worker import row_of
from sage_ad.evaluation.inspection import InspectionTrace, TraceAnswer, TraceRegion
from sage_ad.vlm.errors import InputError

SETTINGS = {"model": "sage-tiny", "language": True}


def part(number: int) -> Part:
    return Part(number=number, key=f"key-{number}", image=f"/parts/{number}.png", references=("/good.png",))


def row(number: int, error: str | None = None) -> dict[str, Any]:
    trace = InspectionTrace(
        image=f"/parts/{number}.png",
        anomaly_score=number / 10,
        threshold=0.2,
        threshold_from="references",
        verdict="anomalous",
        regions=[TraceRegion(box=(1, 2, 3, 4), place="centre", score=0.5)],
        answers=[TraceAnswer(question="Good?", family="standard comparison", verdict=False, text="No. ä")],
        model="m",
        seconds=1.0,
    )
    return row_of(part(number), None if error else trace, error)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(read_table(folder / "results.parquet"))


def test_a_table_holds_every_part_once_in_order_with_its_trace(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([row(3), row(1)])
        assert store.append([row(1), row(2, "no picture")]) == [row(2, "no picture")]
        assert store.complete([part(1), part(2), part(3)]) == tmp_path / "results.parquet"
    rows = rows_of(tmp_path)
    assert [item["part"] for item in rows] == [1, 2, 3]
    assert [item["error"] for item in rows] == [None, "no picture", None]
    assert rows[1]["verdict"] is None
    assert rows[0]["regions"] == [{"box": [1, 2, 3, 4], "place": "centre", "score": 0.5}]
    assert rows[0]["answers"][0]["text"] == "No. ä"
    assert InspectionTrace.from_json(rows[0]["trace"]).anomaly_score == 0.1
    assert not (tmp_path / JOURNAL).exists()


def test_a_line_cut_by_a_crash_is_taken_away(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([row(1), row(2)])
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-20])
    with BatchStore(tmp_path, SETTINGS, resume=True) as store:
        assert [store.finished(f"key-{number}") for number in (1, 2)] == [True, False]
        store.append([row(2)])
        store.complete([part(1), part(2)])
    assert [item["part"] for item in rows_of(tmp_path)] == [1, 2]


def test_a_batch_that_grew_keeps_its_finished_rows(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([row(1), row(3)])
        store.complete([part(1), part(3)])
    with BatchStore(tmp_path, SETTINGS, resume=True) as store:
        assert store.finished("key-1")
        assert not store.finished("key-2")
        store.append([row(2)])
        store.complete([part(number) for number in (1, 2, 3)])
    assert [item["anomaly_score"] for item in rows_of(tmp_path)] == [0.1, 0.2, 0.3]


def test_errors_can_be_tried_again(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([row(1), row(2, "the server was asleep"), row(3, "taken away")])
    with BatchStore(tmp_path, SETTINGS, resume=True) as store:
        assert store.finished("key-2")
    for _ in range(2):  # what was mended is not tried again, and what was not keeps its row
        with BatchStore(tmp_path, SETTINGS, resume=True, retry_errors=True) as store:
            assert not store.finished("key-3")
            store.append([row(2)])
            assert store.finished("key-2")
            store.complete()
        assert [item["error"] for item in rows_of(tmp_path)] == [None, None, "taken away"]


def test_a_folder_with_a_batch_is_not_overwritten(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([row(1)])
        with pytest.raises(InputError, match="Another sage-batch works"):
            BatchStore(tmp_path, SETTINGS, resume=True)
    with pytest.raises(InputError, match="--resume"):
        BatchStore(tmp_path, SETTINGS)
    with pytest.raises(InputError, match="started with language = True, not False"):
        BatchStore(tmp_path, {**SETTINGS, "language": False}, resume=True)
    with BatchStore(tmp_path, SETTINGS, resume=True) as store:
        assert store.finished("key-1")


def test_a_file_name_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([{**row(1, "no picture"), "image": b"/parts/\xff.png".decode(errors="surrogateescape")}])
        store.complete([part(1)])
    assert rows_of(tmp_path)[0]["image"] == "/parts/?.png"


def test_a_part_without_a_row_is_never_left_out_of_the_table(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([row(1)])
        with pytest.raises(ValueError, match="1 parts have no row"):
            store.complete([part(1), part(2)])


@contextlib.contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk does to a write, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_nothing_that_was_kept(tmp_path: Path) -> None:
    with BatchStore(tmp_path, SETTINGS) as store:
        store.append([row(1)])
        size = (tmp_path / JOURNAL).stat().st_size
        with no_room_beyond(size + size // 2), pytest.raises(OSError, match="large"):
            store.append([row(2), row(3)])
        assert not store.finished("key-2")
    with BatchStore(tmp_path, SETTINGS, resume=True) as store:
        assert store.finished("key-1")
        assert not store.finished("key-3")
        store.append([row(2)])
        with no_room_beyond(100), pytest.raises(OSError, match="large"):
            store.complete([part(1), part(2)])
        assert not store.results.exists()
        store.complete([part(1), part(2)])
    assert [item["part"] for item in rows_of(tmp_path)] == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "batch.json", "results.parquet"]
