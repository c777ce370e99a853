"""The judge's answer classifier: a small network that reads a question and an answer together, where word lists end.

It is all-MiniLM-L6-v2 with low-rank changes to its upper three layers (LoRA) and three linear outputs, trained on ranked
answers and short replies (`benchmarks/train_judge_reader.py`). It knows neither the truth nor the picture: it only says
what an answer says. The judge weighs it against the rules (`sage_ad.evaluation.judge.verdict_fusion`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

WEIGHTS = "answer_classifier.safetensors"
LONGEST = 112
"""Longest question and answer together, in tokens; what an answer says stands in its beginning."""
_BATCH_TOKENS = 2048
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
        from sage_ad.vlm.commandline import quiet_libraries
        from sage_ad.vlm.weights.embedded import minilm_folder

        quiet_libraries()
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
        self._model, self._weight, self._bias = _tuned_model()
        self._lock = threading.Lock()

    def classify(self, questions: Sequence[str], answers: Sequence[str]) -> list[Classification]:
        """One classification per question and answer, in their order."""
        import numpy as np
        import torch

        from sage_ad.knowledge.vectors.embedding import batches_by_length

        if not questions:
            return []
        with self._lock:
            tokens = self._tokenizer(list(questions), list(answers), truncation=True, max_length=LONGEST)
        pairs = list(zip(tokens["input_ids"], tokens["token_type_ids"], strict=True))
        values = np.zeros((len(pairs), _OUTPUTS))
        with torch.inference_mode():
            for batch in batches_by_length([len(ids) for ids, _ in pairs], _BATCH_TOKENS):
                values[batch] = self._forward([pairs[index] for index in batch])
        return [Classification(*(round(float(value), _DECIMALS) for value in row)) for row in values]

    def _forward(self, pairs: Sequence[tuple[list[int], list[int]]]) -> np.ndarray:
        """Log-odds (batch, 3) of padded pairs: linear in the first token, the answer's mean and the question's mean."""
        import torch

        longest = max(len(ids) for ids, _ in pairs)
        ids, types, mask = (torch.zeros((len(pairs), longest), dtype=torch.long) for _ in range(3))
        for row, (tokens, kinds) in enumerate(pairs):
            ids[row, : len(tokens)] = torch.as_tensor(tokens)
            types[row, : len(kinds)] = torch.as_tensor(kinds)
            mask[row, : len(tokens)] = 1
        hidden = self._model(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
        features = [hidden[:, 0], mean_over(hidden, mask * types), mean_over(hidden, mask * (1 - types))]
        return (torch.cat(features, dim=1) @ self._weight.T + self._bias).numpy()


def mean_over(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that `mask` keeps: (batch, tokens, width), (batch, tokens) -> (batch, width)."""
    kept = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1)


def _tuned_model() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """The sentence encoder with the low-rank changes added to its weights, and the output layer."""
    import torch
    from safetensors.torch import load
    from transformers import AutoModel

    from sage_ad.vlm.weights.embedded import minilm_folder

    changes = load(files("sage_ad.evaluation.judge").joinpath(WEIGHTS).read_bytes())
    model = AutoModel.from_pretrained(
        minilm_folder(), local_files_only=True, dtype=torch.float32, add_pooling_layer=False
    ).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, down in changes.items():
            if name.endswith(".a"):
                up = changes[name[:-2] + ".b"].float()
                parameters[name[:-2] + ".weight"] += _LORA_SCALE * (up @ down.float())
    return model, changes["head.weight"].float(), changes["head.bias"].float()


_loading = threading.Lock()


@cache
def _shared() -> AnswerClassifier:
    return AnswerClassifier()


def default_classifier() -> AnswerClassifier:
    """The answer classifier of this process, loaded at the first call."""
    with _loading:
        return _shared()
