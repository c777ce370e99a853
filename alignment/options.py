"""Options of the two trainers, declared once: the command line, its help, `--config` files and the trainers' settings
(`Stage1Config`, `EDPOConfig`) all follow from these dataclasses. Light: neither torch nor TRL is imported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sage_ad.alignment.data.pairs import EntropyReading, PairChoice
from sage_ad.vlm.backends.base import UNTUNED
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.options import check_options
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

    facts: FactMode = field(default="soft", metadata={"help": "How facts reach the model."})
    learning_rate: float = field(default=3e-4, metadata={"help": "Peak learning rate of the LoRA weights.", "min": 0})
    fusion_learning_rate: float = field(
        default=1e-3,
        metadata={"help": "Peak learning rate of what SAGE adds: adapter, fusion attention, projections.", "min": 0},
    )
    parts_per_batch: int = field(default=4, metadata={"help": "Parts a step; each brings five questions.", "min": 1})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches that make one step.", "min": 1})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Times through the parts.", "above": 0})
    max_steps: int = field(default=-1, metadata={"help": "Optimiser steps in place of epochs; -1 goes by epochs."})
    warmup_steps: float = field(
        default=0.05, metadata={"help": "Steps of rising learning rate, or a share below 1.", "min": 0}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW.", "min": 0})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the LoRA matrices on every linear map.", "min": 1})
    train_evidence: bool = field(
        default=False,
        metadata={"help": "Train how far the language model may move the verdict; else the evidence alone decides it."},
    )
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16 (mixed precision)."})
    logging_steps: float = field(default=5, metadata={"help": "Steps between two lines of the log.", "above": 0})
    save_steps: float = field(
        default=25, metadata={"help": "Steps between two checkpoints, from which --resume goes on.", "above": 0}
    )

    def __post_init__(self) -> None:
        check_options(self, Stage1Options)


@dataclass
class Stage1Run(Stage1Options):
    """A run of stage 1 from labelled sets to a checkpoint: `sage-train sft`."""

    data: tuple[Path, ...] = field(
        default=(), metadata={"help": "Labelled set in any layout that sage-eval reads; may be given again."}
    )
    synthetic: int = field(
        default=400, metadata={"help": "Drawn parts to add, with and without drawn defects.", "min": 0}
    )
    pasted: int = field(
        default=60, metadata={"help": "Good parts of each category that get a drawn defect pasted on.", "min": 0}
    )
    limit: int | None = field(
        default=None, metadata={"help": "At most so many good and so many defective images of a category.", "min": 1}
    )
    domain: str | None = field(
        default=None, metadata={"help": "Knowledge pack of the parts; default: found by product."}
    )
    model: str = field(
        default=UNTUNED,
        metadata={
            "help": f"'{UNTUNED}' (embedded), a checkpoint's folder or name ({STAGE_1}), or a Hugging Face vision-language "
            "model."
        },
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Compute activations again in the backward pass: less memory, more time."}
    )
    out: Path = field(
        default=Path("runs/sft"), metadata={"help": "Folder for checkpoints, logs and the trained weights."}
    )
    resume: bool = field(
        default=False, metadata={"help": "Go on from the last whole checkpoint in --out, or begin where there is none."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of data, order and starting weights."})
    device: str = field(default="auto", metadata={"help": DEVICE})

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

    eta: float = field(
        default=1.0, metadata={"help": "Weight of the entropy gap in the loss; 0 is DPO on the same pairs.", "min": 0}
    )
    beta: float = field(default=0.1, metadata={"help": "How strongly the reference holds the model back.", "min": 0})
    entropy: EntropyReading = field(default="term", metadata={"help": "Reading of Eq. 4."})
    pairs: PairChoice = field(default="edpo", metadata={"help": "Pairs of each list, Eq. 5."})
    reference_free: bool = field(default=False, metadata={"help": "Eq. 6 as printed, without a reference."})
    max_kl: float = field(
        default=20.0, metadata={"help": "Stop beyond this drift from the reference, in nats a token.", "min": 0}
    )

    def __post_init__(self) -> None:
        check_options(self, EDPOOptions)


@dataclass(kw_only=True)
class EDPORun(EDPOOptions):
    """A run of stage 2 from scored answers to an aligned model: `sage-train edpo`."""

    data: tuple[Path, ...] = field(
        metadata={"help": "Scored answers (sage-train score), or TRL's columns; may be given again."}
    )
    out: Path = field(metadata={"help": "Folder for checkpoints, logs (TensorBoard) and the aligned model."})
    model: str = field(
        default=STAGE_1, metadata={"help": f"Stage 1 model: {STAGE_1}, a folder, or a Hugging Face name."}
    )
    sft_weight: float = field(
        default=0.0,
        metadata={
            "help": "Adds the best answers' own likelihood to the loss, so that it does not sink with the rest.",
            "min": 0,
        },
    )
    steps: int = field(
        default=0, metadata={"help": "Optimiser steps; 0 goes through the data --epochs times.", "min": 0}
    )
    epochs: float = field(default=1.0, metadata={"help": "Times through the data.", "above": 0})
    batch: int = field(
        default=1, metadata={"help": "Questions that go through the model together (a process).", "min": 1}
    )
    accumulate: int = field(default=4, metadata={"help": "Batches that make one step.", "min": 1})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate.", "above": 0})
    lora_rank: int = field(
        default=16, metadata={"help": "Rank of the LoRA matrices; 0 trains all weights that may move.", "min": 0}
    )
    held_out: Path | None = field(
        default=None, metadata={"help": "Scored answers to measure rewards on after training (all their pairs)."}
    )
    save_steps: int = field(default=50, metadata={"help": "Steps between checkpoints.", "min": 1})
    resume: bool = field(
        default=False, metadata={"help": "Go on from the last whole checkpoint in --out, or begin where there is none."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of everything random."})
    device: str = field(default="auto", metadata={"help": DEVICE})

    def __post_init__(self) -> None:
        check_options(self, EDPORun)
        _check_device(self.device)

    record = _record
