"""The folder of a training run: what it was begun with, and the checkpoint from which it can continue."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole

if TYPE_CHECKING:
    from transformers import Trainer
    from transformers.trainer_utils import TrainOutput

SETTINGS = "settings.json"


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in a folder; one that was being written when the run was killed is passed over.

    The trainer's state is written last, so a checkpoint whose state is read without fault is whole.
    """
    from transformers.trainer import TRAINER_STATE_NAME

    found = []
    for path in Path(folder).glob("checkpoint-*"):
        step = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if step is None:
            continue
        try:
            state = json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if state.get("global_step") == int(step.group(1)):
            found.append((int(step.group(1)), path))
    return max(found)[1] if found else None


def begin_folder(out: Path, settings: Mapping[str, Any], resume: bool, may_differ: Collection[str] = ()) -> None:
    """Makes the folder of a run and keeps its settings there; refuses to mix two runs in it.

    Args:
        out: the folder.
        settings: everything that the run depends on, as JSON.
        resume: the run continues from the last checkpoint, or from the beginning where there is none.
        may_differ: settings that may be another on resuming.

    Raises:
        InputError: the folder cannot be made, or holds another run.
    """
    from sage_ad.evaluation.runs import output_folder

    file = output_folder(out) / SETTINGS
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if not resume and last_checkpoint(out):
        raise InputError(
            f"{out} holds the checkpoints of an earlier run; add --resume to continue, or name another folder."
        )
    if kept is not None and resume:
        other = sorted(key for key in settings if key not in may_differ and kept.get(key) != settings[key])
        if other:
            raise InputError(
                f"{out} was begun with other settings ({', '.join(other)}); repeat its own (they stand in "
                f"{SETTINGS}), or name another folder."
            )
    write_whole(file, json.dumps(settings, indent=2) + "\n")


def train_from(trainer: Trainer, checkpoint: Path | None) -> TrainOutput:
    """Trains from a checkpoint on, or from the beginning without one.

    A run that was killed behind its last step only gets its weights back: the Trainer itself would take one step more.

    Raises:
        InputError: such a run is split over processes, so that its weights come back by training alone.
    """
    from transformers import TrainerState
    from transformers.trainer import TRAINER_STATE_NAME
    from transformers.trainer_utils import TrainOutput

    if checkpoint is None:
        return trainer.train()
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if state.global_step < state.max_steps:
        return trainer.train(resume_from_checkpoint=str(checkpoint))
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise InputError(
            f"This run had taken all of its steps; delete {checkpoint} and repeat, to take the last ones again."
        )
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return TrainOutput(state.global_step, sum(losses) / max(1, len(losses)), {"train_runtime": 0.0})
