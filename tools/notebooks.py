"""Runs the notebooks as a newcomer would: from top to bottom, in a fresh kernel, with an empty SAGE home.

`tools/notebooks.py` (make notebooks) fails when a cell raises, when what is stored is not what the cells give now
(other kinds of output, missing figures, code that changed since), or when a notebook breaks a rule of the house.
`tools/notebooks.py --store` (make notebooks-store) executes them and keeps the outputs. Names choose: `01 03`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
CELL_SECONDS = 900
"""A cell that takes longer is taken to hang; none needs a fifth of it on an idle machine."""

MOST_BYTES = 1_000_000
SOURCE_KEY = "sage_source"
FIGURES = ("image/png", "image/jpeg", "image/svg+xml")
PATHS = re.compile(r"(?<![\w.])/(?:tmp|root|home|Users|work|var|usr|opt|mnt)/|[A-Z]:\\\\|\.venv/|site-packages")


@dataclass
class Report:
    """What became of one notebook: faults fail the run, remarks are only told."""

    name: str
    seconds: float = 0.0
    cells: int = 0
    figures: int = 0
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def notebook_files(names: list[str] | None = None) -> list[Path]:
    """The notebooks in order, or those whose names begin with one of `names`."""
    files = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    return [f for f in files if not names or any(f.name.startswith(name) for name in names)]


def read(path: Path) -> Any:
    """A notebook, valid by the format's schema."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    """Its code cells, in order, without empty ones."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def fingerprint(source: str) -> str:
    """A short digest of a cell's code, kept beside the outputs that it gave."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:12]


def kinds(cell: Any) -> list[str]:
    """What a cell's outputs are, in order: "text" (printed; pieces in a row are one), "figure", or a MIME type."""
    found: list[str] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            kind = "text" if output.name == "stdout" else ""
        elif output.output_type == "error":
            kind = "error"
        else:
            data = output.data
            kind = "figure" if any(name in data for name in FIGURES) else max(data, key=len)
        if kind and not (kind == "text" and found[-1:] == ["text"]):
            found.append(kind)
    return found


def words(cell: Any) -> str:
    """What a cell says, without numbers: those may differ from machine to machine in their last digits."""
    texts = [output.get("text") or output.get("data", {}).get("text/markdown", "") for output in cell.outputs]
    said = "".join("".join(text) if isinstance(text, list) else text for text in texts)
    return " ".join(re.sub(r"\d+(?:\.\d+)?", "#", said).split())


def stored_faults(path: Path) -> list[str]:
    """What is wrong with a notebook as it stands in the repository, seen without running it."""
    notebook = read(path)
    faults = (
        [] if path.stat().st_size < MOST_BYTES else [f"it has {path.stat().st_size} bytes, {MOST_BYTES} are allowed"]
    )
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        faults.append("its code cells were not executed once each, in order")
    for number, cell in enumerate(cells, start=1):
        if cell.metadata.get(SOURCE_KEY) != fingerprint(cell.source):
            faults.append(f"cell {number} has changed since its outputs were stored")
        if "error" in kinds(cell):
            faults.append(f"cell {number} has an error for an output")
        if any(output.get("name") == "stderr" for output in cell.outputs):
            faults.append(f"cell {number} has stored what it wrote to standard error")
    if not any("figure" in kinds(cell) for cell in cells):
        faults.append("it shows no picture")
    for text in all_texts(notebook):
        if found := PATHS.search(text):
            start = max(0, found.start() - 30)
            faults.append(f"it names a path of one machine: ...{text[start : found.end() + 30]!r}")
    return faults


