"""Settings of `EDPOTrainer`: those of TRL's `DPOConfig`, and what entropy-aware alignment adds."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import DPOConfig

from sage_ad.alignment.options import EDPOOptions
from sage_ad.vlm.errors import InputError

_LOSSES = (["sigmoid"], ["sigmoid", "sft"])
_NOT_OFFERED = {
    "ld_alpha": None,
    "f_divergence_type": "reverse_kl",
    "label_smoothing": 0.0,
    "use_weighting": False,
    "sync_ref_model": False,
    "activation_offloading": False,
    "use_liger_kernel": False,
}
"""Settings of DPO that change the loss or the forward pass and have no meaning in Eq. 6; they must stay as they are."""


@dataclass
class EDPOConfig(EDPOOptions, DPOConfig):
    """Settings of E-DPO (Eq. 3 to 7). All fields of `trl.DPOConfig` are there too (learning rate, steps, precision, ...).

    Attributes:
        eta: weight of the entropy gap dH in Eq. 6; 0 with `pairs="extreme"` is plain DPO.
        beta: how strongly the reference model holds the trained one back (no place in Eq. 6 as printed).
        entropy: form of Eq. 4, "term" or "surprisal" (`sage_ad.alignment.data.pairs`).
        pairs: which answers are compared, Eq. 5: "edpo", "extreme", "adjacent" or "all" (`sage_ad.alignment.data.pairs`).
        reference_free: Eq. 6 to the letter: no reference in the loss. The reference is then only measured against.
        freeze_encoder: keeps the visual encoder and SAGE's fusion attention as they are, to the bit.
        max_kl: training stops when the trained answers have moved further than this from the reference, in nats a token
            (`sage_ad.alignment.edpo.loss.kl_estimate`).
        max_length: answers are cut so that prompt and answer are no longer; None (the default here) cuts nothing.
        precompute_ref_log_probs: always true: the reference is asked once, before training.
        loss_type, loss_weights: `["sigmoid", "sft"]` adds the likelihood of each question's best answer to Eq. 7 (nats a
            token), so that it is not lowered along with the others; not in the paper.

    A batch of `per_device_train_batch_size` is so many *questions*; each brings all of its pairs.

    Raises:
        InputError: a value that has no meaning here.
    """

    freeze_encoder: bool = field(
        default=True, metadata={"help": "Leave visual encoder and fusion attention unchanged."}
    )

    # Other defaults than TRL's.
    max_length: int | None = field(
        default=None, metadata={"help": "Cut answers beyond this many tokens with the prompt."}
    )
    precompute_ref_log_probs: bool = field(default=True, metadata={"help": "Ask the reference once, before training."})
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Recompute activations in the backward pass; sharing saves more already."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Columns beside the answers are the prompt's inputs, so they stay."}
    )

    def __post_init__(self) -> None:
        EDPOOptions.__post_init__(self)
        if isinstance(self.loss_type, str):
            self.loss_type = [self.loss_type]
        if self.loss_type not in _LOSSES:
            raise InputError(
                f"loss_type={self.loss_type!r} is not offered; use ['sigmoid'] (Eq. 7), ['sigmoid', 'sft'], or trl.DPOTrainer."
            )
        for name, only in _NOT_OFFERED.items():
            if getattr(self, name) != only:
                raise InputError(
                    f"{name}={getattr(self, name)!r} is a setting of other losses than Eq. 6; leave it at {only!r}, or "
                    "use trl.DPOTrainer."
                )
        if not self.precompute_ref_log_probs:
            raise InputError(
                "E-DPO asks the reference ahead of time, so precompute_ref_log_probs=False is not possible; leave it out."
            )
        DPOConfig.__post_init__(self)
