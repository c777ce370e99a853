"""Settings of `Stage1Trainer`: those of `transformers.TrainingArguments`, and how stage 1 trains."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import TrainingArguments

from sage_ad.alignment.options import Stage1Options


@dataclass
class Stage1Config(Stage1Options, TrainingArguments):
    """Settings of `Stage1Trainer`: `transformers.TrainingArguments`, with what `Stage1Options` adds and its defaults.

    A step looks at `parts_per_batch` parts, each with all its questions.
    """

    def __post_init__(self) -> None:
        Stage1Options.__post_init__(self)
        # One item of the data set is a batch already, and its columns are not the model's arguments.
        self.per_device_train_batch_size = 1
        self.remove_unused_columns = False
        self.label_names = ["labels"]
        TrainingArguments.__post_init__(self)
