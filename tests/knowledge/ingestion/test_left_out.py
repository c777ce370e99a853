"""What `sage-kb add` says of a file that was not read whole, and its exit status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from reportlab.pdfgen import canvas

from sage_ad.knowledge.ingestion.pipeline import collect_files
from sage_ad.vlm.commandline import run_app

CRACK = "A heat crack on the friction ring of a brake disc is a short radial dark line."


@pytest.fixture
def add(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `sage-kb add metal ...` in this process; gives status and output."""
    from sage_ad.knowledge.cli import app

    def run(*arguments: object) -> tuple[int, str]:
        argv = sys.argv
        sys.argv = ["sage-kb", "add", "machining", *map(str, arguments)]
        try:
            with pytest.raises(SystemExit) as ended:
                run_app(app)
        finally:
            sys.argv = argv
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().out

    return run


def pdf(path: Path, *, scanned: bool) -> Path:
    picture = path.parent / "picture.bmp"
    Image.new("L", (60, 80), 200).save(picture)
    sheet = canvas.Canvas(str(path))
    sheet.drawString(60, 700, CRACK)
    if scanned:
        sheet.showPage()
    sheet.drawImage(str(picture), 40, 300, 60, 80)
    sheet.save()
    return path


def test_a_scanned_page_is_a_problem_and_status_1(add: Callable, tmp_path: Path):
    status, out = add(pdf(tmp_path / "mixed.pdf", scanned=True))
    assert status == 1
    assert CRACK in out
    assert "Problem: " in out
    assert "1 scanned page(s) were not read (page 2)" in out


def test_a_picture_is_a_note_and_status_1_only_when_strict(add: Callable, tmp_path: Path):
    status, out = add(pdf(tmp_path / "a.pdf", scanned=False))
    assert status == 0
    assert "Note: " in out
    assert "1 picture(s) were not read" in out
    assert add(pdf(tmp_path / "b.pdf", scanned=False), "--strict")[0] == 1
    status, out = add(
        write(tmp_path / "c.csv", "defect,cause,RPN\nheat crack,hard braking of the disc,12\n"), "--strict", "--json"
    )
    assert status == 1
    assert any("'RPN'" in note for note in json.loads(out)["notes"])


def test_sentences_that_are_no_facts_are_counted(add: Callable, tmp_path: Path):
    _, out = add(write(tmp_path / "a.txt", f"{CRACK}\n\nDear all, the meeting is on Tuesday at nine.\n"), "--json")
    (file,) = json.loads(out)["files"]
    assert file["dropped"] == 1
    assert "1 sentence(s) that do not read like facts left out" in file["sentence"]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_linked_folders_are_read_once_and_circles_end(tmp_path: Path):
    real, folder = tmp_path / "elsewhere", tmp_path / "folder"
    real.mkdir()
    folder.mkdir()
    write(real / "a.md", CRACK)
    (folder / "link").symlink_to(real, target_is_directory=True)
    (real / "back").symlink_to(folder, target_is_directory=True)
    files, problems = collect_files([folder])
    assert [file.name for file in files] == ["a.md"]
    assert problems == []


def test_folders_that_link_to_one_another_are_read_once(tmp_path: Path):
    for name in "abc":
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"{name}.md", CRACK)
        for other in set("abc") - {name}:
            (tmp_path / name / other).symlink_to(tmp_path / other, target_is_directory=True)
    assert sorted(file.name for file in collect_files([tmp_path])[0]) == ["a.md", "b.md", "c.md"]


def test_a_pipe_is_not_waited_for(tmp_path: Path, add: Callable[..., tuple[int, str]]):
    os.mkfifo(tmp_path / "pipe.md")
    status, said = add(tmp_path)
    assert status == 1
    assert "pipe.md is a pipe or device" in said
