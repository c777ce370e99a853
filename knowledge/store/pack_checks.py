"""Checks of packs beyond their schema: names that two things have, facts that stand twice, words that a pack lacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from sage_ad.knowledge.facts import Fact, normalise_text
from sage_ad.knowledge.store.cards import DefectCard, shared_names
from sage_ad.knowledge.store.packs import Pack, Term
from sage_ad.knowledge.store.product_match import plain_words
from sage_ad.knowledge.text.contradictions import contradiction


def check_pack(
    domain: str, pack: Pack, cards: Sequence[DefectCard], approved: Sequence[Fact], *, products: bool = True
) -> list[str]:
    """One sentence for everything in a pack that does not fit together.

    Cards that share a name; products of cards, and products and defects of facts, that the pack does not name; facts of
    one kind about one defect of one product that contradict each other. Facts are not held to the names of a pack that
    has no cards, nor proposed ones, whose names come from documents. Without `products` those of the pack are not known.
    """
    problems = [f"{domain}: {problem}" for problem in shared_names(cards)]
    problems += [
        f"{domain}: the hint {hint!r} in pack.yaml has no word in it; delete it."
        for hint in pack.hints
        if not plain_words(hint)
    ]
    for card in cards if products else ():
        where = f"{domain}, card {card.name!r}"
        problems += _unknown(where, card.products, pack.products, "is no product in pack.yaml; add it there.")
    for fact in approved if cards else ():
        where = f"{domain}, fact {fact.id} ({fact.text[:40]} ...)"
        if pack.products and products:
            problems += _unknown(where, fact.products, pack.products, "is no product in pack.yaml; add it there.")
        problems += _unknown(where, fact.defects, pack.defects, "has no card; write one, or use the name of a card.")
    topics: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in approved:
        for defect in fact.defects:
            topics[fact.kind, defect].append(fact)
    pairs = {(a.id, b.id): (a, b) for facts in topics.values() for a, b in combinations(facts, 2)}
    problems += [
        f"{domain}: the facts {a.id} ({a.text}) and {b.id} ({b.text}) contradict each other ({reason}); mend one of them."
        for a, b in pairs.values()
        if (not a.products or not b.products or set(a.products) & set(b.products))
        and (reason := contradiction(a.text, b.text))
    ]
    return problems


def _unknown(where: str, names: Iterable[str], terms: Iterable[Term], remedy: str) -> Iterator[str]:
    """One sentence for every name that is not the first name of a term; a synonym is said to be one."""
    first = {other.casefold(): term.name for term in terms for other in term.names}
    for name in sorted(set(names) - set(first.values())):
        known = first.get(name.casefold())
        yield f"{where}: " + (f"{name} is another name of {known}; write {known}." if known else f"{name} {remedy}")


def check_packs(packs: Mapping[str, Pack], own: Collection[str], facts: Iterable[Fact]) -> list[str]:
    """One sentence for every product name that two products have and every fact that two packs have.

    A user's pack (`own` names them) may claim the name of a shipped one: it wins (`store.product_match`).
    """
    owners: dict[tuple[bool, str], set[str]] = defaultdict(set)
    written: dict[str, str] = {}
    for name, pack in packs.items():
        for term in pack.products:
            for word in term.names:
                written.setdefault(plain_words(word), word)
                owners[name in own, plain_words(word)].add(f"{term.name} ({name})")
    problems = [
        f"The name {written[name]!r} belongs to {' and '.join(sorted(owner))}; keep it at one of them."
        for (_, name), owner in sorted(owners.items())
        if len(owner) > 1
    ]
    places: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        places[normalise_text(fact.text)].add(fact.domain)
    problems += [
        f"The packs {' and '.join(sorted(domains))} have the same fact: {text[:80]}; keep it in one of them."
        for text, domains in places.items()
        if len(domains) > 1
    ]
    return problems
