"""Checks of packs beyond their schema: names that two things have, facts that stand twice, words that a pack lacks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sage_ad.knowledge.facts import normalise_text
from sage_ad.knowledge.store.cards import shared_names
from sage_ad.knowledge.store.product_match import plain_words

if TYPE_CHECKING:
    from sage_ad.knowledge.store.fact_store import FactStore


def check_pack(store: FactStore, domain: str) -> list[str]:
    """One sentence for everything in a pack that does not fit together.

    Cards that share a name; products of cards, and products and defects of facts, that the pack does not name. Facts
    are not held to the names of a pack that has no cards, nor proposed ones, whose names come from documents.
    """
    pack, cards = store.packs()[domain], store.cards(domain)
    products, defects = {term.name for term in pack.products}, {term.name for term in pack.defects}
    problems = [f"{domain}: {problem}" for problem in shared_names(cards)]
    for card in cards:
        if unknown := sorted(set(card.products) - products):
            problems.append(
                f"{domain}, card {card.name!r}: {', '.join(unknown)} is no product in pack.yaml; add it there."
            )
    for fact in store.iterate(domain, status="approved") if cards else ():
        where = f"{domain}, fact {fact.id} ({fact.text[:40]} ...)"
        if products and (unknown := sorted(set(fact.products) - products)):
            problems.append(f"{where}: {', '.join(unknown)} is no product in pack.yaml; add it there.")
        if unknown := sorted(set(fact.defects) - defects):
            problems.append(f"{where}: {', '.join(unknown)} has no card; write one, or use the name of a card.")
    return problems


def check_packs(store: FactStore) -> list[str]:
    """One sentence for every product name that two products have and every fact that two packs have.

    A user's pack may claim the name of a shipped one: it wins (`store.product_match`).
    """
    own = store.catalogue.user_domains()
    owners: dict[tuple[bool, str], set[str]] = defaultdict(set)
    for name, pack in store.packs().items():
        for term in pack.products:
            for word in term.names:
                owners[name in own, plain_words(word)].add(f"{term.name} ({name})")
    problems = [
        f"The name {name!r} belongs to {' and '.join(sorted(owner))}; keep it at one of them."
        for (_, name), owner in sorted(owners.items())
        if len(owner) > 1
    ]
    places: dict[str, set[str]] = defaultdict(set)
    for fact in store.iterate(status=("approved", "proposed")):
        places[normalise_text(fact.text)].add(fact.domain)
    problems += [
        f"The packs {' and '.join(sorted(domains))} have the same fact: {text[:80]}; keep it in one of them."
        for text, domains in places.items()
        if len(domains) > 1
    ]
    return problems


def check_store(store: FactStore) -> list[str]:
    """One line for everything that is wrong: what cannot be read, and what does not fit together; none when all is well."""
    within = [problem for name in store.packs() for problem in check_pack(store, name)]
    return [*store.check(), *within, *check_packs(store)]
