"""Finding and loading a model of Hugging Face: from folder, cache or hub, in a precision, onto a device.

It knows files, libraries and devices; it does not know messages or texts (`sage_ad.vlm.backends.huggingface` does).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from sage_ad.vlm.backends.base import known_backends
from sage_ad.vlm.errors import InputError, one_line
from sage_ad.vlm.weights.hub import hub_answers

QUANTISED = ("8bit", "4bit")


def find_config(source: str) -> tuple[Any, bool]:
    """The model's configuration, and whether everything is to be read from this machine only."""
    from transformers import AutoConfig

    folder = Path(source).expanduser()
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(f"{source!r} is no model: {folder / 'config.json'} does not exist; give {known_backends()}.")
    if folder.is_dir():
        try:
            return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False), True
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"The model in {source!r} cannot be read ({one_line(error)}); save it anew or give another."
            ) from error
    if source.count("/") > 1 or source.startswith((".", "~", "/")) or not source.strip():
        raise InputError(f"There is no model {source!r}: no such folder; give {known_backends()}.")
    reason = "the Hugging Face hub cannot be reached"
    for local in (True, False):
        if not local and not hub_answers():
            break  # the library itself would try for half a minute
        try:
            return AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False), local
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = reason if local else one_line(error)
    raise InputError(
        f"There is no model {source!r}: it is no folder, it is not in the local Hugging Face cache, and it could not "
        f"be fetched ({reason}); give {known_backends()}."
    )


def load_processor_of(source: str, config: Any, *, vision: bool, local: bool) -> Any:
    from transformers import AutoTokenizer

    from sage_ad.vlm.sage.processing_sage import load_processor

    if not vision:
        return AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=False)
    try:
        return load_processor(source, config, local_files_only=local)
    except ImportError as error:
        raise InputError(
            f"The processor of {source!r} needs a library that is not installed ({one_line(error)}); install it, "
            "or serve the model and give its URL."
        ) from error


def placing(place: str, *, spread: bool) -> dict[str, Any]:
    """Where the weights go: straight to one GPU, over several where that is left open, or to the CPU."""
    if place == "cpu":
        return {}
    return {"device_map": "auto" if spread and torch.cuda.device_count() > 1 else {"": place}}


def precision_of(dtype: str, config: Any, device: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a dtype, or for weights that are quantised while they load."""
    if dtype not in QUANTISED:
        return {"dtype": _pick_dtype(dtype, config, device)}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"Loading in {dtype} needs the package bitsandbytes; pip install bitsandbytes.")
    from transformers import BitsAndBytesConfig

    # Sums stay in bfloat16, also where the checkpoint is float32: quantised weights have less precision than that.
    compute = _pick_dtype("auto" if device != "cpu" else "bfloat16", config, device)
    compute = torch.bfloat16 if compute is torch.float32 else compute
    if dtype == "8bit":
        return {"dtype": compute, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    return {"dtype": compute, "quantization_config": four}


def _pick_dtype(dtype: str, config: Any, device: str) -> Any:
    if dtype != "auto":
        chosen = getattr(torch, dtype, None)
        if not isinstance(chosen, torch.dtype):
            raise InputError(f"There is no dtype {dtype!r}; use auto, bfloat16, float16, float32, 8bit or 4bit.")
        return chosen
    text = config.get_text_config()
    own = getattr(config, "dtype", None) or getattr(text, "dtype", None) or torch.float32
    own = getattr(torch, own) if isinstance(own, str) else own
    # A CPU has no fast float16; a GPU without bfloat16 has no fast bfloat16.
    if device == "cpu" and own is torch.float16:
        return torch.bfloat16
    if device.startswith("cuda") and own is torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return torch.float16
    return own
