"""References made ready are kept on disk, so that the next process compares at once.

A file bears the digest of everything that it depends on: pictures, encoder, settings and the code of the evidence. It begins
with the digest of its content: a damaged one is made again. The least recently used go when there are too many bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence import memory_bank
from sage_ad.vlm.evidence.memory_bank import BankSettings, Matches, MemoryBank
from sage_ad.vlm.evidence.preparation import Preparation
from sage_ad.vlm.files import write_whole
from sage_ad.vlm.images import file_of
from sage_ad.vlm.paths import data_home

if TYPE_CHECKING:
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.pictures.brightness import Brightness

MOST_BYTES = 1_000_000_000
"""Bytes of all kept references together; eight pictures take 10 MB."""


def bank_file(extractor: EvidenceExtractor, references: Sequence[Path], brightness: Brightness | None) -> Path:
    """Where references made ready are kept.

    Args:
        extractor: makes them ready.
        references: files of the pictures (with their page).
        brightness: the range that they are read with.

    Raises:
        InputError: a picture cannot be read.
    """
    digest = hashlib.sha256(repr((_code(), extractor.encoder.version, extractor.settings, brightness)).encode())
    for path in references:
        file = file_of(path)
        page = str(path).removeprefix(str(file))
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest() + page.encode())
        except OSError as error:
            raise InputError(f"The reference {file} cannot be read ({error.strerror}); give another.") from None
    return data_home() / "references" / f"{digest.hexdigest()[:32]}.bank"


def read_bank(path: Path, device: str) -> MemoryBank | None:
    """References that were kept, without their pictures; None where there are none, or the file is damaged."""
    import torch

    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    with torch.serialization.safe_globals([MemoryBank, BankSettings, Matches, Preparation]):
        try:
            bank: MemoryBank = torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError):
            return None
    bank.thumbnails = [np.asarray(thumbnail) for thumbnail in bank.thumbnails]
    return bank


def keep_bank(path: Path, bank: MemoryBank) -> None:
    """Writes references made ready, whole or not at all, and removes those that were not used for longest.

    Raises:
        OSError: the disk is full or refuses.
    """
    import torch

    content = io.BytesIO()
    plain = replace(bank, pictures=[], thumbnails=[torch.from_numpy(own) for own in bank.thumbnails])  # type: ignore[misc]
    torch.save(plain, content)
    write_whole(path, hashlib.sha256(content.getvalue()).digest() + content.getvalue())
    kept = []
    for file in path.parent.glob("*.bank*"):  # drafts of processes that were killed, too
        with contextlib.suppress(FileNotFoundError):  # another process may have removed it
            kept.append((file.stat().st_mtime_ns, file.stat().st_size, file))
    total = sum(size for _, size, _ in kept)
    for _, size, file in sorted(kept):
        if total <= MOST_BYTES or file == path:
            break
        file.unlink(missing_ok=True)
        total -= size


@cache
def _code() -> str:
    """Digest of the modules that make references ready: another way to do it makes others of them."""
    digest = hashlib.sha256()
    for file in sorted(Path(memory_bank.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
