"""Which defect and product a sentence of a manual is about."""

from __future__ import annotations

import pytest

from sage_ad.knowledge.ingestion.tags import canonical, filed_under, tagger
from sage_ad.knowledge.store.packs import Pack, Term

PACK = Pack(
    name="textiles",
    products=(Term(name="fabric", synonyms=("woven cloth",)), Term(name="knitted fabric")),
    defects=(
        Term(name="stain", synonyms=("oil spot",)),
        Term(name="oil stain"),
        Term(name="crease"),
        Term(name="broken end"),
        Term(name="check"),
    ),
)


@pytest.mark.parametrize(
    ("text", "headings", "defects"),
    [
        ("Oil spots spread during dyeing.", (), ("stain",)),
        ("Oil stains are rejects.", (), ("oil stain",)),
        ("Up to 5 mm it is cosmetic in lining.", ("Manual", "Stains"), ("stain",)),
        ("A crease can be pressed out.", ("Stains",), ("crease",)),
        ("Unlike a crease, a broken end stays after pressing.", (), ("broken end",)),
        ("It stays after pressing, unlike a crease.", ("Broken ends",), ("broken end",)),
        ("Good cloth is free of stains.", (), ("stain",)),
        ("The yarn stays whole.", ("Broken ends", "Do not confuse with a crease"), ("broken end",)),
        ("Check the roll at both ends.", (), ()),
        ("A check is a fine surface crack.", (), ("check",)),
        ("Creases and stains are counted once a metre.", (), ("crease", "stain")),
    ],
)
def test_the_nearest_name_tells_the_defect(text: str, headings: tuple[str, ...], defects: tuple[str, ...]) -> None:
    assert tagger(PACK)(text, headings)[1] == defects


def test_products_are_found_by_synonym_and_the_longer_name_wins() -> None:
    tags = tagger(PACK)
    assert tags("Slubs of woven cloths are normal.", ())[0] == ("fabric",)
    assert tags("Ladders run down a knitted fabric.", ())[0] == ("knitted fabric",)
    assert tags("Hold it against the light.", ("Inspection of woven cloth",))[0] == ("fabric",)


def test_names_of_a_column_become_those_of_the_pack_or_stay() -> None:
    assert canonical(["Oil spot", "Moth hole"], PACK.defects) == ("stain", "Moth hole")


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("Oil spot < 2 mm", ("stain",)),
        ("Broken ends in the selvage (front)", ("broken end",)),
        ("Dark oil stain", ("oil stain",)),
        ("Crease / stain", ("crease", "stain")),
        ("Stain remover", ("Stain remover",)),
        ("Absence of stain", ("Absence of stain",)),
        ("Moth hole", ("Moth hole",)),
    ],
)
def test_a_cell_with_a_condition_is_filed_under_the_defect_that_it_names(cell: str, names: tuple[str, ...]) -> None:
    assert filed_under([cell], PACK.defects) == names
