"""Models shared by a process: loaded once, whoever asks, and given back."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

from sage_ad.vlm.loaded import loaded_once, release_models


class Model:
    """Stands for a large model."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_threads_that_ask_at_once_share_one_model():
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: loaded_once(Model, "a"), range(32)))
    assert len({id(model) for model in models}) == 1
    assert loaded_once(Model, "b") is not models[0]


def test_memory_comes_back_once_nobody_holds_a_model():
    model = loaded_once(Model, "c")
    known = weakref.ref(model)
    release_models()
    del model
    gc.collect()
    assert known() is None
    assert loaded_once(Model, "c").name == "c"
