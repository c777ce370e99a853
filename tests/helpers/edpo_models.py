"""Tiny models for the tests of E-DPO: a language model, and SAGE around every tested vision-language model."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from tiny_models import IMAGE_ID, VOCABULARY, WRAPPED, vision_inputs

from sage_ad.vlm.sage.modeling_sage import SageForConditionalGeneration
from sage_ad.vlm.sage.wrapping import from_base

HEADER, STATES = [30, 31, 32], [[40], [41, 42]]
FACT_ID = VOCABULARY
ANSWERS = [[[40, 60, 61, 2], [41, 42, 70, 2]], [[40, 62, 2], [41, 42, 63, 64, 65, 2]]]
"""Two answers for each of two prompts, of unlike lengths."""


def wrapped(kind: str) -> SageForConditionalGeneration:
    """SAGE around a tiny vision-language model, its own weights large enough to matter."""
    model = from_base(WRAPPED[kind](), distinct=3, state_words=STATES, answer_header=HEADER, fusion_heads=4)
    torch.manual_seed(0)
    for name, linear in model.fusion.named_modules():
        if isinstance(linear, torch.nn.Linear) and "image_projection" not in name:
            torch.nn.init.normal_(linear.weight, std=0.3)
    return model


def picture_prompts(kind: str, rows: tuple[int, ...] = (0, 1)) -> dict[str, torch.Tensor]:
    """Inputs for prompts with a picture, two facts and evidence; the second prompt is longer, so the first is padded."""
    pictures = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(row)) for row in rows]
    images, tokens = vision_inputs(kind, torch.cat(pictures))
    prompts = [
        [1, 20 + row, *[IMAGE_ID] * tokens, FACT_ID, FACT_ID, *([50, 51, 52] if row else [60]), *HEADER] for row in rows
    ]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    words = torch.randint(50, 120, (2, 2, 5), generator=torch.Generator().manual_seed(7))
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        **images,
        "fact_ids": words[list(rows)],
        "evidence_log_odds": torch.tensor([1.5, -2.0])[list(rows)],
    }
    if kind == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (ids == IMAGE_ID).int()
    return inputs


def text_prompts() -> dict[str, torch.Tensor]:
    """Two prompts of words alone, the first padded."""
    ids = torch.tensor([[0, 0, 1, 20, 21], [1, 22, 23, 24, 25]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def plain_log_probs(model, prompt: dict[str, torch.Tensor], row: int, answer: list[int], **extra) -> torch.Tensor:
    """log pi of each token of one answer, by one ordinary forward pass over prompt and answer: what sharing must equal."""
    keep = prompt["attention_mask"][row].bool()
    head = prompt["input_ids"][row][keep]
    ids = torch.cat((head, torch.tensor(answer)))[None]
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits[0].float()
    log_probs = logits[len(head) - 1 : -1].log_softmax(dim=-1)
    return log_probs.gather(1, torch.tensor(answer)[:, None])[:, 0]


class HandMadePrompts:
    """Inputs made by hand, for vision-language models whose processors need torchvision."""

    pad_id = 0

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def prepare(self, row, kept):
        return {"answer_ids": [[int(word) for word in row["answers"][i].split()] for i in kept]}

    def encode(self, rows):
        return picture_prompts(self.kind, tuple(int(row["prompt"]) for row in rows))


def hand_made_rows() -> list[dict]:
    """Rows for `HandMadePrompts`: the prompt names one of the two of `picture_prompts`."""
    answers = ["40 60 61 2", "40 62 2", "41 42 63 64 2", "41 42 70 2"]
    return [{"prompt": str(i % 2), "answers": answers, "scores": [5.0, 4.0, 2.5, 1.0]} for i in range(4)]


WORDS = ["True. a scratch in the upper left area.", "True. a hole", "False. a crack in the area", "False. no hole"]


def text_rows(count: int = 8) -> list[dict]:
    """Rows of words alone with four scored answers."""
    return [
        {"prompt": f"Is there a hole {i}?", "answers": WORDS, "scores": [5.0, 4.5 - i / 20, 2.0, 1.0]}
        for i in range(count)
    ]


def settings(folder, **changes):
    """A configuration for tests: CPU, full precision, every step logged."""
    from sage_ad.alignment import EDPOConfig

    plain = {
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "learning_rate": 1e-3,
        "seed": 3,
    }
    return EDPOConfig(output_dir=str(folder), **{**plain, **changes})


def llava_processor():
    """LLaVA's own processor at 32 pixels; it works without torchvision."""
    from tiny_models import TEMPLATE, tiny_tokenizer
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return LlavaProcessor(
        pixels,
        tiny_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def picture(seed: int):
    """A picture of noise."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8))


def killed_run(rank: int, folder: Path, at: int) -> None:
    """Training of `text_rows` in a process that is killed at a step; a checkpoint every second step."""
    from datasets import Dataset
    from tiny_models import tiny_language_model, tiny_tokenizer
    from transformers import TrainerCallback

    from sage_ad.alignment import EDPOTrainer

    class Killer(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at:
                os.kill(os.getpid(), signal.SIGKILL)

    EDPOTrainer(
        tiny_language_model(),
        args=settings(folder, max_steps=8, save_strategy="steps", save_steps=2),
        train_dataset=Dataset.from_list(text_rows()),
        processing_class=tiny_tokenizer(),
        callbacks=[Killer()],
    ).train()
