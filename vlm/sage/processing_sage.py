"""Pictures, questions and facts to the inputs of a SAGE model: [image; facts; assist prompt; question] (Eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.sage.configuration_sage import SageConfig
from sage_ad.vlm.sage.prompts import FactMode, SagePrompts

BASE_FOLDER = "base_processor"
VIDEO = "video_processor"


class SageProcessor(SagePrompts, ProcessorMixin):
    """Makes the inputs of `SageForConditionalGeneration`, and the labels where answers are given.

    Around a vision-language model it uses that model's own processor (`base`) for pictures and chat template. For a
    language model alone, pictures become patch features of a frozen encoder, unless you give cached features.

    Args:
        tokenizer: the language model's tokenizer, with a chat template.
        base: processor of the wrapped vision-language model; None for a language model alone.
        fact_token, image_token, facts, max_facts, image_side, show_reference: see `SagePrompts`.
        encoder: name of the frozen encoder (`vlm.evidence.encoders.load_encoder`), its picture size, and the side of the grid
            on which patch features are given to the model.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        chat_template: str | None = None,
        base: Any = None,
        fact_token: str = "<|fact|>",
        image_token: str = "<|image|>",
        facts: FactMode = "soft",
        max_facts: int = 6,
        image_side: int = 6,
        show_reference: bool = False,
        encoder: str = "efficientnet-lite2",
        encoder_size: int = 320,
        encoder_side: int = 20,
        has_base: bool = False,
    ) -> None:
        ProcessorMixin.__init__(self, tokenizer, chat_template=chat_template or tokenizer.chat_template)
        SagePrompts.__init__(
            self, tokenizer, fact_token=fact_token, image_token=image_token, facts=facts, max_facts=max_facts,
            image_side=image_side, show_reference=show_reference, has_base=has_base or base is not None,
        )  # fmt: skip
        self.encoder, self.encoder_size, self.encoder_side = encoder, encoder_size, encoder_side
        # Underscored: neither is written into processor_config.json.
        self._base = base
        self._loaded_encoder: Any = None

    @classmethod
    def from_base(cls, processor: Any, **settings: Any) -> SageProcessor:
        """Around the processor of a vision-language model, or around a tokenizer for a language model alone."""
        if hasattr(processor, "tokenizer"):
            template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
            return cls(processor.tokenizer, base=processor, chat_template=template, **settings)
        return cls(processor, **settings)

    # ---- saved and loaded ------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Settings for processor_config.json."""
        return {k: v for k, v in super().to_dict().items() if not k.startswith("_")}

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Writes tokenizer and settings, and the base processor into a folder of its own."""
        files = super().save_pretrained(str(save_directory), push_to_hub=push_to_hub, **kwargs)
        if self._base is not None:
            files += self._base.save_pretrained(str(Path(save_directory) / BASE_FOLDER)) or []
        return files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> SageProcessor:  # type: ignore[override]
        """Loads what `save_pretrained` wrote."""
        processor = super().from_pretrained(str(pretrained_model_name_or_path), **kwargs)
        if processor.has_base:
            kwargs.pop("subfolder", None)
            base = load_processor(str(pretrained_model_name_or_path), subfolder=BASE_FOLDER, **kwargs)
            base.tokenizer = processor.tokenizer
            processor._base = base
        return processor

    # ---- inputs and prompts ---------------------------------------------------------------------------------------

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Messages (or a list of conversations) to prompt text, to be given to the processor with `templated=True`."""
        several = bool(conversation) and isinstance(conversation[0], list)
        open_answer = kwargs.get("add_generation_prompt", True)
        prompts = [self._template(c, open_answer) for c in (conversation if several else [conversation])]
        return prompts if several else prompts[0]

    def _template(self, messages: list[dict[str, Any]], open_answer: bool = True) -> str:
        if self._base is not None:
            return self._base.apply_chat_template(messages, add_generation_prompt=open_answer, tokenize=False)
        return super()._template(messages, open_answer)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        references: Sequence[Any] | None = None,
        facts: Sequence[Sequence[str]] | None = None,
        fact_embeddings: Sequence[Any] | None = None,
        measured: Sequence[str | None] | None = None,
        evidence: Sequence[float | None] | None = None,
        answers: Sequence[str] | None = None,
        mode: FactMode | None = None,
        patch_features: torch.Tensor | None = None,
        reference_features: Sequence[torch.Tensor | None] | None = None,
        patch_evidence: torch.Tensor | None = None,
        templated: bool = False,
        return_tensors: str = "pt",
        **_unused: Any,
    ) -> BatchFeature:
        """Inputs of the model for a batch of questions.

        Args:
            images: a test picture for each question (PIL), or None for prompts without pictures.
            text: the questions; with `templated`, whole prompts from `apply_chat_template`, taken as they are.
            references: for each question a list of pictures of good parts, or None.
            facts: for each question its fact sentences.
            fact_embeddings: for each question an array (facts, channels), for models with `fact_channels`.
            measured: for each question a sentence of what was measured, or None.
            evidence: for each question the calibrated log-odds of "anomalous", or None.
            answers: gives `labels`; the answers are appended to the prompts.
            mode: "soft", "hard" or "none" in place of the processor's own mode.
            patch_features: cached features (batch, h, w, C) in place of pictures, for a language model alone.
            reference_features: for each question cached features (references, h, w, C), or None.
            patch_evidence: (batch, h, w), see `SageForConditionalGeneration.forward`.

        Raises:
            InputError: the lists do not fit together.
        """
        if return_tensors != "pt":
            raise InputError(
                f"SAGE makes PyTorch tensors only, so return_tensors={return_tensors!r} is not possible; use 'pt'."
            )
        questions = [text] if isinstance(text, str) else list(text or [])
        images = None if images is None else list(images) if isinstance(images, list | tuple) else [images]
        batch = len(questions)
        given = {"images": images, "references": references, "facts": facts, "answers": answers, "evidence": evidence,
                 "measured": measured, "patch_features": patch_features, "reference_features": reference_features,
                 "fact_embeddings": fact_embeddings}  # fmt: skip
        for name, value in given.items():
            if value is not None and len(value) != batch:
                raise InputError(f"There are {batch} questions but {len(value)} {name}; give one for each question.")
        known: Sequence[Any] = references if references is not None else [None] * batch
        pictured = images is not None or patch_features is not None
        prompts = questions if templated else self._prompts(questions, given, pictured, mode)
        rows, inputs = (
            self._wrapped(prompts, images, known) if self.has_base else self._alone(prompts, images, known, given)
        )
        inputs |= {} if patch_evidence is None else {"patch_evidence": patch_evidence}
        if pictured and (mode or self.facts) == "soft":
            inputs |= self._fact_inputs(facts, fact_embeddings)
        if evidence is not None:
            inputs["evidence_log_odds"] = torch.tensor([float("nan") if e is None else float(e) for e in evidence])
        return BatchFeature(self._padded(rows, answers) | inputs)

    def _prompts(self, questions: list[str], given: dict[str, Any], pictured: bool, mode: FactMode | None) -> list[str]:
        prompts = []
        for i, question in enumerate(questions):

            def nth(name: str, empty: Any, i: int = i) -> Any:
                value = given[name]
                return empty if value is None or value[i] is None else value[i]

            seen = nth("references", ()) if given["references"] is not None else nth("reference_features", ())
            embedded = given["fact_embeddings"]
            prompts.append(self._template(self.conversation(
                question, nth("facts", ()), references=len(seen), measured=nth("measured", None), image=pictured,
                mode=mode, fact_count=None if embedded is None else len(embedded[i]),
            )))  # fmt: skip
        return prompts

    def _padded(self, rows: dict[str, list[list[int]]], answers: Sequence[str] | None) -> dict[str, torch.Tensor]:
        """Prompts (with answers) padded on the left; labels where there are answers."""
        ids = rows["input_ids"]
        ends = [[] for _ in ids] if answers is None else [self._ids(a + self.tokenizer.eos_token) for a in answers]
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": -100}
        rows = {name: [p + (e if name == "input_ids" else [0] * len(e)) for p, e in zip(v, ends, strict=True)]
                for name, v in rows.items()}  # fmt: skip
        rows["attention_mask"] = [[1] * len(row) for row in rows["input_ids"]]
        if answers is not None:
            rows["labels"] = [[-100] * len(p) + e for p, e in zip(ids, ends, strict=True)]
        longest = max(map(len, rows["input_ids"]))
        return {
            name: torch.tensor([[fill.get(name, 0)] * (longest - len(row)) + row for row in value])
            for name, value in rows.items()
        }

    # ---- a language model alone ------------------------------------------------------------------------------------

    def _alone(
        self, prompts: list[str], images: Any, references: Sequence[Any], given: dict[str, Any]
    ) -> tuple[dict[str, list[list[int]]], dict[str, torch.Tensor]]:
        inputs: dict[str, torch.Tensor] = {}
        features, known = given["patch_features"], given["reference_features"]
        if features is None and images is not None:
            features = self.encode_images(images)
            known = [self.encode_images(list(r)) if r else None for r in references]
        if features is not None:
            inputs["patch_features"] = features
        if known is not None and (there := [k for k in known if k is not None]):
            inputs["reference_features"] = torch.cat(there)
            inputs["reference_rows"] = torch.tensor([0 if k is None else k[..., 0].numel() for k in known])
        tokens = self.image_token * self.image_side**2
        return {"input_ids": [self._ids(p.replace(self.image_token, tokens)) for p in prompts]}, inputs

    def encode_images(self, images: Sequence[Any]) -> torch.Tensor:
        """Patch features of the frozen encoder on the model's grid, (n, side, side, C); what caches keep."""
        if self._loaded_encoder is None:
            from sage_ad.vlm.evidence.encoders import load_encoder

            self._loaded_encoder = load_encoder(self.encoder)
        return self._loaded_encoder.encode(list(images), self.encoder_size).resampled(self.encoder_side)

    # ---- around a vision-language model ----------------------------------------------------------------------------

    def _wrapped(
        self, prompts: list[str], images: Any, references: Sequence[Any]
    ) -> tuple[dict[str, list[list[int]]], dict[str, torch.Tensor]]:
        if images is None:
            return {"input_ids": [self._ids(p) for p in prompts]}, {}
        shown = [[*(r or ()), i] if self.show_reference else [i] for r, i in zip(references, images, strict=True)]
        made = self._base(images=shown, text=prompts, padding=True, return_tensors="pt", add_special_tokens=False)
        keep = made.pop("attention_mask").bool()
        rows = {name: [row[k].tolist() for row, k in zip(made.pop(name), keep, strict=True)]
                for name in ("input_ids", "mm_token_type_ids") if name in made}  # fmt: skip
        inputs = dict(made)
        there = [list(r) for r in references if r]
        if there:
            alone = [self._template([{"role": "user", "content": [{"type": "image"}] * len(r)}]) for r in there]
            seen = self._base(images=there, text=alone, padding=True, return_tensors="pt", add_special_tokens=False)
            image_id = (
                self._base.image_token_id if hasattr(self._base, "image_token_id") else self._ids(self.image_token)[0]
            )
            counts = iter((seen.pop("input_ids") == image_id).sum(dim=1).tolist())
            inputs["reference_rows"] = torch.tensor([next(counts) if r else 0 for r in references])
            if not self.show_reference:
                unwanted = ("attention_mask", "mm_token_type_ids")
                inputs |= {"reference_" + k: v for k, v in seen.items() if k not in unwanted}
        return rows, inputs


