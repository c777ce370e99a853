"""Stage 1, self-guided fact enhancement (method.md, section 1): next-token cross-entropy on the answers.

Trained are the adapter, the fusion attention, their projections, and LoRA on the language model; the visual encoder and
the text encoder (the language model's token embeddings) are frozen. This builds on `transformers.Trainer` and not on
TRL's SFTTrainer: that computes the loss inside a fused output layer, past the place where the evidence enters the state
word, and it knows no questions that share a picture.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Trainer

from sage_ad.alignment.data.prefix_sharing import sequence_inputs
from sage_ad.alignment.options import lora_config
from sage_ad.alignment.sft.config import Stage1Config

FUSION = "fusion"


def with_lora(model: Any, rank: int, train_evidence: bool = False) -> Any:
    """The model with LoRA on its language model's linear maps, and its own new parts open to training.

    Args:
        model: a `SageForConditionalGeneration`.
        rank: of the LoRA matrices.
        train_evidence: whether the say of the evidence in the verdict is trained too.
    """
    from peft import get_peft_model

    return opened(get_peft_model(model, lora_config(rank, [FUSION])), train_evidence)


def opened(tuned: Any, train_evidence: bool) -> Any:
    """A PEFT model whose own new parts are open to training, and the say of the evidence only where it is asked for.

    Args:
        tuned: made now, or loaded with its adapter to be trained on.
        train_evidence: whether the say of the evidence in the verdict is trained too.
    """
    for name, parameter in tuned.named_parameters():
        if "state_evidence" in name:
            parameter.requires_grad_(train_evidence and "modules_to_save" in name)
    return tuned


class Stage1Trainer(Trainer):
    """Trains on `sage_ad.alignment.sft.data.PartBatches` (or `PictureBatches`).

    Args:
        model: from `with_lora`.
        args: a `Stage1Config`.
        train_dataset: batches, one an item.
        eval_dataset: the same of parts that training never sees.
    """

    loss_is_scaled_for_ga = False  # A mean over the batch: the Trainer divides it by the accumulated batches.

    def __init__(self, model: Any, args: Stage1Config, **kwargs: Any) -> None:
        super().__init__(model=model, args=args, data_collator=_only, **kwargs)
        self._seen: dict[str, list[torch.Tensor]] = defaultdict(list)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross-entropy of the answers' tokens; logs that of the verdict tokens and of the rest apart."""
        logits, labels = answer_logits(model, self.accelerator.unwrap_model(model), inputs)
        losses = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
        count = (labels != -100).sum().clamp(min=1)
        loss = losses.sum() / count
        if model.training:
            self._note("word_loss", loss)
            state = inputs.get("state_mask")
            if state is not None and bool(state.any()):
                first = F.pad(state, (1, 0))[:, :-1].flatten()
                self._note("state_loss", losses[first].mean())
        return (loss, {"logits": logits}) if return_outputs else loss

    def _note(self, name: str, value: torch.Tensor) -> None:
        self._seen[name].append(value.detach())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the means of what was noted since the last line."""
        if "loss" in logs:
            logs |= {name: float(torch.stack(values).mean()) for name, values in self._seen.items() if values}
            self._seen.clear()
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """AdamW with a rate of its own for the new parts, which start from noise."""
        if self.optimizer is None:
            arguments: Any = self.args
            groups: dict[bool, list[Any]] = {True: [], False: []}
            model: Any = self.model
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    groups[f".{FUSION}." in f".{name}."].append(parameter)
            rates = {True: arguments.fusion_learning_rate, False: arguments.learning_rate}
            self.optimizer = torch.optim.AdamW(
                [{"params": own, "lr": rates[new]} for new, own in groups.items() if own],
                weight_decay=arguments.weight_decay,
                betas=(arguments.adam_beta1, arguments.adam_beta2),
            )
        return self.optimizer


def answer_logits(model: Any, plain: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that predict the tokens behind each prefix, and their labels.

    Args:
        model: what is called (perhaps wrapped for many devices).
        plain: the model itself.
        inputs: `prompt`, `ids`, `owners`, `labels` and `state_mask` of a packed batch; or a plain batch of `SageProcessor`.

    Returns:
        (batch, length, vocabulary) and (batch, length).
    """
    if "prompt" not in inputs:
        given = {k: v for k, v in inputs.items() if k != "labels"}
        return model(**given, use_cache=False).logits[:, :-1], inputs["labels"][:, 1:]
    ids, head = inputs["ids"], inputs["prompt"]["input_ids"]
    full = sequence_inputs(_inner(plain), inputs["prompt"], ids, inputs["owners"])
    full["state_mask"] = torch.cat((torch.zeros_like(head, dtype=torch.bool), inputs["state_mask"]), dim=1)
    logits = model(**full, use_cache=False, logits_to_keep=ids.shape[1] + 1).logits
    return logits[:, :-1], inputs["labels"]


def _inner(model: Any) -> Any:
    """The SAGE model inside a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    (batch,) = items
    return batch
