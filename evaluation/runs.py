"""Long runs that can be stopped: finished cells are kept on disk and found again; progress goes to standard error."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole

T = TypeVar("T")
RESULTS = "results.json"
REPORT = "report.md"
IMAGES = "images.jsonl"
"""One line an image (and draw and method): scores, verdicts, references."""
ANSWERS = "answers.jsonl"
"""One line an answer, with everything it was held against."""


@cache
def code_hash(*rooms: str) -> str:
    """Digest of the code and weights of whole rooms, so that what others measured is measured again.

    Comments, docstrings and layout do not count.
    """
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for room in rooms:
        for path in sorted((root / room).rglob("*")):
            if path.suffix == ".py":
                digest.update(bare_code(path.read_text(encoding="utf-8")).encode())
            elif path.suffix == ".yaml":
                digest.update(path.read_bytes())
            elif path.suffix == ".safetensors":
                # Shipped weights are too large to read each time; a new training changes their date.
                digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def bare_code(source: str) -> str:
    """What a module says to Python: its syntax tree without docstrings, comments and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            kept = [line for line in body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]
            node.body = kept  # type: ignore[attr-defined]
    return ast.dump(tree)


def cell_key(**settings: Any) -> str:
    """Name of a cell from everything that its result depends on (settings, digest of the data, digest of the code)."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class CellCache:
    """Results of finished cells, one JSON file each, written whole or not at all.

    Args:
        folder: where `--out` points; cells stand in its `cells`. None keeps nothing beyond this run.
    """

    def __init__(self, folder: Path | None) -> None:
        self._memory: dict[str, Any] = {}
        self.folder = folder / "cells" if folder else None
        if folder:
            output_folder(folder)

    def get(self, key: str) -> Any | None:
        """A finished cell, or None; a damaged file counts as absent and is measured again."""
        if key in self._memory:
            return self._memory[key]
        if self.folder is None:
            return None
        try:
            return json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put(self, key: str, value: Any) -> None:
        """Keeps a finished cell."""
        if self.folder is None:
            self._memory[key] = value
            return
        self.folder.mkdir(exist_ok=True)
        write_whole(self.folder / f"{key}.json", json.dumps(value, ensure_ascii=False, allow_nan=False))


def output_folder(folder: Path) -> Path:
    """Makes the folder of `--out`.

    Raises:
        InputError: it is a file, or may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        reason = "it is a file" if folder.is_file() else (error.strerror or str(error))
        raise InputError(f"The folder {folder} cannot be written ({reason}); name another with --out.") from None
    return folder


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Writes dictionaries or dataclasses as JSON lines."""
    lines = (asdict(row) if is_dataclass(row) and not isinstance(row, type) else row for row in rows)
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write_results(folder: Path, results: dict[str, Any], report: str) -> None:
    """Writes results.json and report.md into the folder of `--out`."""
    output_folder(folder)
    write_whole(folder / RESULTS, json.dumps(results, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    write_whole(folder / REPORT, report)


def finish(result: dict[str, Any], report: str, out: Path | None, as_json: bool, strict: bool = False) -> None:
    """Ends a command: writes what --out asks for, prints the report or the JSON, and leaves 1 if there were problems.

    With `strict` it leaves 1 for notes on what was left out and for unknown keys, too.
    """
    from typer import Exit

    from sage_ad.vlm.commandline import EXIT_LISTED_FAILURES, print_json

    if out:
        write_results(out, result, report)
    if as_json:
        print_json(result)
    else:
        print(report)
    if result.get("problems") or (strict and (result.get("notes") or result.get("unknown_keys"))):
        raise Exit(EXIT_LISTED_FAILURES)


class Progress:
    """Says on standard error how far a run is: a line that renews itself on a terminal, one now and then elsewhere."""

    EVERY = 15.0

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)

    def count(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Passes items on and says how many are done."""
        from tqdm import tqdm

        pause = 0.2 if sys.stderr.isatty() else self.EVERY
        yield from tqdm(
            items, label, total, leave=False, file=sys.stderr, mininterval=pause, maxinterval=pause, disable=self._quiet
        )
