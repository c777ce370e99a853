"""One run of stage 2 from files to files: checks, data, training that can be resumed, and the model that comes out."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.alignment.data.run_folder import begin_folder, last_checkpoint, train_from
from sage_ad.alignment.options import EDPOOptions, EDPORun, check_adapter_rank
from sage_ad.vlm.errors import BackendError

if TYPE_CHECKING:
    from sage_ad.alignment.edpo.config import EDPOConfig
    from sage_ad.alignment.edpo.loading import Loaded
    from sage_ad.alignment.edpo.trainer import EDPOTrainer
    from sage_ad.evaluation.ranked import RankedAnswers

LOG, MODEL = "log.jsonl", "checkpoint"
_MAY_DIFFER = {"save_steps", "device", "out", "max_kl", "held_out"}
"""What may be another on resuming: it changes neither the data nor any step."""


def align(run: EDPORun, lines: list[RankedAnswers] | None = None) -> dict[str, Any] | None:
    """Trains, and writes the aligned model with its processor into `out/checkpoint`, which every `--model` takes.

    Args:
        run: the settings.
        lines: ranked answers in place of those in the files.

    Returns:
        What `sage-train edpo --json` prints; None in the other processes of a run on several devices.

    Raises:
        InputError: data, model, settings or folder cannot be used, or `out` holds another run.
        BackendError: training went wrong; the message names the last good checkpoint.
    """
    started = time.monotonic()
    begin_folder(run.out, run.record(), run.resume, _MAY_DIFFER)
    lines = read_lines(run.data) if lines is None else lines
    trainer, loaded = make_trainer(run, lines)
    at = last_checkpoint(run.out) if run.resume else None
    train_from(trainer, at)
    measured = trainer.evaluate() if run.held_out else {}
    weights = gathered_weights(trainer)
    if not trainer.is_world_process_zero():
        return None
    trained = {"stage": 2, "steps": trainer.state.global_step, **_record(run), "stage_1": _stage_1(loaded)}
    folder = save_model(whole_model(run, trainer, weights), loaded, run.out / MODEL, trained)
    rows: Any = trainer.train_dataset
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    (run.out / LOG).write_text(
        "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history), encoding="utf-8"
    )
    result = {
        "model": str(folder),
        "settings": run.record(),
        "steps": trainer.state.global_step,
        "resumed_from": str(at) if at else None,
        "questions": len(rows),
        "left_out": len(lines) - len(rows),
        "pairs": sum(map(len, rows["pair_winners"])),
        "first": logged[0] if logged else {},
        "last": logged[-1] if logged else {},
        "held_out": measured,
        "seconds": round(time.monotonic() - started, 1),
    }
    (run.out / "results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def read_lines(files: tuple[Path, ...]) -> list[RankedAnswers]:
    """Ranked answers of all files, their paths made absolute."""
    from sage_ad.evaluation.preference_data import read_answers, require_pictures

    lines = []
    for file in files:
        found = read_answers(file)
        require_pictures(found, file)
        lines += found
    return lines


def _record(run: EDPORun) -> dict[str, Any]:
    """The settings that a reader of the checkpoint wants to know."""
    method = ("eta", "beta", "entropy", "pairs", "reference_free", "sft_weight")
    names = (*method, "learning_rate", "batch", "accumulate", "seed")
    return {name: getattr(run, name) for name in names} | {"data": [path.name for path in run.data]}


def _stage_1(loaded: Loaded) -> Any:
    return dict(loaded.checkpoint["trained"]) if loaded.checkpoint and "trained" in loaded.checkpoint else None


def arguments(run: EDPORun) -> EDPOConfig:
    """The settings of the trainer that follow from a run.

    Raises:
        InputError: the device is missing.
    """
    from sage_ad.alignment.edpo.config import EDPOConfig
    from sage_ad.vlm.devices import pick_device

    cpu = pick_device(run.device) == "cpu"
    own = {option.name: getattr(run, option.name) for option in fields(EDPOOptions)}
    return EDPOConfig(
        **own,
        output_dir=str(run.out),
        loss_type=["sigmoid", "sft"] if run.sft_weight else ["sigmoid"],
        loss_weights=[1.0, run.sft_weight] if run.sft_weight else None,
        max_steps=run.steps or -1,
        num_train_epochs=run.epochs,
        per_device_train_batch_size=run.batch,
        gradient_accumulation_steps=run.accumulate,
        learning_rate=run.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        save_steps=run.save_steps,
        save_total_limit=2,
        logging_steps=1 if 0 < run.steps < 20 else 5,
        report_to="tensorboard",
        seed=run.seed,
        use_cpu=cpu,
        bf16=not cpu,
        disable_tqdm=True,
    )


def make_trainer(run: EDPORun, lines: list[RankedAnswers]) -> tuple[EDPOTrainer, Loaded]:
    """The trainer of a run, its data tokenised and its reference asked, and the model that it began with."""
    from transformers import PrinterCallback
    from transformers.trainer_utils import set_seed

    from sage_ad.alignment.edpo.loading import load_for_alignment, lora, training_data
    from sage_ad.alignment.edpo.trainer import EDPOTrainer

    args = arguments(run)
    set_seed(run.seed)
    loaded = load_for_alignment(run.model)
    if loaded.checkpoint is not None:
        check_adapter_rank(run, loaded.model)
    dataset, encoder = training_data(loaded, lines, Path("."))
    measured = training_data(loaded, read_lines((run.held_out,)), Path("."))[0] if run.held_out else None
    trainer = EDPOTrainer(
        loaded.model,
        args=args,
        train_dataset=dataset,
        eval_dataset=measured,
        processing_class=loaded.processing_class,
        encoder=encoder,
        peft_config=lora(loaded, run.lora_rank) if run.lora_rank else None,
        callbacks=[_log_line()],
    )
    # It prints dictionaries on standard output, which belongs to the result.
    trainer.remove_callback(PrinterCallback)
    return trainer, loaded


def gathered_weights(trainer: EDPOTrainer) -> dict[str, Any] | None:
    """All weights of a model that is split over processes (FSDP, ZeRO). Every process must call it: they exchange their parts.

    Returns:
        Weights by name, whole in the first process; None where every process holds the whole model anyway.
    """
    split: Any = trainer.model if trainer.is_fsdp_enabled else None
    if trainer.is_deepspeed_enabled:
        split = trainer.deepspeed
    if split is None:
        return None
    found: dict[str, Any] | None = trainer.accelerator.get_state_dict(split)
    return found or {}


def whole_model(run: EDPORun, trainer: EDPOTrainer, weights: dict[str, Any] | None) -> Any:
    """The trained model in one piece, in this process.

    Args:
        run: the settings.
        trainer: after training.
        weights: of `gathered_weights`.

    Raises:
        BackendError: weights are missing among those that were gathered.
    """
    if weights is None:
        return trainer.accelerator.unwrap_model(trainer.model)
    # A model in parts can be neither merged nor written, so the one that training began with is made again.
    from sage_ad.alignment.edpo.loading import load_for_alignment, lora

    loaded = load_for_alignment(run.model)
    model = loaded.model
    adapter = lora(loaded, run.lora_rank) if run.lora_rank else None
    if adapter is not None:
        from peft import get_peft_model

        model = get_peft_model(model, adapter)
    own = model.state_dict()
    given = {name: value for name, value in weights.items() if name in own}
    # Tied weights have two names and may come under one of them.
    filled = {own[name].data_ptr() for name in given}
    if missing := sorted(name for name in own if name not in given and own[name].data_ptr() not in filled):
        raise BackendError(
            f"{len(missing)} weights did not come together (the first: {missing[0]}); the Trainer's last checkpoint in "
            f"{run.out} holds the trained ones."
        )
    model.load_state_dict(given, strict=False)
    return model


def save_model(model: Any, loaded: Loaded, folder: Path, trained: dict[str, Any]) -> Path:
    """Writes what was trained: a SAGE checkpoint of the same kind as it began with, else a whole model with its processor.

    Args:
        model: the trained model in one piece (`whole_model`).
        loaded: what training began with.
        folder: is made; files in it are replaced.
        trained: how it was trained, for the reader.
    """
    if loaded.checkpoint is not None:
        from sage_ad.vlm.sage.checkpoint import save_checkpoint

        save_checkpoint(model, loaded.processing_class, folder, loaded.checkpoint["base"], trained)
        return folder
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    loaded.processing_class.save_pretrained(folder)
    return folder


def _log_line() -> Any:
    """Says on standard error, every few steps, how training goes."""
    from transformers import TrainerCallback

    class LogLine(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any
        ) -> None:
            if not logs or "loss" not in logs or not state.is_world_process_zero:
                return
            named = (("loss", "loss"), ("accuracy", "rewards/accuracies"), ("margin", "rewards/margins"), ("kl", "kl"))
            figures = ", ".join(f"{name} {logs[key]:.3f}" for name, key in named if key in logs)
            print(f"Step {state.global_step} of {state.max_steps}: {figures}", file=sys.stderr, flush=True)

    return LogLine()
