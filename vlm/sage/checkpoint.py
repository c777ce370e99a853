"""Trained SAGE weights apart from their base: adapter, fusion attention, LoRA, and how to put them on again.

A checkpoint folder holds PEFT's `adapter_config.json` and `adapter_model.safetensors` (ours alone, never the base's
weights) and `sage.json`: the base, the fields of `SageConfig` and `SageProcessor`, and the calibration of the evidence.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.files import write_whole

if TYPE_CHECKING:
    import torch

    from sage_ad.vlm.sage.inference import SageInference
    from sage_ad.vlm.sage.modeling_sage import SageForConditionalGeneration
    from sage_ad.vlm.sage.processing_sage import SageProcessor
    from sage_ad.vlm.sage.prompts import SagePrompts

SETTINGS = "sage.json"
WEIGHTS = "adapter_model.safetensors"
EMBEDDED_BASE = "smollm2-135m"
"""Name of the embedded composition (SmolLM2-135M and EfficientNet-Lite2) in `sage.json`."""

FOLDER = Path(__file__).with_name("checkpoints")
STAGE_1 = "sage-tiny-sft"
"""The shipped checkpoint of stage 1, from which alignment begins."""

BEST = STAGE_1
"""The shipped checkpoint that "sage-tiny" stands for."""

_CONFIG_FIELDS = (
    "image_side", "show_reference", "distinct", "matching", "zero_shot", "fusion_residual", "evidence", "calibration",
)  # fmt: skip
_PROCESSOR_FIELDS = ("facts", "max_facts", "image_side", "show_reference")


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of this kind."""
    return (folder / SETTINGS).is_file()


def shipped(name: str) -> Path | None:
    """Folder of a shipped checkpoint, or None: "sage-tiny" is the best one, "sage-tiny-sft" and "sage-tiny-edpo" by name.

    Raises:
        InputError: a checkpoint of this name is not shipped.
    """
    if not name.startswith("sage-tiny"):
        return None
    folder = FOLDER / (BEST if name == "sage-tiny" else name)
    if is_checkpoint(folder):
        return folder
    known = sorted(f.name for f in FOLDER.iterdir() if is_checkpoint(f)) if FOLDER.is_dir() else []
    raise InputError(f"There is no shipped checkpoint {name!r}; there are: {', '.join(['sage-tiny', *known])}.")


def checkpoint_folder(name: str) -> Path | None:
    """Folder of a checkpoint by its path or by the name of a shipped one; None where the name stands for something else.

    Raises:
        InputError: the name begins like that of a shipped checkpoint, and there is none.
    """
    return Path(name) if is_checkpoint(Path(name)) else shipped(name)


def save_checkpoint(tuned: Any, processor: SageProcessor, folder: Path, base: str, trained: dict[str, Any]) -> None:
    """Writes a checkpoint; weights in bfloat16, which is what inference on a CPU uses.

    Args:
        tuned: the PEFT model.
        processor: its processor.
        folder: is made; files in it are replaced.
        base: `EMBEDDED_BASE`, or name or folder of the wrapped model.
        trained: how it was trained, for the reader.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(tuned)
    kept = {
        name: value.detach().to("cpu", value.dtype if "state_evidence" in name else _half()).contiguous()
        for name, value in state.items()
    }
    tuned.peft_config["default"].save_pretrained(folder)
    write_whole(folder / WEIGHTS, save(kept, metadata={"format": "pt"}))
    config = tuned.get_base_model().config
    settings = {
        "base": base,
        "config": {name: getattr(config, name) for name in _CONFIG_FIELDS},
        "processor": {name: getattr(processor, name) for name in _PROCESSOR_FIELDS},
        "trained": trained,
    }
    write_whole(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")


def read_settings(folder: Path) -> dict[str, Any]:
    """`sage.json` of a checkpoint.

    Raises:
        InputError: the folder is no checkpoint, or its settings cannot be read.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        _ = settings["base"], settings["config"], settings["processor"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"The folder {folder} holds no SAGE checkpoint that can be read ({error}); train one with sage-train sft."
        ) from None
    return settings


