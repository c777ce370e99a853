"""Eq. 6 and 7 by hand and by finite differences, and equality with TRL's DPOTrainer where the paper's terms vanish."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from edpo_models import llava_processor, picture, settings, text_rows  # noqa: E402
from tiny_models import tiny_language_model, tiny_llava, tiny_tokenizer  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402

from sage_ad.alignment import EDPOTrainer  # noqa: E402
from sage_ad.alignment.edpo.loss import edpo_logits, edpo_loss, kl_estimate  # noqa: E402

EQUAL = {"rtol": 1e-5, "atol": 1e-5}


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_eq_6_to_the_letter():
    """d = log pi(a_w) - log pi(a_l) - eta dH; beta has no place in it."""
    d = edpo_logits(numbers(-3.0), numbers(-5.0), numbers(0.5), beta=0.7, eta=2.0)
    assert d.tolist() == [-3.0 + 5.0 - 2.0 * 0.5]
    assert edpo_loss(d).item() == pytest.approx(-math.log(1 / (1 + math.exp(-1.0))))


def test_with_a_reference_by_hand():
    """0.1 * ((-3 + 4) - (-5 + 5.5)) - 2 * 0.5."""
    d = edpo_logits(
        numbers(-3.0), numbers(-5.0), numbers(0.5), ref_winner=numbers(-4.0), ref_loser=numbers(-5.5), beta=0.1, eta=2.0
    )
    assert d.tolist() == pytest.approx([0.1 * 0.5 - 1.0])


def test_the_loss_is_the_mean_over_pairs():
    d = numbers(0.0, 2.0, -1.0)
    assert edpo_loss(d).item() == pytest.approx(sum(math.log1p(math.exp(-x)) for x in d.tolist()) / 3)


@pytest.mark.parametrize("referenced", [True, False])
def test_gradients_by_finite_differences(referenced):
    torch.manual_seed(0)
    winner, loser, ref_winner, ref_loser = torch.randn(4, 5, dtype=torch.float64)
    gap = torch.rand(5, dtype=torch.float64)
    held = {"ref_winner": ref_winner, "ref_loser": ref_loser} if referenced else {}

    def loss(w, x):
        return edpo_loss(edpo_logits(w, x, gap, beta=0.3, eta=1.5, **held))

    assert torch.autograd.gradcheck(loss, (winner.requires_grad_(), loser.requires_grad_()))


def test_a_wider_gap_asks_for_a_wider_margin():
    """The larger dH, the stronger the pull on the same pair."""
    pull = []
    for gap in (0.0, 1.0, 2.0):
        winner = numbers(-3.0).requires_grad_()
        edpo_loss(edpo_logits(winner, numbers(-4.0), numbers(gap))).backward()
        pull.append(-winner.grad.item())
    assert pull == sorted(pull)
    assert pull[0] < pull[2]


def test_drift_from_the_reference():
    mask = torch.tensor([[True, True, False]])
    same = torch.tensor([[-1.0, -2.0, 0.0]])
    assert kl_estimate(same, same, mask) == 0
    assert kl_estimate(same, torch.tensor([[-2.0, -2.0, 9.0]]), mask).item() == pytest.approx(0.25)


# ---- whole trainers --------------------------------------------------------------------------------------------------


def gradients(trainer, rows):
    """Loss and gradients of the trainer's own batch of these rows, without a step."""
    trainer.current_gradient_accumulation_steps = 1  # `train` sets it
    trainer.model.zero_grad()
    loss = trainer.training_step(trainer.model, trainer.data_collator(rows))
    return loss, {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def nudge(model):
    """Moves the trained weights off the reference, so that its terms do not cancel."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=generator))


def plain_settings(folder, **changes):
    wanted = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_length": None, "seed": 3}
    return DPOConfig(output_dir=str(folder), **wanted, **changes)


def extreme(rows):
    return [{"prompt": r["prompt"], "chosen": r["answers"][0], "rejected": r["answers"][-1]} for r in rows]


def assert_equal(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], **EQUAL)
    assert set(ours[1]) == set(theirs[1])
    for name, grad in ours[1].items():
        torch.testing.assert_close(grad, theirs[1][name], **EQUAL)


@pytest.mark.parametrize("losses", [{}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]}])
def test_without_the_gap_it_is_dpo(losses, tmp_path):
    """eta = 0 and the extreme pair: loss and gradients of TRL's DPOTrainer on the same batch."""
    rows = text_rows(4)
    ours = EDPOTrainer(
        tiny_language_model(),
        args=settings(tmp_path / "ours", eta=0.0, pairs="extreme", **losses),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )
    theirs = DPOTrainer(
        tiny_language_model(),
        ref_model=tiny_language_model(),
        args=plain_settings(tmp_path / "theirs", **losses),
        train_dataset=Dataset.from_list(extreme(rows)),
        processing_class=tiny_tokenizer(),
    )
    nudge(ours.model)
    nudge(theirs.model)
    found = [gradients(trainer, [trainer.train_dataset[i] for i in range(4)]) for trainer in (ours, theirs)]
    assert found[0][0] != pytest.approx(math.log(2), abs=1e-3)
    assert_equal(*found)


def test_without_the_gap_it_is_dpo_with_an_adapter_and_conversations(tmp_path):
    peft = pytest.importorskip("peft")
    rows = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in text_rows(3)]
    pairs = [
        {key: value if key == "prompt" else [{"role": "assistant", "content": value}] for key, value in row.items()}
        for row in extreme(rows)
    ]
    lora = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    found = []
    for kind, data in ((EDPOTrainer, rows), (DPOTrainer, pairs)):
        mine = kind is EDPOTrainer
        folder = tmp_path / kind.__name__
        trainer = kind(
            tiny_language_model(),
            args=settings(folder, eta=0.0, pairs="extreme") if mine else plain_settings(folder),
            train_dataset=Dataset.from_list(data),
            processing_class=tiny_tokenizer(),
            peft_config=peft.LoraConfig(**lora),
        )
        found.append(gradients(trainer, [trainer.train_dataset[i] for i in range(3)]))
    assert_equal(*found)


