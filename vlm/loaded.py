"""Models that a process loads once and everybody in it shares."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_loading = threading.RLock()
_models: dict[tuple[Hashable, ...], Any] = {}


def loaded_once(make: Callable[..., T], *key: Hashable, given: Callable[[], T] | None = None) -> T:
    """What `make(*key)` gives, made at the first call; threads that ask at once get the same one.

    Args:
        make: loads a model; models are distinguished by it and by `key`.
        key: its arguments.
        given: loads the model in place of `make(*key)`, where that needs more than the key tells.
    """
    with _loading:
        name = (make, *key)
        if name not in _models:
            _models[name] = given() if given is not None else make(*key)
        model: T = _models[name]
        return model


def release_models() -> None:
    """Forgets every shared model; its memory is free as soon as nobody holds it. The next call loads anew."""
    with _loading:
        _models.clear()
    gc.collect()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()