def base_model(
    base: str, config: dict[str, Any], processor: dict[str, Any], dtype: torch.dtype
) -> tuple[SageForConditionalGeneration, SageProcessor]:
    """A SAGE model with untrained parts around a base, and its processor.

    Args:
        base: `EMBEDDED_BASE`, or a Hugging Face name or folder of a vision-language model.
        config: fields of `SageConfig`.
        processor: arguments of `SageProcessor`.
        dtype: of the weights.
    """
    from sage_ad.vlm.sage.wrapping import embedded, from_base

    if base == EMBEDDED_BASE:
        return embedded(base_kwargs={"dtype": dtype}, **{**processor, **config})
    from transformers import AutoProcessor

    from sage_ad.vlm.sage.processing_sage import SageProcessor

    try:
        own = AutoProcessor.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            f"The processor of {base!r} cannot be loaded ({first}); give a vision-language model."
        ) from None
    made = SageProcessor.from_base(own, **{k: v for k, v in processor.items() if k != "image_side"})
    settings = {k: v for k, v in config.items() if k not in ("image_side", "show_reference")}
    return from_base(base, processor=made, base_kwargs={"dtype": dtype}, **settings), made


def load_checkpoint(
    folder: Path, *, dtype: torch.dtype | None = None, merge: bool = True
) -> tuple[Any, SageProcessor, dict[str, Any]]:
    """Puts trained weights on their base.

    Args:
        folder: the checkpoint.
        dtype: of the weights; None takes bfloat16.
        merge: folds LoRA into the base, for inference; else the PEFT model is given back, ready to train on.

    Returns:
        The model (in evaluation mode), its processor, and the settings of `sage.json`.

    Raises:
        InputError: the folder is no checkpoint, or its base is not installed.
        BackendError: the weights are damaged or of another version.
    """
    settings = read_settings(folder)
    model, processor = base_model(settings["base"], settings["config"], settings["processor"], dtype or _half())
    with _damage_is_named(folder, settings["base"]):
        tuned: Any = _merged(model, folder) if merge else _to_train(model, folder)
    return tuned, processor, settings


def load_for_inference(folder: Path, *, dtype: torch.dtype, device: str) -> tuple[SageInference, SagePrompts]:
    """Puts trained weights on the embedded language model, without transformers' models, which take two seconds to import.

    Args:
        folder: a checkpoint on `EMBEDDED_BASE`.
        dtype: of the weights.
        device: a torch device.

    Raises:
        InputError, BackendError: as `load_checkpoint`.
    """
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast

    from sage_ad.vlm.sage.inference import InferenceSettings, SageInference
    from sage_ad.vlm.sage.prompts import EMBEDDED_PLACEHOLDERS, SagePrompts
    from sage_ad.vlm.weights.embedded import smollm2_folder

    settings, base = read_settings(folder), smollm2_folder()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    prompts = SagePrompts(tokenizer, **{**EMBEDDED_PLACEHOLDERS, **settings["processor"]})
    with _damage_is_named(folder, settings["base"]):
        weights = {name: value.to(dtype) for name, value in load_file(base / "model.safetensors").items()}
        fusion = _folded_in({f"base.{name}": value for name, value in weights.items()}, folder)
        weights = {name: value.to(device) for name, value in weights.items()}
        return SageInference(InferenceSettings.of(settings["config"], prompts), weights, fusion), prompts


@contextlib.contextmanager
def _damage_is_named(folder: Path, base: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError, ValueError, OSError, KeyError) as error:
        first = " ".join(str(error).split())[:200]
        raise BackendError(
            f"The weights in {folder} cannot be put on {base} ({first}); fetch or train them anew."
        ) from None


def _to_train(model: SageForConditionalGeneration, folder: Path) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        # PEFT asks transformers in a way that transformers will forget one day; nobody who trains can help it.
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def _merged(model: SageForConditionalGeneration, folder: Path) -> SageForConditionalGeneration:
    """The model with LoRA folded in, bit by bit what PEFT's `merge_and_unload` makes.

    Wrapping every layer in PEFT's classes and unwrapping it again would take longer than all else that is loaded.
    """
    model.fusion.load_state_dict(_folded_in(dict(model.named_parameters()), folder))
    return model.eval()


def _folded_in(parameters: Mapping[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Makes each W of `parameters` W + (alpha / r) B A, in place; gives the trained weights of the fusion."""
    import torch
    from safetensors.torch import load_file

    lora = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    state = {name.removeprefix("base_model.model."): value for name, value in load_file(folder / WEIGHTS).items()}
    with torch.no_grad():
        for name in [name for name in state if name.endswith(".lora_A.weight")]:
            layer, down = name.removesuffix("lora_A.weight"), state.pop(name).float()
            up, weight = state.pop(f"{layer}lora_B.weight").float(), parameters[f"{layer}weight"]
            # In one sum of float32; adding to bfloat16 what is float32 takes several times as long.
            weight.copy_(weight.float().addmm_(up, down, alpha=lora["lora_alpha"] / lora["r"]))
    return {name.removeprefix("fusion."): value for name, value in state.items()}


def _half() -> torch.dtype:
    import torch

    return torch.bfloat16
