"""All answers of one question in one sequence: the picture and the prompt are read once, with gradients.

A question's answers differ only after the prompt. They are laid behind it, one after another,

    [ prompt | answer 1 | answer 2 | ... ]

with an attention mask by which each answer sees the prompt and itself, and positions that begin anew after the prompt.
The log-probabilities and gradients equal those of separate sequences; the prompt's share of the work is done once. Only
the positions that predict an answer's tokens go through the vocabulary.

Models that build their masks from more than a mask (flash attention, sliding windows shorter than the sequence, layers
without attention, pictures that see ahead) cannot share; for them each answer has a pass of its own (`shareable` tells).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sage_ad.vlm.sage.embedding_hook import last_places

PADDING = -1
"""Owner of a token that only fills up the batch."""

_MASKED_ATTENTION = ("sdpa", "eager")


def pack_answers(answers: Sequence[Sequence[Sequence[int]]], pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Lays each row's answers one after another.

    Args:
        answers: token ids, by row of the batch and answer.
        pad_id: token that fills up shorter rows.

    Returns:
        Token ids and owners, both (batch, length) int64; an owner is the answer's number in its row, `PADDING` beyond.
    """
    length = max((sum(map(len, row)) for row in answers), default=0)
    ids = torch.full((len(answers), length), pad_id, dtype=torch.long)
    owners = torch.full((len(answers), length), PADDING, dtype=torch.long)
    for i, row in enumerate(answers):
        start = 0
        for number, tokens in enumerate(row):
            ids[i, start : start + len(tokens)] = torch.as_tensor(tokens, dtype=torch.long)
            owners[i, start : start + len(tokens)] = number
            start += len(tokens)
    return ids, owners


def first_tokens(owners: torch.Tensor) -> torch.Tensor:
    """(batch, length) bool, true at the first token of each answer."""
    before = torch.nn.functional.pad(owners, (1, 0), value=PADDING)[:, :-1]
    return (owners != before) & (owners != PADDING)


