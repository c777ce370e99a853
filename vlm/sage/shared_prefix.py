"""Several questions about one part: the picture and the facts are read once, and their key-value cache is shared."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def generate_shared(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """Writes an answer to each of several prompts that begin alike (same picture, same facts, other question).

    The tokens that all prompts share are run through the model once; the cache is repeated for each prompt, and only
    the rest of each prompt is run. The answers equal those of `generate` on the same prompts (up to rounding).

    Args:
        model: a `SageForConditionalGeneration`.
        input_ids: (questions, length), padded on the left.
        attention_mask: (questions, length); default: nothing is padding.
        **kwargs: the picture's and the facts' inputs *for one sample* (leading size 1), `evidence_log_odds` (1,) too,
            and arguments of `generate`.

    Returns:
        What `generate` gives for prompts of `input_ids` with the padding moved between shared part and question; the
        new tokens stand at [:, -new:] as usual.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    prompts = [ids[keep.bool()] for ids, keep in zip(input_ids, mask, strict=True)]
    token_types = kwargs.pop("mm_token_type_ids", None)
    length = shared_length(prompts, spare=len(model.config.answer_header or ()) + 1)
    encoded = dict(kwargs)
    encoded |= model.encode(prompts[0][None], encoded)
    prefix_inputs = {k: encoded.pop(k) for k in ("mm_encoder_outputs", "fact_features") if k in encoded}
    grid = {k: encoded.pop(k) for k in ("image_grid_thw",) if encoded.get(k) is not None}
    encoded = {k: v for k, v in encoded.items() if v is not None and k not in _SPENT}
    if token_types is not None:
        grid["mm_token_type_ids"] = token_types[0][mask[0].bool()][None, :length]
    head = prompts[0][None, :length]
    cache = model(input_ids=head, attention_mask=torch.ones_like(head), use_cache=True, logits_to_keep=1,
                  **prefix_inputs, **grid).past_key_values  # fmt: skip
    cache.batch_repeat_interleave(len(prompts))
    ids, keep = realign(prompts, length)
    odds = encoded.pop("evidence_log_odds", None)
    if odds is not None:
        encoded["evidence_log_odds"] = odds.expand(len(prompts))
    return model.generate(input_ids=ids, attention_mask=keep, past_key_values=cache, **encoded)


_SPENT = {"pixel_values", "pixel_attention_mask", "image_sizes", "batch_num_images"}


def shared_length(prompts: list[torch.Tensor], spare: int = 1) -> int:
    """How many leading tokens all prompts share, leaving at least `spare` tokens of the shortest one."""
    shortest = min(len(p) for p in prompts)
    rows = torch.stack([p[:shortest] for p in prompts])
    differs = (rows != rows[0]).any(dim=0)
    alike = int(differs.nonzero()[0]) if bool(differs.any()) else shortest
    return max(0, min(alike, shortest - spare))


def realign(prompts: list[torch.Tensor], length: int, pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads between the shared part and the rest, so that all prompts end together: ids and mask."""
    longest = max(len(p) for p in prompts)
    ids = prompts[0].new_full((len(prompts), longest), pad)
    keep = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, :length], keep[row, :length] = prompt[:length], 1
        rest = len(prompt) - length
        ids[row, longest - rest :], keep[row, longest - rest :] = prompt[length:], 1
    return ids, keep
