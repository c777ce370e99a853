"""Sharing the prompt changes nothing but the work: log-probabilities and gradients equal those of separate sequences."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edpo_models import ANSWERS, picture_prompts, plain_log_probs, text_prompts, wrapped  # noqa: E402
from tiny_models import WRAPPED, tiny_language_model  # noqa: E402
from tiny_sage import batch, make  # noqa: E402

from sage_ad.alignment.data.prefix_sharing import (  # noqa: E402
    PADDING,
    answer_places,
    answer_sums,
    pack_answers,
    shareable,
    shared_mask,
    token_log_probs,
)

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def test_the_mask_by_hand():
    """Prompt of two tokens behind one of padding, answers of two tokens and one."""
    _, owners = pack_answers([[[7, 8], [9]]])
    seen = shared_mask(torch.tensor([[0, 1, 1]]), owners)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 1],
    ]
    assert answer_places(owners).tolist() == [[0, 1, 0]]


def test_packing_keeps_rows_of_unlike_length_apart():
    ids, owners = pack_answers([[[7, 8], [9]], [[5]]], pad_id=3)
    assert ids.tolist() == [[7, 8, 9], [5, 3, 3]]
    assert owners.tolist() == [[0, 0, 1], [0, PADDING, PADDING]]
    assert answer_sums(torch.ones(2, 3), owners, 2).tolist() == [[2, 1], [1, 0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_language_model_shares_with_equal_values_and_gradients(attention):
    model = tiny_language_model()
    model.set_attn_implementation(attention)
    prompt, (ids, owners) = text_prompts(), pack_answers(ANSWERS)
    shared = token_log_probs(model, prompt, ids, owners)
    weights = torch.linspace(-1, 1, 9)[: ids.shape[1]]
    (shared * weights).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    plain = torch.zeros_like(shared)
    for row, answers in enumerate(ANSWERS):
        apart = torch.cat([plain_log_probs(model, prompt, row, answer) for answer in answers])
        plain = plain.index_put((torch.full((len(apart),), row), torch.arange(len(apart))), apart)
    torch.testing.assert_close(shared, plain, **CLOSE)
    (plain * weights).sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(WRAPPED))
def test_every_wrapped_model_shares(kind):
    """With picture, facts and evidence, in a batch with padding, against one plain pass for each answer."""
    model = wrapped(kind)
    prompt, (ids, owners) = picture_prompts(kind), pack_answers(ANSWERS)
    assert shareable(model, prompt, 100)
    with torch.no_grad():
        shared = token_log_probs(model, prompt, ids, owners)
        for row, answers in enumerate(ANSWERS):
            alone = picture_prompts(kind, rows=(row,))
            apart = []
            for answer in answers:
                extra = {k: v for k, v in alone.items() if k not in ("input_ids", "attention_mask")}
                if "mm_token_type_ids" in extra:
                    zeros = torch.zeros(1, len(answer), dtype=torch.int)
                    extra["mm_token_type_ids"] = torch.cat((extra["mm_token_type_ids"], zeros), dim=1)
                apart.append(plain_log_probs(model, alone, 0, answer, **extra))
            apart = torch.cat(apart)
            torch.testing.assert_close(shared[row, : len(apart)], apart, **CLOSE)


def test_the_embedded_composition_shares():
    """A language model with patch features, references, soft facts and evidence."""
    model, processor = make()
    prompt = dict(batch(processor, evidence=[2.0, None]))
    ids, owners = pack_answers(ANSWERS)
    with torch.no_grad():
        shared = token_log_probs(model, prompt, ids, owners)
        for row, answers in enumerate(ANSWERS):
            alone = dict(batch(processor, rows=(row,), evidence=[[2.0, None][row]]))
            extra = {k: v for k, v in alone.items() if k not in ("input_ids", "attention_mask")}
            apart = torch.cat([plain_log_probs(model, alone, 0, answer, **extra) for answer in answers])
            torch.testing.assert_close(shared[row, : len(apart)], apart, **CLOSE)


def test_models_that_cannot_share_get_a_pass_for_each_answer(monkeypatch):
    """A window shorter than the sequence: the values are those of separate sequences all the same."""
    model = tiny_language_model()
    prompt, (ids, owners) = text_prompts(), pack_answers(ANSWERS)
    with torch.no_grad():
        shared = token_log_probs(model, prompt, ids, owners)
        monkeypatch.setattr(model.config, "sliding_window", 4, raising=False)
        monkeypatch.setattr(model.config, "layer_types", ["sliding_attention"] * 2, raising=False)
        assert not shareable(model, prompt, ids.shape[1] + 5)
        alone = token_log_probs(model, prompt, ids, owners)
    torch.testing.assert_close(shared, alone, **CLOSE)


def test_gradient_checkpointing_shares_too():
    model = tiny_language_model().train()
    prompt, (ids, owners) = text_prompts(), pack_answers(ANSWERS)
    token_log_probs(model, prompt, ids, owners).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.gradient_checkpointing_enable()
    token_log_probs(model, prompt, ids, owners).sum().backward()
    for grad, p in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad, rtol=1e-4, atol=1e-6)
