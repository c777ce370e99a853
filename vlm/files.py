"""Files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old or the new content, never half of it, not even after a crash.

    Args:
        path: the file; its folder is made if it is missing.
        content: text (written as UTF-8) or bytes.

    Raises:
        OSError: when the disk is full or refuses; the old content is then there still, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
