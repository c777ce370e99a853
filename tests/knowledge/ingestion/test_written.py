"""What a small model writes in place of facts is refused; what an author wrote of a kind of product is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sage_ad.knowledge.facts import Fact, FactSource
from sage_ad.knowledge.ingestion.checks import check_facts
from sage_ad.knowledge.ingestion.written import written_reason
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.knowledge.store.packs import SHIPPED
from sage_ad.knowledge.vectors.embedding import default_embedder


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("This gear has a crack.", "one part or picture"),
        ("A gear shows a crack in the centre area.", "one part or picture"),
        ("The anomaly score of the gear is high.", "one part or picture"),
        ("It shows a missing tooth.", "names nothing"),
        ("Defects can be seen in many places.", "says nothing"),
        ("A missing tooth shows a cracked in the gear.", "no correct sentence"),
        ("A worn belt is a belt that is worn.", "says a term again"),
    ],
)
def test_each_fault_has_its_reason(text: str, reason: str):
    assert reason in (written_reason(text) or "")


def test_no_shipped_fact_is_refused():
    texts = [
        fact["text"]
        for path in sorted(SHIPPED.glob("*/facts/*.yaml"))
        for fact in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]
    refused = [text for text in texts if written_reason(text)]
    assert len(refused) <= 0.01 * len(texts), refused


def outcomes(store: FactStore, sentences: list[dict[str, Any]], model: str | None) -> list[str]:
    source = FactSource(model=model, file=None if model else "manual.pdf", extractor="test")
    facts = [Fact(text=s["text"], domain="general", kind="appearance", sources=(source,)) for s in sentences]
    return [result.outcome for result in check_facts(facts, store)]


def test_precision_and_recall_on_the_labelled_half(tmp_path: Path, repository: Path):
    """Measured on every second sentence; the others are for development."""
    sentences = yaml.safe_load((repository / "tests/data/model_sentences.yaml").read_text(encoding="utf-8"))[1::2]
    store = FactStore.open(tmp_path, default_embedder())
    refused = [outcome == "not-a-fact" for outcome in outcomes(store, sentences, "tiny")]
    right = sum(not s["ok"] for s, is_refused in zip(sentences, refused, strict=True) if is_refused)
    assert right / sum(refused) >= 0.95
    assert right / sum(not s["ok"] for s in sentences) >= 0.9


def test_an_authors_own_sentence_is_not_judged_so(tmp_path: Path):
    store = FactStore.open(tmp_path, default_embedder())
    sentence = [{"text": "This casting skin is slightly rough, and that is normal for cast parts."}]
    assert outcomes(store, sentence, "tiny") == ["not-a-fact"]
    assert outcomes(store, sentence, None) != ["not-a-fact"]
