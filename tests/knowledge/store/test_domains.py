"""The shipped packs: complete, well formed, without repetition, and one for every product that we have images of."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sage_ad.knowledge.facts import KINDS, fact_from_record, normalise_text
from sage_ad.knowledge.store.packs import list_pack_files, read_fact_yaml, read_pack
from sage_ad.knowledge.vectors.embedding import SentenceEmbedder

DOMAINS = Path(__file__).resolve().parents[3] / "knowledge" / "domains"
PACKS = (
    "photovoltaics",
    "metal",
    "pcb",
    "textiles",
    "polymers",
    "glass",
    "pharmaceuticals",
    "food",
    "ceramics",
    "concrete",
    "general",
)
PACK_OF_CATEGORY = {
    "solar_cell_mono": "photovoltaics",
    "solar_cell_poly": "photovoltaics",
    "screw": "metal",
    "screw_plate": "metal",
    "pump_impeller": "metal",
    "xray_wheel_casting": "metal",
    "ac_piston": "metal",
    "hot_rolled_steel": "metal",
    "pcb_pattern": "pcb",
    "pcb_full": "pcb",
    "fabric_02": "textiles",
    "fabric_03": "textiles",
    "sewing_stitch": "textiles",
    "bottle": "glass",
    "glass_panel": "glass",
    "pill_xray": "pharmaceuticals",
    "gelatin_capsule": "pharmaceuticals",
    "cookie": "food",
    "magnetic_tile": "ceramics",
    "powerline_insulator": "ceramics",
    "insulator_string": "ceramics",
    "pavement": "concrete",
}
WITHOUT_A_PACK_OF_THEIR_OWN = {"metal_nut", "cola_bottle", "brick_wall", "ball_screw", "bottle_neck", "paper_bft01"}
"""Categories that came after these packs; the library has packs for them that no inspection reads yet."""
GENERAL_MMAD = {"wood", "candle", "pushpins"}
"""MMAD categories that no pack of a trade covers; the general pack knows them by name."""
NEAR_DUPLICATE = 0.88
"""Cosine of MiniLM embeddings from which two facts count as the same; the closest honest pair ("a crack is" in
general and "a crack in a metal part is" in metal) lies at 0.84."""


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _name_key(name: str) -> str:
    """A product name as it is compared: lower case, no underscores or hyphens, no number at the end."""
    return re.sub(r"\s*\d+$", "", re.sub(r"[\s_-]+", " ", name.casefold()).strip())


@pytest.fixture(scope="module")
def packs() -> dict[str, dict[str, Any]]:
    return {name: _read(DOMAINS / name / "pack.yaml") for name in PACKS}


@pytest.fixture(scope="module")
def facts() -> dict[str, dict[str, list[dict[str, Any]]]]:
    return {name: {kind: _read(DOMAINS / name / "facts" / f"{kind}.yaml") for kind in KINDS} for name in PACKS}


@pytest.fixture(scope="module")
def product_names(packs: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """Key of a product name or synonym -> packs that claim it."""
    names: dict[str, set[str]] = {}
    for pack_name, pack in packs.items():
        for product in pack["products"]:
            for name in (product["name"], *product["synonyms"]):
                names.setdefault(_name_key(name), set()).add(pack_name)
    return names


def test_the_folder_holds_these_packs_and_no_other() -> None:
    assert {path.name for path in DOMAINS.iterdir() if (path / "pack.yaml").is_file()} == set(PACKS)


@pytest.mark.parametrize("name", PACKS)
def test_pack_head_is_complete(packs: dict[str, dict[str, Any]], name: str) -> None:
    pack = packs[name]
    assert list(pack) == ["name", "title", "description", "version", "licence", "products", "defects"]
    assert pack["name"] == name
    assert pack["licence"] == "Apache-2.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", pack["version"])
    for entry in (*pack["products"], *pack["defects"]):
        assert set(entry) == {"name", "synonyms"}
        keys = [re.sub(r"[\s_-]+", " ", word.casefold()) for word in (entry["name"], *entry["synonyms"])]
        assert len(set(keys)) == len(keys), f"{entry['name']}: a synonym is given twice"
    defect_names = [defect["name"] for defect in pack["defects"]]
    assert len(set(defect_names)) == len(defect_names)


@pytest.mark.parametrize("name", PACKS)
def test_every_kind_is_covered(facts: dict[str, dict[str, list[dict[str, Any]]]], name: str) -> None:
    counts = {kind: len(entries) for kind, entries in facts[name].items()}
    assert sum(counts.values()) >= (25 if name == "general" else 40), counts
    assert min(counts.values()) >= 5, counts
    assert {path.stem for path in (DOMAINS / name / "facts").iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", PACKS)
def test_facts_are_single_sentences_about_known_products_and_defects(
    packs: dict[str, dict[str, Any]], facts: dict[str, dict[str, list[dict[str, Any]]]], name: str
) -> None:
    products = {product["name"] for product in packs[name]["products"]}
    defects = {defect["name"] for defect in packs[name]["defects"]}
    described: Counter[str] = Counter()
    for kind, entries in facts[name].items():
        for entry in entries:
            text = entry["text"]
            assert set(entry) <= {"text", "products", "defects"}, text
            assert 10 <= len(text.split()) <= 35, text
            assert re.fullmatch(r"(?:(?![.!?]\s).)+\.", text), f"not one sentence: {text}"
            assert set(entry.get("products", [])) <= products, text
            assert set(entry.get("defects", [])) <= defects, text
            fact_from_record({"domain": name, "kind": kind, "status": "approved", **entry}, f"{name}/{kind}.yaml")
            if kind == "appearance":
                described.update(entry["defects"])
    assert not defects - set(described), "a defect of the vocabulary whose look no fact describes"


def test_no_fact_stands_twice(facts: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    texts = [entry["text"] for pack in facts.values() for entries in pack.values() for entry in entries]
    assert [text for text, count in Counter(map(normalise_text, texts)).items() if count > 1] == []
    vectors = SentenceEmbedder().encode(texts)
    similarity = np.triu(vectors @ vectors.T, k=1)
    close = [(texts[i], texts[j]) for i, j in np.argwhere(similarity >= NEAR_DUPLICATE)]
    assert close == []


def test_a_product_name_belongs_to_one_pack(product_names: dict[str, set[str]]) -> None:
    assert {name: packs for name, packs in product_names.items() if len(packs) > 1} == {}


@pytest.mark.parametrize(("category", "pack"), PACK_OF_CATEGORY.items())
def test_category_has_its_pack(product_names: dict[str, set[str]], category: str, pack: str) -> None:
    assert product_names.get(_name_key(category)) == {pack}


def test_no_category_of_the_images_is_forgotten(index_rows: list[dict[str, str]]) -> None:
    assert {row["category"] for row in index_rows} == set(PACK_OF_CATEGORY) | WITHOUT_A_PACK_OF_THEIR_OWN


def test_products_of_mmad_have_packs(data_root: Path, product_names: dict[str, set[str]]) -> None:
    texts = json.loads((data_root / "mmad" / "domain_knowledge.json").read_text(encoding="utf-8"))
    for categories in texts.values():
        for category in categories:
            claimed = product_names.get(_name_key(category))
            assert claimed, category
            assert (claimed == {"general"}) == (category in GENERAL_MMAD), f"{category}: {claimed}"


@pytest.mark.parametrize("name", PACKS)
def test_the_documentation_lists_every_product(packs: dict[str, dict[str, Any]], repository: Path, name: str) -> None:
    lines = (repository / "docs" / "domains.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith(f"| `{name}` |"))
    for product in packs[name]["products"]:
        assert f"**{product['name']}**" in row
        assert all(synonym in row for synonym in product["synonyms"][:6])


def test_the_product_itself_reads_the_packs_as_they_are_meant(
    facts: dict[str, dict[str, list[dict[str, Any]]]],
) -> None:
    read: dict[str, Counter[str]] = {name: Counter() for name in PACKS}
    for file in list_pack_files(DOMAINS, shipped=True):
        if file.path.name == "pack.yaml":
            assert read_pack(file.path).name == file.domain
            continue
        for fact in read_fact_yaml(file):
            assert (fact.status, fact.sources[0].extractor) == ("approved", "written by hand")
            read[fact.domain][fact.kind] += 1
    assert read == {name: Counter({kind: len(facts[name][kind]) for kind in KINDS}) for name in PACKS}
