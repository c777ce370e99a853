"""Which models the page offers: those of the command line and those that are shipped, each once, none that is absent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sage_ad.vlm.backends.base import UNTUNED
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.sage.checkpoint import BEST, FOLDER, is_checkpoint, read_settings


def shipped_models() -> list[str]:
    """Names of what is there: "sage-tiny" (the best checkpoint), the other checkpoints, and the untrained model."""
    others = sorted(folder.name for folder in FOLDER.iterdir() if is_checkpoint(folder)) if FOLDER.is_dir() else []
    return ["sage-tiny", *(name for name in others if name != BEST), UNTUNED]


def checkpoint_folder(name: str) -> Path | None:
    """Folder of the checkpoint that a name stands for, or None where it stands for something else."""
    folder = FOLDER / (BEST if name == "sage-tiny" else name)
    for candidate in (folder, Path(name)):
        if is_checkpoint(candidate):
            return candidate
    return None


def two_stages(models: Iterable[str]) -> tuple[str, str] | None:
    """The first model of stage 1 and the first of stage 2 (E-DPO) among these; None unless both are there.

    Raises:
        InputError: a checkpoint cannot be read.
    """
    first = second = None
    for name in models:
        folder = checkpoint_folder(name)
        if folder is None:
            continue
        if dict(read_settings(folder).get("trained") or {}).get("stage") == 2:
            second = second or name
        else:
            first = first or name
    return (first, second) if first and second else None


def different(first: str, second: str) -> tuple[str, str]:
    """The pair as it is.

    Raises:
        InputError: both names stand for the same model.
    """
    alike = checkpoint_folder(first) is not None and checkpoint_folder(first) == checkpoint_folder(second)
    if first == second or alike:
        raise InputError(f"{first} and {second} are the same model; choose two different ones.")
    return first, second