def shared_mask(prompt_mask: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Who sees whom: the prompt itself up to each token; an answer the prompt, and itself up to each token.

    Args:
        prompt_mask: (batch, p), 1 at tokens, 0 at padding.
        owners: (batch, a) of `pack_answers`.

    Returns:
        (batch, 1, p + a, p + a) bool, true where the row's token sees the column's. Padding sees itself only, so that
        no row is empty (a softmax over nothing is NaN).
    """
    # The prompt is an owner of its own, seen by all; padding is nobody's.
    prompt = torch.where(prompt_mask.bool(), torch.iinfo(owners.dtype).max, PADDING)
    owner = torch.cat((prompt.to(owners.dtype), owners), dim=1)
    length = owner.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=owner.device).tril()
    keys, queries = owner[:, None, :], owner[:, :, None]
    related = (keys == queries) | (keys == torch.iinfo(owners.dtype).max)
    there = (keys != PADDING) & (queries != PADDING)
    alone = torch.eye(length, dtype=torch.bool, device=owner.device)
    return ((related & there & earlier) | alone)[:, None]


def answer_places(owners: torch.Tensor) -> torch.Tensor:
    """(batch, length) int64, the place of each token within its own answer, from 0."""
    columns = torch.arange(owners.shape[1], device=owners.device).expand_as(owners)
    starts = torch.where(first_tokens(owners), columns, torch.zeros_like(columns)).cummax(dim=1).values
    return columns - starts


def prompt_positions(model: Any, prompt: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Positions of the prompt's tokens as the model counts them: (batch, p), or (3, batch, p) for 3-D rotation."""
    inner = _turning(model)
    mask = prompt["attention_mask"]
    if inner is not None:
        wanted = inspect.signature(inner.compute_3d_position_ids).parameters
        given = {name: prompt.get(name) for name in wanted}
        positions = inner.compute_3d_position_ids(**given)
        if positions is not None:
            return positions[-3:]
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def _turning(model: Any) -> Any:
    """The part of a vision-language model that makes 3-D positions, None for all others."""
    for part in (getattr(model, "model", None), getattr(getattr(model, "base", None), "model", None)):
        if hasattr(part, "compute_3d_position_ids"):
            return part
    return None


def shareable(model: Any, prompt: Mapping[str, torch.Tensor], length: int) -> bool:
    """Whether a mask says all about who sees whom in this model, for sequences of `length` tokens."""
    config = model.config.get_text_config()
    if getattr(config, "_attn_implementation", "eager") not in _MASKED_ATTENTION:
        return False
    if "token_type_ids" in prompt or getattr(config, "is_encoder_decoder", False):
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return False
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds or (
        window is not None
        and getattr(config, "layer_types", None) is None
        and getattr(config, "use_sliding_window", True)
    )
    return not slides or window is None or length <= window


def token_log_probs(
    model: Any, prompt: Mapping[str, Any], ids: torch.Tensor, owners: torch.Tensor, *, call: Any = None
) -> torch.Tensor:
    """log pi(token | picture, prompt, answer so far) of every answer token, with gradients.

    Args:
        model: the model itself, without the wrappers of data-parallel training.
        prompt: inputs of the model for the prompts, one for each row of the batch: `input_ids` and `attention_mask`
            (batch, p), padded on the left, and whatever comes with them (pixels, patch features, facts).
        ids, owners: of `pack_answers`, (batch, a).
        call: what is called in place of the model (its data-parallel wrapper).

    Returns:
        (batch, a) float32 log-probabilities in nats; 0 at padding.
    """
    total = prompt["input_ids"].shape[1] + ids.shape[1]
    if shareable(model, prompt, total):
        return _one_pass(model, prompt, ids, owners, call or model)
    alone = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
    for number in range(int(owners.max()) + 1):
        own_ids, own_owners, source = _single(ids, owners, number)
        logps = _one_pass(model, prompt, own_ids, own_owners, call or model, square=False)
        rows, columns = (owners == number).nonzero(as_tuple=True)
        alone = alone.index_put((rows, columns), logps[rows, source[rows, columns]])
    return alone


def _single(ids: torch.Tensor, owners: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One answer of each row as a batch of its own, and where each of its tokens went."""
    rows = [row[mine] for row, mine in zip(ids, owners == number, strict=True)]
    packed = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    columns = torch.arange(packed.shape[1], device=ids.device).expand_as(packed)
    own = torch.where(columns < lengths[:, None], torch.zeros_like(packed), torch.full_like(packed, PADDING))
    return packed, own, answer_places(owners)


def _one_pass(
    model: Any, prompt: Mapping[str, Any], ids: torch.Tensor, owners: torch.Tensor, call: Any, square: bool = True
) -> torch.Tensor:
    """Log-probabilities from one forward pass; without `square` every row holds one answer and a plain mask does."""
    inputs = sequence_inputs(model, prompt, ids, owners, square)
    kept = ids.shape[1] + 1
    places = last_places(kept, inputs["input_ids"])
    logits = call(**inputs, use_cache=False, logits_to_keep=places).logits[:, -kept:].float()
    # An answer's first token is predicted by the prompt's last one, which is the first that was kept.
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    source = columns.masked_fill(first_tokens(owners), 0)
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    total = logits.logsumexp(dim=-1)
    logps = logits[rows, source, ids] - total.gather(1, source)
    return logps.masked_fill(owners == PADDING, 0.0)


def sequence_inputs(
    model: Any, prompt: Mapping[str, Any], ids: torch.Tensor, owners: torch.Tensor, square: bool = True
) -> dict[str, Any]:
    """Inputs of the model for prompts with their answers behind them; see `token_log_probs`."""
    head, mask = prompt["input_ids"], prompt["attention_mask"]
    inputs = dict(prompt)
    for name, value in prompt.items():
        # Whatever accompanies the tokens (kinds of tokens) is continued with zeros.
        if (
            isinstance(value, torch.Tensor)
            and value.shape == head.shape
            and name not in ("input_ids", "attention_mask")
        ):
            inputs[name] = torch.cat((value, value.new_zeros(ids.shape)), dim=1)
    before = prompt_positions(model, prompt)
    following = before.amax(dim=-1, keepdim=True) + 1 + answer_places(owners)
    inputs["position_ids"] = torch.cat((before, following.expand(*before.shape[:-1], -1)), dim=-1)
    inputs["input_ids"] = torch.cat((head, ids), dim=1)
    if not square:
        inputs["attention_mask"] = torch.cat((mask, (owners != PADDING).to(mask.dtype)), dim=1)
        return inputs
    seen = shared_mask(mask, owners)
    if getattr(model.config.get_text_config(), "_attn_implementation", "eager") == "eager":
        dtype = model.get_input_embeddings().weight.dtype
        seen = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
    inputs["attention_mask"] = seen
    return inputs


def answer_sums(logps: torch.Tensor, owners: torch.Tensor, answers: int) -> torch.Tensor:
    """log pi(answer | picture, prompt), (batch, answers): the sum over each answer's tokens."""
    sums = logps.new_zeros(len(logps), answers)
    return sums.scatter_add(1, owners.clamp(min=0), logps.masked_fill(owners == PADDING, 0.0))
