"""Questions, facts and measurements to the words and tokens of a SAGE prompt: [image; facts; assist prompt; question] (Eq. 9).

Light: no model of transformers is imported, which takes two seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from sage_ad.vlm.sage.verdict_token import VERDICT_TOKENS

ASSIST_PROMPT = "Above is the feature related to the anomaly facts."
SYSTEM_PROMPT = "You inspect industrial parts."
FactMode = Literal["soft", "hard", "none"]
EMBEDDED_PLACEHOLDERS = {"image_token": "<empty_output>", "fact_token": "<jupyter_output>"}
"""Two code tokens of the embedded language model, which no inspection uses: its vocabulary and weights keep their size."""


def measured_sentence(
    score: float,
    threshold: float,
    place: str | None = None,
    description: str = "",
    names: Sequence[tuple[str, float]] = (),
    product: str | None = None,
) -> str:
    """What is known of a part, in the words that the model is trained with.

    Args:
        score: anomaly score.
        threshold: score above which a part is anomalous.
        place: where the evidence is strongest, in the words of `sage_ad.vlm.places`.
        description: what stands out there, in measured words.
        names: taught names that the defect may bear with their probabilities, the likeliest first; three are shown.
        product: name of the part, if it is known.

    Returns:
        Sentences such as "Part: screw. Measured: ratio 14, upper left: dark line, 60 x 9 px. Names: scratch 0.93, crack
        0.04."; a ratio of 10 is at the threshold. What is not above it has no place, no description and no names.
    """
    ratio = min(99, max(0, round(10 * score / threshold))) if threshold > 0 else 0
    told = f"{f'Part: {product}. ' if product else ''}Measured: ratio {ratio}"
    if score <= threshold:
        return f"{told}, nothing stands out."
    told += f", {place}" if place else ""
    told += f": {description}" if description else ""
    # The probabilities of the taught names and of none of them add up to one.
    none = [("none of them", 1 - sum(share for _, share in names))] if names else []
    listed = [f"{name} {share:.2f}" for name, share in (*names[:3], *none)]
    return f"{told}. Names: {', '.join(listed) if listed else 'none was taught'}."


class SagePrompts:
    """Prompts of a SAGE model, and the facts beside them.

    Args:
        tokenizer: the language model's tokenizer, with a chat template.
        fact_token: placeholder of a fused fact. A token that the tokenizer does not know is added.
        image_token: placeholder of an image token (language model alone; a base processor has its own).
        facts: "soft" (fused, Eq. 2), "hard" (as sentences in the prompt) or "none".
        max_facts: facts beyond this number are left out.
        image_side: an image is `image_side` squared tokens (language model alone).
        show_reference: whether the reference's image tokens stand in the prompt too.
        has_base: whether the model is built around a vision-language model.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        fact_token: str,
        image_token: str,
        facts: FactMode = "soft",
        max_facts: int = 6,
        image_side: int = 6,
        show_reference: bool = False,
        has_base: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.has_base = has_base
        self.fact_token, self.image_token = fact_token, image_token
        self.facts, self.max_facts = facts, max_facts
        self.image_side, self.show_reference = image_side, show_reference
        needed = [fact_token] if has_base else [fact_token, image_token]
        missing = [t for t in needed if tokenizer.convert_tokens_to_ids(t) in (None, tokenizer.unk_token_id)]
        if missing:
            tokenizer.add_tokens(missing, special_tokens=True)
        tokenizer.padding_side = "left"

    def model_settings(self) -> dict[str, Any]:
        """Fields of `SageConfig` that follow from tokenizer and chat template; `from_base` of the model takes them."""
        settings: dict[str, Any] = {
            "fact_token_id": self.tokenizer.convert_tokens_to_ids(self.fact_token),
            "show_reference": self.show_reference,
        }
        if not self.has_base:
            settings |= {
                "image_token_id": self.tokenizer.convert_tokens_to_ids(self.image_token),
                "image_side": self.image_side,
            }
        open_ended = self._ids(self._template([{"role": "user", "content": [{"type": "text", "text": "?"}]}], False))
        prompt = self._template([{"role": "user", "content": [{"type": "text", "text": "?"}]}], True)
        ids = self._ids(prompt)
        start = next((i for i, (a, b) in enumerate(zip(open_ended, ids, strict=False)) if a != b), len(open_ended))
        settings["answer_header"] = ids[start:]
        settings["state_words"] = [self._ids(prompt + word)[len(ids) :] for word in VERDICT_TOKENS]
        return settings

    def conversation(
        self,
        question: str,
        facts: Sequence[str] = (),
        *,
        references: int = 0,
        measured: str | None = None,
        image: bool = True,
        mode: FactMode | None = None,
        fact_count: int | None = None,
    ) -> list[dict[str, Any]]:
        """The messages of one prompt: image, facts, assist prompt, what was measured, question.

        Args:
            question: the user's words; special tokens in it are taken out.
            facts: fact sentences; placeholders stand for them in mode "soft", the sentences themselves in "hard".
            references: number of reference pictures shown before the test image.
            measured: a sentence of what the evidence says.
            image: False for a prompt without pictures (writing facts).
            mode: in place of the processor's own mode.
            fact_count: number of facts where they are given as embeddings.
        """
        mode = mode or self.facts
        count = min(self.max_facts, len(facts) if fact_count is None else fact_count)
        lines = []
        if mode == "soft" and count and image:
            lines += [self.fact_token * count, ASSIST_PROMPT]
        elif mode == "hard" and count:
            lines += ["Known facts:", *(f"- {self._plain(f)}" for f in facts[:count])]
        lines += [self._plain(measured)] if measured else []
        text = "\n".join([*lines, self._plain(question)])
        shown = (references if self.show_reference else 0) + 1 if image else 0
        content = [*({"type": "image"} for _ in range(shown)), {"type": "text", "text": text}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if not self.has_base:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]})
        return messages

    def _template(self, messages: list[dict[str, Any]], open_answer: bool = True) -> str:
        flat = [
            {
                "role": m["role"],
                "content": m["content"] if isinstance(m["content"], str) else
                "".join(self.image_token if c["type"] == "image" else c["text"] for c in m["content"]),
            }
            for m in messages
        ]  # fmt: skip
        return self.tokenizer.apply_chat_template(flat, add_generation_prompt=open_answer, tokenize=False)

    def _plain(self, text: str) -> str:
        """User's text without special tokens, so that nobody can write a placeholder or a turn of their own."""
        for token in {*self.tokenizer.all_special_tokens, self.fact_token, self.image_token}:
            text = text.replace(token, " ")
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt_ids(
        self,
        question: str,
        *,
        facts: Sequence[str] = (),
        measured: str | None = None,
        mode: FactMode | None = None,
        image: bool = True,
    ) -> list[int]:
        """Token ids of one prompt for a model with a frozen encoder, with its placeholders; see `conversation`."""
        prompt = self._template(self.conversation(question, facts, measured=measured, mode=mode, image=image))
        return self._ids(prompt.replace(self.image_token, self.image_token * self.image_side**2))

    def fact_inputs(self, facts: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        """`fact_ids` and `fact_attention_mask` of `forward` for the facts of each prompt; nothing where there are none."""
        return self._fact_inputs(facts, None)

    def _fact_inputs(self, facts: Any, embeddings: Any) -> dict[str, torch.Tensor]:
        if embeddings is not None:
            rows = [torch.as_tensor(e, dtype=torch.float32)[: self.max_facts] for e in embeddings]
            return {"fact_embeddings": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}
        if facts is None or not any(facts):
            return {}
        ids = [[self._ids(self._plain(f)) for f in own[: self.max_facts]] for own in facts]
        most, longest = max(map(len, ids)), max(len(f) for own in ids for f in own)
        tokens = torch.zeros(len(ids), most, longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for i, own in enumerate(ids):
            for j, fact in enumerate(own):
                tokens[i, j, : len(fact)], mask[i, j, : len(fact)] = torch.tensor(fact), 1
        return {"fact_ids": tokens, "fact_attention_mask": mask}
