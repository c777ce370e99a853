"""What alignment leaves as it is: the visual encoder, and SAGE's fusion attention (section 2 of the paper)."""

from __future__ import annotations

import re
from typing import Any

_ENCODERS = {"vision_tower", "visual", "vision_model", "vision_encoder", "image_tower"}
_ADAPTERS = {"merger"}
"""Parts of an encoder module that are the adapter to the language model, and so are trained."""

_FUSION = {"fusion.attention", "fusion.fact_projection", "fusion.state_evidence"}
_COPIES = re.compile(r"\.(modules_to_save\.[^.]+|original_module)(?=\.)")


def is_frozen(name: str) -> bool:
    """Whether a parameter of this name belongs to the visual encoder, the fusion attention or the evidence's calibration.

    With the attention go the projection behind it and the weight of the evidence in the verdict, which stage 1 set.
    """
    # PEFT keeps what it trains whole beside the original: the part is the same.
    name = _COPIES.sub("", name)
    parts = name.split(".")
    return bool(_ENCODERS & set(parts) and not _ADAPTERS & set(parts)) or any(
        f".{inner}." in f".{name}." for inner in _FUSION
    )


def freeze(model: Any) -> list[str]:
    """Takes the frozen parts out of training, adapters on them too; returns the names of their parameters."""
    frozen = []
    for name, parameter in model.named_parameters():
        if is_frozen(name):
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen
