"""The folder of a training run: found checkpoints are whole, and two runs are never mixed in it."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("transformers")

from sage_ad.alignment.data.run_folder import begin_folder, last_checkpoint
from sage_ad.alignment.sft.run import Stage1Run, train_stage1
from sage_ad.vlm.errors import InputError


def checkpoint(folder, step, state):
    (folder / f"checkpoint-{step}").mkdir(parents=True)
    if state is not None:
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))


def test_half_written_checkpoints_are_passed_over(tmp_path):
    for step, state in ((2, {"global_step": 2}), (4, None), (10, {"global_step": 1})):
        checkpoint(tmp_path, step, state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_a_run_that_was_killed_early_can_be_resumed_from_the_beginning(tmp_path):
    begin_folder(tmp_path / "run", {"seed": 1}, resume=False)
    begin_folder(tmp_path / "run", {"seed": 1}, resume=True)


def test_other_settings_are_refused_by_name_on_resuming(tmp_path):
    begin_folder(tmp_path, {"seed": 1, "limit": 30, "device": "cpu"}, resume=False)
    with pytest.raises(InputError, match=r"other settings \(limit, seed\)"):
        begin_folder(tmp_path, {"seed": 2, "limit": None, "device": "cuda"}, resume=True, may_differ={"device"})


class TestStageOne:
    def test_a_folder_with_a_run_is_refused_before_any_picture_is_looked_at(self, tmp_path):
        checkpoint(tmp_path, 25, {"global_step": 25})
        with pytest.raises(InputError, match="--resume"):
            train_stage1(Stage1Run(synthetic=4, out=tmp_path, device="cpu"), pytest.fail)

    def test_resuming_with_other_data_is_refused(self, tmp_path):
        begun = Stage1Run(synthetic=4, out=tmp_path, device="cpu")
        begin_folder(tmp_path, begun.record(), resume=False)
        other = Stage1Run(synthetic=5, pasted=3, out=tmp_path, device="cpu", resume=True)
        with pytest.raises(InputError, match=r"pasted, synthetic"):
            train_stage1(other, pytest.fail)
