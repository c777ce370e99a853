"""A sentence keeps what "it" refers to, and a row of a table its headings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_ad.knowledge.ingestion.extraction import Extraction, extract_offline
from sage_ad.knowledge.ingestion.readers import SentenceParser, reader_for
from sage_ad.knowledge.text.classifier import FactClassifier
from sage_ad.knowledge.vectors.embedding import default_embedder


@pytest.fixture(scope="module")
def classifier() -> FactClassifier:
    return FactClassifier.fitted(default_embedder())


def extract(path: Path, text: str, classifier: FactClassifier) -> Extraction:
    path.write_text(text, encoding="utf-8")
    nodes = SentenceParser().get_nodes_from_documents(reader_for(path).load_data(path))
    return extract_offline(nodes, classifier, default_embedder(), "2026-11-29T00:00:00+00:00")


def test_a_chain_of_pronouns_leads_back_to_the_sentence_that_names(tmp_path: Path, classifier: FactClassifier):
    text = (
        "Edge cracks run across the rolling direction. They begin at the edge of the strip. "
        "They come from cold edges or coarse grain. If they are deeper than 2 mm, the strip is scrapped."
    )
    extraction = extract(tmp_path / "a.txt", text, classifier)
    first = "Edge cracks run across the rolling direction."
    assert [candidate.text for candidate in extraction.candidates] == [
        first,
        f"{first} They begin at the edge of the strip.",
        f"{first} They come from cold edges or coarse grain.",
        f"{first} If they are deeper than 2 mm, the strip is scrapped.",
    ]
    location = extraction.candidates[-1].source.location
    assert location is not None
    assert location.span == (0, len(text))


def test_it_is_what_the_sentence_before_names_and_not_the_heading(tmp_path: Path, classifier: FactClassifier):
    text = "# Cold shuts\n\nGas pores are round holes in the casting. They are bright in the X-ray image.\n"
    assert [candidate.text for candidate in extract(tmp_path / "a.md", text, classifier).candidates] == [
        "Gas pores are round holes in the casting.",
        "Gas pores are round holes in the casting. They are bright in the X-ray image.",
    ]


def test_a_sentence_whose_it_is_nowhere_is_left_out_with_the_reason(tmp_path: Path, classifier: FactClassifier):
    extraction = extract(tmp_path / "a.txt", "It is scrapped when it is deeper than 2 mm in the seat.", classifier)
    assert extraction.candidates == []
    assert extraction.dropped[0][1] == "does not say what it is about"


def test_it_behind_a_place_leans_on_the_sentence_before_too(tmp_path: Path, classifier: FactClassifier):
    text = "# Housings\n\nGas pores are round holes in the casting. On a sealing face it leads to leaks of coolant.\n"
    assert extract(tmp_path / "a.md", text, classifier).candidates[-1].text == (
        "Gas pores are round holes in the casting. On a sealing face it leads to leaks of coolant."
    )


def test_it_below_causes_is_what_the_heading_above_names(tmp_path: Path, classifier: FactClassifier):
    text = "# Castings\n\n## 5 Gas pores\n\n### Causes\n\nThey come from wet moulds and hydrogen in the melt.\n"
    assert [candidate.text for candidate in extract(tmp_path / "a.md", text, classifier).candidates] == [
        "Gas pores, causes: They come from wet moulds and hydrogen in the melt."
    ]


@pytest.mark.parametrize("heading", ["# Pump covers\n\n## 7 General", "# Causes"])
def test_it_below_a_heading_that_names_nothing_is_left_out(heading: str, tmp_path: Path, classifier: FactClassifier):
    text = f"{heading}\n\nAt the gate it can be ground off when it is shallower than 1 mm.\n"
    extraction = extract(tmp_path / "a.md", text, classifier)
    assert extraction.candidates == []
    assert extraction.dropped[0][1] == "does not say what it is about"


def test_a_disposition_table_below_its_heading_becomes_facts(tmp_path: Path, classifier: FactClassifier):
    text = (
        "# Knots in boards\n\n| Diameter | Disposition |\n|---|---|\n| up to 5 mm | first choice |\n"
        "| 5 to 20 mm | second choice |\n| > 20 mm | reject |\n"
    )
    assert [candidate.text for candidate in extract(tmp_path / "a.md", text, classifier).candidates] == [
        "Knots in boards: Diameter: up to 5 mm, disposition: first choice",
        "Knots in boards: Diameter: 5 to 20 mm, disposition: second choice",
        "Knots in boards: Diameter: > 20 mm, disposition: reject",
    ]


def test_a_price_list_becomes_none(tmp_path: Path, classifier: FactClassifier):
    text = "# Order form\n\n| Article | Price |\n|---|---|\n| Paper towels | 5 EUR |\n| Coffee beans | 9 EUR |\n"
    extraction = extract(tmp_path / "a.md", text, classifier)
    assert extraction.candidates == []
    assert len(extraction.dropped) == 2
