"""What README and docs tell a reader to type is typed: code blocks run, page by page, in a folder with the files that they name.

A block behind `<!-- not run: REASON -->` needs hardware, a server or hours; its SAGE commands are parsed all the same.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from plates import gash, plate

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?P<kind>bash|python)\n(?P<code>.*?)^```", re.M | re.S
)
FACTS = (  # their ids stand in README
    "A dark patch with a straight border in an HL-3 cell is a piece that a crack has cut off from the busbar.",
    "An HL-3 cell with a cut-off piece larger than eight percent of its area is rejected, because the string current drops.",
)


def blocks(page: Path) -> list[dict[str, Any]]:
    return [match.groupdict() for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def command_lines(code: str) -> list[list[str]]:
    """The commands of a shell block, without comments, as words."""
    lines = (re.sub(r"\s#\s.*", "", line) for line in code.replace("\\\n", " ").splitlines())
    return [shlex.split(line) for line in lines if line.strip()]


def command(name: str) -> Any:
    """The module behind a command."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert name in scripts, f"there is no command {name}"
    return importlib.import_module(scripts[name].split(":")[0])


def parse(words: list[str]) -> None:
    """Refuses a SAGE command whose subcommand or options do not exist."""
    from typer.main import get_command

    parser: Any = get_command(command(words[0]).app)
    rest = words[1:]
    if hasattr(parser, "commands"):
        assert rest[0] in parser.commands, " ".join(words)
        parser, rest = parser.commands[rest[0]], rest[1:]
    parser.make_context(words[0], list(rest))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name."""
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    for name in ("part", "disc", "cloth", "strip"):
        plate(tmp_path / f"{name}.png", True, 1)
    for name in ("good", "strip_good"):
        plate(tmp_path / f"{name}.png", False, 2)
    for shot in range(4):
        plate(tmp_path / "good" / f"{shot}.png", False, 10 + shot)
        plate(tmp_path / "stains" / f"{shot}.png", True, 20 + shot)
        plate(tmp_path / "parts" / f"{shot}.png", shot == 0, 30 + shot)
    parts = tmp_path / "DATA" / "plate"
    for shot in range(20):  # as many good ones as 5 % false alarms need
        plate(parts / "train" / "good" / f"{shot}.png", False, 40 + shot)
        plate(parts / "test" / "good" / f"{shot}.png", False, 60 + shot)
    for shot in range(2):
        plate(parts / "test" / "gash" / f"{shot}.png", True, 80 + shot)
        gash(parts / "ground_truth" / "gash" / f"{shot}_mask.png")
    shutil.copytree(tmp_path / "DATA", tmp_path / "my" / "parts")
    ranked = (ROOT / "tests" / "data" / "ranked_fifth.jsonl").read_text(encoding="utf-8")
    (tmp_path / "ANSWERS.jsonl").write_text("".join(ranked.splitlines(keepends=True)[:12]), encoding="utf-8")
    (tmp_path / "gpu.yaml").write_text("bf16: true\n", encoding="utf-8")
    (tmp_path / "night.csv").write_text("image\nparts/0.png\nparts/1.png\n", encoding="utf-8")
    style = getSampleStyleSheet()["BodyText"]
    SimpleDocTemplate(str(tmp_path / "manual.pdf")).build([Paragraph(fact, style) for fact in FACTS])
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    # Four parts are no work for two worker processes, which take seconds to start.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.timeout(1200)  # a page is up to a minute on an idle machine
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_what_a_page_tells_to_type_works(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block["kind"] == "python":
            compiled = compile(block["code"], f"{page.name}: code", "exec")
            if not block["reason"]:
                exec(compiled, scope)
            continue
        for words in command_lines(block["code"]):
            if words[0].startswith("sage-") and "..." not in words:
                parse(words)
            if block["reason"]:
                continue
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), words
                continue
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                command(words[0]).main()
            assert not ended.value.code, f"{page.name}: {' '.join(words)}"


def test_an_option_that_does_not_exist_is_found() -> None:
    parse(shlex.split("sage-inspect part.png --reference good.png"))
    with pytest.raises(Exception, match="No such option"):
        parse(shlex.split("sage-inspect part.png --refrence good.png"))
