"""A trained SAGE model with a frozen encoder as a back end: whole parts with soft facts, and plain text as any other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.backends.base import Capabilities
from sage_ad.vlm.backends.huggingface import HuggingFaceBackend
from sage_ad.vlm.devices import pick_device
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.loaded import loaded_once
from sage_ad.vlm.sage.generation import UNCALIBRATED, OnText, PartQuery, PartReply, answer_parts

if TYPE_CHECKING:
    import torch

    from sage_ad.vlm.sage.inference import SageInference
    from sage_ad.vlm.sage.processing_sage import SageProcessor
    from sage_ad.vlm.sage.prompts import FactMode, SagePrompts
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
        self.sage: Any = model.eval()
        self.sage_processor: SagePrompts = processor
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


class EmbeddedSageBackend(SageBackend):
    """SAGE on the embedded language model, whose parts are answered without transformers' models (see `SageInference`).

    These are loaded for plain text, when it is first asked for.

    Args:
        model: reads parts and answers.
        prompts: its prompts.
        name: how the model is called in traces.
        folder: its checkpoint.
        dtype: of its weights.
    """

    _writes_facts = False

    def __init__(
        self, model: SageInference, prompts: SagePrompts, *, name: str, folder: Path, dtype: torch.dtype
    ) -> None:
        HuggingFaceBackend.__init__(self, None, prompts.tokenizer, name=name)
        self.sage, self.sage_processor = model, prompts
        self._folder, self._dtype = folder, dtype
        self._generate_settings = {"suppress_tokens": [model.config.image_token_id, model.config.fact_token_id]}

    @cached_property
    def model(self) -> Any:
        """The language model by itself, with what it learnt."""
        from sage_ad.vlm.sage.checkpoint import load_checkpoint

        return load_checkpoint(self._folder, dtype=self._dtype)[0].base.to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.sage.get_input_embeddings().weight.device


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
    from sage_ad.vlm.sage.checkpoint import EMBEDDED_BASE, load_checkpoint, load_for_inference, read_settings
    from sage_ad.vlm.weights.embedded import smollm2_checked_meanwhile, smollm2_folder

    if dtype not in ("auto", "bfloat16", "float32"):
        raise InputError(f"A SAGE checkpoint runs in bfloat16 or float32, not in {dtype!r}.")
    embedded = read_settings(folder)["base"] == EMBEDDED_BASE
    with smollm2_checked_meanwhile() if embedded else contextlib.nullcontext():
        import torch
        from transformers.utils import logging
    logging.disable_progress_bar()
    place = pick_device(device)

    def load() -> HuggingFaceBackend:
        precision, called = torch.float32 if dtype == "float32" else torch.bfloat16, name or folder.name
        if embedded:
            smollm2_folder(progress)
            reader, prompts = load_for_inference(folder, dtype=precision, device=place)
            return EmbeddedSageBackend(reader, prompts, name=called, folder=folder, dtype=precision)
        model, processor, _ = load_checkpoint(folder, dtype=precision)
        kind: type[HuggingFaceBackend] = SageBackend
        if processor.has_base:
            from sage_ad.vlm.backends.wrapped_backend import WrappedSageBackend

            kind = WrappedSageBackend
        return kind(model.to(place), processor, name=called)

    # Larger models are their caller's to keep or to let go.
    return loaded_once(load_sage, str(folder.resolve()), place, dtype, given=load) if embedded else load()
