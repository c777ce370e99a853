"""E-DPO: aligns a model with ranked answers (Eq. 3 to 7). Shaped like TRL's `DPOTrainer`, of which it is one.

What is its own: a row is a question with all its ranked answers, pairs and margins follow from their scores (Eq. 4, 5),
the answers of a question share one pass over picture and prompt, and the reference is asked once, before training, with
pictures too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object, is_peft_model
from datasets import Dataset
from transformers import AutoProcessor, ProcessorMixin, TrainerCallback
from trl import DPOTrainer
from trl.models import prepare_deepspeed
from trl.trainer.utils import get_config_model_id, use_adapter

from sage_ad.alignment.data.prefix_sharing import PADDING, answer_sums, token_log_probs
from sage_ad.alignment.data.prompts import PromptEncoder, prompt_encoder
from sage_ad.alignment.data.run_folder import last_checkpoint
from sage_ad.alignment.edpo.config import EDPOConfig
from sage_ad.alignment.edpo.data import (
    PREPARED,
    REFERENCE,
    RankedCollator,
    named_columns,
    prepare_dataset,
    split_batch,
)
from sage_ad.alignment.edpo.loss import edpo_logits, edpo_loss, kl_estimate
from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.files import write_whole

NEIGHBOURS, ENDS = "rewards/accuracies_neighbours", "rewards/accuracies_ends"
"""Logged when a data set is evaluated: reward accuracy on neighbours in rank, and on the best and the worst answer."""

TRL_VERSION = "1.16.0"
TRL_PRIVATE = {
    "_compute_loss": "overridden: Eq. 6 on packed answers; stock DPO runs chosen and rejected apart",
    "_metrics": "appended to: TRL's `log` prints their means",
    "_precompute_engine": "kept: DeepSpeed's inference engine for the reference",
    "_precompute_model_hash": "read: names the reference in the key of its kept log-probabilities",
    "_precompute_ref_logps": "overridden: a value for every token of every answer, kept beside the checkpoints",
    "_prepare_dataset": "overridden: pairs of ranked answers, their tokens, pictures in place",
    "_tag_names": "overridden: tags of the saved model",
    # Of transformers.Trainer.
    "_load_from_checkpoint": "extended: PEFT opens all of an adapter that it loads, so what is frozen is closed again",
    "_prepare_inputs": "extended: what belongs to the loss keeps its precision",
}
"""All private names of `trl.DPOTrainer` that `EDPOTrainer` uses, read against `TRL_VERSION`; the pin of pyproject.toml
admits no later minor version. On another version read these again."""

_ENCODERS = {"vision_tower", "visual", "vision_model", "vision_encoder", "image_tower"}
_ADAPTERS = {"merger"}
"""Parts of an encoder module that are the adapter to the language model, and so are trained."""

_FUSION = {"fusion.attention", "fusion.fact_projection", "fusion.state_evidence"}
_COPIES = re.compile(r"\.(modules_to_save\.[^.]+|original_module)(?=\.)")


def is_frozen(name: str) -> bool:
    """Whether a parameter of this name belongs to the visual encoder, the fusion attention or the evidence's calibration.

    With the attention go the projection behind it and the weight of the evidence in the verdict, which stage 1 set.
    """
    # PEFT keeps what it trains whole beside the original: the part is the same.
    name = _COPIES.sub("", name)
    parts = name.split(".")
    return bool(_ENCODERS & set(parts) and not _ADAPTERS & set(parts)) or any(
        f".{inner}." in f".{name}." for inner in _FUSION
    )


def freeze(model: Any) -> list[str]:
    """Takes the frozen parts out of training, adapters on them too; returns the names of their parameters."""
    frozen = []
    for name, parameter in model.named_parameters():
        if is_frozen(name):
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen


def stop(what: str, step: int, folder: str | Path) -> BackendError:
    """The error that ends a run: what happened, where, what to do, and what is left of the work."""
    good = last_checkpoint(folder)
    left = f"the last good checkpoint is {good}" if good else "no checkpoint had been written yet"
    return BackendError(
        f"Training stopped at step {step}: {what}; lower the learning rate or raise beta, then train again ({left})."
    )


class GradientGuard(TrainerCallback):
    """Ends the run before a gradient that is no number reaches the weights, so that every checkpoint is a good one."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Checks all gradients; the largest entry is NaN or infinite if any is."""
        model = kwargs.get("model")
        grads = [p.grad for p in model.parameters() if p.grad is not None] if model is not None else []
        if grads and not bool(torch.stack([grad.abs().max().float() for grad in grads]).isfinite().all()):
            raise stop("a gradient is not a finite number", state.global_step + 1, self.folder)


