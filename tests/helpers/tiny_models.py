"""Tiny models with random weights, made from their configurations alone: same code paths as the real ones, no download.

Each `tiny_*` function gives a model of a few thousand weights. `tiny_tokenizer` knows enough words for inspection
sentences, byte by byte otherwise. `vision_inputs` makes by hand what a base model's processor would make.
"""

from __future__ import annotations

from typing import Any

import torch

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "normal anomalous True False there is no a scratch hole crack in the upper left centre right lower area . ?"
VOCABULARY = 320
IMAGE_ID, VIDEO_ID = 4, 5
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny_tokenizer(extra: tuple[str, ...] = ("<image>", "<video>")) -> Any:
    """Words of inspection sentences, single bytes for all else, and a chat template; ids: pad 0, start 1, end 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<|im_start|>", "<|im_end|>", "<unk>", *extra]
    words = [w if i == 0 else p for w in WORDS.split() for i, p in enumerate((w, "Ġ" + w))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys([*special, *alphabet]))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([w for w in dict.fromkeys(words) if not w.startswith("Ġ") and len(w) > 1])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<unk>"
    )
    tokenizer.add_tokens(list(extra), special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def seeded(make: Any, *args: Any, **kwargs: Any) -> Any:
    """Makes a model with the same random weights each time; larger ones than usual, so that inputs matter."""
    torch.manual_seed(0)
    model = make(*args, **kwargs).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15)
    return model


def tiny_language_model() -> Any:
    """A Llama, the family of SmolLM2."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return seeded(LlamaForCausalLM, LlamaConfig(**TEXT, tie_word_embeddings=True))


def tiny_llava() -> Any:
    """LLaVA: CLIP and Llama, 16 image tokens of a 32-pixel picture."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(**VISION, image_size=32, patch_size=8)
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=IMAGE_ID)
    return seeded(LlavaForConditionalGeneration, config)


def tiny_llava_folder(folder: Any) -> Any:
    """LLaVA with its processor, saved to a folder, as servers and `load_backend` take it; gives the folder."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tiny_llava().save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tiny_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def tiny_llava_onevision() -> Any:
    """LLaVA-OneVision: SigLIP and Qwen2, a base view and one tile of 32 pixels each."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    vision = SiglipVisionConfig(**VISION, image_size=32, patch_size=8)
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(**TEXT),
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
        image_grid_pinpoints=[[32, 32], [32, 64], [64, 32], [64, 64]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return seeded(LlavaOnevisionForConditionalGeneration, config)


def tiny_internvl() -> Any:
    """InternVL: its own vision model and Qwen2, 4 image tokens of a 32-pixel tile."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

    vision = InternVLVisionConfig(**VISION, image_size=[32, 32], patch_size=[8, 8])
    config = InternVLConfig(vision_config=vision, text_config=Qwen2Config(**TEXT), image_token_id=IMAGE_ID)
    return seeded(InternVLForConditionalGeneration, config)


def _idefics(model: str) -> Any:
    import transformers

    vision_class = getattr(transformers, f"{model}VisionConfig")
    vision = vision_class(**VISION, image_size=32, patch_size=8)
    config = getattr(transformers, f"{model}Config")(
        vision_config=vision.to_dict(),
        text_config=transformers.LlamaConfig(**TEXT).to_dict(),
        image_token_id=IMAGE_ID,
        scale_factor=2,
        pad_token_id=0,
    )
    return seeded(getattr(transformers, f"{model}ForConditionalGeneration"), config)


def tiny_idefics3() -> Any:
    """Idefics3: 4 image tokens of a 32-pixel tile."""
    return _idefics("Idefics3")


def tiny_smolvlm() -> Any:
    """SmolVLM: 4 image tokens of a 32-pixel tile."""
    return _idefics("SmolVLM")


def tiny_qwen2_5_vl() -> Any:
    """Qwen2.5-VL: 3-D positions, 16 image tokens of a 32-pixel picture."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16, "fullatt_block_indexes": [1],
    }  # fmt: skip
    rope = {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config={**TEXT, "rope_parameters": rope},
        image_token_id=IMAGE_ID,
        video_token_id=VIDEO_ID,
        vision_start_token_id=6,
        vision_end_token_id=7,
    )
    return seeded(Qwen2_5_VLForConditionalGeneration, config)


def tiny_qwen2_5_vl_processor() -> Any:
    """The processor of `tiny_qwen2_5_vl` without its video part: 16 image tokens for a square picture."""
    from transformers import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from sage_ad.vlm.sage.processing_sage import pictures_only

    pixels = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=32 * 32, max_pixels=32 * 32)
    words = tiny_tokenizer(("<|image_pad|>", "<|video_pad|>"))
    # As in the real template something stands between two pictures: positions are counted by runs of image tokens.
    template = TEMPLATE.replace("<image>", "(<|image_pad|>)")
    return pictures_only(Qwen2_5_VLProcessor)(pixels, words, chat_template=template)


def tiny_wrapped_folder(folder: Any) -> Any:
    """SAGE around `tiny_qwen2_5_vl`, with its processor, saved to a folder; gives the folder."""
    from sage_ad.vlm.sage.processing_sage import SageProcessor
    from sage_ad.vlm.sage.wrapping import from_base

    processor = SageProcessor.from_base(tiny_qwen2_5_vl_processor())
    base = tiny_qwen2_5_vl()
    model = from_base(base, processor=processor, distinct=3, fusion_heads=4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


WRAPPED = {
    "llava": tiny_llava,
    "llava_onevision": tiny_llava_onevision,
    "internvl": tiny_internvl,
    "idefics3": tiny_idefics3,
    "smolvlm": tiny_smolvlm,
    "qwen2_5_vl": tiny_qwen2_5_vl,
}
"""Vision-language models that `from_base` is tested with, by model type."""


def vision_inputs(kind: str, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], int]:
    """What the processor of a base model makes of pictures, and how many image tokens each picture takes.

    Args:
        kind: a key of `WRAPPED`.
        images: (n, 3, 32, 32).
    """
    n = len(images)
    if kind == "llava":
        return {"pixel_values": images}, 15 + 1 - 1 + 1  # 16 patches; the class token is cut off
    if kind == "llava_onevision":
        sizes = torch.tensor([[32, 32]] * n)
        return {"pixel_values": torch.stack((images, images.flip(-1)), dim=1), "image_sizes": sizes}, 16 + 4 * 5
    if kind == "internvl":
        return {"pixel_values": images}, 4
    if kind in ("idefics3", "smolvlm"):
        mask = torch.ones(n, 1, 32, 32, dtype=torch.bool)
        return {"pixel_values": images[:, None], "pixel_attention_mask": mask}, 4
    if kind == "qwen2_5_vl":
        # 64 patches of 4 x 4 pixels, two frames alike; order and content do not matter to random weights.
        patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5)
        patches = patches.unsqueeze(4).expand(-1, -1, -1, -1, 2, -1, -1).reshape(n * 64, -1)
        return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 8, 8]] * n)}, 16
    raise KeyError(kind)
