"""What people read of a batch: nothing in it is code, the suspects come first, and labels find their way back."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from plates import plate

from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.report import doubts, write_reports
from sage_ad.agents.batch.worker import row_of
from sage_ad.evaluation.inspection import InspectionTrace, TraceRegion
from sage_ad.knowledge.looks.labels import add_labelled
from sage_ad.knowledge.looks.pictures import looks_folder, read_looks

FORMULA = '=HYPERLINK("http://x","click")'
MARKUP = "<script>alert(1)</script>"


def row(number: int, image: Path, score: float, **changes: Any) -> dict[str, Any]:
    anomalous = score > 0.2
    part = Part(number, f"key-{number}", str(image), id=changes.pop("id", None), product=changes.pop("product", None))
    trace = InspectionTrace(
        image=str(image), product=part.product, anomaly_score=score, threshold=0.2, threshold_from="references",
        threshold_reason="One good part in seven scored higher.", verdict="anomalous" if anomalous else "normal",
        regions=[TraceRegion(box=(8, 8, 32, 26), place="upper left", score=score)] if anomalous else [],
        model="m", seconds=1.0,
    )  # fmt: skip
    return {**row_of(part, trace), "width": 96, "height": 96, **changes}


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    images = [plate(tmp_path / "parts" / f"plate {number}.png", number == 2, number) for number in range(4)]
    failed = {**row_of(Part(5, "key-5", "/parts/broken.png"), error="broken.png is no picture."), "part": 5}
    return [
        row(1, images[0], 0.1, product=FORMULA),
        row(2, images[1], 0.15, id=MARKUP, explanation=MARKUP),
        row(3, images[2], 0.4, id="-2+3", explanation="+1"),
        row(4, images[3], 0.3, defect="scratch", explanation="gnp\u202eexe"),
        failed,
    ]


def test_the_page_shows_the_suspects_first_and_holds_everything(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_reports(tmp_path / "out", rows)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h3>\d+\. (.*?)</h3>", page)[:2] == ["-2+3", "plate 3.png"]
    assert page.count("data:image/webp") == 4
    assert re.findall(r'alt="(.*?)"', page)[:2] == [
        "-2+3: anomalous, marked upper left",
        "plate 3.png: anomalous, marked upper left",
    ]
    assert "50.0 %" in page
    assert "One good part in seven scored higher." in page
    assert "broken.png is no picture." in page
    assert not re.findall(r'(?:src|href)="(?!data:image/webp)', page)  # self-contained
    for field in ("Lot", "Inspector", "Decision", "Signature"):
        assert field in page
    assert "gnp\ufffdexe" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_cells_are_never_formulas(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_reports(tmp_path, rows)
    with (tmp_path / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [item["verdict"] for item in found] == ["normal", "normal", "anomalous", "anomalous", ""]
    assert float(found[2]["anomaly_score"]) == 0.4
    assert found[0]["product"] == "'" + FORMULA
    assert (found[2]["id"], found[2]["explanation"]) == ("'-2+3", "'+1")
    sheet = load_workbook(tmp_path / "results.xlsx")["parts"]
    cells = [cell for line in sheet.iter_rows() for cell in line]
    assert not [cell for cell in cells if cell.data_type == "f"]
    assert sheet["G4"].value == 0.4
    assert sheet.max_row == 6


WORDS = st.lists(st.sampled_from([*"aZ0 ,;'|=+-@_\"<&>\t\n\r\x07\x85é中🙂\u2028", "_x0041_", "\r\n"]), max_size=9).map(
    "".join
)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=3))
def test_any_words_are_read_back_from_both_tables(words: list[tuple[str, str, str]]) -> None:
    fields = ("id", "product", "explanation")
    with tempfile.TemporaryDirectory() as place:
        image, out = plate(Path(place) / "plate.png", False, 1), Path(place)
        write_reports(out, [row(n, image, 0.1, **dict(zip(fields, said, strict=True))) for n, said in enumerate(words)])
        with (out / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
            listed = [[line[name] for name in fields] for line in csv.DictReader(stream)]
        head, *lines = load_workbook(out / "results.xlsx")["parts"].iter_rows(values_only=True)
        sheet = [[line[head.index(name)] or "" for name in fields] for line in lines]
    expected = [[("'" if text.startswith(tuple("=+-@\t\r")) else "") + text for text in said] for said in words]
    assert listed == sheet == [[text.replace("\x07", "\ufffd") for text in said] for said in expected]


@pytest.mark.parametrize(
    ("anomalous", "judged", "said"), [(4, 4, "All 4"), (9, 10, "9 of 10"), (3, 3, None), (2, 10, None)]
)
def test_a_batch_that_is_stopped_whole_is_doubted(anomalous: int, judged: int, said: str | None) -> None:
    found = doubts(anomalous, judged)
    assert bool(found) == bool(said)
    if said:
        assert said in found[0]
        assert "references" in found[0]


def renamed(out: Path, kind: str) -> Path:
    """The labels of a batch after somebody has looked at them: what had no name is a gash."""
    if kind == "coco":
        path = out / "regions.coco.json"
        path.write_text(path.read_text(encoding="utf-8").replace('"unnamed"', '"gash"'), encoding="utf-8")
        return path
    path = out / "regions.label-studio.json"
    tasks = json.loads(path.read_text(encoding="utf-8").replace('"unnamed"', '"gash"'))
    for task in tasks:
        task["annotations"] = [{"was_cancelled": False, "result": task["predictions"][0]["result"]}]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["coco", "label-studio"])
def test_labels_flow_back_into_the_looks(
    kind: str, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    write_reports(tmp_path / "out", rows)
    found = add_labelled("machining", "plate", renamed(tmp_path / "out", kind))
    assert "2 pictures have no named label." in found.notes
    looks = {look.defect: look for look in read_looks(looks_folder("machining"))}
    assert looks.keys() == {"gash", "scratch"}
    assert looks["gash"].box == (8, 8, 32, 26)
    assert (looks_folder("machining") / looks["gash"].file).read_bytes() == Path(rows[2]["image"]).read_bytes()
    again = add_labelled("machining", "plate", renamed(tmp_path / "out", kind))
    assert (len(again.added.new), len(again.added.known)) == (0, 2)
