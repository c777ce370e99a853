"""Replies of a served model, kept on disk so that no question is paid for twice; safe for several processes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sage_ad.knowledge.sqlite import write_ahead
from sage_ad.vlm.errors import BackendError

_TABLE = """CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, reply TEXT NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, written REAL NOT NULL)"""
_PATIENCE = 30.0


class ReplyCache:
    """A table of replies in one SQLite file.

    A file that is no database (any more) is put aside under a name that ends in ".damaged", and a new one is begun.

    Args:
        file: where; its folder is made.

    Attributes:
        damaged: where a damaged file was put; None if there was none.

    Raises:
        BackendError: the file cannot be made or opened.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.damaged: Path | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()
        except sqlite3.OperationalError as error:
            raise self._sentence(error) from error
        except sqlite3.DatabaseError:
            self.damaged = file.with_name(f"{file.name}.{time.time_ns()}.damaged")
            file.replace(self.damaged)
            for rest in ("-wal", "-shm"):
                file.with_name(file.name + rest).unlink(missing_ok=True)
            self._prepare()
        except OSError as error:
            raise self._sentence(error) from error

    def get(self, key: str) -> str | None:
        """The reply under `key`, or None."""
        with self._open() as database:
            row = database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, model: str, reply: str, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Keeps a reply; it is on disk when this returns. The later of two replies under one key stays."""
        row = (key, model, reply, prompt_tokens, completion_tokens, time.time())
        with self._open() as database, database:
            database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)", row)

    def __len__(self) -> int:
        with self._open() as database:
            return int(database.execute("SELECT COUNT(*) FROM replies").fetchone()[0])

    def _prepare(self) -> None:
        with closing(sqlite3.connect(self.file, timeout=_PATIENCE)) as database:
            write_ahead(database, _PATIENCE)
            database.execute(_TABLE)
            database.commit()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one use: connections must not travel between threads or forked processes."""
        try:
            with closing(sqlite3.connect(self.file, timeout=_PATIENCE)) as database:
                yield database
        except sqlite3.Error as error:
            raise self._sentence(error) from error

    def _sentence(self, error: Exception) -> BackendError:
        return BackendError(
            f"The cache of replies {self.file} cannot be used ({error}); free space there, remove it, "
            "or set SAGE_HOME to another folder."
        )


def reply_key(model: str, *parts: Any) -> str:
    """The key of a request: SHA-256 over the model's name and everything that is sent, as JSON."""
    text = json.dumps([model, *parts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
