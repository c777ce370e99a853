"""`sage-eval compare`: columns, tables, plots and a page that needs no other file and trusts no name."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plates import PlainExtractor

from sage_ad.evaluation.cli import app
from sage_ad.evaluation.datasets import open_dataset
from sage_ad.evaluation.reports.compare import compare, tables_of
from sage_ad.evaluation.reports.compare_pictures import (
    mean_roc,
    mle_picture,
    pick_cases,
    reliability_picture,
    roc_picture,
)
from sage_ad.evaluation.reports.detect_report import DetectSettings
from sage_ad.evaluation.reports.detect_run import detect
from sage_ad.evaluation.reports.finished_runs import read_runs
from sage_ad.evaluation.runs import write_results
from sage_ad.vlm.commandline import run_app
from sage_ad.vlm.errors import InputError


@pytest.fixture
def detection_run(plates: Path, plain: PlainExtractor, tmp_path: Path) -> Path:
    folder = tmp_path / "first"
    report = detect(open_dataset(plates, categories=["plate", "sheet"]), DetectSettings(seeds=(0,)), out=folder)
    write_results(folder, report.to_json(), report.to_markdown())
    return folder


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.2, "high": value + 0.2, "n": 9}


@pytest.fixture
def answer_run(tmp_path: Path) -> Path:
    mle = {"type": figure(3.2), "localisation": figure(4.0), "logic": figure(2.5), "mean": figure(3.2)}
    families = {name: figure(0.7) for name in ("standard comparison", "defect identification", "defect diagnosis")}
    block = {"accuracy": figure(0.7), "acc_g": figure(0.4), "by_family": families, "mle": mle}
    results = {
        "model": "<script>alert(1)</script>",
        "judge": "local",
        "shots": 1,
        **block,
        "unscored": {"value": 2, "low": 2, "high": 2, "n": 45},
        "baselines": {"evidence-template": block},
        "categories": {"<b>plate</b>": {"accuracy": figure(0.7)}},
    }
    folder = tmp_path / "<i>second & last"
    write_results(folder, results, "# Answers\n")
    return folder


@pytest.fixture
def judge_run(tmp_path: Path) -> Path:
    folder = tmp_path / "third"
    write_results(folder, {"pairwise_all": 0.96, "pairwise_adjacent": 0.91, "kendall_tau": 0.9}, "# Judge\n")
    return folder


def test_each_run_has_its_column(detection_run: Path, answer_run: Path, judge_run: Path) -> None:
    runs = read_runs([detection_run, answer_run, judge_run])
    assert [run.name for run in runs] == ["first · sage", "<i>second & last", "third"]
    tables = {table.title: table for table in tables_of(runs)}
    assert tables["Detection"].rows[0] == ["image AUROC", "1.000"]
    assert tables["Detection by category: image AUROC"].rows[0] == ["plate", "1.000"]
    answers = {row[0]: row[1] for row in tables["Answers"].rows}
    assert answers["MLE type"] == "3.200 (3.000-3.400)"
    assert answers["unscored answers"] == "2"
    assert answers["seconds an image"] == "-"  # an absent figure is said to be absent
    assert tables["Judges"].rows[0] == ["all pairs in order", "0.960"]


def test_runs_of_the_same_name_stay_apart(detection_run: Path) -> None:
    runs = read_runs([detection_run, detection_run])
    assert [run.name for run in runs] == ["first · sage", "first (2) · sage"]


def test_the_page_is_self_contained_and_escaped(detection_run: Path, answer_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = compare([detection_run, answer_run], out)
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<i>second" not in page
    assert "&lt;i&gt;second &amp; last" in page
    assert "&lt;b&gt;plate&lt;/b&gt;" in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    assert page.count("data:image/png;base64,") == len(list(out.glob("*.png"))) == 4
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
        assert f"]({path.name})" in (out / "compare.md").read_text(encoding="utf-8")
    assert text == (out / "compare.md").read_text(encoding="utf-8")


def test_vanished_images_are_a_note(detection_run: Path, plates: Path, tmp_path: Path) -> None:
    for path in plates.rglob("*.png"):
        path.unlink()
    text = compare([detection_run], tmp_path / "out")
    assert "best and worst cases of first · sage are not shown" in text
    assert (tmp_path / "out" / "roc.png").is_file()


def row(score: float, anomalous: bool, confidence: float | None = 0.9, threshold: float = 0.5) -> dict[str, Any]:
    verdict = "anomalous" if score > threshold else "normal"
    return {
        "category": "c",
        "score": score,
        "threshold": threshold,
        "anomalous": anomalous,
        "verdict": verdict,
        "confidence": confidence,
    }


def test_mean_roc_has_the_area_of_auroc() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    rows = [row(float(generator.normal(0.5 + 0.3 * bad)), bool(bad)) for bad in (0, 1) for _ in range(150)]
    curve = mean_roc(rows)
    assert curve is not None
    expected = roc_auc_score([r["anomalous"] for r in rows], [r["score"] for r in rows])
    assert np.trapezoid(curve[1], curve[0]) == pytest.approx(expected, abs=0.01)
    assert mean_roc(rows[:150]) is None


def test_cases_are_the_extremes() -> None:
    rows = [row(0.9, True), row(0.8, True), row(0.3, True), row(0.2, False), row(0.1, False), row(0.7, False)]
    assert [(title.split(":")[0], case["score"]) for title, case in pick_cases(rows)] == [
        ("Best", 0.9),
        ("Best", 0.1),
        ("Worst", 0.3),
        ("Worst", 0.7),
    ]
    assert [title for title, _ in pick_cases([row(0.9, True)])] == ["Best: the clearest find"]
    assert pick_cases([]) == []


def test_pictures_without_data_are_left_out(judge_run: Path, detection_run: Path) -> None:
    runs = read_runs([judge_run])
    assert roc_picture(runs) is None
    assert reliability_picture(runs) is None
    assert mle_picture(runs) is None
    silent = read_runs([detection_run])
    for run in silent:
        for entry in run.images:
            entry["confidence"] = None
    assert reliability_picture(silent) is None


def test_plots_repeat_to_the_byte(detection_run: Path, answer_run: Path) -> None:
    runs = read_runs([detection_run, answer_run])
    for make in (roc_picture, reliability_picture, mle_picture):
        first, again = make(runs), make(runs)
        assert first is not None
        assert again is not None
        assert first.png == again.png
        with Image.open(io.BytesIO(first.png)) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20  # something is drawn


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no results.json"),
        ("{half", "is damaged"),
        ("[]", "no result"),
        ('{"a": 1}', "is no run of sage-eval"),
    ],
)
def test_what_is_no_run_is_refused(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if content is not None:
        (folder / "results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        compare([folder])
    with pytest.raises(SystemExit) as end:
        run_app(lambda: app(["compare", str(folder)], standalone_mode=False))
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_damaged_rows_are_named(detection_run: Path) -> None:
    (detection_run / "images.jsonl").write_text('{"a": 1}\n{half')
    with pytest.raises(InputError, match=r"images\.jsonl is damaged"):
        compare([detection_run])


def test_the_command_prints_the_table(answer_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_app(lambda: app(["compare", str(answer_run)], standalone_mode=False))
    assert not end.value.code
    assert "| accuracy " in capsys.readouterr().out
    assert json.loads((answer_run / "results.json").read_text())["judge"] == "local"
    with pytest.raises(InputError, match="nothing to compare"):
        compare([])
