"""Runs the notebooks as a newcomer would: from top to bottom, in a fresh kernel, with an empty SAGE home and cache.

`tools/notebooks.py` (make notebooks) fails when a cell raises, when its outputs are not of the kinds that are stored (a
missing figure, a cell that changed since), or when a notebook breaks a rule of the house. Where a run says other words,
other figures or shows another picture than the stored one, it tells which outputs are out of date: trained weights differ
from machine to machine in their last digits, so that alone is no failure.
`tools/notebooks.py --store` (make notebooks-store) executes them and keeps the outputs. Names choose: `01 03`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import math
import os
import re
import resource
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
PIXELS = ("image/png", "image/jpeg")
FIGURES = (*PIXELS, "image/svg+xml")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
CLOSE = {"rel_tol": 0.05, "abs_tol": 0.02}
"""Figures this close are the same: bfloat16 rounds differently on other processors."""

OTHER_PICTURE = 6
"""Mean difference of grey levels (0 to 255) from which a picture is another one."""

PATHS = re.compile(r"(?<![\w.])/(?:tmp|root|home|Users|work|var|usr|opt|mnt)/|[A-Z]:\\\\|\.venv/|site-packages")


@dataclass
class Report:
    """What became of one notebook: faults fail the run; what is out of date and remarks are only printed."""

    name: str
    seconds: float = 0.0
    busy: float = 0.0
    """Processor seconds: how long it takes where nobody else works, at most."""
    cells: int = 0
    figures: int = 0
    faults: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
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


def said(cell: Any) -> list[str]:
    """The lines that a cell prints or displays as text, without those about time: that is the machine's."""
    # Standard error is kept apart and never stored (`standard_error`), so it is nothing to compare.
    outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    texts = [output.get("text") or output.get("data", {}).get("text/markdown", "") for output in outputs]
    lines = "\n".join("".join(text) if isinstance(text, list) else text for text in texts).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and "second" not in line]


def pictures(cell: Any) -> list[str]:
    """The pictures that a cell shows, in base64."""
    shown = [[output.data[name] for name in PIXELS if name in output.get("data", {})] for output in cell.outputs]
    return [min(forms, key=len) for forms in shown if forms]


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
    """Faults (other kinds of output) and what is out of date in a notebook, held against an execution of its cells."""
    faults, stale = [], []
    for number, (old, new) in enumerate(zip(code_cells(stored), code_cells(fresh), strict=True), start=1):
        if kinds(old) != kinds(new):
            faults.append(f"cell {number} gives {kinds(new) or 'nothing'} now, but {kinds(old) or 'nothing'} is stored")
        elif change := out_of_date(old, new):
            stale.append(f"cell {number}: {change}")
    return faults, stale


def out_of_date(old: Any, new: Any) -> str | None:
    """What a cell says or shows otherwise than is stored, or None."""
    before, after = said(old), said(new)
    for was, now in zip(before, after, strict=False):
        if NUMBER.sub("#", was) != NUMBER.sub("#", now):
            return f"it says {now[:100]!r}, but {was[:100]!r} is stored"
        figures = zip(NUMBER.findall(was), NUMBER.findall(now), strict=True)
        if not all(math.isclose(float(a), float(b), **CLOSE) for a, b in figures):
            return f"its figures are {now[:100]!r}, but {was[:100]!r} is stored"
    if len(before) != len(after):
        return f"it says {len(after)} lines, but {len(before)} are stored"
    if any(other_picture(a, b) for a, b in zip(pictures(old), pictures(new), strict=True)):
        return "it shows another picture than the stored one"
    return None


def other_picture(old: str, new: str) -> bool:
    """Whether two pictures in base64 differ by more than a shade."""
    from PIL import Image, ImageChops, ImageStat

    was, now = (Image.open(io.BytesIO(base64.b64decode(text))).convert("L") for text in (old, new))
    return was.size != now.size or ImageStat.Stat(ImageChops.difference(was, now)).mean[0] > OTHER_PICTURE


