"""A whole run of stage 1: data, frozen features, calibration, training, and the checkpoint at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sage_ad.alignment.options import Stage1Options, Stage1Run, check_adapter_rank
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.alignment.data.labelled import LabelledPart
    from sage_ad.alignment.sft.config import Stage1Config
    from sage_ad.alignment.sft.data import PartTask

Say = Callable[[str], None]
FINAL = "checkpoint"
_MAY_DIFFER = {"device", "out"}
"""What may be another on resuming: it changes neither the data nor any step."""


def labelled_parts(run: Stage1Run) -> list[LabelledPart]:
    """The parts of a run: real ones, pasted defects, drawn ones.

    Raises:
        InputError: a set cannot be read, or there is nothing to learn from.
    """
    from dataclasses import replace

    from sage_ad.alignment.data.labelled import drawn_parts, pasted_parts, real_parts
    from sage_ad.evaluation.datasets import open_dataset

    parts = list(drawn_parts(run.synthetic, seed=run.seed)) if run.synthetic else []
    for path in run.data:
        dataset = open_dataset(path)
        own = list(pasted_parts(dataset, seed=run.seed, limit=run.pasted)) if run.pasted else []
        own += real_parts(dataset, seed=run.seed, limit=run.limit)
        if not own:
            raise InputError(f"{path} holds no labelled picture to learn from; check its layout.")
        parts += [replace(part, domain=run.domain) for part in own] if run.domain else own
    if not parts:
        raise InputError("There is nothing to learn from; name a labelled set with --data, or add --synthetic parts.")
    return parts


def tasks_of(run: Stage1Run, parts: Sequence[LabelledPart], cache: VisualInputCache, say: Say) -> list[PartTask]:
    """Questions, answers and facts for the parts, each as the evidence has it; measures what is not kept yet."""
    from sage_ad.alignment.data.questions import FactPool, Stage1Settings, as_measured, shown_reference, stage1_examples
    from sage_ad.alignment.sft.data import part_tasks
    from sage_ad.knowledge.store.fact_store import FactStore

    def report(done: int, todo: int) -> None:
        if done % 50 == 0 or done == todo:
            say(f"Measured {done} of {todo} parts")

    settings = Stage1Settings(seed=run.seed)
    shown = [(part.picture, shown_reference(part, settings)) for part in parts]
    cache.fill(shown, report)
    pool = FactPool(FactStore.open())
    measured = [as_measured(part, cache.get(*pair), pool, run.seed) for part, pair in zip(parts, shown, strict=True)]
    return part_tasks(list(stage1_examples(measured, pool, settings)))


def calibrated(parts: Sequence[LabelledPart], cache: VisualInputCache) -> dict[str, list[float]]:
    """The calibration of the evidence on labelled parts, each seen with its reference and without.

    Raises:
        InputError: there are too few good or defective parts.
    """
    from sage_ad.alignment.sft.calibration import calibrate

    ways = [(part, part.reference) for part in parts if part.reference is not None] + [(part, None) for part in parts]
    cache.fill([(part.picture, reference) for part, reference in ways])
    return calibrate((cache.get(part.picture, reference), part.anomalous, part.category) for part, reference in ways)


def train_stage1(run: Stage1Run, say: Say = print) -> dict[str, Any]:
    """Trains and writes the checkpoint.

    Returns:
        `checkpoint` (its folder), `parts`, `steps`, `seconds`, `calibration`.

    Raises:
        InputError: data, model or settings cannot be used.
    """
    import torch

    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.alignment.data.run_folder import begin_folder, last_checkpoint, train_from
    from sage_ad.alignment.sft.trainer import Stage1Trainer
    from sage_ad.vlm.sage.checkpoint import save_checkpoint

    args = arguments(run)
    begin_folder(run.out, run.record(), run.resume, _MAY_DIFFER)
    last = last_checkpoint(run.out)
    if run.resume and last is None:
        say(f"There is no whole checkpoint in {run.out} yet; training starts from the beginning")
    random.seed(run.seed)
    cache = VisualInputCache()
    parts = labelled_parts(run)
    tasks = tasks_of(run, parts, cache, say)
    seen = [task.examples[0] for task in tasks if task.pictured]
    calibration = calibrated(parts, cache)
    say(f"Calibrated the evidence: {calibration}")
    # Loading the encoder draws random numbers, and it is only loaded for parts that are not in the cache.
    torch.manual_seed(run.seed)
    model, processor, base = starting_model(run, args, calibration)
    batches = _batches(run, args, tasks, processor, cache, calibration)
    trainer = Stage1Trainer(model, args, train_dataset=batches)
    say(f"Training {len(batches)} steps an epoch on {len(seen)} parts" + (f", from {last}" if last else ""))
    done = train_from(trainer, last)
    folder = run.out / FINAL
    trained = {
        "data": [path.name for path in run.data], "synthetic": run.synthetic, "pasted": run.pasted, "facts": run.facts,
        "parts": len(seen), "steps": trainer.state.global_step, "seed": run.seed, "loss": round(done.training_loss, 4),
    }  # fmt: skip
    save_checkpoint(model, processor, folder, base, trained)
    return {
        "checkpoint": str(folder),
        "parts": len(seen),
        "steps": trainer.state.global_step,
        "seconds": round(done.metrics["train_runtime"], 1),
        "calibration": calibration,
    }


def starting_model(run: Stage1Run, args: Stage1Config, calibration: dict[str, list[float]]) -> tuple[Any, Any, str]:
    """The PEFT model that is trained, its processor, and the name of its base."""
    import torch

    from sage_ad.alignment.sft.trainer import opened, with_lora
    from sage_ad.vlm.backends.base import UNTUNED
    from sage_ad.vlm.sage.checkpoint import EMBEDDED_BASE, base_model, checkpoint_folder, load_checkpoint

    # The bare name of the embedded language model begins like none of the shipped checkpoints'.
    if folder := checkpoint_folder(run.model):
        tuned, processor, settings = load_checkpoint(folder, merge=False)
        check_adapter_rank(run, tuned)
        tuned.get_base_model().config.calibration = calibration
        processor.facts = run.facts
        # As below: small steps would be rounded away.
        tuned.get_base_model().fusion.float()
        return opened(tuned, args.train_evidence), processor, settings["base"]
    base = EMBEDDED_BASE if run.model == UNTUNED else run.model
    model, processor = base_model(
        base, {"calibration": calibration, "evidence": "gated"}, {"facts": run.facts}, torch.bfloat16
    )
    # The new parts learn from noise in small steps, which bfloat16 would round away.
    model.fusion.float()
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return with_lora(model, args.lora_rank, args.train_evidence), processor, base


def _batches(run: Stage1Run, args: Stage1Config, tasks: Any, processor: Any, cache: Any, calibration: Any) -> Any:
    from sage_ad.alignment.sft.data import PartBatches, PictureBatches

    make = PictureBatches if processor.has_base else PartBatches
    return make(
        tasks,
        processor,
        cache,
        mode=run.facts,
        parts=args.parts_per_batch,
        seed=run.seed,
        calibration=calibration,
    )


def arguments(run: Stage1Run) -> Stage1Config:
    """The settings of the trainer that follow from a run.

    Raises:
        InputError: they do not fit each other, or the device is missing.
    """
    from sage_ad.alignment.sft.config import Stage1Config
    from sage_ad.vlm.devices import pick_device

    own = {option.name: getattr(run, option.name) for option in fields(Stage1Options)}
    try:
        return Stage1Config(
            **own,
            output_dir=str(run.out),
            seed=run.seed,
            use_cpu=pick_device(run.device) == "cpu",
            activation_checkpointing=run.gradient_checkpointing,
            report_to="tensorboard",
            save_total_limit=2,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            lr_scheduler_type="cosine",
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"The settings of stage 1 do not fit: {str(error).splitlines()[0]}") from None
