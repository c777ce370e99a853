"""Settings of a SAGE model: what it is built on, how it fuses facts, and how the evidence enters the verdict."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class SageConfig(PreTrainedConfig):
    """Settings of `SageForConditionalGeneration`.

    Attributes:
        base_config: configuration of the model that is wrapped: a vision-language model, or a language model alone
            (then `patch_channels` is set and pictures come as patch features of a frozen encoder).
        patch_channels: channels of given patch features; None when the base model has eyes of its own.
        image_side: patch features are pooled to `image_side` x `image_side` image tokens.
        image_token_id: placeholder of an image token in the prompt.
        fact_token_id: placeholder of a fused fact t^s in the prompt.
        show_reference: whether the reference's image tokens stand in the prompt, before those of the test image.
        distinct: K of Eq. 1.
        matching: inner operator of Eq. 1, a patch's best match ("nearest") or its worst ("paper").
        zero_shot: keys and values without a reference, all test patches ("all") or the K rarest ("rarity").
        fact_channels: length of given fact embeddings; None means the mean of the language model's token embeddings.
        fusion_heads: heads of the fusion attention, Eq. 2.
        fusion_residual: adds a projection of t^g to t^s (Eq. 2 has none).
        evidence: how the evidence's log-odds move the logits of the verdict tokens (see `StateEvidence`).
        calibration: how the margin of the evidence becomes log-odds, factor and offset by how it was measured
            ("references", "builtin"); fitted by `sage_ad.alignment.sft.calibration`.
        state_first: whether generation starts every answer with a verdict token.
        state_words: token ids of the words "normal" and "anomalous" at the start of an answer.
        answer_header: token ids that stand before every answer; how the model finds where a verdict token belongs.
        embedding_std: spread of the base model's token embeddings; new image and fact tokens start at the same scale.
        initializer_range: spread of the other new weights at the start.
    """

    model_type = "sage"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "base_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")
    }

    base_config: Any = None
    patch_channels: int | None = None
    image_side: int = 6
    image_token_id: int = 0
    fact_token_id: int = 1
    show_reference: bool = False
    distinct: int = 16
    matching: Literal["nearest", "paper"] = "nearest"
    zero_shot: Literal["all", "rarity"] = "all"
    fact_channels: int | None = None
    fusion_heads: int = 8
    fusion_residual: bool = False
    evidence: Literal["off", "added", "gated"] = "gated"
    calibration: dict[str, list[float]] | None = None
    state_first: bool = True
    state_words: list[list[int]] | None = None
    answer_header: list[int] | None = None
    embedding_std: float = 0.02
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.image_token_id == self.fact_token_id:
            raise ValueError("image_token_id and fact_token_id must differ: they mark different things in the prompt")
        if self.hidden_size % self.fusion_heads:
            raise ValueError(f"fusion_heads={self.fusion_heads} does not divide the hidden size {self.hidden_size}")

    @property
    def hidden_size(self) -> int:
        """Width of the language model, and of everything that SAGE adds."""
        return int(self.get_text_config().hidden_size)

    @property
    def vocab_size(self) -> int:
        """Tokens of the language model."""
        return int(self.get_text_config().vocab_size)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The language model's configuration, inside the base model's."""
        return self.base_config.get_text_config(decoder=decoder, encoder=encoder)


AutoConfig.register("sage", SageConfig, exist_ok=True)
