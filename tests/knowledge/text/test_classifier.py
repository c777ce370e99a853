"""Kinds of sentences in the style of real manuals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from sage_ad.knowledge.text.classifier import FactClassifier, labelled_sentences
from sage_ad.knowledge.vectors.embedding import default_embedder


def test_kinds_are_right_in_85_percent_of_the_sentences_of_manuals(repository: Path):
    """Measured on every second sentence; the others are for development."""
    sentences = yaml.safe_load((repository / "tests/data/fact_sentences.yaml").read_text(encoding="utf-8"))[1::2]
    texts = [sentence["text"] for sentence in sentences]
    embedder = default_embedder()
    judgements = FactClassifier.fitted(embedder).judge(texts, embedder.encode(texts))
    pairs = list(zip(sentences, judgements, strict=True))
    assert np.mean([j.kind == s["kind"] for s, j in pairs if s["kind"] != "none"]) >= 0.85
    assert np.mean([j.worth >= 0.5 for s, j in pairs if s["kind"] != "none"]) >= 0.95
    assert np.mean([j.worth < 0.5 for s, j in pairs if s["kind"] == "none"]) >= 0.8


def test_no_training_sentence_is_a_measured_one(repository: Path):
    measured = yaml.safe_load((repository / "tests/data/fact_sentences.yaml").read_text(encoding="utf-8"))
    assert not {sentence["text"] for sentence in measured} & set(labelled_sentences()[0])
