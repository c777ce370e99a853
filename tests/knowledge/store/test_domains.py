"""The shipped packs: complete, well formed, without repetition or contradiction, and one for every product of the sets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sage_ad.knowledge.facts import KINDS, Fact, normalise_text
from sage_ad.knowledge.store.cards import DefectCard, read_cards
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.knowledge.store.pack_checks import check_pack, check_packs
from sage_ad.knowledge.store.packs import GENERAL, SHIPPED, Pack, list_pack_files, read_fact_yaml, read_pack
from sage_ad.knowledge.text.instructions import instruction_reason

PACKS = sorted(path.parent.name for path in SHIPPED.glob("*/pack.yaml"))
LEAST = {"appearance": 10, "cause": 8, "consequence": 8, "normal-variation": 5, "inspection": 5}
"""Fewest facts of each kind in a pack."""
NEAR_DUPLICATE = 0.88
"""Cosine of MiniLM embeddings from which two facts of a pack count as the same."""

PACK_OF_CATEGORY = {
    "fasteners": "metal_nut screw screw_bag pushpins screw_plate",
    "casting": "pump_impeller ac_piston",
    "casting-xray": "xray_wheel_casting",
    "rolled-metal": "hot_rolled_steel metal_plate tubes rolled_strip_base",
    "gears-bearings": "ball_screw",
    "metal-grids": "grid",
    "sheet-metal": "bracket_black bracket_brown bracket_white sheet_metal",
    "bare-pcb": "pcb_pattern pcb_full pcb",
    "pcb-assembly": "pcb1 pcb2 pcb3 pcb4",
    "electronic-components": "transistor transistor1",
    "wire-cable": "cable",
    "connectors-harnesses": "splicing_connectors connector audiojack usb terminalblock",
    "batteries": "button_battery phone_battery",
    "photovoltaics": "solar_cell_mono solar_cell_poly",
    "glass-sheet": "glass_panel",
    "glass-containers": "bottle vial",
    "injection-moulding": "toothbrush plastic_nut wallplugs fire_hood mounts regulator sim_card_set switch usb_adaptor u_block",
    "plastic-film": "tape",
    "caps-closures": "bottle_neck bottle_cap end_cap plastic_plug",
    "beverages": "cola_bottle juice_bottle drink_bottle drink_can food_bottle can",
    "packaging-labels": "cigarette_box food_box food_package",
    "pharmaceuticals": "pill vcpill pill_xray capsule capsules gelatin_capsule",
    "bakery-confectionery": "cookie chewinggum fryum pipe_fryum fruit_jelly mint macaroni1 macaroni2",
    "fruit-vegetables-nuts": "hazelnut cashew walnuts rice",
    "meat-fish": "breakfast_box",
    "textiles": "fabric fabric_02 fabric_03 sewing_stitch carpet zipper",
    "leather": "leather",
    "wood-furniture": "wood woodstick wooden_beads",
    "ceramics": "tile",
    "magnets": "magnetic_tile",
    "power-lines": "powerline_insulator insulator_string",
    "concrete-pavements": "pavement",
    "masonry": "brick_wall",
    "paper-print": "paper_bft01",
    "toys": "candle toy toy_brick porcelain_doll",
    "rubber-seals": "eraser",
}
"""Categories of MVTec AD, LOCO and AD 2, VisA, MPDD, Real-IAD and of the sets that this project measures on."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with FactStore.open(tmp_path_factory.mktemp("home")) as store:
        yield store


@pytest.fixture(scope="module")
def facts(store: FactStore) -> dict[str, list[Fact]]:
    return {name: store.facts(name) for name in PACKS}


@pytest.fixture(scope="module")
def cards(store: FactStore) -> dict[str, list[DefectCard]]:
    return {name: store.cards(name) for name in PACKS}


@pytest.fixture(scope="module")
def packs(store: FactStore) -> dict[str, Pack]:
    return store.packs()


def test_there_are_the_packs_that_were_promised() -> None:
    assert len(PACKS) >= 40
    assert GENERAL in PACKS


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_is_complete(name: str, packs: dict[str, Pack], facts: dict[str, list[Fact]]) -> None:
    pack, own = packs[name], read_cards(SHIPPED / name)
    assert pack.title
    assert pack.description
    assert pack.licence == "Apache-2.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", pack.version)
    assert pack.products or name == GENERAL
    assert len(own) >= 8
    counts = Counter(fact.kind for fact in facts[name])
    assert len(facts[name]) >= 40
    assert all(counts[kind] >= least for kind, least in LEAST.items()), counts


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_holds_to_its_own_words(name: str, store: FactStore) -> None:
    assert check_pack(name, store.packs()[name], store.cards(name), store.facts(name, status="approved")) == []


