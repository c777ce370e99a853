"""The model at the end of stage 2, when it is split over processes: gathered, made whole, and written by the first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import tiny_language_model, tiny_tokenizer

from sage_ad.alignment.edpo.run import EDPORun, gathered_weights, whole_model
from sage_ad.vlm.errors import BackendError


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    tiny_language_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora_rank", [2, 0])
def test_a_model_split_over_two_processes_is_saved_whole(tiny: Path, tmp_path: Path, lora_rank: int) -> None:
    from forked import in_processes
    from split_run import main, trained
    from transformers import AutoModelForCausalLM

    in_processes(2, main, tmp_path, lora_rank)
    wanted = trained(EDPORun(data=(), out=tmp_path, model=str(tiny), lora_rank=lora_rank))
    if lora_rank:
        wanted = wanted.merge_and_unload()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    assert saved.keys() == wanted.state_dict().keys()
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(saved[name], value)


def test_a_model_that_every_process_holds_is_taken_as_it_is(tiny: Path, tmp_path: Path) -> None:
    model = tiny_language_model()
    accelerator = SimpleNamespace(unwrap_model=lambda wrapped: wrapped)
    trainer: Any = SimpleNamespace(
        accelerator=accelerator, model=model, is_fsdp_enabled=False, is_deepspeed_enabled=False
    )
    weights = gathered_weights(trainer)
    assert weights is None
    assert whole_model(EDPORun(data=(), out=tmp_path, model=str(tiny)), trainer, weights) is model


def test_weights_that_did_not_come_together_are_said(tiny: Path, tmp_path: Path) -> None:
    run = EDPORun(data=(), out=tmp_path, model=str(tiny), lora_rank=0)
    weights = tiny_language_model().state_dict()
    lost = next(name for name in weights if name.endswith("q_proj.weight"))
    del weights[lost]
    trainer: Any = SimpleNamespace()
    with pytest.raises(BackendError, match=f"1 weights did not come together.*{lost}"):
        whole_model(run, trainer, weights)
