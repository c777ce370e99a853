"""The judge's answer classifier: a small network that reads a question and an answer together, where word lists end.

It is all-MiniLM-L6-v2 with low-rank changes to its upper three layers (LoRA) and three linear outputs, trained on ranked
answers and short replies (`benchmarks/train_answer_classifier.py`). It knows neither gold nor picture: it only says
what an answer says. The judge weighs it against the rules (`sage_ad.evaluation.judge.verdict_fusion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sage_ad.vlm.loaded import loaded_once

if TYPE_CHECKING:
    import torch

WEIGHTS = "answer_classifier.safetensors"
LONGEST = 112
"""Longest question and answer together, in tokens; what an answer says stands in its beginning."""
_DECIMALS = 2
_LORA_SCALE = 1.0
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
        from sage_ad.vlm.weights.minilm import MiniLM

        self._encoder = MiniLM()
        self._weight, self._bias = _tune(self._encoder.weights)

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


def _tune(weights: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds the low-rank changes to the weights of the sentence encoder; returns the output layer."""
    from safetensors.torch import load

    changes = load(files("sage_ad.evaluation.judge").joinpath(WEIGHTS).read_bytes())
    for name, down in changes.items():
        if name.endswith(".a"):
            up = changes[name[:-2] + ".b"].float()
            weights[name[:-2] + ".weight"] += _LORA_SCALE * (up @ down.float())
    return changes["head.weight"].float(), changes["head.bias"].float()


def default_classifier() -> AnswerClassifier:
    """The answer classifier of this process, loaded at the first call."""
    return loaded_once(AnswerClassifier)
