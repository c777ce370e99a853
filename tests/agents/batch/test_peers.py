"""A batch without references: its parts judge one another, whatever happens on the way."""

from __future__ import annotations

import csv
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from plates import plate

from sage_ad.agents.batch.cli import show
from sage_ad.agents.batch.manifest import Part, read_parts
from sage_ad.agents.batch.peers import FEATURES
from sage_ad.agents.batch.run import BatchSettings, BatchSummary, run_batch
from sage_ad.agents.batch.store import Row, read_table
from sage_ad.agents.batch.worker import Finished, PartWorker
from sage_ad.agents.inspector import SageInspector
from sage_ad.agents.peers import peer_groups
from sage_ad.agents.resources import Resources
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace
from sage_ad.knowledge.looks.pictures import add_looks
from sage_ad.vlm.errors import InputError

GASHED = {"plate 02.png", "plate 07.png"}


class Here:
    """An engine in this process, two parts at a time."""

    name, workers, restarts = "here", 1, 0

    def __init__(self, worker: PartWorker) -> None:
        self.worker = worker

    def run(self, parts: Sequence[Part]) -> Generator[Finished, None, None]:
        for at in range(0, len(parts), 2):
            yield self.worker.inspect(parts[at : at + 2])


@pytest.fixture(scope="module")
def worker() -> PartWorker:
    return PartWorker(BatchSettings(language=False, pictures=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen plates, two with a gash, and one file that is no picture."""
    folder = tmp_path_factory.mktemp("parts")
    for number in range(16):
        plate(folder / f"plate {number:02}.png", f"plate {number:02}.png" in GASHED, number)
    (folder / "broken.png").write_bytes(b"half a picture")
    return folder


def inspected(parts: Sequence[Part], out: Path, worker: PartWorker, **more: Any) -> tuple[BatchSummary, list[Row]]:
    summary = run_batch(parts, out, worker.settings, engine=Here(worker), workers=1, **more)
    return summary, list(read_table(out / "results.parquet"))


@pytest.fixture(scope="module")
def done(
    folder: Path, worker: PartWorker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BatchSummary, list[Row], Path]:
    out = tmp_path_factory.mktemp("out")
    return *inspected(read_parts(folder), out, worker), out


def test_parts_of_a_taught_product_are_judged_by_its_good_looks_alone(folder: Path) -> None:
    parts = [InspectionRequest(image=path, product="plate") for path in sorted(folder.glob("plate*.png"))]
    assert [len(group) for group in peer_groups(parts)] == [16]
    add_looks("machining", "Plate", [Path(parts[0].image)], defect=None)
    assert peer_groups(parts) == []


def test_the_odd_parts_are_found_and_shown_first(
    done: tuple[BatchSummary, list[Row], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    summary, rows, out = done
    found = [row for row in rows if row["error"] is None]
    assert {Path(row["image"]).name for row in found if row["verdict"] == "anomalous"} >= GASHED
    assert {row["threshold_from"] for row in found} == {"batch"}
    trace = InspectionTrace.from_json(next(row["trace"] for row in found if row["image"].endswith("plate 02.png")))
    assert trace.threshold_reason.startswith("Judged by the other parts of this batch")
    assert trace.regions[0].place == "upper left"
    assert (out / rows[1]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert not (out / FEATURES).exists()
    (group,) = summary.judged_by_batch
    assert group.parts == 16
    assert group.odd[0] <= 3  # the grain of one good plate stands out, too
    assert 2 <= group.odd[1] < 10
    assert {Path(item["image"]).name for item in group.oddest[:2]} == GASHED
    assert summary.errors == 1
    show(summary)
    said = capsys.readouterr().out
    assert "16 parts without references were judged by the other parts of this batch" in said
    assert said.index("plate 02.png") < said.index("plate 03.png")


def test_a_batch_that_was_stopped_gives_the_same_rows(
    done: tuple[BatchSummary, list[Row], Path], folder: Path, worker: PartWorker, tmp_path: Path
) -> None:
    parts = read_parts(folder)

    def stop(rows: list[Row]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspected(parts, tmp_path, worker, on_rows=stop)
    for features in sorted((tmp_path / FEATURES).iterdir())[::2]:
        features.unlink()  # as if it had been stopped while the pictures were encoded
    summary, rows = inspected(parts, tmp_path, worker, resume=True)
    assert summary.resumed == 2
    names = ("key", "verdict", "anomaly_score", "threshold", "regions", "warnings", "error")
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in done[1]]
    assert [asdict(group) for group in summary.judged_by_batch] == [asdict(g) for g in done[0].judged_by_batch]


def test_products_are_compared_apart_and_own_references_come_first(
    folder: Path, worker: PartWorker, tmp_path: Path
) -> None:
    lines = [[f"plate {n:02}.png", "plate", ""] for n in range(1, 6)]
    lines += [["plate 06.png", "lid", ""], ["plate 07.png", "plate", "plate 00.png"]]
    with (folder / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "product", "references"], *lines])
    summary, rows = inspected(read_parts(folder / "list.csv"), tmp_path, worker)
    assert [row["threshold_from"] for row in rows] == ["batch"] * 5 + ["builtin", "references"]
    (group,) = summary.judged_by_batch
    assert (group.product, group.parts) == ("plate", 5)
    assert "Only 5 parts" in group.warnings[0]
    assert "Only 5 parts" in rows[0]["warnings"][0]


def test_another_batch_is_another_piece_of_work(folder: Path, tmp_path: Path) -> None:
    for number in range(5):
        plate(tmp_path / f"{number}.png", False, number)
    before, alone = read_parts(tmp_path), read_parts(tmp_path, references=[folder / "plate 00.png"])
    plate(tmp_path / "5.png", False, 5)
    assert not {part.key for part in before} & {part.key for part in read_parts(tmp_path)}
    kept = {part.key for part in read_parts(tmp_path, references=[folder / "plate 00.png"])}
    assert {part.key for part in alone} < kept  # references judge each part by itself


def test_a_picture_of_two_products_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,product\na.png,lid\na.png,plate\n")
    with pytest.raises(InputError, match=r"a\.png is listed as 'lid' and as 'plate'"):
        read_parts(tmp_path / "list.csv")


@pytest.fixture(scope="module")
def inspector(worker: PartWorker) -> SageInspector:
    resources = Resources(worker.settings.agent, extractor=worker.resources.extractor)
    return SageInspector(resources=resources)


def test_an_inspector_compares_a_list_of_pictures_as_a_batch_does(
    done: tuple[BatchSummary, list[Row], Path], folder: Path, inspector: SageInspector
) -> None:
    requests = [InspectionRequest(image=image) for image in sorted(folder.glob("plate *.png"))]
    traces = list(inspector.inspect_many(iter(requests), compare=True))
    rows = [row for row in done[1] if row["error"] is None]
    names = ("image", "verdict", "anomaly_score", "threshold", "threshold_from", "warnings")
    assert [[trace.model_dump()[name] for name in names] for trace in traces] == [
        [row[name] for name in names] for row in rows
    ]
    assert "judged by the other parts" in traces[0].threshold_reason.lower()
    oddest = sorted(traces, key=lambda trace: -trace.anomaly_score)[:2]
    assert {Path(trace.image).name for trace in oddest} == GASHED
    assert all(trace.explanation for trace in traces)


def test_an_inspector_compares_only_where_that_was_asked_for_and_possible(
    folder: Path, inspector: SageInspector
) -> None:
    images = [folder / f"plate {number:02}.png" for number in (1, 2, 3, 4)]
    own = InspectionRequest(image=images[0], references=[images[3]])
    broken = InspectionRequest(image=folder / "broken.png")
    few = [*(InspectionRequest(image=image) for image in images[:3]), own]
    found = [trace.threshold_from for trace in inspector.inspect_many(few, compare=True)]
    assert found == ["builtin"] * 3 + ["references"]
    many = [*(InspectionRequest(image=image) for image in images), own, broken]
    assert {trace.threshold_from for trace in inspector.inspect_many(many[:4])} == {"builtin"}
    traces = inspector.inspect_many(many, compare=True)
    assert [next(traces).threshold_from for _ in range(5)] == ["batch"] * 4 + ["references"]
    with pytest.raises(InputError, match=r"broken\.png"):
        next(traces)
