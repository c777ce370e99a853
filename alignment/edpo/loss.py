"""The E-DPO loss, Eq. 6 and 7: numbers in, numbers out; knows neither models nor text.

    d = beta [ (log pi - log pi_ref)(a_w) - (log pi - log pi_ref)(a_l) ] - eta dH        (default)
    d = log pi(a_w) - log pi(a_l) - eta dH                                  (reference_free: Eq. 6 to the letter)
    L = - mean log sigmoid(d)

dH is the entropy gap of the two answers (`alignment.data.pairs`): answers whose scores lie far apart must be separated by a
wider margin. With eta = 0 the first form is the loss of DPO.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def edpo_logits(
    winner: torch.Tensor,
    loser: torch.Tensor,
    gap: torch.Tensor,
    *,
    ref_winner: torch.Tensor | None = None,
    ref_loser: torch.Tensor | None = None,
    beta: float = 0.1,
    eta: float = 1.0,
) -> torch.Tensor:
    """d of Eq. 6 for each pair.

    Args:
        winner, loser: (pairs,) log pi of the better and the worse answer, in nats.
        gap: (pairs,) dH, in nats.
        ref_winner, ref_loser: (pairs,) the same of the frozen reference; without them d is that of Eq. 6 as printed, and
            `beta` has no place in it.
        beta: how strongly the reference holds the model back.
        eta: weight of the entropy gap.

    Returns:
        (pairs,) logits.
    """
    margin = eta * gap
    if ref_winner is None or ref_loser is None:
        return winner - loser - margin
    return beta * ((winner - ref_winner) - (loser - ref_loser)) - margin


def edpo_loss(logits: torch.Tensor) -> torch.Tensor:
    """Eq. 7, the mean over pairs of -log sigmoid(d)."""
    return -F.logsigmoid(logits).mean()


def kl_estimate(logps: torch.Tensor, ref_logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How far the model has moved from the reference on the trained answers, in nats a token.

    Half the mean squared log-ratio: the second-order estimate of KL(pi || pi_ref). It is taken on the answers of the
    batch, which neither model wrote, so it is a gauge of drift and no exact divergence; it is 0 for equal models, never
    negative, and, unlike estimates with exp(), does not blow up on the tokens of a rejected answer.

    Args:
        logps, ref_logps: (batch, length) log-probabilities of the answers' tokens.
        mask: (batch, length), true at tokens.
    """
    ratio = (logps - ref_logps).masked_fill(~mask, 0.0)
    return 0.5 * ratio.square().sum() / mask.sum().clamp(min=1)
