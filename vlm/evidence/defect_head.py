"""A small head that tells what a defect tends to look like, for pictures without a reference.

It was trained on synthetic parts and defects and on the *train* group of real images (benchmarks/train_defect_head.py),
never on a product that it is measured on. It sees each patch relative to its own picture, so that it knows what stands
out here and not what any product looks like.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HEAD_FILE = Path(__file__).with_name("defect_head.safetensors")
_SOFTENING = 0.3
_LIMIT = 5.0


def relative_to_picture(context: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Raw features in units of the picture's own spread, channel by channel.

    Args:
        context: (h, w, D) raw features (`PatchFeatures.context`).
        mean: (D,) mean of each channel over the training pictures.
        spread: (D,) standard deviation of each channel over the training pictures.

    Returns:
        (h * w, D), limited to +-5. A channel that hardly varies in this picture is not blown up: its spread counts as
        at least 0.3 of what is usual.
    """
    values = (context.flatten(0, 1) - mean) / spread
    values = values - values.mean(dim=0)
    return (values / (values.std(dim=0) + _SOFTENING)).clamp(-_LIMIT, _LIMIT)


@lru_cache(maxsize=2)
def _weights(device: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(HEAD_FILE, device=device)


def defect_logits(context: torch.Tensor) -> torch.Tensor:
    """Log-odds that each patch shows a defect.

    Args:
        context: (h, w, 304) raw features of EfficientNet-Lite2 (`EfficientNetLite2.encode(..., context=True)`).

    Returns:
        (h, w) log-odds; below 0 for most patches of most pictures.
    """
    import torch.nn.functional as F

    weights = _weights(str(context.device))
    values = relative_to_picture(context, weights["mean"], weights["spread"])
    hidden = F.gelu(values @ weights["hidden.weight"].T + weights["hidden.bias"])
    return (hidden @ weights["out.weight"].T + weights["out.bias"]).reshape(context.shape[:2])
