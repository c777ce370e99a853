"""What a user of EDPOTrainer relies on: every kind of model, frozen parts, logs, refusals, stops, and resuming."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from edpo_models import (  # noqa: E402
    WORDS,
    HandMadePrompts,
    hand_made_rows,
    killed_run,
    llava_processor,
    picture,
    settings,
    text_rows,
    wrapped,
)
from forked import in_processes  # noqa: E402
from tiny_models import WRAPPED, tiny_language_model, tiny_tokenizer  # noqa: E402
from tiny_sage import FACTS, QUESTIONS, features, make  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from sage_ad.alignment import EDPOConfig, EDPOTrainer  # noqa: E402
from sage_ad.alignment.data.prompts import SagePrompts  # noqa: E402
from sage_ad.alignment.data.run_folder import last_checkpoint, train_from  # noqa: E402
from sage_ad.alignment.edpo.trainer import is_frozen  # noqa: E402
from sage_ad.vlm.errors import BackendError, InputError  # noqa: E402
from sage_ad.vlm.sage.processing_sage import SageProcessor  # noqa: E402
from sage_ad.vlm.sage.wrapping import from_base  # noqa: E402


def text_trainer(folder, rows=None, **changes):
    extra = {key: changes.pop(key) for key in ("callbacks", "peft_config", "eval_dataset") if key in changes}
    return EDPOTrainer(
        tiny_language_model(),
        args=settings(folder, **changes),
        train_dataset=Dataset.from_list(text_rows() if rows is None else rows),
        processing_class=tiny_tokenizer(),
        **extra,
    )


def before_and_after(trainer):
    """Weights by name before and after training."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return before, dict(trainer.model.named_parameters())


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


class TestModels:
    def test_a_language_model_learns_the_order(self, tmp_path):
        trainer = text_trainer(tmp_path, max_steps=12, eta=0.5)
        trainer.train()
        assert logged(trainer, "loss")[-1] < logged(trainer, "loss")[0]
        assert logged(trainer, "rewards/accuracies")[-1] == 1
        assert logged(trainer, "rewards/margins")[-1] > 0.5

    @pytest.mark.parametrize("kind", sorted(WRAPPED))
    def test_every_wrapped_model_trains_and_keeps_its_frozen_parts(self, kind, tmp_path):
        trainer = EDPOTrainer(
            wrapped(kind),
            args=settings(tmp_path, max_steps=2),
            train_dataset=Dataset.from_list(hand_made_rows()),
            processing_class=tiny_tokenizer(),
            encoder=HandMadePrompts(kind),
        )
        before, after = before_and_after(trainer)
        frozen = [name for name in after if is_frozen(name)]
        assert any("fusion.attention" in name for name in frozen)
        assert any("vision" in name or "visual" in name for name in frozen)
        assert all(torch.equal(before[name], after[name]) for name in frozen)
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert any("language_model" in name or "text_model" in name for name in moved)
        assert any("image_projection" in name for name in moved)

    def test_a_vision_language_model_of_hugging_face_with_pictures_and_an_adapter(self, tmp_path):
        """An adapter that would reach into the visual encoder is kept out of it."""
        peft = pytest.importorskip("peft")
        rows = [
            {"prompt": [{"role": "user", "content": f"Is it {i}?"}], "images": [picture(i)], "answers": WORDS[:3],
             "scores": [5.0, 3.0, 1.0]}
            for i in range(3)
        ]  # fmt: skip
        trainer = EDPOTrainer(
            WRAPPED["llava"](),
            args=settings(tmp_path, max_steps=2),
            train_dataset=Dataset.from_list(rows),
            processing_class=llava_processor(),
            peft_config=peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
        )
        before, after = before_and_after(trainer)
        moved = [name for name in after if not torch.equal(before[name], after[name])]
        assert moved
        assert all("language_model" in name and "lora" in name for name in moved)

    def test_a_wrapped_model_with_its_processor(self, tmp_path):
        """Pictures, facts and evidence in columns, through SageProcessor."""
        processor = SageProcessor.from_base(llava_processor())
        model = from_base(WRAPPED["llava"](), processor=processor, fusion_heads=4, distinct=3)
        rows = [
            {"prompt": "Is there a hole?", "images": [picture(i)], "answers": WORDS, "scores": [5.0, 4.0, 2.0, 1.0],
             "facts": ["a hole"], "evidence": 1.0 - i}
            for i in range(2)
        ]  # fmt: skip
        trainer = EDPOTrainer(
            model,
            args=settings(tmp_path, max_steps=2),
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
        )
        trainer.train()
        assert logged(trainer, "kl")[0] == pytest.approx(0, abs=1e-9)

    def test_the_embedded_composition_with_an_adapter(self, tmp_path):
        """Patch features come by `look`; LoRA on the language model, the adapter of the pictures trained beside it."""
        peft = pytest.importorskip("peft")
        model, processor = make()
        rows = [
            {"prompt": QUESTIONS[i], "answers": WORDS, "scores": [5.0, 4.0, 2.0, 1.0], "facts": FACTS[i], "evidence": 1.0,
             "picture": i}
            for i in range(2)
        ]  # fmt: skip

        def look(row):
            return {"patch_features": features(row["picture"])[0], "reference_features": features(9, 1)}

        lora = peft.LoraConfig(
            r=2, target_modules=r"base\..*(q|v)_proj", modules_to_save=["fusion.adapter", "fusion.image_projection"]
        )
        trainer = EDPOTrainer(
            model,
            args=settings(tmp_path, max_steps=3),
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
            encoder=SagePrompts(processor, look),
            peft_config=lora,
        )
        before, after = before_and_after(trainer)
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert any("fusion.adapter" in name for name in moved)
        assert any("lora_B" in name for name in moved)
        assert all("lora" in name or "modules_to_save" in name for name in moved)
        assert logged(trainer, "kl")[0] == pytest.approx(0, abs=1e-9)
        assert logged(trainer, "kl")[-1] > 0


