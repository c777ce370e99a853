"""`sage-inspect` from the outside: what is printed where, and what bad input ends in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from sage_ad.agents.cli import main, show
from sage_ad.evaluation.inspection import InspectionTrace

Run = tuple[int, str, str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command; gives status, standard output and standard error."""

    def command(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["sage-inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return command


def test_json_is_the_trace_and_nothing_else(run, cracked: Path, good: Path, tmp_path: Path) -> None:
    status, out, err = run(
        *(cracked, "--reference", good, "--domain", "photovoltaics", "--question", "Is it good?"),
        *("--json", "--out", tmp_path / "made" / "here"),
    )
    assert status == 0, err
    trace = InspectionTrace.from_json(out)
    assert trace.verdict == "anomalous"
    assert [step.name for step in trace.steps[:2]] == ["imports", "model load"]
    assert json.loads((tmp_path / "made" / "here" / "trace.json").read_text(encoding="utf-8")) == json.loads(out)
    with Image.open(tmp_path / "made" / "here" / "evidence.png") as picture:
        assert picture.width > picture.height  # test, reference and evidence stand side by side


def test_a_person_reads_one_explanation_in_25_lines(run, cracked: Path, good: Path, tmp_path: Path) -> None:
    status, out, err = run(cracked, "--reference", good, "--product", "solar cell", "--out", tmp_path)
    assert status == 0, err
    assert len(out.splitlines()) <= 25
    for said in (
        "ANOMALOUS",
        "the threshold for good parts",
        "darker than",
        " px",
        "was not taught",
        "What to do",
        "How sure",
    ):
        assert said in out, said
    assert "evidence.png" in out
    assert "perceive" in err
    assert "answer " not in err  # without a question no language model has a part in it


def test_verbose_tells_boxes_candidates_facts_self_checks_and_times(run, cracked: Path, good: Path) -> None:
    status, out, err = run(
        *(cracked, "--reference", good, "--product", "solar cell", "--question", "Is it good?", "--verbose")
    )
    assert status == 0, err
    for said in ("Region", "Self-check", "Facts", "[1]", "sage-tiny", "imports"):
        assert said in out, said


def test_the_example_needs_no_file(run) -> None:
    status, out, err = run("--example")
    assert status == 0, err
    assert "ANOMALOUS  leather" in out
    assert "dark brown spot" in out
    assert "Now one of yours" in out
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "--example" in err


def test_sizes_in_millimetres_need_the_scale(run, cracked: Path, good: Path) -> None:
    status, out, err = run(
        *(cracked, "--reference", good, "--question", "How large is it?", "--mm-per-pixel", "0.52", "--json")
    )
    assert status == 0, err
    trace = InspectionTrace.from_json(out)
    assert all(" mm)" in region.description for region in trace.regions)
    assert " mm)" in trace.answers[0].text


def broken_file(kind: str, folder: Path, good: Path) -> Path:
    """A file of a kind that a factory's disk holds and that is no picture to inspect."""
    path = folder / f"{kind}.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is no picture", encoding="utf-8")
    elif kind == "empty":
        path.touch()
    elif kind == "huge":
        Image.new("1", (30_000, 30_000)).save(path, compress_level=1)
    elif kind == "dot":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "half":
        path = path.with_suffix(".jpg")
        with Image.open(good) as picture:
            picture.convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_terminal_obeys_nothing_in_names_and_texts(capsys: pytest.CaptureFixture[str]) -> None:
    trace = InspectionTrace(
        image="evil\x1b[2J\u202egnp.png", product="[bold]bottle[/]\x07", anomaly_score=0.6, threshold=0.5,
        threshold_from="builtin", verdict="anomalous", explanation="One line.\nAnother\x1b[31m.", model="m", seconds=1,
    )  # fmt: skip
    show(trace, [], {}, verbose=True)
    out = capsys.readouterr().out
    assert "[bold]bottle[/]? evil?[2J?gnp.png" in out
    assert "\nOne line.\nAnother?[31m." in out
    assert not set(out) & set("\x1b\x07\u202e")


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "half", "empty", "huge", "dot"])
@pytest.mark.parametrize("role", ["image", "reference"])
def test_a_bad_picture_is_one_line_that_names_it(run, good: Path, tmp_path: Path, kind: str, role: str) -> None:
    path = broken_file(kind, tmp_path, good)
    arguments = (path, "--reference", good) if role == "image" else (good, "--reference", path)
    status, out, err = run(*arguments, "--json")
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert path.name in err


@pytest.mark.parametrize("mode", ["I;16", "P", "CMYK", "L", "RGBA", "1", "rotated"])
def test_unusual_pictures_are_read_right(good: Path, tmp_path: Path, mode: str) -> None:
    from sage_ad.vlm.images import load_image

    with Image.open(good) as picture:
        grey = picture.convert("L")
    path = tmp_path / f"cell {mode.replace(';', '')} ä.{'jpg' if mode in ('CMYK', 'rotated') else 'png'}"
    if mode == "I;16":
        import numpy as np

        Image.fromarray(np.asarray(grey, dtype=np.uint16) * 257).save(path)
    elif mode == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held sideways: turn by 90 degrees to look upright
        grey.crop((0, 0, 300, 150)).convert("RGB").save(path, exif=exif, quality=95)
    else:
        (grey.convert("RGB").convert(mode) if mode != "L" else grey).save(path)
    read = load_image(path)
    assert read.mode == "RGB"
    if mode == "rotated":
        assert read.size == (150, 300)
    elif mode not in ("1", "P"):
        difference = [abs(a - b) for a, b in zip(read.convert("L").tobytes(), grey.tobytes(), strict=True)]
        assert sum(difference) / len(difference) < 4
    else:
        assert read.size == grey.size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "photovoltaic"), "the nearest is photovoltaics"),
        (("--question", " "), "The question is empty"),
        (("--model", "no/such-model", "--question", "Is it good?"), "no/such-model"),
        (("--model", "smollm2-135m"), "--question"),
        (("--learn",), "--question"),
        (("--facts", "boiled"), "boiled"),
        (("--facts", "soft", "--model", "smollm2-135m", "--standard-questions"), "fusion attention"),
        (("--device", "abacus"), "abacus"),
        (("--judge", "guess", "--standard-questions"), "guess"),
        (("--reference", "nowhere"), "nowhere"),
        (("--seed", "many"), "--seed"),
    ],
)
def test_bad_options_are_one_line(run, good: Path, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = run(good, *arguments, "--json")
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert said in err


def test_an_unwritable_folder_is_one_line(run, good: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = run(good, "--out", tmp_path / "file" / "below")
    assert status == 2
    assert "--out" in err
