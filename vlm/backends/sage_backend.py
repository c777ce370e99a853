"""A trained SAGE model with a frozen encoder as a back end: whole parts with soft facts, and plain text as any other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.backends.base import Capabilities
from sage_ad.vlm.backends.huggingface import HuggingFaceBackend
from sage_ad.vlm.devices import pick_device
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.loaded import loaded_once
from sage_ad.vlm.sage.generation import UNCALIBRATED, OnText, PartQuery, PartReply, answer_parts

if TYPE_CHECKING:
    from sage_ad.vlm.sage.processing_sage import FactMode, SageProcessor
    from sage_ad.vlm.weights.embedded import Progress

PARTS_AT_ONCE = 16
"""Parts whose questions go through the model together: memory grows with them, speed hardly beyond."""


class SageBackend(HuggingFaceBackend):
    """A SAGE model built on patch features: `answer_parts` is its own way, everything else writes plain text.

    Args:
        model: a `SageForConditionalGeneration` with a frozen encoder, LoRA folded in.
        processor: its processor.
        name: how the model is called in traces.
    """

    def __init__(self, model: Any, processor: SageProcessor, *, name: str) -> None:
        super().__init__(model.base, processor.tokenizer, name=name)
        self.sage, self.sage_processor = model.eval(), processor
        # The base's vocabulary holds SAGE's placeholders; written as words they would mean nothing.
        self._generate_settings = {"suppress_tokens": model.generation_config.suppress_tokens}

    @property
    def capabilities(self) -> Capabilities:
        """What this model can do; it sees through `answer_parts`, not through pictures in messages."""
        return Capabilities(soft_facts=True, logprobs=True, streaming=True, writes_facts=self._writes_facts)

    @property
    def trained_facts(self) -> FactMode:
        """How facts reached the model when it was trained: soft, hard or none."""
        mode: FactMode = self.sage_processor.facts
        return mode

    def answer_parts(
        self,
        queries: Sequence[PartQuery],
        *,
        mode: FactMode | None = None,
        max_new_tokens: int = 48,
        on_text: OnText | None = None,
    ) -> list[PartReply]:
        """Answers all questions about several parts; see `sage_ad.vlm.sage.generation.answer_parts`.

        Args:
            queries: the parts.
            mode: how facts reach the model; default: as it was trained.
            max_new_tokens: limit of each reason.
            on_text: is given the numbers of part (among those that run together) and question, and each new piece.
        """
        replies: list[PartReply] = []
        for start in range(0, len(queries), PARTS_AT_ONCE):
            with self._running():
                replies += answer_parts(
                    self.sage,
                    self.sage_processor,
                    queries[start : start + PARTS_AT_ONCE],
                    mode=mode or self.trained_facts,
                    calibration=self.sage.config.calibration or UNCALIBRATED,
                    max_new_tokens=max_new_tokens,
                    on_text=on_text,
                )
        return replies


def load_sage(
    folder: Path,
    *,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
) -> HuggingFaceBackend:
    """Loads a checkpoint of `sage_ad.vlm.sage.checkpoint`; one on the embedded model once per process, device and dtype.

    Args:
        folder: the checkpoint.
        name: how it is called; default: the folder's name.
        device: "auto", "cpu" or "cuda".
        dtype: "auto" (bfloat16) or "float32".
        progress: is given a line of text while the base's weights are unpacked for the first time.

    Raises:
        InputError: the folder is no checkpoint.
        BackendError: the weights cannot be loaded.
    """
    from sage_ad.vlm.commandline import quiet_libraries

    quiet_libraries()
    from sage_ad.vlm.sage.checkpoint import EMBEDDED_BASE, load_checkpoint, read_settings
    from sage_ad.vlm.weights.embedded import smollm2_checked_meanwhile, smollm2_folder

    if dtype not in ("auto", "bfloat16", "float32"):
        raise InputError(f"A SAGE checkpoint runs in bfloat16 or float32, not in {dtype!r}.")
    embedded = read_settings(folder)["base"] == EMBEDDED_BASE
    with smollm2_checked_meanwhile() if embedded else contextlib.nullcontext():
        import torch
        from transformers.utils import logging

        import sage_ad.vlm.sage.wrapping  # noqa: F401
    logging.disable_progress_bar()
    place = pick_device(device)

    def load() -> HuggingFaceBackend:
        if embedded:
            smollm2_folder(progress)
        model, processor, _ = load_checkpoint(folder, dtype=torch.float32 if dtype == "float32" else torch.bfloat16)
        kind: type[HuggingFaceBackend] = SageBackend
        if processor.has_base:
            from sage_ad.vlm.backends.wrapped_backend import WrappedSageBackend

            kind = WrappedSageBackend
        return kind(model.to(place), processor, name=name or folder.name)

    # Larger models are their caller's to keep or to let go.
    return loaded_once(load_sage, str(folder.resolve()), place, dtype, given=load) if embedded else load()