class TestData:
    def test_lists_without_scores_need_eta_zero(self, tmp_path):
        rows = [{"prompt": "Is it?", "chosen": "True.", "rejected": "False."}]
        with pytest.raises(InputError, match="sage-train score"):
            text_trainer(tmp_path, rows)
        trainer = text_trainer(tmp_path, rows, eta=0.0, max_steps=1)
        trainer.train()
        assert logged(trainer, "pairs") == [1]

    def test_equal_scores_everywhere_are_refused(self, tmp_path):
        rows = [{**row, "scores": [3.0] * 4} for row in text_rows(3)]
        with pytest.raises(InputError, match=r"None of the 3 lists.*mend the data or the judge"):
            text_trainer(tmp_path, rows)

    def test_unscored_answers_are_left_out_and_said(self, tmp_path, caplog):
        rows = text_rows(3)
        rows[0]["scores"] = [None, 4.0, None, None]
        rows[1]["scores"] = [5.0, None, None, 1.0]
        trainer = text_trainer(tmp_path, rows)
        assert "1 of 3 lists" in caplog.text
        assert next(len(row["answer_ids"]) for row in trainer.train_dataset) == 2

    def test_missing_columns_are_named(self, tmp_path):
        with pytest.raises(InputError, match="no column answers"):
            text_trainer(tmp_path, [{"prompt": "Is it?"}], eta=0.0)

    def test_a_prompt_that_fills_the_length_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="max_length=5"):
            text_trainer(tmp_path, max_length=5)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"entropy": "sum"},
            {"pairs": "best"},
            {"eta": -1.0},
            {"loss_type": "ipo"},
            {"loss_type": ["sft"]},
            {"ld_alpha": 0.5},
        ],
    )
    def test_settings_without_meaning_are_refused(self, wrong, tmp_path):
        with pytest.raises(InputError, match=next(iter(wrong))):
            EDPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **wrong)


