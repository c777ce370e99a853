"""Rows of preference data to token ids and model inputs: words alone, pictures with words, or a SAGE model's inputs.

A row has a `prompt` (text, or messages of a conversation) and `answers` (texts, or assistant messages), best first;
`pictures` where there are some. An encoder says what an answer's tokens are (`answer_ids`, once, ahead of training) and
makes the prompts' inputs (`encode`, a batch at a time, because pixels are too large to keep).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.sage.generation import common_length, padded_left

Row = Mapping[str, Any]
View = Callable[[Row], Mapping[str, Any]]
"""What a SAGE model sees of a row: arguments of `SageProcessor` for this one row (patch features, evidence, ...)."""


class PromptEncoder(Protocol):
    """How rows become tokens."""

    pad_id: int

    def prepare(self, row: Row, kept: Sequence[int]) -> dict[str, Any]:
        """`answer_ids` of the kept answers, and (words alone) `prompt_ids`."""
        ...

    def encode(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Inputs of the model for the rows' prompts, padded on the left."""
        ...


def prompt_encoder(processing_class: Any, pictured: bool) -> PromptEncoder:
    """The encoder that suits a tokenizer or processor.

    Args:
        processing_class: a tokenizer, the processor of a vision-language model, or a `SageProcessor`.
        pictured: whether the rows have pictures.
    """
    from sage_ad.vlm.sage.processing_sage import SageProcessor

    if isinstance(processing_class, SageProcessor):
        return SagePrompts(processing_class)
    if pictured:
        return PicturePrompts(processing_class)
    return TextPrompts(processing_class)


def _padding_id(tokenizer: Any) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def _as_messages(answer: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)


class TextPrompts:
    """Words alone; token ids as TRL's DPOTrainer makes them (what prompt and answer share is the prompt)."""

    def __init__(self, processing_class: Any) -> None:
        self.processing_class = processing_class
        self.tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.pad_id = _padding_id(self.tokenizer)

    def prepare(self, row: Row, kept: Sequence[int]) -> dict[str, Any]:
        """Prompt and answers as token ids; the answer begins where its sequence leaves the prompt's."""
        if isinstance(row["prompt"], str):
            end = self.tokenizer.eos_token
            texts = [row["answers"][i] for i in kept]
            head = self.tokenizer(row["prompt"])["input_ids"]
            whole = [self.tokenizer(row["prompt"] + (t if t.endswith(end) else t + end))["input_ids"] for t in texts]
        else:
            head = self._conversation(row["prompt"], open_answer=True)
            whole = [self._conversation([*row["prompt"], *_as_messages(row["answers"][i])]) for i in kept]
        start = common_length([head, *whole])
        return {"prompt_ids": head[:start], "answer_ids": [ids[start:] for ids in whole]}

    def _conversation(self, messages: Any, open_answer: bool = False) -> list[int]:
        text = self.processing_class.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_answer)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode(self, rows: Sequence[Row]) -> dict[str, Any]:
        """`input_ids` and `attention_mask`."""
        return padded_left([row["prompt_ids"] for row in rows], self.pad_id)


class PicturePrompts:
    """Pictures and words, through the processor of a vision-language model."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.pad_id = _padding_id(self.tokenizer)

    def prepare(self, row: Row, kept: Sequence[int]) -> dict[str, Any]:
        """The answers' token ids: what the chat template puts behind the prompt, or the bare text with an end."""
        answers = [row["answers"][i] for i in kept]
        if isinstance(row["prompt"], str):
            end = self.tokenizer.eos_token
            texts = [a if a.endswith(end) else a + end for a in answers]
        else:
            prompt = with_pictures(row["prompt"], len(row["pictures"]))
            head = self._template(prompt, True)
            texts = []
            for answer in answers:
                whole = self._template([*prompt, *(_in_parts(m) for m in _as_messages(answer))], False)
                if not whole.startswith(head):
                    raise InputError(
                        "The chat template writes a conversation otherwise than its prompt, so no answer can be cut "
                        "out of it; give prompts and answers as plain text."
                    )
                texts.append(whole[len(head) :])
        return {"answer_ids": [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]}

    def _template(self, messages: Any, open_answer: bool) -> str:
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_answer)

    def encode(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What the processor makes of pictures and prompts."""
        prompts = [
            row["prompt"]
            if isinstance(row["prompt"], str)
            else self._template(with_pictures(row["prompt"], len(row["pictures"])), True)
            for row in rows
        ]
        return dict(
            self.processor(
                images=[list(row["pictures"]) for row in rows],
                text=prompts,
                padding=True,
                padding_side="left",
                return_tensors="pt",
                add_special_tokens=False,
            )
        )


def _in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message["content"]
    return {
        "role": message["role"],
        "content": [{"type": "text", "text": content}] if isinstance(content, str) else content,
    }


def with_pictures(messages: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Messages in parts, with places for `count` pictures before the first user's words if none are there yet."""
    parts = [_in_parts(message) for message in messages]
    placed = sum(part["type"] == "image" for message in parts for part in message["content"])
    if placed == count:
        return parts
    if placed:
        raise InputError(f"A prompt has places for {placed} pictures but its row brings {count}; make them agree.")
    for message in parts:
        if message["role"] == "user":
            message["content"] = [*({"type": "image"} for _ in range(count)), *message["content"]]
            return parts
    raise InputError("A conversation with pictures has no user message to show them in; add one to the prompt.")


class SagePrompts:
    """A SAGE model's inputs: the prompt is the question; pictures, facts and evidence stand in columns or come by `view`.

    Columns with the names of `SageProcessor`'s arguments (`facts`, `measured`, `evidence`, `references`) are passed on;
    `view` adds what is too large for a column (patch features).
    """

    def __init__(self, processor: Any, view: View | None = None) -> None:
        self.processor = processor
        self.pad_id = _padding_id(processor.tokenizer)
        self.view = view
        named = set(inspect.signature(type(processor).__call__).parameters)
        self._columns = named - {"self", "images", "text", "answers", "templated", "return_tensors", "mode", "_unused"}

    def prepare(self, row: Row, kept: Sequence[int]) -> dict[str, Any]:
        """The answers' token ids as stage 1 trains them: the text and the token that ends it."""
        tokenizer = self.processor.tokenizer
        texts = [row["answers"][i] + tokenizer.eos_token for i in kept]
        return {"answer_ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]}

    def encode(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What `SageProcessor` makes of the rows."""
        seen = [{**row, **(self.view(row) if self.view else {})} for row in rows]
        given: dict[str, Any] = {}
        for name in sorted(self._columns):
            values = [row.get(name) for row in seen]
            if any(value is not None for value in values):
                given[name] = values
        if "facts" in given:
            given["facts"] = [facts or [] for facts in given["facts"]]
        for name in ("patch_features", "patch_evidence"):
            if name in given:
                given[name] = torch.stack([torch.as_tensor(value) for value in given[name]])
        pictures = [row.get("pictures") for row in seen]
        if "patch_features" not in given and all(pictures):
            given["images"] = [own[0] for own in pictures if own is not None]
        return dict(self.processor(text=[row["prompt"] for row in seen], **given))
