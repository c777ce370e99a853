"""From sentences to candidates: what is kept, of which kind, with which words in front; a model's odd replies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from light_embedder import LightEmbedder

from sage_ad.knowledge.facts import KINDS
from sage_ad.knowledge.ingestion.extraction import (
    Extraction,
    boilerplate_reason,
    classify,
    extract_offline,
    extract_with_model,
    parse_written,
    tidy,
)
from sage_ad.knowledge.ingestion.readers import SentenceParser, reader_for
from sage_ad.knowledge.store.packs import SHIPPED
from sage_ad.knowledge.text.classifier import CLASSES, FactClassifier, labelled_sentences
from sage_ad.knowledge.vectors.embedding import default_embedder
from sage_ad.vlm.backends.scripted import ScriptedBackend
from sage_ad.vlm.errors import BackendError

DATE = "2026-11-22T00:00:00+00:00"


@pytest.fixture(scope="module")
def classifier() -> FactClassifier:
    return FactClassifier.fitted(default_embedder())


def nodes_of(path: Path, text: str) -> list:
    path.write_text(text, encoding="utf-8")
    return SentenceParser().get_nodes_from_documents(reader_for(path).load_data(path))


class TestClassifier:
    def test_keeps_the_facts_of_the_packs_and_tells_their_kind(self, classifier: FactClassifier):
        texts, kinds = [], []
        for path in sorted(SHIPPED.glob("*/facts/*.yaml")):
            for fact in yaml.safe_load(path.read_text(encoding="utf-8"))[::4]:
                texts.append(fact["text"])
                kinds.append(path.stem)
        judgements = classifier.judge(texts, default_embedder().encode(texts))
        assert np.mean([judgement.worth >= 0.5 for judgement in judgements]) >= 0.98
        assert np.mean([j.kind == kind for j, kind in zip(judgements, kinds, strict=True)]) >= 0.67

    def test_drops_ordinary_sentences(self, classifier: FactClassifier, repository: Path):
        texts = yaml.safe_load((repository / "tests/data/ordinary_sentences.yaml").read_text(encoding="utf-8"))
        judgements = classifier.judge(texts, default_embedder().encode(texts))
        assert np.mean([judgement.worth < 0.5 for judgement in judgements]) >= 0.85

    def test_training_sentences_are_in_no_pack(self):
        texts = {text for text, label in zip(*labelled_sentences(), strict=True) if label != "none"}
        packs = {
            fact["text"]
            for path in SHIPPED.glob("*/facts/*.yaml")
            for fact in yaml.safe_load(path.read_text(encoding="utf-8"))
        }
        assert len(texts) == len([label for label in labelled_sentences()[1] if label != "none"])
        assert not texts & packs

    def test_is_deterministic_and_a_damaged_cache_is_made_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("SAGE_CACHE", str(tmp_path))
        first = FactClassifier.fitted(LightEmbedder())
        (saved,) = (tmp_path / "knowledge").glob("classifier-*.npz")
        saved.write_bytes(b"not a cache")
        again = FactClassifier.fitted(LightEmbedder())
        assert np.array_equal(first.weights, again.weights)
        assert first.weights.shape == (64 + len(CLASSES), len(CLASSES))


class TestBoilerplate:
    def test_the_number_of_a_figure_is_no_part_of_what_its_caption_says(self):
        said = tidy("Figure 3: Bare spot below the shoulder, seen in back light.")
        assert said == "Bare spot below the shoulder, seen in back light."

    @pytest.mark.parametrize(
        "text",
        [
            "Page 3 of 12",
            "Copyright 2020 ACME, all rights reserved worldwide.",
            "For details go to https://example.org/manual now.",
            "Introduction .............. 7",
            "Common visual features include the following:",
            "What does a crack look like?",
            "See chapter 4 for further details.",
            "Figure 3: Overview",
            "Too short.",
            "1.2 3.4 5.6 7.8 9.0 1.2 values 3.4 5.6 7.8 9.9",
            "word " * 300,
            "裂纹是一条从边缘开始的细黑线。",
            "Kleine Blasen unter 0,3 mm sind normal und werden nicht beanstandet.",
            "Les petites bulles sont normales dans le verre.",
            "Flasks and Stoppers Issued by Quality Assurance, 3 March 2025 Uncontrolled when printed",
        ],
    )
    def test_is_dropped_with_a_reason(self, text: str):
        assert boilerplate_reason(text)

    def test_a_fact_is_not(self):
        assert boilerplate_reason("A crack appears as a thin dark line.") is None
        assert boilerplate_reason("The die du jour and con rod are cut per drawing in the van.") is None
        assert boilerplate_reason("Gas pores", stated=True) is None
        assert boilerplate_reason("Chip, back: ≤ 1.5 mm ¹)", stated=True) is None


class TestOffline:
    def test_subjects_are_put_in_front_only_where_needed(self, tmp_path: Path, classifier: FactClassifier):
        text = (
            "# Cold shuts\n\nThey appear as fine seams with rounded edges.\n\n"
            "A cold shut arises when the melt is too cold.\n\n"
            "Description: The defect weakens the wall of the casting.\n"
        )
        extraction = extract_offline(nodes_of(tmp_path / "a.md", text), classifier, default_embedder(), DATE)
        assert [candidate.text for candidate in extraction.candidates] == [
            "Cold shuts: They appear as fine seams with rounded edges.",
            "A cold shut arises when the melt is too cold.",
            "Cold shuts: The defect weakens the wall of the casting.",
        ]

    def test_cases_in_a_list_stand_behind_what_they_are_cases_of(self, tmp_path: Path, classifier: FactClassifier):
        text = (
            "# Blowholes\n\n- Up to 3 pores per segment: accept\n- More than 6: scrap[^1]\n\n"
            "Unlike a crack, a blowhole has a round rim. Unlike a crack, it is scrapped only on the front.\n\n"
            "[^1]: The customer pays for scrapped segments of which he was told.\n\nNote: a pore may hold dust.\n"
        )
        extraction = extract_offline(nodes_of(tmp_path / "a.md", text), classifier, default_embedder(), DATE)
        told = [candidate.text for candidate in extraction.candidates] + [text for text, _ in extraction.dropped]
        assert "Blowholes, up to 3 pores per segment: accept" in told
        assert "Blowholes, more than 6: scrap" in told
        pronoun = "Unlike a crack, a blowhole has a round rim. Unlike a crack, it is scrapped only on the front."
        assert pronoun in told
        assert "The customer pays for scrapped segments of which he was told." in told
        assert "A pore may hold dust." in told

    def test_an_item_of_a_list_says_what_its_heading_says_of_it(self, tmp_path: Path, classifier: FactClassifier):
        text = (
            "# Ground segments\n\n## What is not a defect\n\n- A chip in the chamfer, if it is shorter than 0.2 mm\n"
            "- Grinding lines are normal.\n"
        )
        extraction = extract_offline(nodes_of(tmp_path / "a.md", text), classifier, default_embedder(), DATE)
        judged = [candidate.judged for candidate in extraction.candidates]
        item, sentence = classify(extraction.candidates, classifier.judge(judged, default_embedder().encode(judged)))
        assert item.text == "Ground segments, what is not a defect: A chip in the chamfer, if it is shorter than 0.2 mm"
        assert item.kind == "normal-variation"
        assert sentence.text == "Grinding lines are normal."

    def test_a_bare_pronoun_without_heading_takes_the_sentence_before_it(
        self, tmp_path: Path, classifier: FactClassifier
    ):
        text = "Wet sand releases steam into the melt. This causes gas pores below the skin of the casting."
        extraction = extract_offline(nodes_of(tmp_path / "a.txt", text), classifier, default_embedder(), DATE)
        last = extraction.candidates[-1]
        assert last.text == text
        assert last.source.location is not None
        assert last.source.location.span == (0, len(text))

    def test_every_candidate_has_its_provenance(self, tmp_path: Path, classifier: FactClassifier):
        path = tmp_path / "a.md"
        text = "# A\n\nWelcome to our plant.\n\nWet sand gives rise to gas pores in the casting.\n"
        extraction = extract_offline(nodes_of(path, text), classifier, default_embedder(), DATE)
        (candidate,) = extraction.candidates
        source, location = candidate.source, candidate.source.location
        assert location is not None
        assert location.span is not None
        assert text[slice(*location.span)] == candidate.text
        assert (source.file, source.date, source.model) == (str(path.resolve()), DATE, None)
        assert source.sha256 is not None
        assert len(source.sha256) == 64
        assert extraction.dropped[0][0] == "Welcome to our plant."
        assert extraction.dropped[0][1]

    def test_the_heading_names_the_kind(self, tmp_path: Path, classifier: FactClassifier):
        text = "# Causes\n\nThe melt was poured at too low a temperature into the casting mould.\n"
        extraction = extract_offline(nodes_of(tmp_path / "a.md", text), classifier, default_embedder(), DATE)
        judged = [candidate.judged for candidate in extraction.candidates]
        classified = classify(extraction.candidates, classifier.judge(judged, default_embedder().encode(judged)))
        assert [candidate.kind for candidate in classified] == ["cause"]

    def test_an_order_below_causes_is_no_cause(self, tmp_path: Path, classifier: FactClassifier):
        text = (
            "# Silvering fault\n\n## Causes\n\nThe inner wall was not rinsed clean before the silver was filled in. "
            "Rinse the liner twice before silvering. Operators must wear gloves when they load the rack.\n\n"
            "Check the rinsing water for grease with a drop of dye. Scrap liners with a window larger than 5 mm. "
            "Scrap the liner if the window is larger than 5 mm.\n\n"
            "## Remedy\n\nRinse the rack twice before it is loaded.\n"
        )
        extraction = extract_offline(nodes_of(tmp_path / "a.md", text), classifier, default_embedder(), DATE)
        judged = [candidate.judged for candidate in extraction.candidates]
        classified = classify(extraction.candidates, classifier.judge(judged, default_embedder().encode(judged)))
        kinds = {candidate.text: candidate.kind for candidate in classified}
        assert kinds["The inner wall was not rinsed clean before the silver was filled in."] == "cause"
        assert kinds["Check the rinsing water for grease with a drop of dye."] == "inspection"
        assert kinds["Scrap the liner if the window is larger than 5 mm."] == "consequence"
        assert kinds["Rinse the rack twice before it is loaded."] == "inspection"
        reasons = dict(extraction.dropped)
        assert "order on handling" in reasons["Rinse the liner twice before silvering."]
        assert "order on handling" in reasons["Operators must wear gloves when they load the rack."]


class TestReplies:
    """A model was asked for a JSON list; this is what models write."""

    FACT = "Hail cracks solar cells."

    @pytest.mark.parametrize(
        "reply",
        [
            '[{"fact": "Hail cracks solar cells.", "kind": "cause"}]',
            '```json\n[{"fact": "Hail cracks solar cells.", "kind": "Cause"}]\n```\nHope this helps!',
            'Sure! Here it is: {"facts": [{"text": "Hail cracks solar cells.", "type": "causes"}]}',
            '{"fact": "Hail cracks solar cells.", "kind": "cause"}\n' * 2,
            '[{"fact": "Hail cracks solar cells.", "kind": "cause"}, {"fact": "The light is cut o',
            "- [cause] Hail cracks solar cells.",
            "1. Cause: Hail cracks solar cells.",
            "* **Cause**: Hail cracks solar cells.",
            '{"cause": ["Hail cracks solar cells."]}',
            "<think>Let me see {x}</think>[{'broken': }] " + '{"fact": "Hail cracks solar cells.", "kind": "cause"}',
        ],
    )
    def test_is_read(self, reply: str):
        written = parse_written(reply)
        assert written is not None
        assert [(fact.text, fact.kind) for fact in written] == [(self.FACT, "cause")]

    def test_a_list_of_strings_has_no_kinds(self):
        written = parse_written(json.dumps([self.FACT, "B is broken."]))
        assert written is not None
        assert [(fact.text, fact.kind) for fact in written] == [(self.FACT, None), ("B is broken.", None)]

    def test_no_facts_and_no_list_differ(self):
        assert parse_written("[]") == []
        assert parse_written("I am sorry, I cannot do that.") is None
        assert parse_written("") is None


class TestWithModel:
    TEXT = "Hail impact cracks solar cells. A cracked cell delivers about 5 percent less power."

    def extract(self, tmp_path: Path, classifier: FactClassifier, reply: str | Exception) -> tuple[Extraction, list]:
        backend = ScriptedBackend([reply])
        nodes = nodes_of(tmp_path / "a.txt", self.TEXT)
        return extract_with_model(nodes, backend, classifier, default_embedder(), DATE), backend.calls

    def test_keeps_what_the_passage_bears_out_with_its_place(self, tmp_path: Path, classifier: FactClassifier):
        reply = json.dumps(
            [
                {"fact": "Solar cells crack when hail hits them.", "kind": "cause"},
                {"fact": "A cracked cell delivers about 50 percent less power.", "kind": "consequence"},
                {"fact": "Bananas are yellow and grow in bunches.", "kind": "appearance"},
            ]
        )
        extraction, calls = self.extract(tmp_path, classifier, reply)
        (candidate,) = extraction.candidates
        assert candidate.kind == "cause"
        assert candidate.source.model == "scripted"
        assert candidate.source.location is not None
        assert candidate.source.location.span == (0, 31)
        reasons = dict(extraction.dropped)
        assert "50" in reasons["A cracked cell delivers about 50 percent less power."]
        assert "nowhere" in reasons["Bananas are yellow and grow in bunches."]
        assert '"Hail impact cracks solar cells."' in str(calls[0][-1]["content"])

    def test_an_unreadable_reply_falls_back_and_says_so(self, tmp_path: Path, classifier: FactClassifier):
        extraction, _ = self.extract(tmp_path, classifier, "I would rather talk about the weather.")
        assert [candidate.source.model for candidate in extraction.candidates] == [None, None]
        assert "scripted gave no readable list" in extraction.notes[0]

    def test_a_failing_back_end_raises(self, tmp_path: Path, classifier: FactClassifier):
        with pytest.raises(BackendError):
            self.extract(tmp_path, classifier, BackendError("The server is gone; start it."))


def test_the_five_kinds_are_all_learnt():
    assert set(labelled_sentences()[1]) == {*KINDS, "none"}