AutoProcessor.register(SageConfig, SageProcessor, exist_ok=True)


def load_processor(source: str, config: Any = None, **kwargs: Any) -> Any:
    """Loads a processor, without its video part where torchvision is missing.

    Qwen2.5-VL, SmolVLM, InternVL and others come with a video part that cannot be made without torchvision, although an
    inspection shows pictures only.

    Args:
        source: name or folder of the model.
        config: the model's configuration, which tells the processor's class where its own files do not.
        **kwargs: passed to `from_pretrained` (`local_files_only`, `subfolder`, ...).

    Raises:
        ImportError: another library is missing.
        OSError: files are missing.
    """
    kwargs["trust_remote_code"] = False
    try:
        return AutoProcessor.from_pretrained(source, **kwargs)
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and "video processor" not in str(error):
            raise  # saved whole, but not all there; what `pictures_only` saved lacks the video part by design
        kind = _processor_class(source, config, kwargs)
        if kind is None or VIDEO not in kind.get_attributes():
            raise
        return pictures_only(kind).from_pretrained(source, **kwargs)


def pictures_only(kind: type) -> Any:
    """A processor class without its video part, under the same name, so that what it saves loads everywhere.

    Example:
        >>> pictures_only(Qwen2_5_VLProcessor)(image_processor, tokenizer)  # doctest: +SKIP
    """

    class PicturesOnly(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != VIDEO]

    PicturesOnly.__name__ = PicturesOnly.__qualname__ = kind.__name__
    return PicturesOnly


def _processor_class(source: str, config: Any, kwargs: dict[str, Any]) -> Any:
    """The processor's class, by the name in its own files or by the model's configuration; None if neither tells."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        settings, _ = transformers.ProcessorMixin.get_processor_dict(source, **kwargs)
    except OSError:
        settings = {}
    named = getattr(transformers, settings.get("processor_class", ""), None)
    return named or (PROCESSOR_MAPPING.get(type(config), None) if config is not None else None)
