"""Stage 1: packed questions equal separate ones, runs continue where they stopped, and the evidence is calibrated."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tiny_sage import GRID, features, make  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from sage_ad.alignment.data.features import VisualInputCache  # noqa: E402
from sage_ad.alignment.data.labelled import Picture, drawn_parts  # noqa: E402
from sage_ad.alignment.data.questions import Stage1Example  # noqa: E402
from sage_ad.alignment.sft.calibration import calibrate  # noqa: E402
from sage_ad.alignment.sft.config import Stage1Config  # noqa: E402
from sage_ad.alignment.sft.data import PartBatches, batches_of, packed, part_tasks, training_measurement  # noqa: E402
from sage_ad.alignment.sft.run import Stage1Run, starting_model  # noqa: E402
from sage_ad.alignment.sft.trainer import Stage1Trainer, answer_logits, with_lora  # noqa: E402
from sage_ad.vlm.errors import InputError  # noqa: E402
from sage_ad.vlm.sage.visual_inputs import VisualInputs  # noqa: E402

CALIBRATION = {"references": [0.7, 0.2], "builtin": [0.5, -0.1]}


def visual(seed: int, margin: float = 1.0) -> VisualInputs:
    generator = torch.Generator().manual_seed(seed)
    return VisualInputs(
        features=features(seed)[0].half(),
        evidence=torch.rand(GRID, GRID, generator=generator).half(),
        distinct=torch.randperm(GRID * GRID, generator=generator)[:4],
        margin=margin,
        score=0.6,
        threshold=0.5,
        compared="references" if seed % 2 else "builtin",
        place="upper left",
    )


class VisualInputDouble:
    """Visual inputs by seed in place of measured ones."""

    def get(self, picture, _reference):
        return visual(picture.seed, 1.0 if picture.defect else -1.0)


def example(number: int, question: int) -> Stage1Example:
    bad = number % 2 == 0
    asked = ["Is there a scratch ?", "Is the part normal , or is there a hole in the area ?"][question]
    answer = (
        "anomalous. True. There is a scratch in the upper left area." if bad else "normal. False. There is no hole."
    )
    return Stage1Example(
        id=f"{number}#{question}", group=str(number), task="inspect",
        picture=Picture("drawn", seed=number, defect="scratch" if bad else None), reference=None,
        question=asked, answer=answer, family="defect identification", polarity="anomalous", verdict=bad,
        anomalous=bad, defect="scratch" if bad else None, place=None, product="part", domain=None, category="a",
        facts=("a scratch is a crack in the area", "there is a hole"), source="drawn",
    )  # fmt: skip


def written(number: int) -> Stage1Example:
    return dataclasses.replace(
        example(number, 0), id=f"facts#{number}", group="facts", task="facts", picture=None, facts=(),
        question="Write facts about the part.", answer="- a scratch is a crack.",
    )  # fmt: skip


@pytest.fixture(scope="module")
def tasks():
    return part_tasks([*(example(n, q) for n in range(8) for q in (0, 1)), written(0), written(1)])


def batches(processor, tasks, **settings):
    chosen = {"mode": "soft", "parts": 2, "seed": 0, "calibration": CALIBRATION, **settings}
    return PartBatches(tasks, processor, VisualInputDouble(), **chosen)


class TestBatches:
    def test_questions_of_a_part_stay_together_and_facts_apart(self, tasks):
        made = batches_of(tasks, 3, seed=1)
        assert sorted(len(b) for b in made) == [2, 2, 3, 3]
        assert all(len({task.pictured for task in own}) == 1 for own in made)
        assert all(len(task.examples) == 2 for own in made for task in own if task.pictured)
        assert made != batches_of(tasks, 3, seed=2)

    def test_labels_are_the_answers_and_verdict_tokens_follow_the_questions(self):
        made = packed([[([5, 6], [7, 8]), ([9], [10])], [([11], [12, 13])]])
        assert made["ids"].tolist() == [[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0]]
        assert made["labels"].tolist() == [[-100, -100, 7, 8, -100, 10], [-100, 12, 13, -100, -100, -100]]
        assert made["state_mask"].int().tolist() == [[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0]]
        assert made["owners"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, -1, -1, -1]]

    def test_nothing_to_learn_from_is_said(self):
        with pytest.raises(InputError, match="nothing to learn from"):
            batches(make()[1], [])

    @pytest.mark.parametrize("mode", ["soft", "hard", "none"])
    def test_packed_questions_have_the_loss_of_separate_ones(self, tasks, mode):
        """The verdict token's evidence, the shared picture and the facts act on every question as if it stood alone."""
        model, processor = make()
        model = model.float()
        made = batches(processor, tasks, mode=mode)
        index = next(i for i, own in enumerate(made.batches) if own[0].pictured)
        logits, labels = answer_logits(model, model, made[index])
        together = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
        apart = 0.0
        for task in made.batches[index]:
            seen = VisualInputDouble().get(task.examples[0].picture, None)
            for e in task.examples:
                factor, offset = CALIBRATION[seen.compared]
                inputs = processor(
                    text=[e.question],
                    patch_features=seen.features[None].float(),
                    patch_evidence=seen.evidence[None].float(),
                    facts=[list(e.facts)],
                    measured=[training_measurement(seen, task)],
                    evidence=[factor * seen.margin + offset],
                    answers=[e.answer],
                    mode=mode,
                )
                alone, target = answer_logits(model, model, {**inputs, "distinct": seen.distinct[None]})
                apart += F.cross_entropy(alone.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum")
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def trainer(folder, tasks, **settings):
    model, processor = make()
    tuned = with_lora(model, 2, train_evidence=True)
    for name, weight in tuned.named_parameters():
        if "lora_A" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    chosen = {
        "output_dir": str(folder), "max_steps": 4, "save_steps": 2, "use_cpu": True, "report_to": "none",
        "disable_tqdm": True, "logging_steps": 1, "fusion_learning_rate": 1e-2, "seed": 3, **settings,
    }  # fmt: skip
    return Stage1Trainer(tuned, Stage1Config(**chosen), train_dataset=batches(processor, tasks))


class TestTraining:
    def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(self, tasks, tmp_path):
        whole = trainer(tmp_path / "whole", tasks)
        whole.train()
        trainer(tmp_path / "broken", tasks, save_total_limit=None).train()
        again = trainer(tmp_path / "broken", tasks)
        again.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-2"))
        first, second = (
            {n: p.detach() for n, p in t.model.named_parameters() if p.requires_grad} for t in (whole, again)
        )
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]), name

    def test_it_learns_and_leaves_the_base_alone(self, tasks, tmp_path):
        run = trainer(tmp_path, tasks, max_steps=12, learning_rate=1e-2, lr_scheduler_type="constant", warmup_steps=0)
        before = {n: p.detach().clone() for n, p in run.model.named_parameters() if not p.requires_grad}
        run.train()
        losses = [line["loss"] for line in run.state.log_history if "loss" in line]
        assert sum(map(float, losses[-3:])) < 0.9 * sum(map(float, losses[:3]))
        assert any("state_loss" in line for line in run.state.log_history)
        for name, value in run.model.named_parameters():
            if name in before:
                assert torch.equal(value, before[name]), name

    def test_accumulated_batches_are_averaged(self, tasks, tmp_path):
        run = trainer(tmp_path, tasks, gradient_accumulation_steps=2, max_steps=1)
        run.train()
        assert run.state.log_history[0]["loss"] == pytest.approx(run.state.log_history[0]["word_loss"])

    def test_going_on_from_a_checkpoint_leaves_the_say_of_the_evidence_alone(self, tmp_path):
        run = Stage1Run(model="sage-tiny-sft", out=tmp_path)
        args = Stage1Config(output_dir=str(tmp_path), report_to="none", use_cpu=True)
        model, _, _ = starting_model(run, args, CALIBRATION)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert any("lora_B" in name for name in trained)
        assert not any("state_evidence" in name for name in trained)
        with pytest.raises(InputError, match="adapter of rank 16, so lora_rank=8"):
            starting_model(dataclasses.replace(run, lora_rank=8), args, CALIBRATION)
        # In bfloat16 the small steps of a second training would be rounded away.
        assert {p.dtype for name, p in trained.items() if "fusion" in name} == {torch.float32}

    def test_settings_that_make_no_sense_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="soft, hard, none"):
            Stage1Config(output_dir=str(tmp_path), facts="loud")
        with pytest.raises(InputError, match="parts_per_batch=0"):
            Stage1Config(output_dir=str(tmp_path), parts_per_batch=0)


