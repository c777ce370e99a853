"""The judge's score model: weighs all features of an answer against the gold answer (`sage_ad.evaluation.judge.features`).

Three small linear models, fitted by `benchmarks/train_score_model.py` on ranked answers of several writers: is the verdict
the right one; and, for defective and for normal parts, are the particulars the gold answer's, missing, or something else's?
Their weights stand by name in `score_model.yaml`. It gives no level: `score_resolution` turns what it finds into faults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from sage_ad.evaluation.judge.features import Features, content_features, verdict_features
from sage_ad.evaluation.text.token_similarity import TokenSimilarity

WEIGHTS = "score_model.yaml"
_DECIMALS = 2


class Comparison(NamedTuple):
    """How an answer lies to the gold answer.

    Attributes:
        right: log-odds that its verdict is the right one.
        full: chance that it tells the gold answer's particulars (if its verdict is right).
        vague: chance that it tells no particulars, or not enough of them.
        other: chance that it tells something else.
    """

    right: float
    full: float
    vague: float
    other: float


@dataclass(frozen=True)
class Linear:
    """A linear model: a bias and a weight per feature, for each of its outputs."""

    bias: tuple[float, ...]
    weights: Mapping[str, tuple[float, ...]]

    def __call__(self, features: Mapping[str, float]) -> list[float]:
        """The outputs for one answer."""
        return [
            bias + sum(weights[output] * features[name] for name, weights in self.weights.items())
            for output, bias in enumerate(self.bias)
        ]


@dataclass(frozen=True)
class ScoreModel:
    """Compares answers with gold answers.

    Attributes:
        verdict: one output, the log-odds that the verdict is right.
        content: for the part's state, three outputs: full, vague, other.
    """

    verdict: Linear
    content: Mapping[str, Linear]

    def compare(self, found: Features, tokens: TokenSimilarity) -> Comparison:
        """Weighs the features of one answer."""
        right = self.verdict(verdict_features(found, tokens))[0]
        chances = softmax(self.content[str(found.gold.state)](content_features(found, tokens)))
        return Comparison(round(right, _DECIMALS), *(round(one, _DECIMALS) for one in chances))


def softmax(values: Sequence[float]) -> list[float]:
    """Chances from log-odds; they add up to 1."""
    highest = max(values)
    raised = [math.exp(value - highest) for value in values]
    return [one / sum(raised) for one in raised]


def score_model_from(weights: Mapping[str, Any]) -> ScoreModel:
    """A score model from the content of its YAML file."""

    def linear(entry: Mapping[str, Any]) -> Linear:
        return Linear(tuple(entry["bias"]), {name: tuple(row) for name, row in entry["weights"].items()})

    content = {state: linear(weights["content"][state]) for state in ("anomalous", "normal")}
    return ScoreModel(linear(weights["verdict"]), content)


@cache
def default_score_model() -> ScoreModel:
    """The score model with the shipped weights (read once)."""
    import yaml

    return score_model_from(
        yaml.safe_load(files("sage_ad.evaluation.judge").joinpath(WEIGHTS).read_text(encoding="utf-8"))
    )
