"""Stops a training run that has gone wrong, before the wrong step is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from sage_ad.alignment.data.run_folder import last_checkpoint
from sage_ad.vlm.errors import BackendError


def stop(what: str, step: int, folder: str | Path) -> BackendError:
    """The error that ends a run: what happened, where, what to do, and what is left of the work."""
    good = last_checkpoint(folder)
    left = f"the last good checkpoint is {good}" if good else "no checkpoint had been written yet"
    return BackendError(
        f"Training stopped at step {step}: {what}; lower the learning rate or raise beta, then train again ({left})."
    )


class GradientGuard(TrainerCallback):
    """Ends the run before a gradient that is no number reaches the weights, so that every checkpoint is a good one."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks at all gradients; the largest entry is NaN or infinite if any is."""
        model = kwargs.get("model")
        grads = [p.grad for p in model.parameters() if p.grad is not None] if model is not None else []
        if grads and not bool(torch.stack([grad.abs().max().float() for grad in grads]).isfinite().all()):
            raise stop("a gradient is not a finite number", state.global_step + 1, self.folder)
