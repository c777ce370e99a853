"""Similarity word by word: how well each word of one text is met by some word of another, in context (MiniLM's tokens).

A whole-sentence vector drowns "crack" in what else is said; here every telling token of one text looks for its nearest
token in the other ("snagged thread" - "one yarn has been dragged out").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from sage_ad.evaluation.text.normalise import word_set

if TYPE_CHECKING:
    import numpy as np

LONGEST = 112
"""Longest text in tokens; the rest is cut off."""
DECIMALS = 3
_SILENT = word_set(
    "an the is it its of on in at to and or with by has have are be been that this there was were as for no yes not"
)
_PUNCTUATION = re.compile(r"\W+")


class Met(NamedTuple):
    """How well the telling words of a text are met in another: the worst, the mean and the best cosine, rounded."""

    worst: float
    mean: float
    best: float


NOTHING = Met(0.3, 0.3, 0.3)
"""What two texts without a word in common come to, about; for texts that are missing."""


class Tokens(NamedTuple):
    """A text's tokens: the words, and unit vectors (tokens, 384)."""

    words: tuple[str, ...]
    vectors: np.ndarray


class TokenSimilarity:
    """Holds the token vectors of the texts of one call; every text goes through the network once."""

    def __init__(self) -> None:
        self._tokens: dict[str, Tokens] = {}

    def prepare(self, texts: Iterable[str | None]) -> None:
        """Reads texts in batches of like length (those already known, and empty ones, are passed over)."""
        missing = [text for text in dict.fromkeys(texts) if text and text not in self._tokens]
        if missing:
            self._tokens.update(zip(missing, _read(missing), strict=True))

    def nearest(self, text: str | None, *others: str | None) -> np.ndarray:
        """For each telling token of a text, its best cosine among the tokens of the others; empty where none are."""
        import numpy as np

        self.prepare([text, *others])
        rest = [self._tokens[other] for other in others if other]
        columns = [one.vectors[[not _PUNCTUATION.fullmatch(word) for word in one.words]] for one in rest]
        columns = [one for one in columns if len(one)]
        if not text or not columns:
            return np.zeros(0)
        mine = self._tokens[text]
        telling = [
            word.isdigit() or (len(word) > 1 and word not in _SILENT and not _PUNCTUATION.fullmatch(word))
            for word in mine.words
        ]
        rows = mine.vectors[telling]
        if not len(rows):
            return np.zeros(0)
        return (rows @ np.concatenate(columns).T).max(axis=1)

    def met(self, text: str | None, other: str | None) -> Met:
        """How well the telling words of `text` are met in `other`."""
        found = self.nearest(text, other)
        if not len(found):
            return NOTHING
        return Met(*(round(float(value), DECIMALS) for value in (found.min(), found.mean(), found.max())))

    def whole(self, text: str | None, other: str | None) -> float:
        """Cosine of the mean token vectors of two texts, rounded; 0 where one is missing."""
        import numpy as np

        if not text or not other:
            return 0.0
        self.prepare([text, other])
        if not len(self._tokens[text].words) or not len(self._tokens[other].words):
            return 0.0
        one, two = (self._tokens[entry].vectors.mean(axis=0) for entry in (text, other))
        return round(float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two) + 1e-9)), DECIMALS)


def _read(texts: list[str]) -> list[Tokens]:
    """Tokens of each text, without the marks of its beginning and end."""
    import torch

    from sage_ad.vlm.weights.minilm import minilm

    encoder = minilm()
    tokens = encoder.tokens(texts, longest=LONGEST)
    found: dict[int, Tokens] = {}
    for batch, hidden, _, _ in encoder.read(tokens):
        vectors = torch.nn.functional.normalize(hidden, dim=-1).numpy()
        for place, index in enumerate(batch):
            own = tokens["input_ids"][index][1:-1]
            words = encoder.words(own)
            found[index] = Tokens(words, vectors[place, 1 : 1 + len(own)].copy())
    return [found[index] for index in range(len(texts))]
