"""What may become a fact: contradictions flagged, repetitions merged, other domains refused; on labelled pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from sage_ad.knowledge.facts import Fact, FactSource
from sage_ad.knowledge.ingestion.checks import CheckedFact, check_facts, near_duplicate
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.knowledge.store.packs import SHIPPED
from sage_ad.knowledge.text.contradictions import contradiction, find_flips, profile
from sage_ad.knowledge.text.quantities import conflict, find_quantities
from sage_ad.knowledge.vectors.embedding import default_embedder


@pytest.fixture
def store(tmp_path: Path) -> FactStore:
    return FactStore.open(tmp_path / "home", default_embedder())


def fact(text: str, domain: str = "photovoltaics", kind: str = "appearance", **fields: object) -> Fact:
    return Fact.model_validate({"text": text, "domain": domain, "kind": kind, **fields})


def check(store: FactStore, *texts: str, **fields: object) -> list[CheckedFact]:
    return check_facts([fact(text, **fields) for text in texts], store)  # type: ignore[arg-type]


class TestQuantities:
    @pytest.mark.parametrize(
        ("first", "second", "clash"),
        [
            ("at most 0.1 mm", "at most 0.5 mm", True),
            ("at most 0.1 mm", "at most 100 µm", False),
            ("20 µm", "0.02 mm", False),
            ("longer than 5 mm", "shorter than 5 mm", True),
            ("longer than 5 mm", "8 mm", False),
            ("5 to 8 mm", "7 mm", False),
            ("5-8 mm", "9 mm", True),
            ("four screws", "4 screws", False),
            ("four screws", "6 screws", True),
            ("four screws", "4 mm", False),
            ("5 %", "about 15 percent", True),
            ("every 6 months", "every 2 years", True),
            ("180 °C", "240 °C", True),
            ("2 bar", "200 kPa", False),
            ("10 or more stitches", "6 stitches", True),
            ("> 0.5 mm", "deeper than 0.05 mm", False),
            ("deeper than 0.1 mm", "deeper than 0.05 mm", True),
            ("0.2 mm deep", "depth up to 0.1 mm", True),
            ("wider than 0.5 mm", "longer than 5 mm", False),
            ("> 0.5 mm", "larger than 5 mm", True),
            ("up to 0.3 mm in length", "≤ 0.3 mm", False),
        ],
    )
    def test_conflict(self, first: str, second: str, clash: bool):
        ours, theirs = find_quantities(first.lower())[0], find_quantities(second.lower())[0]
        assert len(ours) == len(theirs) == 1
        assert conflict(ours[0], theirs[0]) is clash
        assert conflict(theirs[0], ours[0]) is clash

    def test_ones_are_no_seconds(self):
        assert find_quantities("the remaining ones are rejected") == ([], "the remaining ones are rejected")

    def test_the_rest_of_the_sentence_is_left(self):
        quantities, rest = find_quantities("cracks longer than 5 mm are rejected")
        assert [(q.bound, q.low) for q in quantities] == [("above", 0.005)]
        assert rest.split() == ["cracks", "are", "rejected"]


class TestContradictions:
    def test_development_pairs(self, repository: Path):
        pairs = yaml.safe_load((repository / "tests/data/contradictions_development.yaml").read_text(encoding="utf-8"))
        missed = [pair for pair in pairs["contradictory"] if not contradiction(*pair)]
        false = [pair for pair in pairs["consistent"] if contradiction(*pair)]
        assert len(missed) <= 1, missed
        assert not false

    def test_measured_pairs(self, repository: Path):
        """Precision 0.90, recall 0.78 at the first look; the pairs are not tuned on."""
        pairs = yaml.safe_load((repository / "tests/data/contradictions.yaml").read_text(encoding="utf-8"))
        flagged = [pair for pair in pairs if contradiction(pair["first"], pair["second"])]
        right = [pair for pair in flagged if pair["label"] == "contradiction"]
        total = [pair for pair in pairs if pair["label"] == "contradiction"]
        assert len(pairs) >= 50
        assert len(right) / len(flagged) >= 0.85
        assert len(right) / len(total) >= 0.70

    def test_measured_pairs_are_seldom_merged_wrongly(self, repository: Path):
        pairs = yaml.safe_load((repository / "tests/data/contradictions.yaml").read_text(encoding="utf-8"))
        vectors = default_embedder().encode([pair[side] for pair in pairs for side in ("first", "second")])
        similar = (vectors[::2] * vectors[1::2]).sum(axis=1)
        merged = [
            pair["label"]
            for pair, value in zip(pairs, similar, strict=True)
            if not contradiction(pair["first"], pair["second"])
            and near_duplicate(pair["first"], pair["second"], float(value))
        ]
        assert merged.count("contradiction") <= 3
        assert merged.count("compatible") <= 1

    def test_no_two_facts_of_a_shipped_pack_contradict_or_repeat_each_other(self):
        for pack in sorted(SHIPPED.iterdir()):
            files = sorted(pack.glob("facts/*.yaml"))
            texts = [entry["text"] for path in files for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
            vectors = default_embedder().encode(texts[::2])
            similar = np.triu(vectors @ vectors.T, 1)
            for row, column in zip(*np.nonzero(similar >= 0.5), strict=True):
                pair = texts[::2][row], texts[::2][column]
                assert contradiction(*pair) is None, pair
                assert not near_duplicate(*pair, float(similar[row, column])), pair

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("Moisture causes corrosion.", "Corrosion causes moisture."),
            ("Clean the plate before coating.", "Clean the plate after coating."),
            ("The busbar is brighter than the finger.", "The finger is brighter than the busbar."),
        ],
    )
    def test_direction(self, first: str, second: str):
        assert any(flip.how == "direction" for flip in find_flips(profile(first), profile(second)))

    @pytest.mark.parametrize(
        ("first", "second", "reason"),
        [
            ("Chipped edges are accepted.", "Chipped edges are rejected.", "'accepted' against 'rejected'"),
            ("Scratches are accepted.", "Scratches are not accepted.", "one denies 'accepted'"),
            (
                "Moisture causes corrosion.",
                "Corrosion causes moisture.",
                "'moisture causes corrosion' against 'corrosion causes moisture'",
            ),
        ],
    )
    def test_the_reason_shows_words_as_they_are_written(self, first: str, second: str, reason: str):
        assert contradiction(first, second) == reason

    def test_it_is_symmetric(self, repository: Path):
        pairs = yaml.safe_load((repository / "tests/data/contradictions_development.yaml").read_text(encoding="utf-8"))
        for first, second in pairs["contradictory"] + pairs["consistent"]:
            assert bool(contradiction(first, second)) == bool(contradiction(second, first)), (first, second)

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("Pore, face, class A: ≤ 0.3 mm", "Pore, face, class B: ≤ 0.5 mm"),
            (
                "MG-21 rev C: pore, size: < 0.8 mm, disposition: accept",
                "MG-21 rev C: pore, size: > 1.5 mm, disposition: scrap",
            ),
            ("A pore is a pit. It is caused by gas in the slurry.", "Pore, cause: gas in the slurry"),
        ],
    )
    def test_cases_of_a_table_and_labels_contradict_nothing(self, first: str, second: str):
        assert contradiction(first, second) is None

    @pytest.mark.parametrize("text", ["", "?", "5", "no", "not not not", "裂纹 发亮", "a" * 2000])
    def test_odd_text_contradicts_nothing(self, text: str):
        assert contradiction(text, "A crack is dark.") is None


class TestOutcomes:
    def test_a_known_sentence_and_a_reworded_one_are_duplicates(self, store: FactStore):
        known = fact("Hail impact on the front glass breaks solar cells into several pieces.", kind="cause")
        store.add([known])
        same, reworded = check(
            store,
            "hail impact on the front glass breaks solar cells into several pieces",
            "Solar cells are broken into several pieces by hail impact on the front glass.",
            kind="cause",
        )
        assert (same.outcome, reworded.outcome) == ("duplicate", "duplicate")
        assert same.other == reworded.other == store.get(known.id)
        assert known.id in reworded.reason

    def test_a_contradiction_names_the_other_fact(self, store: FactStore):
        known = fact("Interrupted fingers of a solar cell appear as dark stripes.", status="approved")
        store.add([known])
        (result,) = check(store, "Interrupted fingers of a solar cell appear as bright stripes.")
        assert result.outcome == "contradiction"
        assert result.other is not None
        assert result.other.id == known.id
        assert "dark" in result.reason

    def test_candidates_are_compared_with_one_another(self, store: FactStore):
        results = check(
            store,
            "Snail trails on a solar cell are harmless silver discolourations.",
            "Snail trails on a solar cell are harmless silver discolourations!",
            "Snail trails on a solar cell are dangerous silver discolourations.",
        )
        assert [result.outcome for result in results] == ["new", "duplicate", "contradiction"]

    def test_facts_about_other_products_or_states_do_not_meet(self, store: FactStore):
        store.add([fact("The rim is dark and complete.", "glass", products=("bottle",))])
        (other,) = check(store, "The rim is bright and complete.", domain="glass", products=("panel",))
        assert other.outcome == "new"
        store.add([fact("The rim of the jar shows no chips.", "glass", kind="normal-variation")])
        (bad,) = check(store, "The rim of the jar shows chips.", domain="glass", defects=("chip",))
        assert bad.outcome == "new"

    def test_what_an_expert_rejected_is_recognised_but_contradicts_nothing(self, store: FactStore):
        known = fact("Solar cells with snail trails glow green at night.", status="rejected")
        store.add([known])
        again, opposite = check(
            store,
            "Solar cells with snail trails glow green at night.",
            "Solar cells with snail trails never glow green at night.",
        )
        assert again.outcome == "duplicate"
        assert opposite.outcome == "new"

    def test_other_domains_are_refused_with_a_reason(self, store: FactStore):
        nothing, foreign, home = check(
            store,
            "Parliament passed the budget by a narrow majority last week.",
            "Dark stripes in the fabric image come from a thread that is thicker than its neighbours.",
            "A dark solar cell in the image has lost contact to its string.",
        )
        assert nothing.outcome == "off-domain"
        assert "nothing to do with 'photovoltaics'" in nothing.reason
        assert foreign.outcome == "off-domain"
        assert "'textiles'" in foreign.reason
        assert home.outcome == "new"

    def test_a_young_domain_takes_anything_that_is_inspected(self, store: FactStore):
        store.new_domain("teeth")
        good, bad = check(
            store,
            "Caries appears as a dark area in the enamel on a radiograph.",
            "The prime minister announced new elections.",
            domain="teeth",
        )
        assert (good.outcome, bad.outcome) == ("new", "off-domain")

    def test_what_a_model_wrote_must_read_like_a_fact(self, store: FactStore):
        source = FactSource(model="some-model")
        (result,) = check(store, "As already said, we come back to this later in the course.", sources=(source,))
        assert result.outcome == "not-a-fact"

    def test_nothing_to_check(self, store: FactStore):
        assert check_facts([], store) == []

    def test_checking_writes_nothing(self, store: FactStore):
        before = store.catalogue.version
        check(store, "A dark solar cell in the image has lost contact to its string.")
        assert store.catalogue.version == before


def test_development_duplicates(repository: Path):
    pairs = yaml.safe_load((repository / "tests/data/duplicates_development.yaml").read_text(encoding="utf-8"))
    vectors = default_embedder().encode([text for pair in pairs for text in pair])
    found = [near_duplicate(*pair, float(vectors[2 * i] @ vectors[2 * i + 1])) for i, pair in enumerate(pairs)]
    assert sum(found) >= 13


def test_one_replaced_word_is_no_repetition():
    assert not near_duplicate("Chips sit on the upper rim of the jar.", "Chips sit on the outer rim of the jar.", 0.97)
    assert not near_duplicate("Pores under 0.2 mm are accepted.", "Pores under 0.3 mm are accepted.", 0.99)
