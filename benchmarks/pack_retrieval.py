"""How well the search finds the facts that answer 150 labelled queries over 15 packs, and cards the defect of a true description.

    python benchmarks/pack_retrieval.py [--json]              # dense, lexical and fused search
    python benchmarks/pack_retrieval.py --leave-out [--json]  # fused, its weight chosen on the other packs
    python benchmarks/pack_retrieval.py --cards [--json]      # cards by the description of a label (tests/data/defect_looks.yaml)

Queries: with the pack known (as in an inspection) and in all 15 packs together; those that no fact answers are only counted.
With --leave-out the weight of the kind that a question asks for is the one that is best on the queries of the other 14 packs;
without it, and with the weight as shipped, the same is told of the mean and the worst pack.
Cards: the share of labels whose defect is on a card of the pack found by the category's name, and whose card is among the
first three by fit. A card that bears the label's name is right.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
FIELDS = ("tone", "colour", "shape", "size", "texture", "place", "number")
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Weights of the kind that are chosen from."""
UNLIKE = 0.1
"""Likelihood of a word that a card does not have."""


def fit(look: Any, described: dict[str, str]) -> float:
    """Log-likelihood of a description: each word that a card's look has in a field is equally likely."""
    fields = [
        (getattr(look, name), described[name])
        for name in FIELDS
        if described.get(name, "anywhere") != "anywhere" and getattr(look, name)
    ]
    return sum(math.log(1 / len(words) if word in words else UNLIKE) for words, word in fields)


def bearing(cards: list[Any], label: str) -> set[str]:
    """Names of the cards that bear a label, in any order of its words; if none does, of those that have it in a name."""
    from sage_ad.knowledge.store.product_match import plain_words

    labels = [set(plain_words(part).split()) for part in label.replace("_", " ").split(" or ")]
    names = [(card.name, set(plain_words(name).split())) for card in cards for name in card.term.names]
    return {card for card, words in names if words in labels} or {
        card for card, words in names if any(part <= words for part in labels)
    }


def cards_by_look(store: Any) -> dict[str, dict[str, float]]:
    """By category: how many labels, the share on a card, and the share whose card is among the first three."""
    import yaml

    rows: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for entry in yaml.safe_load((DATA / "defect_looks.yaml").read_text(encoding="utf-8")):
        match = store.match_product(entry["category"])
        cards = [card for card in store.cards(match.domain) if not card.products or match.product in card.products]
        right = bearing(cards, entry.get("means", entry["defect"]))
        fits = {card.name: fit(card.look, entry) for card in cards}
        best = max((fits[name] for name in right), default=-math.inf)
        above = sum(value > best for value in fits.values())
        equal = sum(value == best for value in fits.values())
        # Cards that fit equally well stand in no order: the share of orders with the right one among the first three.
        first = min(1.0, max(0, 3 - above) / equal) if right else 0.0
        rows[entry["category"]].append((bool(right), first))
    return {
        category: {
            "labels": len(own),
            "on a card": sum(found for found, _ in own) / len(own),
            "first three": sum(first for _, first in own) / len(own),
        }
        for category, own in rows.items()
    }


def left_out(store: Any, queries: list[Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Fused search with each pack left out in turn when the kind's weight is chosen: mean over queries, and worst pack."""
    import numpy as np

    from sage_ad.knowledge.store import retrieval
    from sage_ad.knowledge.store.retrieval_eval import measure_each

    shipped, packs = retrieval.KIND_WEIGHT, np.array([query.domain for query in queries if query.relevant])
    titles = ("pack known", "all packs")
    figures = {}  # by weight: (titles, queries, 2)
    for weight in WEIGHTS:
        retrieval.KIND_WEIGHT = weight
        figures[weight] = np.array([measure_each(store, queries, together=together) for together in (False, True)])
    retrieval.KIND_WEIGHT = shipped
    elsewhere = np.zeros_like(figures[shipped])
    for pack in set(packs):
        best = max(WEIGHTS, key=lambda weight: figures[weight][:, packs != pack].sum())
        elsewhere[:, packs == pack] = figures[best][:, packs == pack]
    ways = {"no kinds": figures[0.0], f"shipped ({shipped:g})": figures[shipped], "chosen elsewhere": elsewhere}
    return {
        title: {
            way: {
                name: float(value)
                for column, figure in enumerate(("recall@5", "ndcg@10"))
                for name, value in (
                    (figure, own[row, :, column].mean()),
                    (f"worst {figure}", min(own[row, packs == pack, column].mean() for pack in set(packs))),
                )
            }
            for way, own in ways.items()
        }
        for row, title in enumerate(titles)
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leave-out", action="store_true", help="fused search, its weight chosen on the other packs")
    parser.add_argument("--cards", action="store_true", help="cards by descriptions instead of facts by queries")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.knowledge.store.retrieval import MODES
    from sage_ad.knowledge.store.retrieval_eval import measure, read_queries

    with tempfile.TemporaryDirectory() as home, FactStore.open(home) as store:
        if wanted.cards:
            figures = {"cards": cards_by_look(store)}
        elif wanted.leave_out:
            figures = left_out(store, read_queries(DATA / "pack_retrieval_queries.yaml"))
        else:
            queries = read_queries(DATA / "pack_retrieval_queries.yaml")
            figures = {
                name: {mode: measure(store, queries, mode, together=together) for mode in MODES}  # type: ignore[arg-type]
                for name, together in (("pack known", False), ("all packs", True))
            }
    if wanted.json:
        print(json.dumps(figures, indent=2))
        return
    for name, rows in figures.items():
        for row, values in rows.items():
            print(
                f"{name:<12}{row:<22}"
                + "  ".join(
                    f"{key} {value}" if isinstance(value, int) else f"{key} {value:.3f}"
                    for key, value in values.items()
                )
            )


if __name__ == "__main__":
    main()
