"""Settings of stage 1."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from sage_ad.vlm.errors import InputError


@dataclass
class Stage1Config(TrainingArguments):
    """Settings of `Stage1Trainer`: those of `transformers.TrainingArguments`, with defaults that fit the small model.

    A step looks at `parts_per_batch` parts, each with all its questions.
    """

    learning_rate: float = field(default=3e-4, metadata={"help": "Peak learning rate of the LoRA weights."})
    fusion_learning_rate: float = field(
        default=1e-3, metadata={"help": "Peak learning rate of what SAGE adds: adapter, fusion attention, projections."}
    )
    parts_per_batch: int = field(default=4, metadata={"help": "Parts a step; each brings five questions."})
    facts: str = field(default="soft", metadata={"help": "How facts reach the model: soft, hard or none."})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the LoRA matrices on every linear map."})
    train_evidence: bool = field(
        default=False,
        metadata={"help": "Train how far the language model may move the verdict; else the evidence alone decides it."},
    )
    num_train_epochs: float = field(default=1.0, metadata={"help": "Times through the parts."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps of rising learning rate, or a share below 1."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    logging_steps: float = field(default=5, metadata={"help": "Steps between two lines of the log."})
    save_steps: float = field(
        default=25, metadata={"help": "Steps between two checkpoints, from which --resume goes on."}
    )

    def __post_init__(self) -> None:
        if self.facts not in ("soft", "hard", "none"):
            raise InputError(f"facts={self.facts!r} is no mode of facts; use soft, hard or none.")
        if self.parts_per_batch < 1 or self.lora_rank < 1:
            raise InputError("parts_per_batch and lora_rank must be at least 1.")
        # One item of the data set is a batch already, and its columns are not the model's arguments.
        self.per_device_train_batch_size = 1
        self.remove_unused_columns = False
        self.label_names = ["labels"]
        super().__post_init__()
