"""What a batch has finished, safe on disk: a journal that grows by whole rows, and the table that it becomes.

While a batch runs, its rows are appended to `finished.jsonl` and forced to disk; a line that was cut by a crash is taken
away when the folder is opened again. When every part is done, the journal becomes `results.parquet` in the order of the
parts, and is removed. One process at a time works in a folder.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sage_ad.agents.batch.manifest import Part
from sage_ad.vlm.errors import InputError, SageError
from sage_ad.vlm.files import safe_name, sync, whole_file, write_whole

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]

RESULTS, JOURNAL, SETTINGS, PICTURES, LOCK = "results.parquet", "finished.jsonl", "batch.json", "pictures", ".lock"
ROWS_A_GROUP = 1024


class BatchStopped(SageError):
    """A batch ended early; the message says why, what is safe on disk, and how to continue."""


class BatchStore:
    """The folder of one batch.

    Args:
        folder: the folder of `--out`; made if it is not there.
        settings: what the rows depend on; a batch is only resumed with the same settings.
        resume: continue with what the folder holds; without it, a folder that holds a batch is refused.
        retry_errors: parts that ended in an error count as not finished; their rows stay until others take their place.

    Raises:
        InputError: the folder cannot be used, holds a batch (without `resume`) or one with other settings, or another
            process works in it.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, resume: bool = False, retry_errors: bool = False
    ) -> None:
        self.folder = folder
        self.offsets: dict[str, int] = {}
        self._again: set[str] = set()
        self._journal: io.FileIO | None = None
        self._lock = _locked(folder)
        try:
            self._check_settings(dict(settings), resume)
            self._load(retry_errors)
        except BaseException:
            self.close()
            raise

    @property
    def results(self) -> Path:
        """The table, once the batch is complete."""
        return self.folder / RESULTS

    def finished(self, key: str) -> bool:
        """Whether a part has its row, and one that is not to be tried again."""
        return key in self.offsets and key not in self._again

    def append(self, rows: Iterable[Row]) -> list[Row]:
        """Keeps rows for good: when this returns they are on disk. A part that has its row already is passed over.

        Returns:
            The rows that were new.

        Raises:
            OSError: they could not be written; what was kept before is not touched.
        """
        journal, new = self._opened(), []
        place = end = journal.seek(0, os.SEEK_END)
        lines, offsets = [], {}
        for row in rows:
            key = row["key"]
            if self.finished(key) or key in offsets:
                continue
            line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"
            offsets[key] = place
            place += len(line)
            lines.append(line)
            new.append(row)
        try:
            left = memoryview(b"".join(lines))
            while left:
                left = left[journal.write(left) :]
            os.fsync(journal.fileno())
        except OSError:
            # What half a row there is goes; if even that fails, the next opening takes it away.
            with contextlib.suppress(OSError):
                journal.truncate(end)
            raise
        self.offsets |= offsets
        self._again -= offsets.keys()
        return new

    def keep_picture(self, row: Row, png: bytes) -> str:
        """Writes the evidence picture of a part, named by the part; returns its path inside the folder."""
        folder = self.folder / PICTURES
        folder.mkdir(exist_ok=True)
        # Parts of one name, in several folders or photographed again, differ in their keys.
        part = safe_name(row["id"] or Path(row["image"]).stem, "part")
        name = f"{part}-{row['key'][:8]}{row['key'][20:]}.png"
        write_whole(folder / name, png)
        return f"{PICTURES}/{name}"

    def rows(self, parts: Sequence[Part] | None = None) -> Iterator[Row]:
        """Rows of the parts that have one, in the order of `parts`, with their present numbers and ids; without `parts` all
        rows, in the order in which they were done."""
        wanted = [(part.key, {"part": part.number, "id": part.id}) for part in parts or ()]
        if parts is None:
            wanted = [(key, {"part": number}) for number, key in enumerate(self.offsets, start=1)]
        return self._read(wanted)

    def _read(self, wanted: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Row]:
        with (self.folder / JOURNAL).open("rb") as journal:
            for key, now in wanted:
                if key in self.offsets:
                    journal.seek(self.offsets[key])
                    yield {**json.loads(journal.readline()), **now}

    def complete(self, parts: Sequence[Part] | None = None) -> Path:
        """Turns the journal into the table of `rows(parts)` and removes it; every part must have its row.

        Raises:
            OSError: the table could not be written; the journal is then kept.
        """
        if missing := sum(part.key not in self.offsets for part in parts or ()):
            raise ValueError(f"{missing} parts have no row yet")
        with whole_file(self.results) as stream:
            write_table(stream, self.rows(parts))
        sync(self.folder)
        self._close_journal()
        (self.folder / JOURNAL).unlink(missing_ok=True)
        return self.results

    def close(self) -> None:
        """Lets another process work in the folder."""
        self._close_journal()
        self._lock.release()

    def __enter__(self) -> BatchStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_settings(self, settings: dict[str, Any], resume: bool) -> None:
        path = self.folder / SETTINGS
        try:
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError:
            known = None  # cut by a crash before the first row: it is written anew
        if known is None:
            write_whole(path, json.dumps(settings, indent=2) + "\n")
            return
        if not resume:
            raise InputError(
                f"The folder {self.folder} holds a batch already; add --resume to continue it, or name another folder "
                "with --out."
            )
        for name in sorted(known.keys() | settings.keys()):
            if known.get(name) != settings.get(name):
                raise InputError(
                    f"The batch in {self.folder} was started with {name} = {known.get(name)!r}, not "
                    f"{settings.get(name)!r}; resume it as it was started, or name another folder with --out."
                )

    def _load(self, retry_errors: bool) -> None:
        """Finds the finished rows: those of the journal, else those of an earlier table."""
        journal = self.folder / JOURNAL
        if not journal.exists() and self.results.exists():
            # The folder or manifest may have grown since: the table becomes a journal again, and is made anew at the end.
            with whole_file(journal) as copy:
                for known in read_table(self.results):
                    copy.write(json.dumps(known, ensure_ascii=False).encode() + b"\n")
        own, end = self._opened(), 0
        with journal.open("rb") as stream:
            for line in stream:
                row = _row(line)
                if row is None and not line.endswith(b"\n"):
                    break
                if row is not None:
                    self.offsets[row["key"]] = end
                    self._again.discard(row["key"])
                    if retry_errors and row["error"]:
                        self._again.add(row["key"])
                end += len(line)
        own.truncate(end)

    def _opened(self) -> io.FileIO:
        if self._journal is None:
            path = self.folder / JOURNAL
            fresh = not path.exists()
            # Without a buffer: a row that the disk had no room for must not come out of one later.
            self._journal = path.open("ab", buffering=0)
            if fresh:
                sync(self.folder)
        return self._journal

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _row(line: bytes) -> Row | None:
    """A line of the journal, or None for one that a crash has left half-written."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "key" in row and "error" in row else None


def _locked(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    from sage_ad.evaluation.runs import output_folder

    lock = FileLock(output_folder(folder) / LOCK)
    try:
        lock.acquire(timeout=2)
    except Timeout:
        raise InputError(
            f"Another sage-batch works in {folder}; wait for it, or name another folder with --out."
        ) from None
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be locked ({error.strerror}); name another folder with --out."
        ) from None
    return lock


def table_schema() -> pyarrow.Schema:
    """Columns of `results.parquet`; `trace` is the whole `InspectionTrace` as JSON (docs/batch.md explains each)."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    region = pa.struct([("box", pa.list_(pa.int32())), ("place", text), ("score", number)])
    answer = pa.struct(
        [("question", text), ("family", text), ("verdict", pa.bool_()), ("text", text), ("facts", pa.list_(text)),
         ("objections", pa.list_(text))]
    )  # fmt: skip
    return pa.schema(
        [
            ("part", pa.int64()), ("key", text), ("id", text), ("image", text), ("references", pa.list_(text)),
            ("width", pa.int32()), ("height", pa.int32()),
            ("product", text), ("domain", text), ("error", text), ("verdict", text), ("anomaly_score", number),
            ("threshold", number), ("threshold_from", text), ("confidence", number), ("defect", text), ("explanation", text),
            ("regions", pa.list_(region)), ("answers", pa.list_(answer)), ("warnings", pa.list_(text)),
            ("picture", text), ("model", text), ("worker", text), ("seconds", number), ("trace", text),
        ]
    )  # fmt: skip


def write_table(stream: BinaryIO, rows: Iterable[Row]) -> None:
    """Writes rows as Parquet, a group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, waiting = table_schema(), iter(rows)
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while group := list(itertools.islice(waiting, ROWS_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def read_table(path: Path) -> Iterator[Row]:
    """Rows of a table, in order.

    Raises:
        InputError: the file is no such table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(ROWS_A_GROUP):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        first = " ".join(str(error).split())[:120]
        raise InputError(f"{path} cannot be read ({first}); name another folder with --out.") from None
