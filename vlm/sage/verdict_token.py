"""Evidence first: it enters the verdict token, and only that word may come first.

An answer starts with a verdict token, "normal" or "anomalous". The calibrated log-odds of the visual evidence are added
to the logits of these two words, so that an untrained model already judges as well as its eyes, and training can only
refine that. Off, added and gated forms can be measured against each other (`SageConfig.evidence`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

VERDICT_TOKENS = ("normal", "anomalous")


class StateEvidence(nn.Module):
    """Moves the logits of the two verdict tokens by the evidence; their mean, and every other logit, stay as they are.

    With l_a and l_n the language model's logits of the (first tokens of the) words "anomalous" and "normal", and e the
    evidence's log-odds log(P(anomalous) / P(normal)):

        delta = weight * e + bias + gain * (l_a - l_n)
        l_a' = mean(l_a, l_n) + delta / 2,   l_n' = mean(l_a, l_n) - delta / 2

    `weight`, `bias` and `gain` are trained from 1, 0 and 0 ("gated": at the start the verdict token's probability *is* the
    evidence's), or stay at 1, 0 and 1 ("added": the evidence is added to whatever the language model thinks).

    Args:
        gated: whether the three numbers are trained.
    """

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.weight = nn.Parameter(torch.ones(()), requires_grad=gated)
        self.bias = nn.Parameter(torch.zeros(()), requires_grad=gated)
        self.gain = nn.Parameter(torch.full((), 0.0 if gated else 1.0), requires_grad=gated)

    def log_odds(self, logits: torch.Tensor, evidence: torch.Tensor, state_ids: tuple[int, int]) -> torch.Tensor:
        """The model's log-odds of "anomalous": `delta` above; where the evidence is NaN, plainly l_a - l_n.

        Args:
            logits: (n, vocabulary) raw logits at the positions where a verdict token follows.
            evidence: (n,) log-odds.
            state_ids: ids of the words' first tokens, normal and anomalous.
        """
        own = (logits[:, state_ids[1]] - logits[:, state_ids[0]]).float()
        seen = self.of_evidence(evidence.nan_to_num()) + self.gain.float() * own
        return torch.where(evidence.isnan(), own, seen)

    def of_evidence(self, evidence: torch.Tensor) -> torch.Tensor:
        """The evidence's part of `log_odds`, (n,) float32: all of it where `gain` is 0, and no logits are needed."""
        return self.weight.float() * evidence.float() + self.bias.float()

    def forward(
        self, logits: torch.Tensor, evidence: torch.Tensor, where: torch.Tensor, state_ids: tuple[int, int]
    ) -> torch.Tensor:
        """Logits (batch, length, vocabulary) with the evidence (batch,) in them, `where` (batch, length) is true."""
        rows, columns = where.nonzero(as_tuple=True)
        if not len(rows):
            return logits
        at = logits[rows, columns]
        delta = self.log_odds(at, evidence.to(logits.device)[rows], state_ids)
        middle = (at[:, state_ids[0]] + at[:, state_ids[1]]).float() / 2
        moved = torch.stack((middle - delta / 2, middle + delta / 2), dim=1).to(logits.dtype)
        logits = logits.clone()
        logits[rows[:, None], columns[:, None], torch.tensor(state_ids, device=logits.device)] = moved
        return logits


def answer_starts(input_ids: torch.Tensor, header: list[int]) -> torch.Tensor:
    """Where an answer begins after the next token: true at the last token of every occurrence of `header`.

    Args:
        input_ids: (batch, length).
        header: token ids that stand before every answer (the chat template's assistant header).

    Returns:
        (batch, length) bool.
    """
    found = torch.zeros_like(input_ids, dtype=torch.bool)
    if header and input_ids.shape[1] >= len(header):
        windows = input_ids.unfold(1, len(header), 1)
        found[:, len(header) - 1 :] = (windows == torch.tensor(header, device=input_ids.device)).all(dim=-1)
    return found


class VerdictTokenFirst:
    """Lets an answer begin with a verdict token only, token by token; after the word everything is allowed.

    A logits processor of `generate`; that it does not inherit from one spares importing transformers.

    Args:
        words: token ids of the verdict tokens.
        prompt_length: tokens before the answer.
    """

    def __init__(self, words: list[list[int]], prompt_length: int) -> None:
        self.words = words
        self.prompt_length = prompt_length
        self.longest = max(len(word) for word in words)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        said = input_ids[:, self.prompt_length :]
        if said.shape[1] >= self.longest:
            return scores
        blocked = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(said.tolist()):
            # A word that was just finished has no next token: then this row is free already.
            following = [w[len(tokens)] for w in self.words if w[: len(tokens)] == tokens and len(w) > len(tokens)]
            if following:
                blocked[row, following] = scores[row, following]
            else:
                blocked[row] = scores[row]
        return blocked