def test_no_two_packs_say_or_claim_the_same(store: FactStore) -> None:
    assert check_packs(store.packs(), store.catalogue.user_domains(), store.iterate(status="approved")) == []


@pytest.mark.parametrize("name", PACKS)
def test_facts_are_single_sentences(name: str, facts: dict[str, list[Fact]]) -> None:
    for fact in facts[name]:
        assert 7 <= len(fact.text.split()) <= 40, fact.text
        assert re.fullmatch(r"(?:(?![.!?]\s).)+\.", fact.text), f"not one sentence: {fact.text}"


def test_no_fact_stands_twice_in_other_words(store: FactStore, facts: dict[str, list[Fact]]) -> None:
    for own in facts.values():
        vectors = store.embed(own)
        close = np.argwhere(np.triu(vectors @ vectors.T, k=1) >= NEAR_DUPLICATE)
        assert [(own[i].text, own[j].text) for i, j in close] == []


@pytest.mark.parametrize(("pack", "categories"), PACK_OF_CATEGORY.items())
def test_categories_have_their_pack(store: FactStore, pack: str, categories: str) -> None:
    for category in categories.split():
        assert store.match_product(category).domain == pack, category


def test_no_category_of_the_images_is_forgotten(index_rows: list[dict[str, str]]) -> None:
    known = {category for categories in PACK_OF_CATEGORY.values() for category in categories.split()}
    assert {row["category"] for row in index_rows} <= known


def test_products_of_mmad_have_packs(data_root: Path, store: FactStore) -> None:
    texts = json.loads((data_root / "mmad" / "domain_knowledge.json").read_text(encoding="utf-8"))
    unknown = [name for group in texts.values() for name in group if store.match_product(name).how == "unknown"]
    assert unknown == []


def test_no_card_reads_like_an_order_to_a_model(cards: dict[str, list[DefectCard]]) -> None:
    """An export with such a card would be refused at import."""
    for own in cards.values():
        for card in own:
            texts = (
                card.look.text,
                *card.causes,
                card.consequence,
                card.action,
                *(t.difference for t in card.taken_for),
            )
            assert [text for text in (*card.term.names, *texts) if instruction_reason(text)] == []


def test_the_files_are_read_as_they_are_written(
    facts: dict[str, list[Fact]], cards: dict[str, list[DefectCard]]
) -> None:
    read: Counter[str] = Counter()
    for file in list_pack_files(SHIPPED, shipped=True):
        if file.path.name == "pack.yaml":
            assert read_pack(file.path).name == file.domain
        elif file.path.parent.name == "facts":
            assert file.path.stem in KINDS
            for fact in read_fact_yaml(file):
                assert (fact.status, fact.sources[0].extractor) == ("approved", "written by hand")
                read[fact.domain] += 1
    assert read == {name: len(own) for name, own in facts.items()}
    assert {name: read_cards(SHIPPED / name) for name in PACKS} == cards
    texts = [normalise_text(fact.text) for own in facts.values() for fact in own]
    assert len(set(texts)) == len(texts)


def test_the_documents_say_what_the_packs_are(repository: Path) -> None:
    command = [sys.executable, "tools/pack_table.py", "--check"]
    ran = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_opening_all_packs_in_a_new_process_is_quick_and_small(tmp_path: Path) -> None:
    """Once the catalogue is made, opening costs no more than a fraction of making it, and few megabytes."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is read from /proc, which this system lacks")
    code = (
        "import re, time\n"
        "from pathlib import Path\n"
        "from sage_ad.knowledge.store.fact_store import FactStore\n"
        "began = time.process_time()\n"
        f"with FactStore.open({str(tmp_path)!r}, cache={str(tmp_path / 'cache')!r}) as store:\n"
        "    packs = store.packs()\n"
        "seconds = time.process_time() - began\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(len(packs), seconds, int(peak) / 1024)\n"
    )

    def run() -> tuple[int, float, float]:
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        count, seconds, megabytes = ran.stdout.split()
        return int(count), float(seconds), float(megabytes)

    first, second = run(), run()
    assert first[0] == second[0] == len(PACKS)
    assert second[1] < max(0.3, first[1] / 3)
    assert second[2] < 60
