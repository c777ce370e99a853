"""Which device a model runs on, and how many cores there are."""

from __future__ import annotations

import os

from sage_ad.vlm.errors import InputError


def pick_device(device: str) -> str:
    """Makes "auto" concrete: "cuda" where torch sees one, else "cpu"; raises `InputError` where it is missing."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise InputError(f"There is no device {device!r}; use auto, cpu or cuda.")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"The device {device!r} was asked for but torch sees {torch.cuda.device_count()} GPUs; use cpu or auto."
        )
    return device


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
