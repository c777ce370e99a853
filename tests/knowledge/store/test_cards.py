"""The library: packs with defect cards hold to their schema, and no two of them claim the same name or fact."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from sage_ad.knowledge.store.cards import read_cards
from sage_ad.vlm.errors import InputError

LIBRARY = Path(__file__).resolve().parents[3] / "knowledge" / "library"
PACKS = sorted(folder.name for folder in LIBRARY.iterdir() if folder.is_dir())
LEAST = {"appearance": 10, "cause": 8, "consequence": 8, "normal-variation": 5, "inspection": 5}


def key(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).strip()


def facts_of(pack: str) -> list[tuple[str, dict]]:
    return [
        (kind, fact)
        for kind in LEAST
        for fact in yaml.safe_load((LIBRARY / pack / "facts" / f"{kind}.yaml").read_text(encoding="utf-8"))
    ]


def products_of(pack: str) -> list[dict]:
    return yaml.safe_load((LIBRARY / pack / "pack.yaml").read_text(encoding="utf-8"))["products"]


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_is_complete(pack: str) -> None:
    """Eight cards, forty facts of every kind; facts and cards speak of products and defects that the pack has."""
    cards, facts = read_cards(LIBRARY / pack), facts_of(pack)
    assert len(cards) >= 8
    assert len(facts) >= 40
    for kind, least in LEAST.items():
        assert sum(of == kind for of, _ in facts) >= least, kind
    products = {product["name"] for product in products_of(pack)}
    names = {card.name for card in cards}
    assert all(set(card.products) <= products for card in cards)
    for _, fact in facts:
        assert set(fact) <= {"text", "products", "defects"}
        assert set(fact.get("defects", ())) <= names, fact["text"]
        assert set(fact.get("products", ())) <= products, fact["text"]


def test_no_product_name_stands_in_two_packs() -> None:
    owners = defaultdict(set)
    for pack in PACKS:
        for product in products_of(pack):
            for name in [product["name"], *product.get("synonyms", ()), *product.get("de", ()), *product.get("zh", ())]:
                owners[key(name)].add(f"{pack}: {product['name']}")
    assert {name: owner for name, owner in owners.items() if len(owner) > 1} == {}


def test_no_fact_stands_twice() -> None:
    owners = defaultdict(list)
    for pack in PACKS:
        for _, fact in facts_of(pack):
            owners[key(fact["text"])].append(pack)
    assert {text: owner for text, owner in owners.items() if len(owner) > 1} == {}


CARD = """
- name: scratch
  look: {tone: [lighter], shape: [line], size: [small], texture: [added], place: [surface], number: [single], text: A line.}
  causes: [Handling.]
  consequence: It spoils the finish.
  severity: cosmetic
  action: Rework.
"""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("severity: cosmetic", "severity: mild"), "severity"),
        (("tone: [lighter]", "tone: [paler]"), "look.tone"),
        (("  action: Rework.\n", ""), "action"),
        (("action:", "cure:"), "action"),
        (("- name: scratch", "name: scratch"), "no YAML"),
    ],
)
def test_a_faulty_card_is_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "cards.yaml").write_text(CARD.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=named):
        read_cards(tmp_path)


def test_two_cards_cannot_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    other = CARD.replace("name: scratch", "name: score\n  synonyms: [Scratch]")
    (tmp_path / "cards" / "cards.yaml").write_text(CARD + other, encoding="utf-8")
    with pytest.raises(InputError, match="keep it on one card"):
        read_cards(tmp_path)
