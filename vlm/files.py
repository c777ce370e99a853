"""Files written whole or not at all, and put on the disk where a lost one would matter."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A stream to write to: a reader sees the old or the new content of the file, never half of it.

    Args:
        path: the file; it stays as it was if an error ends the block.
        durable: the content is on the disk when the block has ended, and survives a power cut.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Writes a text file as `whole_file` does."""
    with whole_file(path, durable=durable) as stream:
        stream.write(text.encode())


def sync(path: Path) -> None:
    """Puts a file, or a folder's list of names, on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # elsewhere a folder cannot be opened, and renames are ordered by the file system
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
