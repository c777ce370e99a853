"""Small helpers for the SQLite files from which the store works; all of them are derived and can be made again."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm.errors import BackendError


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: all of it is seen by others, or nothing."""
    db.execute("begin immediate")
    try:
        yield
        db.execute("commit")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled it back already
            db.execute("rollback")
        raise


def connect(path: Path, synchronous: str = "normal") -> sqlite3.Connection:
    """Opens a file that several processes read while one writes.

    Args:
        path: the file; its folder must exist.
        synchronous: "normal" survives a loss of power, "off" may not (and is then made again).
    """
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        db.execute("pragma journal_mode=wal")
        db.execute(f"pragma synchronous={synchronous}")
    except BaseException:
        db.close()
        raise
    return db


def chunks(values: Sequence[Any], size: int = 500) -> Iterator[list[Any]]:
    """Cuts a list into parts that fit into one SQL statement."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def marks(values: Sequence[Any]) -> str:
    """As many placeholders of a SQL statement as there are values."""
    return ",".join("?" * len(values))


def unwritable(path: Path, error: Exception) -> BackendError:
    """The error for a derived file that cannot be written."""
    return BackendError(
        f"The cache {path} cannot be used ({error}); the packs are whole: make room, or name another folder with "
        "SAGE_CACHE."
    )
