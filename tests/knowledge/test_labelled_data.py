"""The hand-made labelled sets are whole: a label that points nowhere would make every figure built on it wrong."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from sage_ad.knowledge.facts import KINDS
from sage_ad.vlm.places import PLACES

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
DOMAINS = ROOT / "knowledge" / "domains"


def _read(name: str) -> Any:
    return yaml.safe_load((DATA / name).read_text(encoding="utf-8"))


def _visible(text: str) -> str:
    """The text as a person sees it: no formatting characters, single spaces."""
    return " ".join("".join(char for char in text if unicodedata.category(char) != "Cf").split())


def _domain_names() -> set[str]:
    return {path.parent.name for path in DOMAINS.glob("*/pack.yaml")}


def test_every_relevant_fact_of_a_query_is_shipped() -> None:
    queries = _read("pack_retrieval_queries.yaml")
    packs = {entry["pack"] for entry in queries}
    texts = {
        name: {
            fact["text"]
            for kind in KINDS
            for fact in yaml.safe_load((DOMAINS / name / f"facts/{kind}.yaml").read_text(encoding="utf-8"))
        }
        for name in packs
    }
    assert len(packs) == 15
    assert len({entry["query"] for entry in queries}) == len(queries) == 150
    assert sum(bool(entry["relevant"]) for entry in queries) >= 100
    for entry in queries:
        assert set(entry["relevant"]) <= texts[entry["pack"]], entry["query"]


def test_pairs_of_facts_are_labelled() -> None:
    pairs = _read("contradictions.yaml")
    labels = Counter(pair["label"] for pair in pairs)
    assert set(labels) == {"contradiction", "duplicate", "compatible"}
    assert len(pairs) >= 60
    assert min(labels.values()) >= 15
    assert {pair["domain"] for pair in pairs} <= _domain_names()
    assert all(pair["first"] != pair["second"] for pair in pairs)


@pytest.mark.parametrize("document", _read("hostile_documents.yaml"), ids=lambda document: document["id"])
def test_hostile_document_holds_what_its_labels_say(document: dict[str, Any]) -> None:
    assert document["hostile"]
    assert document["domain"] in _domain_names()
    text = _visible(re.sub(r'\n> |""|\\"', lambda match: " " if match[0].startswith("\n") else '"', document["text"]))
    for sentence in document["legit"]:
        assert sentence in text
    if document["id"] != "homoglyphs":  # its label is what a person reads, not the look-alike letters themselves
        for sentence in document["hostile"]:
            assert _visible(sentence) in text


def test_half_of_the_hostile_documents_hold_honest_facts() -> None:
    documents = _read("hostile_documents.yaml")
    assert len(documents) >= 36
    assert sum(bool(document["legit"]) for document in documents) * 2 == len(documents)


def test_second_ranked_set_has_the_agreed_shape() -> None:
    lines = (DATA / "ranked_second.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    assert len(items) >= 60
    assert len({item["id"] for item in items}) == len(items)
    assert len({item["object"] for item in items}) >= 12
    assert len({item["domain"] for item in items}) >= 11
    for item in items:
        assert len(set(item["answers"])) == 4
        assert item["gold"]["anomalous"] == (item["gold"]["defect"] is not None)
        assert item["gold"]["place"] in (*PLACES, None)
    families = Counter(item["pair_type"] for item in items)
    assert set(families) == {"standard comparison", "defect identification", "defect diagnosis"}
    true_share = sum(item["gold"]["verdict"] for item in items) / len(items)
    assert 0.4 <= true_share <= 0.6
    # "Yes" is right for about half of the faulty parts and half of the sound ones, so that polarity gives nothing away.
    for anomalous in (True, False):
        verdicts = [item["gold"]["verdict"] for item in items if item["gold"]["anomalous"] == anomalous]
        assert 0.4 <= sum(verdicts) / len(verdicts) <= 0.6
