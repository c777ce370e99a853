"""SAGE: a vision-language model that sees what differs from good parts, reads facts, and says what its evidence says.

The input of the language model is [LN-Proj(image); LN-Proj(t^s); question] (Eq. 9), where t^s are the facts fused with
the distinct patches (Eq. 1 in `vlm.evidence.patch_matching`, Eq. 2 in `vlm.sage.fusion`). What it is built on is one of two:

- a vision-language model of Hugging Face: its own image features are used for all three equations;
- a language model alone: pictures come as patch features of a frozen encoder (`config.patch_channels`), cached or not.

`sage_ad.vlm.sage.wrapping` makes both from pretrained parts. Nothing here reads files or pictures.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from sage_ad.vlm.sage.configuration_sage import SageConfig
from sage_ad.vlm.sage.embedding_hook import flat_rows, last_places, project_rows, vectors_at
from sage_ad.vlm.sage.encoding import REFERENCE, PatchEncoding
from sage_ad.vlm.sage.modules import SageFusion, start_weights
from sage_ad.vlm.sage.verdict_token import VerdictTokenFirst, answer_starts


class SagePreTrainedModel(PreTrainedModel):
    """Settings and weights of SAGE as Hugging Face handles them."""

    config_class = SageConfig
    base_model_prefix = "sage_model"
    input_modalities = ["image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["PatchAdapter", "FusionAttention", "LNProjection"]  # noqa: RUF012 (Hugging Face's attribute)
    _keep_in_fp32_modules_strict = ["state_evidence"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        start_weights(module, self.config.embedding_std)


class SageForConditionalGeneration(PatchEncoding, SagePreTrainedModel, GenerationMixin):
    """SAGE around a base model: Eq. 1, Eq. 2 and Eq. 9 in training and in generation alike.

    `sage_ad.vlm.sage.wrapping.from_base` wraps a pretrained model; `from_pretrained` loads what `save_pretrained` wrote.
    """

    def __init__(self, config: SageConfig) -> None:
        super().__init__(config)
        auto = AutoModelForImageTextToText if config.patch_channels is None else AutoModelForCausalLM
        self.base: Any = auto.from_config(config.base_config)
        self.fusion: Any = SageFusion(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings of the base model."""
        return self.base.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings of the base model."""
        self.base.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The base model's map to logits."""
        return self.base.get_output_embeddings()

    # ---- pictures and facts to tokens -----------------------------------------------------------------------------

    def _see(self, input_ids: torch.Tensor, inputs: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Image tokens for the language model, patches of the test images, and unit vectors of both sides for Eq. 1."""
        if self.fusion.adapter is not None:
            shown, *others = super()._see(input_ids, inputs)
            return shown and BaseModelOutputWithPooling(pooler_output=shown), *others
        rows: list[int] | None = None
        if (counted := inputs.pop("reference_rows", None)) is not None:
            rows = counted.tolist()
        given = {k.removeprefix(REFERENCE): inputs.pop(k) for k in list(inputs) if k.startswith(REFERENCE)}
        if inputs.get("pixel_values") is None:
            return None, None, None, None
        shown = self._image_features(inputs)
        inputs.pop("pixel_values")
        tokens = (input_ids == self.config.image_token_id).sum(dim=1).tolist()
        patches = flat_rows(shown.pooler_output).split(tokens)
        if self.config.show_reference and rows is not None:
            reference = [p[:n] for p, n in zip(patches, rows, strict=True)]
            patches = tuple(p[n:] for p, n in zip(patches, rows, strict=True))
        else:
            reference = None
            if given.get("pixel_values") is not None and rows is not None:
                reference = list(flat_rows(self._image_features(given).pooler_output).split(rows))
        match = [F.normalize(p.detach().float(), dim=-1) for p in patches]
        if reference is not None:
            reference = [F.normalize(r.detach().float(), dim=-1) for r in reference]
        shown.pooler_output = project_rows(self.fusion.image_projection, shown.pooler_output)
        return shown, patches, reference, match

    def _image_features(self, inputs: dict[str, Any]) -> BaseModelOutputWithPooling:
        wanted = inspect.signature(self.base.get_image_features).parameters
        given = {k: v for k, v in inputs.items() if k in wanted and k != "kwargs" and v is not None}
        return self.base.get_image_features(**given, return_dict=True)

    # ---- forward --------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        pixel_values: torch.Tensor | None = None,
        patch_features: torch.Tensor | None = None,
        patch_evidence: torch.Tensor | None = None,
        reference_features: torch.Tensor | None = None,
        reference_rows: torch.LongTensor | None = None,
        distinct: torch.LongTensor | None = None,
        fact_ids: torch.LongTensor | None = None,
        fact_attention_mask: torch.Tensor | None = None,
        fact_embeddings: torch.Tensor | None = None,
        evidence_log_odds: torch.Tensor | None = None,
        state_mask: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        fact_features: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        batch_num_images: torch.LongTensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next tokens, and the loss where labels are given.

        Args:
            input_ids: (batch, length) with placeholders `config.image_token_id` and `config.fact_token_id`.
            pixel_values: the test images, as the base model's processor makes them; with it go `image_grid_thw`,
                `image_sizes`, `batch_num_images`, `pixel_attention_mask` and `mm_token_type_ids` where the base has
                them, and the same for references under names that begin with `reference_`.
            patch_features: (batch, h, w, C) unit-length vectors of a frozen encoder, for a base without eyes.
            patch_evidence: (batch, h, w) how unlike the references each patch is, 0 usual and 1 at the threshold.
            reference_features: (references, h, w, C) of all samples one after another.
            reference_rows: (batch,) how many reference patches belong to each sample; 0 is zero-shot.
            distinct: (batch, K) indices of distinct patches if they are known (-1 fills up); else Eq. 1 finds them.
            fact_ids: (batch, L, tokens) the fact sentences; `fact_attention_mask` is 0 at padding.
            fact_embeddings: (batch, L, C) in their place when `config.fact_channels` is set.
            evidence_log_odds: (batch,) calibrated log(P(anomalous) / P(normal)); NaN where nothing was measured.
            state_mask: (batch, length) true where a verdict token comes next; default: after `config.answer_header`.
            mm_encoder_outputs: image tokens of `encode`, in place of pixels or patch features.
            fact_features: (batch, L, width) fused facts of `encode`, in place of `fact_ids`.
            labels: (batch, length), -100 where nothing is learnt.

        Raises:
            ValueError: placeholders and images or facts do not match in number, or the evidence has no place to go.
        """
        inputs = {
            "pixel_values": pixel_values, "patch_features": patch_features, "patch_evidence": patch_evidence,
            "reference_features": reference_features, "reference_rows": reference_rows, "distinct": distinct,
            "fact_ids": fact_ids, "fact_attention_mask": fact_attention_mask, "fact_embeddings": fact_embeddings,
            "image_grid_thw": image_grid_thw, "image_sizes": image_sizes, "batch_num_images": batch_num_images,
            "pixel_attention_mask": pixel_attention_mask, "mm_token_type_ids": mm_token_type_ids, **kwargs,
        }  # fmt: skip
        encoded = {"mm_encoder_outputs": mm_encoder_outputs or {}, "fact_features": fact_features}
        if not encoded["mm_encoder_outputs"] and input_ids is not None:
            encoded |= self.encode(input_ids, inputs)
        inputs = {k: v for k, v in inputs.items() if v is not None and k not in _USED_BY_SAGE}
        if position_ids is None and not self._rotates_in_3d():
            position_ids = _positions(attention_mask, input_ids if input_ids is not None else inputs_embeds)  # type: ignore[assignment]
        safe_ids, places, vectors, images = self._placed(input_ids, encoded)
        with vectors_at(self.get_input_embeddings(), places, vectors):
            output = self.base(
                input_ids=safe_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                use_cache=use_cache,
                logits_to_keep=last_places(logits_to_keep, input_ids if input_ids is not None else inputs_embeds),
                return_dict=True,
                **images,
                **_accepted(self.base, inputs),
            )
        logits = self._with_evidence(output.logits, input_ids, evidence_log_odds, state_mask, logits_to_keep)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **_loss_kwargs(kwargs))
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _placed(
        self, input_ids: torch.Tensor | None, encoded: dict[str, Any]
    ) -> tuple[torch.Tensor | None, list[torch.Tensor], list[torch.Tensor], dict[str, Any]]:
        """Ids that the base may look up, the placeholders' places, the vectors for them, the base's own images."""
        if input_ids is None:
            return None, [], [], {}
        places, vectors = [], []
        facts, images = encoded["fact_features"], encoded["mm_encoder_outputs"]
        where = input_ids == self.config.fact_token_id
        safe = input_ids.masked_fill(where, 0)
        if facts is not None:
            counts = where.sum(dim=1).tolist()
            if max(counts) > facts.shape[1]:
                raise ValueError(f"a prompt has {max(counts)} fact placeholders for {facts.shape[1]} facts")
            places.append(where)
            vectors.append(torch.cat([row[:n] for row, n in zip(facts, counts, strict=True)]))
        elif where.any():
            raise ValueError("the prompt has fact placeholders but no facts were given")
        if self.fusion.adapter is not None:
            where = input_ids == self.config.image_token_id
            safe = safe.masked_fill(where, 0)
            if images.get("image") is not None:
                places.append(where)
                vectors.append(flat_rows(images["image"].pooler_output))
            images = {}
        return safe, places, vectors, {"mm_encoder_outputs": images} if images else {}

    def _with_evidence(
        self,
        logits: torch.Tensor,
        input_ids: torch.Tensor | None,
        evidence: torch.Tensor | None,
        state_mask: torch.Tensor | None,
        logits_to_keep: int | torch.Tensor,
    ) -> torch.Tensor:
        state = self.fusion.state_evidence
        if state is None or evidence is None or input_ids is None:
            return logits
        if self.config.state_words is None or (state_mask is None and not self.config.answer_header):
            raise ValueError("evidence_log_odds needs config.state_words, and state_mask or config.answer_header")
        where = answer_starts(input_ids, self.config.answer_header) if state_mask is None else state_mask.bool()
        if isinstance(logits_to_keep, torch.Tensor):
            where = where[:, logits_to_keep]
        else:
            where = where[:, -logits.shape[1] :]
        return state(logits, evidence, where, self.state_ids)

    @property
    def state_ids(self) -> tuple[int, int]:
        """First tokens of the words "normal" and "anomalous"."""
        if self.config.state_words is None:
            raise ValueError("config.state_words is not set; from_base sets it when it is given the processor")
        normal, anomalous = self.config.state_words
        return normal[0], anomalous[0]

    def state_log_odds(self, **inputs: Any) -> torch.Tensor:
        """The model's own log(P(anomalous) / P(normal)), (batch,), for prompts that end where the answer begins."""
        logits = self(**inputs, logits_to_keep=1).logits[:, -1].float()
        normal, anomalous = self.state_ids
        return logits[:, anomalous] - logits[:, normal]

    def _rotates_in_3d(self) -> bool:
        return hasattr(getattr(self.base, "model", None), "get_rope_index")

    # ---- generation -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, inputs: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Writes answers, as `GenerationMixin.generate`; pictures and facts are encoded once, before the first token.

        Takes the arguments of `forward` beside those of Hugging Face's `generate`. With `config.state_first` an answer
        starts with a verdict token, moved by `evidence_log_odds` where they are given; `state_first=False` lets it begin
        freely (for prompts that end inside an answer).
        """
        input_ids = kwargs.pop("input_ids", inputs)
        if input_ids is not None and not kwargs.get("mm_encoder_outputs"):
            kwargs |= self.encode(input_ids, kwargs)
        kwargs = {k: v for k, v in kwargs.items() if v is not None and k not in _USED_UP_BY_ENCODING}
        state_first = kwargs.pop("state_first", self.config.state_first)
        if input_ids is not None and state_first and self.config.state_words is not None:
            first = VerdictTokenFirst(self.config.state_words, input_ids.shape[1])
            kwargs["logits_processor"] = LogitsProcessorList([*kwargs.get("logits_processor", []), first])
        return GenerationMixin.generate(self, input_ids=input_ids, **kwargs)  # type: ignore[arg-type]

    def generate_shared(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Answers several questions about one part; see `sage_ad.vlm.sage.shared_prefix.generate_shared`."""
        from sage_ad.vlm.sage.shared_prefix import generate_shared

        return generate_shared(self, input_ids, attention_mask, **kwargs)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Facts and evidence act on the prompt; later tokens see them through the key-value cache."""
        inputs = GenerationMixin.prepare_inputs_for_generation(self, *args, **kwargs)  # type: ignore[arg-type]
        if not kwargs.get("is_first_iteration") and kwargs.get("use_cache", True):
            for name in ("fact_features", "evidence_log_odds", "state_mask"):
                inputs.pop(name, None)
        return inputs

    def _prepare_position_ids_for_generation(self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]) -> Any:
        # The base knows how it counts positions (Qwen's are three-dimensional).
        return self.base._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)


_USED_UP_BY_ENCODING = {"pixel_values", "pixel_attention_mask", "image_sizes", "batch_num_images"}
_USED_BY_SAGE = _USED_UP_BY_ENCODING | {
    "patch_features", "patch_evidence", "reference_features", "reference_rows", "distinct",
    "fact_ids", "fact_attention_mask", "fact_embeddings",
}  # fmt: skip


def _positions(attention_mask: torch.Tensor | None, ids: torch.Tensor | None) -> torch.Tensor | None:
    """Positions that do not count padding, so that a batch equals its samples; None when there is no padding mask."""
    if attention_mask is None or attention_mask.ndim != 2 or ids is None:
        return None
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]


def _accepted(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the base model's forward names, and what Hugging Face passes through every forward."""
    named = inspect.signature(model.forward).parameters
    passed = ("output_attentions", "output_hidden_states", "cache_position", "cache_params")
    return {k: v for k, v in inputs.items() if k in named or k in passed}


def _loss_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k in ("num_items_in_batch", "ignore_index", "shift_labels")}


AutoModelForImageTextToText.register(SageConfig, SageForConditionalGeneration, exist_ok=True)
