"""A SAGE model around a vision-language model: pictures, soft facts and evidence in its own format, or free text.

`answer_part` asks as the model was trained (Eq. 9: image, fused facts, what was measured, question; the verdict token
first). Everything else of the interface uses the wrapped model as what it is, a model that reads pictures and writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sage_ad.vlm.backends.base import Capabilities
from sage_ad.vlm.backends.huggingface import HuggingFaceBackend

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.vlm.sage.processing_sage import SageProcessor
    from sage_ad.vlm.sage.prompts import FactMode

_OPENING = re.compile(r"^\s*(?:normal|anomalous)\b\W*(?:(?:true|false)\b\W*)?", re.IGNORECASE)


@dataclass(frozen=True)
class WrappedReply:
    """What a wrapped model says of one part.

    Attributes:
        log_odds: log(P(anomalous) / P(normal)) of its verdict token, mean over the questions, evidence included.
        texts: its answers, one a question, without state and verdict words.
    """

    log_odds: float
    texts: tuple[str, ...]


class WrappedSageBackend(HuggingFaceBackend):
    """A saved SAGE model whose base has eyes of its own.

    Args:
        model: a `SageForConditionalGeneration` around a vision-language model.
        processor: its `SageProcessor`.
        name: how the model is called in traces and messages.
        batch_size: the most prompts that run through the model at once.
    """

    def __init__(self, model: Any, processor: SageProcessor, *, name: str, batch_size: int = 16) -> None:
        super().__init__(model, processor._base, name=name, batch_size=batch_size)
        self.sage_processor = processor
        self._generate_settings = {"state_first": False}

    @property
    def capabilities(self) -> Capabilities:
        """What this model can do."""
        return Capabilities(
            images=True, soft_facts=True, logprobs=True, streaming=True, writes_facts=self._writes_facts
        )

    @property
    def trained_facts(self) -> FactMode:
        """How facts reached the model when it was trained: soft, hard or none."""
        mode: FactMode = self.sage_processor.facts
        return mode

    def evidence_log_odds(self, margin: float, compared: str) -> float:
        """The evidence's log-odds from its margin in spreads among good pictures, by how it was measured.

        Args:
            margin: (score - threshold) / spread, `Evidence.margin`.
            compared: "references" or "builtin".

        Returns:
            factor * margin + offset where the model was calibrated, else the margin itself, from which the trace's
            (uncalibrated) confidence is made.
        """
        factor, offset = (getattr(self.model.config, "calibration", None) or {}).get(compared, (1.0, 0.0))
        return factor * margin + offset

    def answer_part(
        self,
        picture: Image.Image,
        references: Sequence[Image.Image],
        questions: Sequence[str],
        *,
        facts: Sequence[str] = (),
        mode: FactMode = "soft",
        measured: str | None = None,
        log_odds: float | None = None,
        max_new_tokens: int = 48,
    ) -> WrappedReply:
        """Answers questions about one part; picture and facts are read once for all of them.

        Args:
            picture: the part; `references`: good parts, none for zero-shot.
            questions: in words.
            facts: fact sentences; `mode` says how they reach the model.
            measured: what the evidence says, in the words of `sage_ad.vlm.sage.processing_sage.measured_sentence`.
            log_odds: of the evidence; None where nothing was measured.
            max_new_tokens: limit of each answer.

        Raises:
            BackendError: the model failed.
        """
        rows = [
            self.sage_processor(
                images=[picture], text=[question], references=[list(references) or None], facts=[list(facts)],
                measured=[measured], evidence=[log_odds], mode=mode,
            )
            for question in questions
        ]  # fmt: skip
        with self._running():
            ids = self._stacked([row.pop("input_ids") for row in rows], self.tokenizer.pad_token_id)
            mask = self._stacked([row.pop("attention_mask") for row in rows], 0)
            inputs = {key: value.to(self._device) for key, value in rows[0].items()}
            if "mm_token_type_ids" in inputs:
                inputs["mm_token_type_ids"] = self._stacked([row["mm_token_type_ids"] for row in rows], 0)
            made = self.model.generate_shared(
                ids, mask, **inputs, max_new_tokens=max_new_tokens, do_sample=False, state_first=True,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        normal, anomalous = self.model.state_ids
        odds = made.logits[0][:, anomalous] - made.logits[0][:, normal]
        new = made.sequences[:, -len(made.logits) :]
        self.usage.add(int(mask.sum()), new.numel(), len(rows))
        texts = (self._decode(text) for text in new)
        return WrappedReply(float(odds.float().mean()), tuple(map(reason_of, texts)))

    def _stacked(self, rows: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
        """(1, length) tensors as one batch, padded on the left."""
        longest = max(row.shape[1] for row in rows)
        padded = [torch.nn.functional.pad(row, (longest - row.shape[1], 0), value=fill) for row in rows]
        return torch.cat(padded).to(self._device)


def reason_of(text: str) -> str:
    """An answer in SAGE's format ("anomalous. False. There is ...") without its state and verdict words."""
    return _OPENING.sub("", text).strip()
