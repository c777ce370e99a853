"""Retrieval: what is asked, how two rankings become one, which of the best are shown. Maths only, no storage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sage_ad.knowledge.facts import Fact

if TYPE_CHECKING:
    import numpy as np

Mode = Literal["fused", "dense", "lexical"]
MODES: tuple[str, ...] = ("fused", "dense", "lexical")

_LEXICAL_WEIGHT = 1.5
"""Weight of BM25 beside the embedding: the best on every second labelled query; the others confirm it."""

KIND_WEIGHT = 0.75
"""Weight of the probability that the query asks for facts of a candidate's kind. With each pack left out in turn the others
would take as much or a little more (benchmarks/pack_retrieval.py --leave-out); but a bare name asks for no kind."""

_POOL = 60


@dataclass(frozen=True)
class ScoredFact:
    """A fact with how well it fits the query.

    Attributes:
        fact: the fact.
        score: higher is better; comparable within one search only (fused: 0 to 1).
        similarity: cosine of the embeddings of query and fact, comparable between searches; None in a lexical search.
    """

    fact: Fact
    score: float
    similarity: float | None = None


@dataclass(frozen=True)
class Query:
    """All that counts in a search.

    Attributes:
        text: the question, or any words.
        product: name of the product, when known.
        defect: what the evidence hints at ("dark line"), when it does.
        place: where the evidence is strongest ("upper left"), when it is anywhere.
    """

    text: str
    product: str | None = None
    defect: str | None = None
    place: str | None = None

    def sentence(self) -> str:
        """The query as one text for the sentence embedder."""
        parts = [self.text.strip(), self.product, self.defect, self.place and f"at the {self.place}"]
        return ". ".join(part for part in parts if part)

    def words(self) -> list[tuple[str, float]]:
        """The query's texts with the weight of their words for BM25: the evidence's hint says most."""
        weighted = [(self.text, 1.0), (self.product, 1.0), (self.defect, 2.0), (self.place, 1.0)]
        return [(text, weight) for text, weight in weighted if text]


def pool_size(k: int) -> int:
    """How many candidates each ranking contributes to the k facts that are asked for."""
    return max(_POOL, 4 * k)


def fuse(
    dense: Mapping[str, float], lexical: Mapping[str, float], kinds: Mapping[str, float] | None = None
) -> list[tuple[str, float]]:
    """One ranking of two: both scores as a share of the best one, weighted and added, best first.

    On the labelled queries this beats reciprocal rank fusion, which throws away how clear a lead is.

    Args:
        dense: cosine similarity of every candidate.
        lexical: BM25 score of those candidates that share a word with the query.
        kinds: probability that the query asks for facts of the candidate's kind, which counts as a third score; None where
            it asks for one kind anyway.

    Returns:
        (id, score), best first; a candidate that is the best in all has score 1.
    """
    highest = max((*dense.values(), 1e-9))
    most = max((*lexical.values(), 1e-9))
    weight = KIND_WEIGHT if kinds else 0.0
    scores = {
        identity: (
            similarity / highest
            + _LEXICAL_WEIGHT * lexical.get(identity, 0.0) / most
            + (weight * kinds[identity] if kinds else 0.0)
        )
        / (1 + _LEXICAL_WEIGHT + weight)
        for identity, similarity in dense.items()
    }
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def diversify(scores: Sequence[float], vectors: np.ndarray, k: int, diversity: float) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): good ones that do not repeat one another.

    Args:
        scores: relevance of each candidate, best first.
        vectors: (n, dimensions) of unit length.
        k: how many to take.
        diversity: 0 takes the best k; 1 looks at nothing but difference.

    Returns:
        Positions in the order in which they were taken.
    """
    import numpy as np

    relevance = np.asarray(scores, dtype=np.float64)
    spread = float(relevance.max() - relevance.min()) if len(relevance) else 0.0
    relevance = (relevance - relevance.min()) / spread if spread else np.ones_like(relevance)
    nearest = np.zeros(len(relevance))
    left = np.ones(len(relevance), dtype=bool)
    taken: list[int] = []
    while len(taken) < k and left.any():
        worth = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        chosen = int(worth.argmax())
        taken.append(chosen)
        left[chosen] = False
        nearest = np.maximum(nearest, vectors @ vectors[chosen])
    return taken


def within_budget(found: Sequence[ScoredFact], tokens: int) -> list[ScoredFact]:
    """The best facts whose texts together fit into so many tokens; one that is too long is passed over."""
    kept: list[ScoredFact] = []
    left = tokens
    for item in found:
        size = count_tokens(item.fact.text)
        if size <= left:
            kept.append(item)
            left -= size
    return kept


def count_tokens(text: str) -> int:
    """An upper estimate of a text's tokens in any usual tokeniser: one for 4 bytes of a word, one for each mark."""
    words = sum(-(-len(word.encode()) // 4) for word in re.findall(r"\w+", text))
    return words + len(re.findall(r"[^\w\s]", text)) + sum(not char.isascii() for char in text)