class EDPOTrainer(DPOTrainer):
    """Trains on ranked answers with the E-DPO loss.

    Args:
        model: a language model, a vision-language model, a `SageForConditionalGeneration`, one of them with a PEFT
            adapter, or a name to load.
        ref_model: the frozen reference; default: the model as it is before training (its adapter switched off).
        args: an `EDPOConfig`.
        train_dataset, eval_dataset: `datasets.Dataset` with the columns `prompt` (text or messages), `answers` (best
            first; texts or messages), `scores` (one for each answer, None where a judge gave none) and, for pictures,
            `images`; or TRL's `prompt`, `chosen`, `rejected`. For a SAGE model also the columns that `SageProcessor`
            takes (`facts`, `measured`, `evidence`).
        processing_class: tokenizer or processor; default: the model's own.
        encoder: how rows become token ids and model inputs, in place of what `processing_class` suggests: for a SAGE
            model with cached patch features `SagePrompts(processor, view)`, or your own (`sage_ad.alignment.data.prompts`).
        callbacks, optimizers, peft_config, quantization_config: as in `DPOTrainer`.

    Raises:
        InputError: the data or the settings cannot be used.

    Example:
        >>> trainer = EDPOTrainer(
        ...     "HuggingFaceTB/SmolLM2-135M-Instruct",
        ...     args=EDPOConfig(output_dir="out", eta=1.0, entropy="term"),
        ...     train_dataset=Dataset.from_list(
        ...         [{"prompt": "Is it cracked?", "answers": ["Yes, upper left.", "No."], "scores": [5.0, 1.0]}]
        ...     ),
        ... )
        >>> trainer.train()
    """

    _tag_names = ["trl", "edpo"]  # noqa: RUF012 (TRL's attribute)

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: EDPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        encoder: PromptEncoder | None = None,
    ) -> None:
        if args is None:
            args = EDPOConfig(output_dir="edpo")
        if compute_metrics is not None:
            raise InputError(
                "Logits of whole sequences are never made, so compute_metrics cannot be used; leave it out."
            )
        if not isinstance(train_dataset, Dataset):
            raise InputError(
                f"E-DPO asks the reference about every row before training, so train_dataset must be a datasets.Dataset, "
                f"not {type(train_dataset).__name__}."
            )
        processing_class = processing_class or _own_processor(model)
        tokenizer = processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        train_dataset = named_columns(train_dataset)
        self._encoder = encoder or prompt_encoder(processing_class, "pictures" in train_dataset.column_names)
        if args.freeze_encoder and not isinstance(model, str):
            freeze(model)
        super().__init__(
            model=model,
            ref_model=ref_model,
            args=args,
            data_collator=RankedCollator(self._encoder),
            train_dataset=train_dataset,
            eval_dataset=_each(eval_dataset, named_columns),
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        if args.freeze_encoder:
            freeze(self.model)
        self.add_callback(GradientGuard(str(args.output_dir)))

    # ---- data ------------------------------------------------------------------------------------------------------

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """Pairs and token ids; a set that has them already is left alone (TRL asks again when it evaluates)."""
        if set(PREPARED) <= set(dataset.column_names):
            return dataset
        return prepare_dataset(named_columns(dataset), self._encoder, args, dataset_name)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Moves a batch to the device; what belongs to the loss keeps its precision whatever the model's is."""
        if not isinstance(inputs, Mapping):
            return super()._prepare_inputs(inputs)
        prompt, rest = split_batch(inputs)
        return super()._prepare_inputs(prompt) | {key: value.to(self.args.device) for key, value in rest.items()}

    # ---- reference -------------------------------------------------------------------------------------------------

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The reference's log-probabilities of every answer token, computed once and kept beside the checkpoints."""
        if REFERENCE in dataset.column_names:
            return dataset
        # Fingerprint and hash can differ between processes (a sharded model has no common hash), and a disk need not be
        # shared. The first process decides for all of them, since asking the reference is a collective.
        key = hashlib.sha256(f"{dataset._fingerprint}|{self._precompute_model_hash}".encode()).hexdigest()[:16]
        file = Path(str(self.args.output_dir)) / "reference" / f"{key}.json"
        main = self.accelerator.is_main_process
        (rows,) = broadcast_object_list([_kept_reference(file, len(dataset)) if main else None])
        if rows is None:
            rows = self._ask_reference(dataset, batch_size)
            if main:
                write_whole(file, json.dumps(rows))
        return dataset.add_column(REFERENCE, rows)

    def _ask_reference(self, dataset: Any, batch_size: int) -> list[list[float]]:
        args: Any = self.args
        model: Any = self.ref_model if self.ref_model is not None else self.model
        if self.ref_model is None and self.is_deepspeed_enabled:
            if self._precompute_engine is None:
                self._precompute_engine = prepare_deepspeed(model, self.accelerator)
            model = self._precompute_engine
        elif self.ref_model is None:
            model.to(self.args.device)
        starts = list(range(0, len(dataset), batch_size))
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        own: dict[int, list[float]] = {}
        was_training = model.training
        model.eval()
        with torch.no_grad(), self._reference_adapter(), self.accelerator.autocast():
            for turn in range(math.ceil(len(starts) / world)):
                # Sharded models need every process in every pass, so the last turn repeats a batch where one is short.
                start = starts[min(turn * world + rank, len(starts) - 1)]
                places = range(start, min(start + batch_size, len(dataset)))
                batch = self._prepare_inputs(self.data_collator([dataset[i] for i in places]))
                logps = self._log_probs(model, batch).cpu()
                for i, values, owners in zip(places, logps, batch["answer_owners"].cpu(), strict=True):
                    own[i] = values[owners != PADDING].tolist()
        model.train(was_training)
        if args.freeze_encoder:
            # Going back from the reference's adapter opened all of the trained one again.
            freeze(self.model)
        everyone = gather_object([own]) if world > 1 else [own]
        merged = {i: values for part in everyone for i, values in part.items()}
        return [merged[i] for i in range(len(dataset))]

    def _reference_adapter(self) -> Any:
        if self.ref_model is not None or not is_peft_model(self.model):
            return contextlib.nullcontext()
        adapters = self.accelerator.unwrap_model(self.model).peft_config
        # An adapter that is trained on has a frozen copy of its start (TRL calls it "ref"); a new one is switched off.
        return use_adapter(self.accelerator.unwrap_model(self.model), "ref" if "ref" in adapters else None)

    # ---- loss ------------------------------------------------------------------------------------------------------

    def _log_probs(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """(batch, a) log-probabilities of the packed answers' tokens."""
        inner = self.accelerator.unwrap_model(model)
        inner = inner.get_base_model() if is_peft_model(inner) else inner
        prompt, rest = split_batch(batch)
        return token_log_probs(inner, prompt, rest["answer_ids"], rest["answer_owners"], call=model)

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        args: Any = self.args
        owners = inputs["answer_owners"]
        tokens, ref_tokens = self._log_probs(model, inputs), inputs[REFERENCE]
        answers = int(owners.max()) + 1
        logps, ref_logps = (answer_sums(values, owners, answers) for values in (tokens, ref_tokens))
        rows, winners, losers = inputs["pair_rows"], inputs["pair_winners"], inputs["pair_losers"]
        winner, loser = logps[rows, winners], logps[rows, losers]
        ref_winner, ref_loser = ref_logps[rows, winners], ref_logps[rows, losers]
        held = {} if args.reference_free else {"ref_winner": ref_winner, "ref_loser": ref_loser}
        logits = edpo_logits(winner, loser, inputs["pair_gaps"], beta=args.beta, eta=args.eta, **held)
        # The best answer that is compared is the first of its question.
        best = -tokens[owners == 0].mean()
        parts = {"sigmoid": edpo_loss(logits), "sft": best}
        weighed = [weight * parts[kind] for kind, weight in zip(self.loss_types, self.loss_weights, strict=True)]
        loss = torch.stack(weighed).sum()
        with torch.no_grad():
            chosen, rejected = args.beta * (winner - ref_winner), args.beta * (loser - ref_loser)
            right = (chosen > rejected).float()
            by_distance = {}
            if not model.training:
                # Every pair is measured, so that fine and clear distinctions (Eq. 5) can be compared.
                ends = (winners == 0) & (losers == owners.amax(dim=1)[rows])
                by_distance = {NEIGHBOURS: right[losers == winners + 1].mean(), ENDS: right[ends].mean()}
            self._record(
                {
                    "loss": loss,
                    "kl": kl_estimate(tokens, ref_tokens, owners != PADDING),
                    "rewards/chosen": chosen.mean(),
                    "rewards/rejected": rejected.mean(),
                    "rewards/margins": (chosen - rejected).mean(),
                    "rewards/accuracies": right.mean(),
                    "logps/chosen": winner.mean(),
                    "logps/rejected": loser.mean(),
                    "nll/best": best,
                    "entropy_gap": inputs["pair_gaps"].mean(),
                    "pairs": torch.tensor(float(len(rows)), device=loss.device),
                    **by_distance,
                }
            )
        return (loss, {"loss": loss}) if return_outputs else loss

    def _record(self, values: Mapping[str, torch.Tensor]) -> None:
        """Keeps the batch's figures for the log (means over processes), and stops a run that has gone wrong."""
        model: Any = self.model
        mode = "train" if model.training else "eval"
        own = torch.stack([value.detach().float() for value in values.values()])
        everyone = self.accelerator.gather(own[None])
        means = dict(zip(values, everyone.mean(dim=0).tolist(), strict=True))
        step = self.state.global_step + (mode == "train")
        args: Any = self.args
        if not math.isfinite(means["loss"]):
            raise stop("the loss is not a finite number", step, args.output_dir)
        if not means["kl"] <= args.max_kl:
            raise stop(
                f"the answers have moved {means['kl']:.3g} nats a token from the reference (max_kl is {args.max_kl:g})",
                step,
                args.output_dir,
            )
        # Equal scores make no pair, so a batch may have no neighbours or no ends: it then says nothing about them.
        means |= {name: everyone[:, i].nanmean().item() for i, name in enumerate(values) if name in (NEIGHBOURS, ENDS)}
        for name, value in means.items():
            if name != "loss" and not (name in (NEIGHBOURS, ENDS) and math.isnan(value)):
                self._metrics[mode][name].append(value)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        args: Any = self.args
        if args.freeze_encoder:
            # PEFT opens all of an adapter that it loads.
            freeze(self.model)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes none: TRL's describes DPO."""


def _own_processor(model: Any) -> Any:
    name = model if isinstance(model, str) else get_config_model_id(model.config)
    if not name:
        raise InputError("A model that was not loaded by name has no tokenizer of its own; give processing_class.")
    return AutoProcessor.from_pretrained(name, trust_remote_code=False)


def _each(datasets: Any, change: Callable[[Dataset], Dataset]) -> Any:
    if datasets is None:
        return None
    return {name: change(one) for name, one in datasets.items()} if isinstance(datasets, dict) else change(datasets)


def _kept_reference(file: Path, rows: int) -> list[list[float]] | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, list) and len(kept) == rows else None
