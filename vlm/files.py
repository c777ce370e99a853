"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A stream to write to: a reader sees the old or the new content, never half of it, not even after a crash.

    Args:
        path: the file; its folder is made if it is missing.

    Raises:
        OSError: when the disk is full or refuses; the old content is then there still, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes text (as UTF-8) or bytes as `whole_file` does."""
    with whole_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Puts a file, or a folder's list of names, on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # elsewhere a folder cannot be opened, and renames are ordered by the file system
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def safe_name(name: str, fallback: str = "file") -> str:
    """A file name of letters, digits and -_. only, never hidden, at most 80 characters."""
    stem = re.sub(r"[^\w.-]+", "-", Path(name).name, flags=re.UNICODE).strip(".-") or fallback
    return stem[-80:]
