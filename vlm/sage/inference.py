"""SAGE on the embedded language model, for inference alone: no gradients, no pictures, none of transformers' models.

It reads and writes as `SageForConditionalGeneration` does, word for word; `sage_ad.vlm.sage.generation` takes either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from sage_ad.vlm.sage.encoding import PatchEncoding
from sage_ad.vlm.sage.modules import EFFICIENTNET_LITE2_CHANNELS, SageFusion, heads_of
from sage_ad.vlm.sage.prompts import SagePrompts
from sage_ad.vlm.weights.smollm2 import END, WIDTH, KeyValueCache, SmolLM2


@dataclass(frozen=True)
class InferenceSettings:
    """The fields of `SageConfig` that inference reads; see there."""

    hidden_size: int
    patch_channels: int
    fusion_heads: int
    image_token_id: int
    fact_token_id: int
    state_words: list[list[int]]
    image_side: int = 6
    show_reference: bool = False
    distinct: int = 16
    matching: str = "nearest"
    zero_shot: str = "all"
    fusion_residual: bool = False
    evidence: str = "gated"
    calibration: Mapping[str, list[float]] | None = None
    fact_channels: None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], prompts: SagePrompts) -> InferenceSettings:
        """Those of a checkpoint (`sage.json`) on the embedded language model."""
        of_base = {
            "hidden_size": WIDTH, "patch_channels": EFFICIENTNET_LITE2_CHANNELS, "fusion_heads": heads_of(WIDTH),
        }  # fmt: skip
        given = of_base | prompts.model_settings() | dict(config)
        return cls(**{name: value for name, value in given.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Read:
    """What reading gives, by the names of Hugging Face: logits (rows, 1, vocabulary) behind the last token, and the cache."""

    logits: torch.Tensor
    past_key_values: KeyValueCache


class SageInference(PatchEncoding):
    """A trained model, LoRA folded in.

    Args:
        settings: of the model.
        weights: of the language model (see `SmolLM2`).
        fusion: `state_dict` of its `SageFusion`.
    """

    generation_config = SimpleNamespace(eos_token_id=END)
    """What ends a text, by Hugging Face's names."""

    def __init__(
        self, settings: InferenceSettings, weights: Mapping[str, torch.Tensor], fusion: Mapping[str, torch.Tensor]
    ) -> None:
        self.config = settings
        self.language_model = SmolLM2(weights)
        embedding = self.language_model.embedding
        with torch.device("meta"):
            self.fusion = SageFusion(settings)
        like = {k: v if "state_evidence" in k else v.to(embedding.dtype) for k, v in fusion.items()}
        self.fusion.load_state_dict({k: v.to(embedding.device) for k, v in like.items()}, assign=True)
        self.fusion.requires_grad_(False).eval()
        self.state_ids = (settings.state_words[0][0], settings.state_words[1][0])
        self._embeddings = torch.nn.Embedding.from_pretrained(embedding)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """Token embeddings of the language model."""
        return self._embeddings

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        past_key_values: KeyValueCache | None = None,
        **inputs: Any,
    ) -> Read:
        """Reads tokens behind those of the cache.

        Args:
            input_ids: (rows, new).
            attention_mask: (rows, cached + new), 0 at padding.
            past_key_values: of the tokens before; it grows.
            **inputs: patch features and facts, as `SageForConditionalGeneration.forward` takes them.
        """
        cache = KeyValueCache() if past_key_values is None else past_key_values
        encoded = self.encode(input_ids, inputs)
        x = self._embeddings(input_ids)
        if (facts := encoded.get("fact_features")) is not None:
            where = input_ids == self.config.fact_token_id
            counts = where.sum(dim=1).tolist()
            rows = torch.cat([row[:count] for row, count in zip(facts, counts, strict=True)])
            x = x.masked_scatter(where[..., None], rows.to(x.dtype))
        if (shown := encoded.get("mm_encoder_outputs")) is not None:
            where = input_ids == self.config.image_token_id
            x = x.masked_scatter(where[..., None], torch.cat(shown["image"]).to(x.dtype))
        hidden = self.language_model.read(x, attention_mask, cache)
        return Read(self.language_model.logits(hidden[:, [-1]]), cache)

    def generate(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        past_key_values: KeyValueCache,
        max_new_tokens: int,
        streamer: Any = None,
        **_settings: Any,
    ) -> torch.Tensor:
        """Adds the likeliest token to each row until all have ended.

        Args:
            input_ids: (rows, tokens), of which the first are in the cache.
            attention_mask: (rows, tokens), 0 at padding.
            past_key_values: the cache; it grows.
            max_new_tokens: limit of what is added.
            streamer: as Hugging Face's `generate` takes it.

        Returns:
            (rows, tokens + added); rows that ended earlier are filled up with `END`.
        """
        placeholders = [self.config.image_token_id, self.config.fact_token_id]
        ids, mask = input_ids, attention_mask
        going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        if streamer is not None:
            streamer.put(ids)
        for _ in range(max_new_tokens):
            unread = ids[:, past_key_values.get_seq_length() :]
            logits = self(unread, mask, past_key_values).logits[:, -1].float()
            logits[:, placeholders] = -torch.inf
            token = logits.argmax(dim=-1).where(going, END)
            if streamer is not None:
                streamer.put(token)
            ids = torch.cat((ids, token[:, None]), dim=1)
            mask = F.pad(mask, (0, 1), value=1)
            going &= token != END
            if not going.any():
                break
        if streamer is not None:
            streamer.end()
        return ids
