"""SAGE around a pretrained model: any vision-language model of Hugging Face, or a language model and a frozen encoder.

One way for all: a base model gives image features (`get_image_features`), takes them back (`mm_encoder_outputs`), and
embeds its tokens (`get_input_embeddings`). Qwen2.5-VL, InternVL, LLaVA, LLaVA-OneVision, Idefics3, SmolVLM: tested.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.sage.configuration_sage import SageConfig
from sage_ad.vlm.sage.modeling_sage import SageForConditionalGeneration
from sage_ad.vlm.sage.modules import EFFICIENTNET_LITE2_CHANNELS, heads_of
from sage_ad.vlm.sage.processing_sage import SageProcessor
from sage_ad.vlm.sage.prompts import EMBEDDED_PLACEHOLDERS


def from_base(
    base: str | Path | PreTrainedModel,
    *,
    processor: Any = None,
    patch_channels: int | None = None,
    base_kwargs: dict[str, Any] | None = None,
    **settings: Any,
) -> SageForConditionalGeneration:
    """Wraps a pretrained model; its own weights are kept as they are.

    Args:
        base: a model, or the name or folder of one. A language model needs `patch_channels`.
        processor: the `SageProcessor` that will make the inputs; it gives the placeholders, the verdict tokens and the
            answer's header. Without it, give them in `settings`.
        patch_channels: channels of the frozen encoder's patch features, for a language model without eyes.
        base_kwargs: passed to the base model's `from_pretrained` (`dtype`, `device_map`, `attn_implementation`, ...).
        **settings: further fields of `SageConfig`.

    Returns:
        The model in evaluation mode, its new parts on the device and in the precision of the base model's embeddings.

    Raises:
        InputError: the base cannot be loaded, or cannot be wrapped.
    """
    model = base if isinstance(base, PreTrainedModel) else _load(str(base), patch_channels, base_kwargs or {})
    if patch_channels is None:
        _require_eyes(model)
    if processor is not None:
        settings = {**processor.model_settings(), **settings}
    if patch_channels is None:
        settings.setdefault("image_token_id", model.config.image_token_id)
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    room = weight.shape[0]
    settings.setdefault("fact_token_id", room)
    highest = max(settings["fact_token_id"], settings.get("image_token_id", 0))
    if highest >= room:
        # The placeholders are never looked up, but logits processors index the vocabulary with prompt tokens.
        model.resize_token_embeddings(highest + 1)
        weight = model.get_input_embeddings().weight  # type: ignore[assignment]
    settings.setdefault("embedding_std", float(weight.detach()[:room].float().std()))
    settings.setdefault("fusion_heads", heads_of(weight.shape[1]))
    config = SageConfig(base_config=model.config, patch_channels=patch_channels, dtype=weight.dtype, **settings)
    sage = _around(model, config)
    sage.generation_config = model.generation_config
    kept_silent = {config.fact_token_id, config.image_token_id} | set(sage.generation_config.suppress_tokens or ())
    sage.generation_config.suppress_tokens = sorted(kept_silent)
    return sage.eval()


def embedded(**settings: Any) -> tuple[SageForConditionalGeneration, SageProcessor]:
    """The composition that runs without network and GPU: SmolLM2-135M and patch features of EfficientNet-Lite2.

    Args:
        **settings: fields of `SageConfig`, arguments of `SageProcessor`, and `base_kwargs` of `from_base`.

    Returns:
        The model with untrained SAGE parts, and its processor.

    Raises:
        InputError: the weights are neither installed nor can they be fetched.
    """
    from transformers import AutoTokenizer

    from sage_ad.vlm.weights.embedded import smollm2_folder

    folder = smollm2_folder()
    for_processor = {k: settings.pop(k) for k in inspect.signature(SageProcessor).parameters if k in settings}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = SageProcessor.from_base(tokenizer, **{**EMBEDDED_PLACEHOLDERS, **for_processor})
    settings.setdefault("patch_channels", EFFICIENTNET_LITE2_CHANNELS)
    return from_base(folder, processor=processor, **settings), processor


def _around(model: PreTrainedModel, config: SageConfig) -> SageForConditionalGeneration:
    """Builds the shell without a second copy of the base's weights, then sets the base in."""
    with torch.device("meta"):
        sage = SageForConditionalGeneration(config)
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    sage.fusion.to_empty(device=weight.device)
    for module in sage.fusion.modules():
        sage._init_weights(module)
    sage.fusion.to(weight.dtype)
    if sage.fusion.state_evidence is not None:
        sage.fusion.state_evidence.float()
    sage.base = model
    sage.all_tied_weights_keys = {
        f"base.{k}": f"base.{v}" for k, v in (getattr(model, "all_tied_weights_keys", None) or {}).items()
    }
    if (placed := getattr(model, "hf_device_map", None)) is not None:
        places: Any = {f"base.{k}" if k else "base": v for k, v in placed.items()}
        sage.hf_device_map = places | {"fusion": str(weight.device)}
    return sage


def _load(name: str, patch_channels: int | None, kwargs: dict[str, Any]) -> PreTrainedModel:
    auto = AutoModelForCausalLM if patch_channels is not None else AutoModelForImageTextToText
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if patch_channels is None and type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise InputError(
                f"The model {name!r} ({config.model_type}) does not read pictures; name a vision-language model, or "
                "set patch_channels to use it with a frozen encoder."
            )
        return auto.from_pretrained(name, trust_remote_code=False, **kwargs)
    except (OSError, ValueError, UnpicklingError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            f"The base model {name!r} cannot be loaded ({first}); give a Hugging Face name or folder."
        ) from None


def _require_eyes(model: PreTrainedModel) -> None:
    """A base that merges features in its own forward and shows how; else a sentence that says what is missing."""
    wanted = "mm_encoder_outputs"
    if not hasattr(model, "get_image_features") or wanted not in inspect.signature(model.forward).parameters:
        raise InputError(
            f"{type(model).__name__} cannot be wrapped: it lacks get_image_features or the argument {wanted}; "
            "use a model such as Qwen2.5-VL, InternVL or SmolVLM, or set patch_channels for a language model."
        )