class TestCalibration:
    def test_log_odds_are_those_of_the_data(self):
        generator = torch.Generator().manual_seed(0)
        margins = 2 * torch.randn(4000, generator=generator)
        chances = torch.sigmoid(1.5 * margins)
        states = torch.rand(4000, generator=generator) < chances
        seen = [
            (dataclasses.replace(visual(1), margin=float(m)), bool(s), "only")
            for m, s in zip(margins, states, strict=True)
        ]
        # The threshold is the evidence's own: at a margin of 0 both states are as likely.
        assert calibrate(seen)["references"] == [pytest.approx(1.5, abs=0.2), 0.0]

    def test_too_few_parts_are_refused(self):
        seen = [(visual(1, m), m > 0, "only") for m in (-1.0, 1.0)]
        with pytest.raises(InputError, match="at least 10 good and 10 defective"):
            calibrate(seen)


class TestVisualInputs:
    def test_what_was_measured_is_kept_and_found_again(self, tmp_path):
        (part,) = drawn_parts(1, seed=5, size=96)
        cache = VisualInputCache(tmp_path)
        first = cache.get(part.picture, part.reference)
        alone = cache.get(part.picture, None)
        assert (first.compared, alone.compared) == ("references", "builtin")
        assert first.features.shape == (20, 20, 168)
        assert float(first.evidence.abs().max()) <= 1
        again = VisualInputCache(tmp_path)
        found = again.get(part.picture, part.reference)
        assert again.measured == 0
        assert found.margin == first.margin
        assert found.place == first.place
        assert torch.equal(found.features, first.features)
        assert cache.fill([(part.picture, None)]) == 0

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path):
        (part,) = drawn_parts(1, seed=5, size=96)
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be kept in"):
            VisualInputCache(tmp_path / "file" / "kept").get(part.picture, None)
