"""Options of the two trainers, declared once: the command line, its help, `--config` files and the trainers' settings
(`Stage1Config`, `EDPOConfig`) all follow from these dataclasses. Light: neither torch nor TRL is imported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sage_ad.alignment.data.pairs import EntropyForm, PairChoice
from sage_ad.vlm.backends.base import UNTUNED
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.options import check_options, option
from sage_ad.vlm.sage.checkpoint import STAGE_1

FactMode = Literal["soft", "hard", "none"]
DEVICE = "auto, cpu or cuda; CUDA_VISIBLE_DEVICES chooses among several GPUs."


def _record(run: Any) -> dict[str, Any]:
    """A run as JSON, without what says how it is begun."""
    values = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(run).items()}
    return {key: values[key] for key in values if key != "resume"} | {
        "data": [str(path.resolve()) for path in run.data]
    }


def _check_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if index:
        raise InputError(
            f"Training uses the GPUs that it sees, so the device {device!r} cannot be chosen; use {kind}, with "
            f"CUDA_VISIBLE_DEVICES={index} in the environment."
        )


# ---- stage 1 ---------------------------------------------------------------------------------------------------------


@dataclass
class Stage1Options:
    """How stage 1 trains; names that `transformers.TrainingArguments` has too mean the same there.

    Raises:
        InputError: a value that has no meaning.
    """

    facts: FactMode = option("soft", help="How facts reach the model.")
    learning_rate: float = option(3e-4, help="Peak learning rate of the LoRA weights.", min=0)
    fusion_learning_rate: float = option(
        1e-3, help="Peak learning rate of what SAGE adds: adapter, fusion attention, projections.", min=0
    )
    parts_per_batch: int = option(4, help="Parts a step; each brings five questions.", min=1)
    gradient_accumulation_steps: int = option(1, help="Batches that make one step.", min=1)
    num_train_epochs: float = option(1.0, help="Times through the parts.", above=0)
    max_steps: int = option(-1, help="Optimiser steps in place of epochs; -1 goes by epochs.")
    warmup_steps: float = option(0.05, help="Steps of rising learning rate, or a share below 1.", min=0)
    weight_decay: float = option(0.01, help="Weight decay of AdamW.", min=0)
    lora_rank: int = option(
        16, help="Rank of the LoRA matrices on every linear map (a checkpoint keeps its own).", min=1
    )
    train_evidence: bool = option(
        False, help="Train how far the language model may move the verdict; else the evidence alone decides it."
    )
    bf16: bool = option(False, help="Compute in bfloat16 (mixed precision).")
    logging_steps: float = option(5, help="Steps between two lines of the log.", above=0)
    save_steps: float = option(25, help="Steps between two checkpoints, from which --resume continues.", above=0)

    def __post_init__(self) -> None:
        check_options(self, Stage1Options)


@dataclass
class Stage1Run(Stage1Options):
    """A run of stage 1 from labelled sets to a checkpoint: `sage-train sft`."""

    data: tuple[Path, ...] = option((), help="Labelled set in any layout that sage-eval reads; may be given again.")
    synthetic: int = option(400, help="Drawn parts to add, with and without drawn defects.", min=0)
    pasted: int = option(60, help="Good parts of each category that get a drawn defect pasted on.", min=0)
    limit: int | None = option(None, help="At most so many good and so many defective images of a category.", min=1)
    domain: str | None = option(None, help="Knowledge pack of the parts; default: found by product.")
    model: str = option(
        UNTUNED,
        help=f"'{UNTUNED}' (embedded), a checkpoint's folder or name ({STAGE_1}), or a Hugging Face vision-language "
        "model.",
    )
    gradient_checkpointing: bool = option(
        False, help="Compute activations again in the backward pass: less memory, more time."
    )
    out: Path = option(Path("runs/sft"), help="Folder for checkpoints, logs and the trained weights.")
    resume: bool = option(False, help="Go on from the last whole checkpoint in --out, or begin where there is none.")
    seed: int = option(0, help="Seed of data, order and starting weights.")
    device: str = option("auto", help=DEVICE)

    def __post_init__(self) -> None:
        check_options(self, Stage1Run)
        _check_device(self.device)

    record = _record


# ---- stage 2 ---------------------------------------------------------------------------------------------------------


@dataclass
class EDPOOptions:
    """What entropy-aware alignment is (Eq. 3 to 7), in the command as in `EDPOConfig`.

    Raises:
        InputError: a value that has no meaning.
    """

    eta: float = option(1.0, help="Weight of the entropy gap in the loss; 0 is DPO on the same pairs.", min=0)
    beta: float = option(0.1, help="How strongly the reference holds the model back.", min=0)
    entropy: EntropyForm = option("term", help="Form of Eq. 4.")
    pairs: PairChoice = option("edpo", help="Pairs of each list, Eq. 5.")
    reference_free: bool = option(False, help="Eq. 6 as printed, without a reference.")
    max_kl: float = option(20.0, help="Stop beyond this drift from the reference, in nats a token.", min=0)

    def __post_init__(self) -> None:
        check_options(self, EDPOOptions)


@dataclass(kw_only=True)
class EDPORun(EDPOOptions):
    """A run of stage 2 from scored answers to an aligned model: `sage-train edpo`."""

    data: tuple[Path, ...] = option(help="Scored answers (sage-train score), or TRL's columns; may be given again.")
    out: Path = option(help="Folder for checkpoints, logs (TensorBoard) and the aligned model.")
    model: str = option(STAGE_1, help=f"Stage 1 model: {STAGE_1}, a folder, or a Hugging Face name.")
    sft_weight: float = option(
        0.0, help="Adds the best answers' own likelihood to the loss, so that it does not sink with the rest.", min=0
    )
    steps: int = option(0, help="Optimiser steps; 0 goes through the data --epochs times.", min=0)
    epochs: float = option(1.0, help="Times through the data.", above=0)
    batch: int = option(1, help="Questions that go through the model together (a process).", min=1)
    accumulate: int = option(4, help="Batches that make one step.", min=1)
    learning_rate: float = option(5e-5, help="Peak learning rate.", above=0)
    lora_rank: int = option(
        16, help="Rank of the LoRA matrices (a checkpoint keeps its own); 0 trains all that may move.", min=0
    )
    held_out: Path | None = option(None, help="Scored answers to measure rewards on after training (all their pairs).")
    save_steps: int = option(50, help="Steps between checkpoints.", min=1)
    resume: bool = option(False, help="Go on from the last whole checkpoint in --out, or begin where there is none.")
    seed: int = option(0, help="Seed of everything random.")
    device: str = option("auto", help=DEVICE)

    def __post_init__(self) -> None:
        check_options(self, EDPORun)
        _check_device(self.device)

    record = _record


def lora_config(rank: int, beside: list[str] | None) -> Any:
    """LoRA on the linear maps of a language model, with whole modules trained beside them."""
    from peft import LoraConfig

    targets = r".*\b(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets, modules_to_save=beside)


def check_adapter_rank(run: Stage1Run | EDPORun, tuned: Any) -> None:
    """Refuses a LoRA rank that would have no effect, since a checkpoint's own adapter is trained on.

    Args:
        run: its rank is the default or the adapter's.
        tuned: the PEFT model of the checkpoint.
    """
    own = tuned.peft_config["default"].r
    if run.lora_rank not in (own, type(run).lora_rank):
        raise InputError(
            f"The checkpoint {run.model} is trained on with its own adapter of rank {own}, so lora_rank={run.lora_rank} would "
            "have no effect; leave it out, or begin with a model that has no adapter."
        )
