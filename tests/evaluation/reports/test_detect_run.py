"""`sage-eval detect`: what is drawn, measured, kept and printed; once with the real encoder, else with a stand-in."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from plates import PlainExtractor, plate

import sage_ad.evaluation.reports.detect_run as detection
from sage_ad.evaluation.cli import app, main
from sage_ad.evaluation.datasets import open_dataset
from sage_ad.evaluation.reports.detect_report import DetectSettings
from sage_ad.evaluation.reports.detect_run import detect, plan, references_of
from sage_ad.evaluation.runs import Progress
from sage_ad.vlm.commandline import run_app
from sage_ad.vlm.errors import InputError

KEYS = {
    "image_auroc",
    "image_ap",
    "f1",
    "overkill",
    "miss",
    "pixel_auroc",
    "aupro",
    "normal",
    "anomalous",
    "seconds_per_image",
}


def test_json_has_the_promised_shape(plates: Path, plain: PlainExtractor) -> None:
    report = detect(open_dataset(plates), DetectSettings(seeds=(0, 1)))
    result = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert result["dataset"] == "plates"
    assert (result["shots"], result["seeds"]) == (1, [0, 1])
    assert set(result["categories"]) == {"plate", "sheet", "washer"}
    assert all(set(figures) == KEYS for figures in [*result["categories"].values(), result["mean"]])
    plate, sheet, washer = (result["categories"][name] for name in ("plate", "sheet", "washer"))
    assert plate["image_auroc"] == sheet["image_auroc"] == 1.0
    assert plate["pixel_auroc"] > 0.95
    assert plate["aupro"] > 0.8
    assert sheet["pixel_auroc"] is None  # no masks
    assert sheet["aupro"] is None
    assert (washer["normal"], washer["anomalous"], washer["image_auroc"], washer["miss"]) == (0, 1, None, None)
    assert any("washer has no good image" in note for note in result["notes"])
    assert result["mean"]["image_auroc"] == 1.0
    assert result["methods"] == {}
    assert result["spread"]["plate"]["image_auroc"] == 0.0


def test_zero_shot_draws_nothing(plates: Path, plain: PlainExtractor) -> None:
    report = detect(open_dataset(plates), DetectSettings(shots=0, seeds=(0, 1, 2)))
    assert plain.banks == []
    assert len(report.cells) == 3  # one draw a category, because there is nothing to draw
    assert report.to_json()["categories"]["washer"]["miss"] is not None


def test_encoders_stand_side_by_side(plates: Path, plain: PlainExtractor, tmp_path: Path) -> None:
    dataset = open_dataset(plates, categories=["plate"])
    alone = detect(dataset, DetectSettings(seeds=(0,), encoders=("a",)), out=tmp_path)
    report = detect(dataset, DetectSettings(seeds=(0,), encoders=("a", "b")), out=tmp_path)
    assert plain.banks == [1] * 2  # the cells of "a" were kept
    result, text = report.to_json(), report.to_markdown()
    assert result["method"] == "a"
    assert set(result["methods"]) == {"b"}
    assert result["mean"] == alone.to_json()["mean"]
    assert text.count("\n| a ") == text.count("\n| b ") == 1
    assert "a against b" in text
    assert "## Side by side" not in alone.to_markdown()


def test_draws_are_seeded_and_never_tested(plates: Path) -> None:
    dataset = open_dataset(plates)
    first, again, other = (plan(dataset, "plate", 2, seed) for seed in (0, 0, 1))
    assert [s.id for s in first.references] == [s.id for s in again.references]
    assert [s.id for s in first.references] != [s.id for s in other.references]
    for todo in (first, other):
        used = {sample.id for sample in todo.references}
        assert not used & {sample.id for sample in todo.tests}
        assert not used & {sample.id for sample in todo.calibration}
    all_of_them = plan(dataset, "plate", 8, 0)
    assert len(all_of_them.references) == 6
    assert "only 6 good images" in all_of_them.notes[0]


def test_without_training_images_references_leave_the_test(tmp_path: Path) -> None:
    for number in range(3):
        plate(tmp_path / "c" / "test" / "good" / f"{number}.png", False, number)
    todo = plan(open_dataset(tmp_path), "c", 1, 0)
    assert len(todo.references) == 1
    assert len(todo.tests) == 2
    assert "taken from the test images" in todo.notes[0]


def test_own_reference_and_box_masks_of_the_index(plates: Path, plain: PlainExtractor) -> None:
    rows = []
    for kind in ("good", "gash"):
        for number in range(3):
            row = {"path": f"plate/test/{kind}/{number}.png", "category": "plate", "split": "test", "defect": kind}
            row["reference"] = f"plate/train/good/{number}.png"
            row["mask"] = f"plate/ground_truth/gash/{number}_mask.png" if kind == "gash" else ""
            row["mask_kind"] = "box" if kind == "gash" else ""
            rows.append(row)
    with (plates / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["path", "category", "split", "defect", "mask", "mask_kind", "reference"])
        writer.writeheader()
        writer.writerows(rows)
    dataset = open_dataset(plates, categories=["plate"])
    for sample in dataset.samples("plate", "test"):
        expected = plates / "plate" / "train" / "good" / sample.image.name
        assert [path.resolve() for path in references_of(sample, [], 1)] == [expected.resolve()]
        assert references_of(sample, [], 0) == []
    report = detect(dataset, DetectSettings(false_alarm=0.5))
    assert len(report.cells) == 1  # nothing is drawn, so one draw is enough
    figures = report.to_json()["categories"]["plate"]
    assert figures["image_auroc"] == 1.0
    assert (figures["pixel_auroc"], figures["aupro"]) == (None, None)
    # Training images have no reference of their own: the good test images are halved for calibration.
    assert report.cells[0].normals
    assert len(report.cells[0].normals) + len(report.cells[0].held_out) == 3


def test_a_false_alarm_rate_is_kept_or_refused(plates: Path, plain: PlainExtractor) -> None:
    dataset = open_dataset(plates, categories=["plate"])
    kept = detect(dataset, DetectSettings(false_alarm=0.2)).to_json()["false_alarm"]["plate"]
    assert kept["normals"] == 5
    assert kept["refused"] is None
    assert kept["measured"]["n"] == 3
    assert kept["miss"] == 0.0
    refused = detect(dataset, DetectSettings(false_alarm=0.05))
    assert "add 14 more" in refused.to_json()["false_alarm"]["plate"]["refused"]
    assert "add 14 more" in refused.to_markdown()


def test_broken_images_are_listed(plates: Path, plain: PlainExtractor) -> None:
    bad = plates / "plate" / "test" / "gash" / "1.png"
    bad.write_bytes(bad.read_bytes()[:200])
    (plates / "plate" / "ground_truth" / "gash" / "2_mask.png").write_text("no mask")
    report = detect(open_dataset(plates, categories=["plate"]), DetectSettings(seeds=(0,)))
    named = "\n".join(report.problems)
    assert "1.png" in named
    assert "2_mask.png" in named
    assert len(report.cells[0].images) == 5
    assert report.to_json()["categories"]["plate"]["pixel_auroc"] is not None
    assert "## Problems" in report.to_markdown()


def test_finished_cells_survive_an_interruption(
    plates: Path, plain: PlainExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, count = tmp_path / "out", detection.measure_cell, 0

    def stops(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    settings = DetectSettings(seeds=(0, 1))
    monkeypatch.setattr(detection, "measure_cell", stops)
    with pytest.raises(KeyboardInterrupt):
        detect(open_dataset(plates), settings, out=out)
    assert len(list((out / "cells").iterdir())) == 2
    resumed = detect(open_dataset(plates), settings, out=out)
    assert count == 3 + 4  # the two finished cells were not measured again
    fresh = detect(open_dataset(plates), settings)
    for report in (resumed, fresh):
        for cell in report.cells:
            cell.seconds_per_image = None
    assert resumed.cells == fresh.cells
    # Changed data or settings are measured again.
    plate(plates / "plate" / "test" / "good" / "new.png", False, 5)
    before = count
    detect(open_dataset(plates, categories=["plate", "sheet"]), settings, out=out)
    assert count == before + 2


def test_a_damaged_cell_is_measured_again(plates: Path, plain: PlainExtractor, tmp_path: Path) -> None:
    settings = DetectSettings(seeds=(0,))
    first = detect(open_dataset(plates), settings, out=tmp_path / "out")
    for path in (tmp_path / "out" / "cells").iterdir():
        path.write_text(path.read_text()[:40])
    again = detect(open_dataset(plates), settings, out=tmp_path / "out")
    assert [cell.images for cell in again.cells] == [cell.images for cell in first.cells]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 3}, "one of 0, 1, 2, 4, 8"),
        ({"seeds": ()}, "at least one seed|At least one seed"),
        ({"false_alarm": 1.5}, "between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DetectSettings(**options)


def run(*arguments: str) -> int:
    """Runs the command line as a user does and gives the exit status."""
    with pytest.raises(SystemExit) as end:
        run_app(lambda: app(list(arguments), standalone_mode=False))
    return int(end.value.code or 0)


def test_command_line_prints_one_json_object(
    plates: Path, plain: PlainExtractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    status = run("detect", str(plates), "--draws", "1", "--categories", "plate, sheet", "--json", "--out", str(out))
    printed = capsys.readouterr()
    assert status == 0
    assert json.loads(printed.out) == json.loads((out / "results.json").read_text())
    assert "plate, draw 0, sage" in printed.err
    assert (out / "report.md").read_text().startswith("# Detection on plates, 1 reference, mean of 1 draw\n")


def test_command_line_statuses(plates: Path, plain: PlainExtractor, capsys: pytest.CaptureFixture[str]) -> None:
    (plates / "plate" / "test" / "gash" / "empty.png").touch()
    assert run("detect", str(plates), "--draws", "1") == 1
    assert "empty.png: the image is empty" in capsys.readouterr().out
    for arguments in (
        ["detect", str(plates / "nowhere")],
        ["detect", str(plates), "--categories", "nut"],
        ["detect", str(plates), "--shots", "3"],
        ["detect", str(plates), "--draws", "0"],
        ["detect", str(plates), "--out", str(plates / "plate" / "test" / "good" / "0.png")],
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert error.count("\n") == 1


def test_ctrl_c_says_what_is_kept(
    plates: Path,
    plain: PlainExtractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stops(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(detection, "measure_cell", stops)
    monkeypatch.setattr("sys.argv", ["sage-eval", "detect", str(plates), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert "run the same command to continue" in capsys.readouterr().err


def test_progress_is_silent_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    assert list(progress.count(range(3), "x", 3)) == [0, 1, 2]
    progress.say("hello")
    assert capsys.readouterr().err == ""


def test_with_the_real_encoder(plates: Path) -> None:
    dataset = open_dataset(plates, categories=["plate"])
    report = detect(dataset, DetectSettings(seeds=(0,)))
    figures = report.figures("sage")["plate"]
    assert figures["image_auroc"] == 1.0
    assert figures["pixel_auroc"] > 0.8
    assert figures["seconds_per_image"] > 0
