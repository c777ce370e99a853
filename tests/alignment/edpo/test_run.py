"""Stage 2 continues from a stage 1 checkpoint: its adapter is trained, a frozen copy of it is the reference."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("peft")

from edpo_models import WORDS, llava_processor, picture  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tiny_models import WRAPPED  # noqa: E402
from tiny_sage import CHANNELS, FACTS, GRID, QUESTIONS, features, make  # noqa: E402

from sage_ad.alignment.data.labelled import Picture  # noqa: E402
from sage_ad.alignment.data.sage_prompts import VisualInputPrompts  # noqa: E402
from sage_ad.alignment.edpo.run import EDPORun, align  # noqa: E402
from sage_ad.alignment.edpo.trainer import is_frozen  # noqa: E402
from sage_ad.alignment.sft.trainer import with_lora  # noqa: E402
from sage_ad.evaluation.ranked import AnswerScore, RankedAnswers, write_ranked  # noqa: E402
from sage_ad.vlm.errors import InputError  # noqa: E402
from sage_ad.vlm.sage.checkpoint import base_model, is_checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from sage_ad.vlm.sage.visual_inputs import VisualInputs  # noqa: E402


@pytest.fixture
def stage_1(tmp_path):
    """A checkpoint as `sage-train sft` writes them, around a tiny vision-language model, with weights that matter."""
    base = tmp_path / "base"
    WRAPPED["llava"]().save_pretrained(base)
    llava_processor().save_pretrained(base)
    model, processor = base_model(str(base), {"distinct": 3}, {"facts": "soft"}, torch.float32)
    tuned = with_lora(model, 2)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    save_checkpoint(tuned, processor, tmp_path / "stage-1", str(base), {"steps": 1})
    return tmp_path / "stage-1"


@pytest.fixture
def run(stage_1, tmp_path):
    """Settings of a short run on the checkpoint, and its scored answers."""
    lines = []
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
        scores = [AnswerScore(mean=mean) for mean in (5.0, 4.0, 2.0, 1.0)]
        lines.append(
            RankedAnswers(
                id=str(i),
                image=f"{i}.png",
                question="Is there a hole?",
                answers=WORDS,
                scores=scores,
                facts=["a hole", "a scratch"],
            )
        )
    write_ranked(tmp_path / "scored.jsonl", lines)
    return EDPORun(
        data=(tmp_path / "scored.jsonl",),
        out=tmp_path / "run",
        model=str(stage_1),
        steps=3,
        batch=2,
        learning_rate=1e-2,
        save_steps=2,
        device="cpu",
        held_out=tmp_path / "scored.jsonl",
    )


def test_the_adapter_of_stage_1_is_trained_and_its_copy_is_the_reference(run, stage_1, tmp_path):
    result = align(run)
    assert result["first"]["kl"] == pytest.approx(0, abs=1e-9)
    assert result["last"]["kl"] > 0
    assert result["held_out"]["eval_kl"] > 0
    folder = tmp_path / "run" / "checkpoint"
    assert is_checkpoint(folder)
    before, after = (load_file(f / "adapter_model.safetensors") for f in (stage_1, folder))
    assert set(before) == set(after)
    frozen = {name for name in before if is_frozen(f"base_model.model.{name}")}
    assert any("fusion.attention" in name for name in frozen)
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("lora_B" in name for name in moved)
    assert not any("vision" in name for name in moved)
    _, _, settings = load_checkpoint(folder)
    assert settings["trained"]["stage_1"] == {"steps": 1}
    assert settings["trained"]["eta"] == 1.0


def test_a_rank_that_the_adapter_of_stage_1_has_not_is_refused(run):
    with pytest.raises(InputError, match=r"adapter of rank 2, so lora_rank=8"):
        align(replace(run, lora_rank=8))


def test_a_run_on_a_checkpoint_goes_on_where_it_was_killed(run, tmp_path):
    """The same weights as without the interruption, to the bit: nothing frozen is opened, and no step is taken twice."""
    align(run)
    whole = load_file(tmp_path / "run" / "checkpoint" / "adapter_model.safetensors")
    for step in (3, 2):
        shutil.rmtree(tmp_path / "run" / "checkpoint")
        result = align(replace(run, resume=True))
        assert result["resumed_from"].endswith(f"checkpoint-{step}")
        assert result["steps"] == 3
        again = load_file(tmp_path / "run" / "checkpoint" / "adapter_model.safetensors")
        assert set(again) == set(whole)
        assert all(torch.equal(again[name], whole[name]) for name in whole)
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")


class VisualInputDouble:
    """What a frozen encoder saw, without one."""

    def get(self, picture, reference):
        seed = int(picture.path)
        return VisualInputs(
            features=features(seed)[0].half(),
            evidence=torch.zeros(GRID, GRID).half(),
            distinct=torch.arange(3),
            margin=1.5,
            score=0.4,
            threshold=0.3,
            compared="references" if reference else "builtin",
            place="upper left",
        )


def test_prompts_are_those_of_stage_1_and_of_inspection():
    """Token for token what the processor makes, with features and evidence beside them."""
    model, processor = make()
    model.config.calibration = {"references": [2.0, 0.5], "builtin": [1.0, 0.0]}
    rows = [
        {
            "prompt": QUESTIONS[i],
            "facts": FACTS[i],
            "picture_file": str(i),
            "reference_file": "9" if i else None,
            "product": "plate",
            "candidates": [{"name": "crack", "probability": 0.8}] if i else [],
        }
        for i in range(2)
    ]
    made = VisualInputPrompts(model, processor, VisualInputDouble()).encode(rows)
    expected = processor(
        text=QUESTIONS,
        patch_features=torch.cat([features(0), features(1)]),
        facts=FACTS,
        measured=[
            VisualInputDouble().get(Picture("file", str(i)), None).measured("plate", [("crack", 0.8)] if i else [])
            for i in range(2)
        ],
    )
    assert torch.equal(made["input_ids"], expected["input_ids"])
    assert torch.equal(made["attention_mask"], expected["attention_mask"])
    assert torch.equal(made["fact_ids"], expected["fact_ids"])
    assert made["patch_features"].shape == (2, GRID, GRID, CHANNELS)
    assert made["evidence_log_odds"].tolist() == pytest.approx([1.5, 3.5])