def test_without_the_gap_it_is_dpo_with_pictures(tmp_path):
    """LLaVA with its own processor; TRL asks the reference in every step, we did so once."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Is there a hole {i}?"}],
            "images": [picture(i)],
            "answers": ["True. a scratch", "False. no hole in the area"],
            "scores": [5.0, 1.0],
        }
        for i in range(2)
    ]
    pairs = [
        {
            "prompt": row["prompt"],
            "images": row["images"],
            "chosen": [{"role": "assistant", "content": row["answers"][0]}],
            "rejected": [{"role": "assistant", "content": row["answers"][1]}],
        }
        for row in rows
    ]
    ours = EDPOTrainer(
        tiny_llava(),
        args=settings(tmp_path / "ours", eta=0.0, freeze_encoder=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=llava_processor(),
    )
    theirs = DPOTrainer(
        tiny_llava(),
        ref_model=tiny_llava(),
        args=plain_settings(tmp_path / "theirs"),
        train_dataset=Dataset.from_list(pairs),
        processing_class=llava_processor(),
    )
    nudge(ours.model)
    nudge(theirs.model)
    assert_equal(*(gradients(trainer, [trainer.train_dataset[i] for i in range(2)]) for trainer in (ours, theirs)))


def test_reference_free_is_eq_6(tmp_path):
    """The trainer's loss from the model's own log-probabilities, without a reference in it."""
    rows = text_rows(2)
    trainer = EDPOTrainer(
        tiny_language_model(),
        args=settings(tmp_path, eta=1.5, entropy="surprisal", reference_free=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )
    nudge(trainer.model)
    loss, _ = gradients(trainer, [trainer.train_dataset[i] for i in range(2)])
    tokenizer, losses = tiny_tokenizer(), []
    for row in rows:
        logps = []
        for answer in row["answers"]:
            prompt = tokenizer(row["prompt"])["input_ids"]
            ids = torch.tensor([tokenizer(row["prompt"] + answer + tokenizer.eos_token)["input_ids"]])
            log_probs = trainer.model(input_ids=ids).logits[0].log_softmax(-1)
            logps.append(log_probs[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).sum())
        s = row["scores"]
        near = min(range(3), key=lambda i: s[i] - s[i + 1])
        losses += [
            -torch.nn.functional.logsigmoid(logps[w] - logps[x] - 1.5 * (s[w] - s[x]))
            for w, x in ((near, near + 1), (0, 3))
        ]
    torch.testing.assert_close(loss, torch.stack(losses).mean().detach(), rtol=1e-4, atol=1e-4)