class TestInTheOpen:
    def test_everything_is_logged_and_goes_to_tensorboard(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        trainer = text_trainer(tmp_path, report_to="tensorboard", eval_dataset=Dataset.from_list(text_rows(3)))
        trainer.train()
        trainer.evaluate()
        wanted = {"loss", "learning_rate", "grad_norm", "kl", "entropy_gap", "logps/chosen", "logps/rejected"}
        wanted |= {f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")}
        assert wanted <= set(trainer.state.log_history[0])
        assert {"eval_loss", "eval_rewards/accuracies", "eval_kl"} <= set(trainer.state.log_history[-1])
        assert "rewards/accuracies_ends" not in trainer.state.log_history[0], (
            "a trained pair is not known by its places"
        )
        events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents.*")).parent)).Reload()
        tags = set(events.Tags()["scalars"])
        assert {f"train/{name}" for name in wanted} <= tags

    def test_fine_and_clear_distinctions_are_measured_apart(self, tmp_path):
        """Trained on the ends alone, a model can tell them; where ends tie, neighbours alone are measured."""
        rows = text_rows(3)
        trainer = text_trainer(
            tmp_path, pairs="extreme", eta=0.0, max_steps=30, learning_rate=1e-2, eval_dataset=Dataset.from_list(rows)
        )
        trainer.train()
        measured = trainer.evaluate()
        assert measured["eval_rewards/accuracies_ends"] == 1
        assert 0 <= measured["eval_rewards/accuracies_neighbours"] <= 1
        tied = [{**row, "scores": [3.0, 4.0, 2.0, 3.0]} for row in rows]
        measured = text_trainer(tmp_path / "tied", eval_dataset=Dataset.from_list(tied)).evaluate()
        assert "eval_rewards/accuracies_ends" not in measured
        assert "eval_rewards/accuracies_neighbours" in measured

    def test_the_reference_is_asked_once_and_kept(self, tmp_path, monkeypatch):
        first = text_trainer(tmp_path)

        def never(*args, **kwargs):
            raise AssertionError("the reference is asked again")

        monkeypatch.setattr(type(first.model), "forward", never)
        assert text_trainer(tmp_path).train_dataset["ref_logps"][:] == first.train_dataset["ref_logps"][:]


class Poison(TrainerCallback):
    """A fault: a weight becomes NaN before the third step."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            with torch.no_grad():
                next(model.parameters())[:] = float("nan")


class TestStops:
    def test_nan_stops_with_the_last_good_checkpoint(self, tmp_path):
        trainer = text_trainer(tmp_path, callbacks=[Poison()], save_strategy="steps", save_steps=1)
        with pytest.raises(BackendError, match=r"step 3.*not a finite number.*checkpoint-2"):
            trainer.train()
        good = last_checkpoint(tmp_path)
        assert good is not None
        from safetensors.torch import load_file

        assert all(w.isfinite().all() for w in load_file(good / "model.safetensors").values())

    def test_a_gradient_that_is_no_number_never_reaches_the_weights(self, tmp_path):
        trainer = text_trainer(tmp_path)
        weight = next(iter(trainer.model.parameters()))
        weight.register_hook(lambda grad: grad * float("nan"))
        before = weight.detach().clone()
        with pytest.raises(BackendError, match="gradient"):
            trainer.train()
        assert torch.equal(weight, before)

    def test_drift_from_the_reference_stops(self, tmp_path):
        trainer = text_trainer(tmp_path, learning_rate=0.5, max_kl=0.5, max_steps=8)
        with pytest.raises(BackendError, match=r"max_kl is 0.5.*no checkpoint"):
            trainer.train()


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    """kill -9 at step 5, resume from the checkpoint of step 4: the same weights, to the bit."""
    whole = text_trainer(tmp_path / "whole", max_steps=8)
    whole.train()
    with pytest.raises(BrokenProcessPool):
        in_processes(1, killed_run, tmp_path / "killed", 5)
    resumed = text_trainer(tmp_path / "killed", max_steps=8, save_strategy="steps", save_steps=2)
    at = last_checkpoint(tmp_path / "killed")
    assert at is not None
    assert at.name == "checkpoint-4"
    resumed.train(resume_from_checkpoint=str(at))
    for (name, one), two in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_a_finished_run_in_parts_says_what_to_do(tmp_path):
    """Weights that are split over processes come back by training alone."""
    trainer = text_trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.is_fsdp_enabled = True
    with pytest.raises(InputError, match=r"delete .*checkpoint-1"):
        train_from(trainer, last_checkpoint(tmp_path))
