"""The notebooks as they stand in the repository, without running them (`make notebooks` does that)."""

from __future__ import annotations

import ast
import base64
import importlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbformat")

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
ROOMS = ("vlm", "knowledge", "evaluation", "alignment", "agents", "demo")


def load_runner():
    """tools/notebooks.py: tools are no package."""
    spec = importlib.util.spec_from_file_location("notebook_runner", ROOT / "tools" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


runner = load_runner()
every_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def code(path: Path) -> str:
    return "\n".join(cell.source for cell in runner.code_cells(runner.read(path)))


def prose(path: Path) -> list[str]:
    return [cell.source for cell in runner.read(path).cells if cell.cell_type == "markdown"]


def test_each_has_its_number_and_its_line() -> None:
    """No two notebooks have one number; the list in README.md names each."""
    assert len({path.name[:2] for path in FILES}) == len(FILES)
    listed = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert all(path.name in listed for path in FILES)


@every_notebook
def test_stored_outputs_are_whole(path: Path) -> None:
    """Executed in order, no error, no changed cell, a picture, no path of one machine, small enough for a repository."""
    assert runner.stored_faults(path) == []


@every_notebook
def test_says_what_it_teaches_and_what_comes_next(path: Path) -> None:
    first, last = prose(path)[0], prose(path)[-1]
    assert first.startswith(f"# {path.name[:2]} · ")
    assert "What you will learn" in first
    assert re.search(r"\*\*Time\*\* .*minute", first)
    assert "## What to try next" in last


@every_notebook
def test_uses_public_functions_only(path: Path) -> None:
    """What a room exports, or what a module of it names without an underscore; nothing of tests or benchmarks."""
    for node in ast.walk(ast.parse(code(path))):
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr.startswith("__"), f"{node.attr} is private"
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            assert module.split(".")[0] not in ("tests", "benchmarks", "tools")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOMS:
            offered = importlib.import_module(node.module)
            for alias in node.names:
                assert not alias.name.startswith("_")
                assert "." in node.module or alias.name in offered.__all__, (
                    f"{node.module} does not export {alias.name}"
                )


@every_notebook
def test_pictures_are_synthetic_or_credited_cells(path: Path) -> None:
    """Pictures of other sets may not be shown here: their licences are not ours to give."""
    source = code(path)
    assert not re.search(r"shared|SAGE_DATA|mvtec|visa|urlopen|http://(?!127\.0\.0\.1)|https://", source, re.IGNORECASE)
    if "elpv" in source:
        assert any("CC BY-NC-SA 4.0" in text for text in prose(path))


@every_notebook
def test_prose_is_short(path: Path) -> None:
    """One idea a cell: a screen of prose before the next picture is a page nobody reads."""
    assert max(len(text) for text in prose(path)) < 2000


class TestRunner:
    """The runner finds what it is there to find."""

    @staticmethod
    def notebook(source: str, outputs=()):
        from nbformat import v4

        cell = v4.new_code_cell(source, execution_count=1, outputs=list(outputs))
        cell.metadata[runner.SOURCE_KEY] = runner.fingerprint(source)
        return v4.new_notebook(cells=[cell])

    @staticmethod
    def text(words: str):
        from nbformat import v4

        return v4.new_output("stream", name="stdout", text=words)

    @staticmethod
    def picture(grey: int = 100):
        from nbformat import v4
        from PIL import Image

        file = io.BytesIO()
        Image.new("L", (8, 8), grey).save(file, "PNG")
        text = base64.b64encode(file.getvalue()).decode()
        return v4.new_output("display_data", data={"image/png": text, "text/plain": "<Figure>"})

    def written(self, tmp_path, notebook) -> Path:
        import nbformat

        path = tmp_path / "01_made.ipynb"
        nbformat.write(notebook, path)
        return path

    def test_code_that_changed_after_its_outputs_is_found(self, tmp_path) -> None:
        notebook = self.notebook("draw()", [self.picture()])
        assert runner.stored_faults(self.written(tmp_path, notebook)) == []
        notebook.cells[0].source = "draw(2)"
        assert "has changed" in runner.stored_faults(self.written(tmp_path, notebook))[0]

    def test_a_path_of_one_machine_is_found(self, tmp_path) -> None:
        said = "wrote /" + "home/me/part.png"
        notebook = self.notebook("draw()", [self.picture(), self.text(said)])
        assert "path of one machine" in runner.stored_faults(self.written(tmp_path, notebook))[0]

    def test_a_missing_picture_is_a_fault_and_another_last_digit_is_none(self) -> None:
        stored = self.notebook("draw()", [self.text("score 0.51"), self.picture()])
        assert runner.differences(stored, self.notebook("draw()", [self.text("score 0.52"), self.picture()])) == (
            [],
            [],
        )
        faults, _ = runner.differences(stored, self.notebook("draw()", [self.text("score 0.51")]))
        assert "'figure'" in faults[0]

    @pytest.mark.parametrize("now", ["anomalous, 0.72", "normal, 0.31", "normal, 0.72\nand more"])
    def test_other_words_and_figures_are_out_of_date(self, now: str) -> None:
        stored, fresh = (self.notebook("say()", [self.text(words)]) for words in ("normal, 0.72", now))
        faults, stale = runner.differences(stored, fresh)
        assert not faults
        assert len(stale) == 1
        assert "stored" in stale[0]

    def test_progress_on_standard_error_is_no_difference(self) -> None:
        from nbformat import v4

        bar = v4.new_output("stream", name="stderr", text="Loading weights: 100%")
        stored = self.notebook("say()", [self.text("normal, 0.72")])
        assert runner.differences(stored, self.notebook("say()", [bar, self.text("normal, 0.72")])) == ([], [])

    def test_another_picture_is_out_of_date(self) -> None:
        stored, alike, other = (self.notebook("draw()", [self.picture(grey)]) for grey in (100, 101, 160))
        assert runner.differences(stored, alike) == ([], [])
        assert "another picture" in runner.differences(stored, other)[1][0]

    def test_one_picture_is_stored_once(self, tmp_path) -> None:
        output = self.picture()
        output.data["image/jpeg"] = output.data["image/png"] + "A" * 8
        runner.keep(path := tmp_path / "01_made.ipynb", self.notebook("draw()", [output]))
        assert list(runner.read(path).cells[0].outputs[0].data) == ["image/png", "text/plain"]

    def test_a_cell_that_raises_fails_the_run(self, tmp_path) -> None:
        pytest.importorskip("nbclient")
        pytest.importorskip("ipykernel")
        path = self.written(tmp_path, self.notebook("import os\nassert not os.listdir(os.environ['SAGE_HOME'])\n1 / 0"))
        report = runner.run(path, store=False)
        assert "ZeroDivisionError" in report.faults[0]