def all_texts(notebook: Any) -> Iterator[str]:
    """Sources and textual outputs of a notebook."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield json.dumps({k: v for k, v in output.items() if k != "data"})
            yield from (str(v) for k, v in output.get("data", {}).items() if k not in FIGURES)


def differences(stored: Any, fresh: Any) -> tuple[list[str], list[str]]:
    """Faults (other kinds of output) and remarks (other words) of an execution, held against what is stored."""
    faults, remarks = [], []
    for number, (old, new) in enumerate(zip(code_cells(stored), code_cells(fresh), strict=True), start=1):
        if kinds(old) != kinds(new):
            faults.append(f"cell {number} gives {kinds(new) or 'nothing'} now, but {kinds(old) or 'nothing'} is stored")
        elif words(old) != words(new):
            remarks.append(f"cell {number} says other words than those stored")
    return faults, remarks


def execute(notebook: Any, patience: int = CELL_SECONDS) -> None:
    """Runs all cells in place, in a fresh kernel of this interpreter, with an empty home and working folder.

    Args:
        notebook: is given the outputs.
        patience: seconds that a cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the notebook holds the outputs up to there.
    """
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory(prefix="sage-notebook-", ignore_cleanup_errors=True) as folder:
        own = {name: str(Path(folder) / name.lower()) for name in ("SAGE_HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
        for value in (*own.values(), work := str(Path(folder) / "work")):
            Path(value).mkdir()
        calm = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "GOMP_SPINCOUNT": "1000"}
        client = NotebookClient(
            notebook, timeout=patience, kernel_name="python3", resources={"metadata": {"path": work}},
            record_timing=False, coalesce_streams=True, extra_arguments=["--log-level=ERROR"],
        )  # fmt: skip
        client.execute(env={**calm, **os.environ, **own, "PYTHONPATH": str(ROOT)})


def run(path: Path, *, store: bool, patience: int = CELL_SECONDS) -> Report:
    """Executes one notebook; with `store` its outputs replace the stored ones, else they are compared with them."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    report, fresh = Report(path.stem), read(path)
    start = time.perf_counter()
    try:
        execute(fresh, patience)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        report.faults.append(f"it does not run: {plain(str(error))}")
    report.seconds = time.perf_counter() - start
    report.cells = len(code_cells(fresh))
    report.figures = sum(kinds(cell).count("figure") for cell in code_cells(fresh))
    if report.faults:
        return report
    report.remarks += standard_error(fresh)
    if store:
        keep(path, fresh)
    else:
        faults, remarks = differences(read(path), fresh)
        report.faults += faults
        report.remarks += remarks
    report.faults += stored_faults(path)
    return report


def keep(path: Path, notebook: Any) -> None:
    """Writes an executed notebook, without what only tells of the machine that ran it."""
    import nbformat

    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
    }
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.metadata = {SOURCE_KEY: fingerprint(cell.source)}
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, path)


def standard_error(notebook: Any) -> list[str]:
    """What cells wrote to standard error: progress and advice, which is told here and never stored."""
    return [
        f"cell {number} wrote to standard error: {plain(output.text, 3)}"
        for number, cell in enumerate(code_cells(notebook), start=1)
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]


def plain(text: str, lines: int = 25) -> str:
    """The end of a traceback, without colours."""
    return "\n    ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()[-lines:])


def main() -> int:
    """Runs the notebooks that were asked for and says what became of each; 1 if one is at fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="numbers or beginnings of names; default: all")
    parser.add_argument("--store", action="store_true", help="keep the outputs in the notebooks")
    parser.add_argument("--static", action="store_true", help="only look at what is stored; run nothing")
    parser.add_argument(
        "--patience", type=int, default=CELL_SECONDS, help="seconds that a cell may take (busy machines)"
    )
    arguments = parser.parse_args()
    files, failed, began = notebook_files(arguments.names), 0, time.perf_counter()
    if not files:
        print(f"There is no notebook named {' '.join(arguments.names)!r} in {FOLDER}.", file=sys.stderr)
        return 2
    for path in files:
        if arguments.static:
            report = Report(path.stem, faults=stored_faults(path))
        else:
            report = run(path, store=arguments.store, patience=arguments.patience)
        print(f"{report.name}: {report.cells} cells, {report.figures} figures, {report.seconds:.0f} s", flush=True)
        for line in (*(f"fault: {fault}" for fault in report.faults), *(f"note: {text}" for text in report.remarks)):
            print(f"  {line}")
        failed += bool(report.faults)
    print(f"{len(files)} notebooks, {failed} at fault, {time.perf_counter() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
