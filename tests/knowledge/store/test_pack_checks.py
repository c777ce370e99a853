"""Checks of a pack beyond its schema."""

from __future__ import annotations

from sage_ad.knowledge.facts import FactSource, fact_from_record
from sage_ad.knowledge.store.pack_checks import check_pack, check_packs
from sage_ad.knowledge.store.packs import Pack


def test_facts_that_contradict_each_other_are_named() -> None:
    source = FactSource(file="appearance.yaml", extractor="written by hand")
    given = {"kind": "appearance", "domain": "gadgets", "status": "approved", "defects": ["smear"], "sources": [source]}
    texts = ("A smear is always wider than the rim.", "A smear is never wider than the rim.", "A smear is dull.")
    facts = [fact_from_record({**given, "text": text}, "here") for text in texts]
    pack = Pack(name="gadgets", defects=[{"name": "smear"}])
    (problem,) = check_pack("gadgets", pack, [], facts)
    assert texts[0] in problem
    assert texts[1] in problem
    assert check_pack("gadgets", pack, [], facts[1:]) == []
    apart = [
        fact.model_copy(update={"products": (name,)}) for fact, name in zip(facts, ("cup", "lid", "lid"), strict=True)
    ]
    assert check_pack("gadgets", pack, [], apart) == []


def test_a_hint_without_a_word_is_named() -> None:
    (problem,) = check_pack("flasks", Pack(name="flasks", hints=["silvered", " "]), [], [])
    assert "hint ' ' in pack.yaml has no word" in problem


def test_a_name_of_two_products_is_told_as_it_was_written() -> None:
    pack = Pack(
        name="flasks",
        products=[{"name": "flask", "synonyms": ["thermos"]}, {"name": "stopper", "synonyms": ["Thermos"]}],
    )
    (problem,) = check_packs({"flasks": pack}, ["flasks"], [])
    assert problem.startswith("The name 'thermos' belongs to flask (flasks) and stopper (flasks)")