def execute(notebook: Any, patience: int = CELL_SECONDS, cache: Path | None = None) -> None:
    """Runs all cells in place, in a fresh kernel of this interpreter, with an empty home and working folder.

    Args:
        notebook: is given the outputs.
        patience: seconds that a cell may take.
        cache: for unpacked weights; the notebooks of a run share one. None starts with an empty one.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the notebook holds the outputs up to there.
    """
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory(prefix="sage-notebook-", ignore_cleanup_errors=True) as folder:
        names = ("SAGE_HOME", "SAGE_CACHE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")
        own = {name: str(Path(folder) / name.lower()) for name in names}
        for value in (*own.values(), work := str(Path(folder) / "work")):
            Path(value).mkdir()
        if cache is not None:
            own["SAGE_CACHE"] = str(cache)
        calm = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "GOMP_SPINCOUNT": "1000"}
        client = NotebookClient(
            notebook, timeout=patience, startup_timeout=patience, kernel_name="python3",
            resources={"metadata": {"path": work}}, record_timing=False, coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
        )  # fmt: skip
        client.execute(env={**calm, **os.environ, **own})


def run(path: Path, *, store: bool, patience: int = CELL_SECONDS, cache: Path | None = None) -> Report:
    """Executes one notebook; with `store` its outputs replace the stored ones, else they are compared with them."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    report, fresh = Report(path.stem), read(path)
    start, busy = time.perf_counter(), processor_seconds()
    try:
        execute(fresh, patience, cache)
    except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
        report.faults.append(f"it does not run: {plain(str(error))}")
    report.seconds, report.busy = time.perf_counter() - start, processor_seconds() - busy
    report.cells = len(code_cells(fresh))
    report.figures = sum(kinds(cell).count("figure") for cell in code_cells(fresh))
    if report.faults:
        return report
    report.remarks += standard_error(fresh)
    if store:
        keep(path, fresh)
    else:
        faults, report.stale = differences(read(path), fresh)
        report.faults += faults
    report.faults += stored_faults(path)
    return report


def processor_seconds() -> float:
    """Processor time of the child processes that have ended: the kernels, and what they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
            for output in cell.outputs:
                one_picture(output.get("data", {}))
    nbformat.write(notebook, path)


def one_picture(data: dict[str, Any]) -> None:
    """Of one picture in several formats (Pillow gives PNG and JPEG) the shortest stays: a repository keeps it for good."""
    forms = sorted((name for name in FIGURES if name in data), key=lambda name: len(data[name]))
    for name in forms[1:]:
        del data[name]


def standard_error(notebook: Any) -> list[str]:
    """What cells wrote to standard error: progress and advice, which is printed here and never stored."""
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
    files, began = notebook_files(arguments.names), time.perf_counter()
    if not files:
        print(f"There is no notebook named {' '.join(arguments.names)!r} in {FOLDER}.", file=sys.stderr)
        return 2
    reports = []
    with tempfile.TemporaryDirectory(prefix="sage-notebook-cache-", ignore_cleanup_errors=True) as cache:
        for path in files:
            if arguments.static:
                report = Report(path.stem, faults=stored_faults(path))
            else:
                report = run(path, store=arguments.store, patience=arguments.patience, cache=Path(cache))
            reports.append(report)
            tell(report)
    failed = [report.name for report in reports if report.faults]
    stale = [report.name for report in reports if report.stale]
    print(f"{len(files)} notebooks, {len(failed)} at fault, {time.perf_counter() - began:.0f} s")
    if stale:
        print(f"OUT OF DATE: stored outputs of {', '.join(stale)}; look at them, then run make notebooks-store.")
    return 1 if failed else 0


def tell(report: Report) -> None:
    """Prints what became of one notebook."""
    print(
        f"{report.name}: {report.cells} cells, {report.figures} figures, {report.seconds:.0f} s "
        f"({report.busy:.0f} s of processor time)",
        flush=True,
    )
    groups = {"fault": report.faults, "OUT OF DATE": report.stale, "note": report.remarks}
    for kind, texts in groups.items():
        for text in texts:
            print(f"  {kind}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
