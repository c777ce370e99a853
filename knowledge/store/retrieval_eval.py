"""How well the search finds what people want: recall and nDCG on labelled queries, for any store and any set of labels.

A set is a YAML list of entries with `query`, `pack` (null searches all packs that the set names together) and
`relevant`, the texts of the facts that a person would want to see; other fields are for people.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sage_ad.knowledge.facts import normalise_text
from sage_ad.knowledge.store.retrieval import Mode
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.knowledge.store.fact_store import FactStore


@dataclass(frozen=True)
class LabelledQuery:
    """A query and the facts that answer it.

    Attributes:
        text: what is typed.
        domain: the pack that the search is limited to; None searches all packs of the set.
        relevant: normalised texts of the facts that answer it, all equally good; none when no fact does.
    """

    text: str
    domain: str | None
    relevant: frozenset[str]


def read_queries(path: Path) -> list[LabelledQuery]:
    """Reads a set of labelled queries.

    Raises:
        InputError: when the file cannot be read or an entry lacks a field.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [
            LabelledQuery(
                entry["query"],
                entry.get("pack"),
                frozenset(map(normalise_text, entry["relevant"])),
            )
            for entry in entries
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no set of labelled queries ({type(error).__name__}: {error}); mend it.") from None


def measure(
    store: FactStore, queries: Sequence[LabelledQuery], mode: Mode = "fused", *, together: bool = False
) -> dict[str, float]:
    """recall@5 and nDCG@10 as `measure_each` has them, averaged over the queries that a fact answers."""
    figures = measure_each(store, queries, mode, together=together)
    return {
        "recall@5": statistics.fmean(recalled for recalled, _ in figures),
        "ndcg@10": statistics.fmean(gained for _, gained in figures),
        "queries": len(figures),
        "unanswered": len(queries) - len(figures),
    }


def measure_each(
    store: FactStore, queries: Sequence[LabelledQuery], mode: Mode = "fused", *, together: bool = False
) -> list[tuple[float, float]]:
    """(recall@5, nDCG@10) of each query that a fact answers.

    recall@5 is the share of relevant facts among the first five, of those that can be there (at most five);
    nDCG@10 is the discounted gain of the first ten over that of the best order (Jarvelin and Kekalainen, 2002).

    Args:
        store: where the facts are.
        queries: what is asked.
        mode: which search.
        together: search all packs of the set for every query, as if its pack were not known.
    """
    domains = sorted({query.domain for query in queries if query.domain})
    figures = []
    for query in queries:
        if query.relevant:
            limit = domains if together or query.domain is None else query.domain
            found = store.search(query.text, domain=limit, k=10, mode=mode)
            ranked = [normalise_text(hit.fact.text) for hit in found]
            figures.append((recall(ranked, query.relevant, 5), ndcg(ranked, query.relevant, 10)))
    return figures


def recall(found: Sequence[str], relevant: frozenset[str], k: int) -> float:
    """Share of the relevant among the first k, of those that fit into k places."""
    return len(relevant.intersection(found[:k])) / min(k, len(relevant))


def ndcg(found: Sequence[str], relevant: frozenset[str], k: int) -> float:
    """Normalised discounted cumulative gain of the first k; a relevant fact gains 1."""
    gain = sum(1 / math.log2(rank + 2) for rank, text in enumerate(found[:k]) if text in relevant)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))
    return gain / best
