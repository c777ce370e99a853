"""Small helpers for the SQLite files from which the store works; all of them are derived and can be made again."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sage_ad.vlm.errors import BackendError


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
        write_ahead(db, patience=60)
        db.execute(f"pragma synchronous={synchronous}")
    except BaseException:
        db.close()
        raise
    return db


def write_ahead(db: sqlite3.Connection, patience: float) -> None:
    """Switches a file to write-ahead logging: readers do not wait for a writer, and a killed writer leaves it whole.

    SQLite's own time-out does not cover this switch: two processes that make one file together may meet here, and one
    of them would fail at once. So this waits for the other.

    Args:
        db: an open connection.
        patience: seconds to wait.

    Raises:
        sqlite3.OperationalError: the file is still locked after `patience`, or cannot be written.
    """
    until = time.monotonic() + patience
    while True:
        try:
            db.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


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
