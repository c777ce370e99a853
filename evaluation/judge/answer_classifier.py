"""The judge's answer classifier: a small network that reads a question and an answer together, where word lists end.

It is a head of the one sentence encoder (all-MiniLM-L6-v2), beside similarity: low-rank changes to the upper three layers
(LoRA) and three linear outputs, trained on ranked answers and short replies
(`benchmarks/train_answer_classifier.py`). It knows neither gold nor picture: it only says what an answer says. The judge
weighs it against the rules (`sage_ad.evaluation.judge.verdict_fusion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple, Protocol

from sage_ad.vlm.loaded import loaded_once

WEIGHTS = "answer_classifier.safetensors"
LONGEST = 112
"""Longest question and answer together, in tokens; what an answer says stands in its beginning."""
_DECIMALS = 2
_OUTPUTS = 3


class Classification(NamedTuple):
    """What the answer classifier takes from an answer, each as log-odds (above 0: rather so).

    Attributes:
        yes: it says yes to the question as asked.
        defect: it reports that something is wrong with the part.
        vague: it gives no particulars.
    """

    yes: float
    defect: float
    vague: float


class Classifier(Protocol):
    """Anything that reads questions and answers together."""

    def classify(self, questions: Sequence[str], answers: Sequence[str]) -> list[Classification]: ...


class AnswerClassifier:
    """Reads with the shipped weights. Thread-safe; deterministic up to the last bits, which rounding takes away.

    Raises:
        InputError: the package that carries all-MiniLM-L6-v2 is not installed.
    """

    def __init__(self) -> None:
        from safetensors.torch import load

        from sage_ad.vlm.weights.minilm import minilm

        learned = load(files("sage_ad.evaluation.judge").joinpath(WEIGHTS).read_bytes())
        self._weight, self._bias = learned["head.weight"].float(), learned["head.bias"].float()
        self._encoder = minilm().changed({
            f"{name[:-2]}.weight": learned[f"{name[:-2]}.b"].float() @ down.float()
            for name, down in learned.items()
            if name.endswith(".a")
        })  # fmt: skip

    def classify(self, questions: Sequence[str], answers: Sequence[str]) -> list[Classification]:
        """One classification per question and answer, in their order."""
        import numpy as np
        import torch

        from sage_ad.vlm.weights.minilm import mean_over

        if not questions:
            return []
        values = np.zeros((len(questions), _OUTPUTS))
        for batch, hidden, mask, types in self._encoder.read(self._encoder.tokens(questions, answers, longest=LONGEST)):
            # Log-odds are linear in the first token, the answer's mean and the question's mean.
            features = [hidden[:, 0], mean_over(hidden, mask * types), mean_over(hidden, mask * (1 - types))]
            values[batch] = (torch.cat(features, dim=1) @ self._weight.T + self._bias).numpy()
        return [Classification(*(round(float(value), _DECIMALS) for value in row)) for row in values]


def default_classifier() -> AnswerClassifier:
    """The answer classifier of this process, loaded at the first call."""
    return loaded_once(AnswerClassifier)
