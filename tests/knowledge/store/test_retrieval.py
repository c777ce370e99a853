"""Search quality on the labelled queries with the real embedder, and the parts that it is made of."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from sage_ad.knowledge.adapters.llama_index_embedding import SageEmbedding
from sage_ad.knowledge.facts import Fact
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.knowledge.store.retrieval import (
    Query,
    ScoredFact,
    count_tokens,
    diversify,
    fuse,
    within_budget,
)
from sage_ad.knowledge.store.retrieval_eval import measure, ndcg, read_queries, recall
from sage_ad.knowledge.vectors.embedding import SentenceEmbedder, default_embedder
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.weights.minilm import batches_by_length, minilm

QUERIES = Path(__file__).parents[2] / "data" / "pack_retrieval_queries.yaml"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The shipped packs with the real embedder; its vectors are kept in the shared cache between runs."""
    with FactStore.open(tmp_path_factory.mktemp("home")) as store:
        yield store


@pytest.fixture(scope="module")
def figures(store):
    """Measured once: figures by mode."""
    queries = read_queries(QUERIES)
    return {mode: measure(store, queries, mode) for mode in ("dense", "lexical", "fused")}


class TestQuality:
    @pytest.mark.parametrize("figure", ["recall@5", "ndcg@10"])
    def test_fused_beats_dense_alone_and_lexical_alone(self, figures, figure):
        assert figures["fused"]["queries"] >= 100
        assert figures["fused"][figure] > figures["dense"][figure] + 0.02
        assert figures["fused"][figure] > figures["lexical"][figure] + 0.02

    def test_fused_is_good_enough_to_lean_on(self, figures):
        assert figures["fused"]["recall@5"] > 0.76
        assert figures["fused"]["ndcg@10"] > 0.67

    def test_figures_are_those_of_the_definitions(self):
        found, relevant = ["a", "x", "b", "y", "z", "c"], frozenset("abc")
        assert recall(found, relevant, 5) == pytest.approx(2 / 3)
        assert recall(list("abcde"), frozenset("abcdefg"), 5) == 1
        gain = 1 + 1 / 2 + 1 / np.log2(7)
        assert ndcg(found, relevant, 10) == pytest.approx(gain / (1 + 1 / np.log2(3) + 1 / 2))

    def test_an_unusable_set_is_refused(self, tmp_path):
        (tmp_path / "set.yaml").write_text("- quary: x\n")
        with pytest.raises(InputError, match="labelled"):
            read_queries(tmp_path / "set.yaml")


class TestSearch:
    def test_evidence_product_and_place_all_count(self, store):
        def best(**hints):
            return [hit.fact.id for hit in store.search("What is wrong here?", domain="photovoltaics", k=5, **hints)]

        plain = best()
        for hints in ({"defect": "dark line across the cell"}, {"product": "monocrystalline solar cell"}):
            assert best(**hints) != plain
        left, right = (
            store.search("dark area", domain="photovoltaics", place=f"lower {side}") for side in ("left", "right")
        )
        assert [(hit.fact.id, hit.score) for hit in left] != [(hit.fact.id, hit.score) for hit in right]
        hint = store.search("What is wrong here?", domain="photovoltaics", k=3, defect="crack, thin dark line")
        assert all("crack" in hit.fact.text.lower() for hit in hint)

    def test_the_same_search_gives_the_same_answer(self, store):
        first = store.search("why does a solder bridge form", k=8)
        assert first == store.search("why does a solder bridge form", k=8)
        assert [hit.score for hit in first] == sorted((hit.score for hit in first), reverse=True)
        assert all(0 <= hit.score <= 1 and hit.similarity is not None for hit in first)

    def test_filters_hold_in_every_mode(self, store):
        for mode in ("dense", "lexical", "fused"):
            hits = store.search("crack", domain=["casting", "glass-sheet"], kind="cause", mode=mode, k=20)
            assert hits
            assert all(hit.fact.domain in ("casting", "glass-sheet") and hit.fact.kind == "cause" for hit in hits)

    def test_a_synonym_finds_what_the_pack_calls_by_another_name(self, store):
        hits = store.search("broken weft", domain="textiles", mode="lexical", k=5)
        assert any("broken pick" in hit.fact.defects for hit in hits)

    @pytest.mark.parametrize("words", ["Einbrandkerbe", "little groove running along the edge of the weld toe"])
    def test_a_defect_is_found_by_its_german_name_and_by_its_look(self, store, words):
        assert any("undercut" in hit.fact.defects for hit in store.search(words, domain="welding", k=3))

    def test_a_product_is_found_by_its_german_name(self, store):
        hits = store.search("Kettenrad", mode="lexical", k=3)
        assert hits
        assert all("sprocket" in hit.fact.products for hit in hits)

    def test_the_question_tells_the_kind_of_fact_that_is_wanted(self, store):
        queries = yaml.safe_load(QUERIES.read_text(encoding="utf-8"))

        def share(mode):
            best = [
                store.search(query["query"], domain=query["pack"], k=1, mode=mode)[0].fact.kind for query in queries
            ]
            return np.mean([kind == query["kind"] for kind, query in zip(best, queries, strict=True)])

        assert share("fused") > max(share("lexical"), share("dense")) + 0.1

    def test_a_budget_holds(self, store):
        hits = store.search("crack in a cell", k=8, token_budget=80)
        assert 0 < sum(count_tokens(hit.fact.text) for hit in hits) <= 80

    def test_diversity_spreads_the_answer(self, store):
        def nearness(diversity):
            hits = store.search("crack in a solar cell", domain="photovoltaics", k=6, diversity=diversity)
            vectors = store.embed([hit.fact for hit in hits])
            return (vectors @ vectors.T)[np.triu_indices(len(hits), 1)].mean()

        assert nearness(0.6) < nearness(0.0)

    def test_words_in_no_fact_still_find_something_by_meaning(self, store):
        assert store.search("qwxz", mode="lexical") == []
        assert len(store.search("qwxz", k=3)) == 3

    @pytest.mark.parametrize(
        "text", ["", "  ", "'\"; drop table facts; --", "NEAR(a b) AND *", "a" * 5000, "裂纹", "\0"]
    )
    def test_any_text_is_only_text(self, store, text):
        store.search(text, k=2)
        assert store.facts("casting")

    @pytest.mark.parametrize("bad", [{"k": 0}, {"mode": "magic"}, {"domain": "steel"}, {"kind": "rumour"}])
    def test_what_cannot_be_asked_is_refused(self, store, bad):
        with pytest.raises(InputError):
            store.search("crack", **bad)


class TestMaths:
    def test_the_best_in_both_has_score_one(self):
        assert fuse({"a": 0.8, "b": 0.4}, {"a": 3.0}) == [("a", pytest.approx(1.0)), ("b", pytest.approx(0.2))]

    def test_the_kind_that_is_asked_for_decides_between_equals(self):
        dense, lexical = {"a": 0.8, "b": 0.8}, {"a": 3.0, "b": 3.0}
        assert [name for name, _ in fuse(dense, lexical, {"a": 0.2, "b": 0.8})] == ["b", "a"]
        assert fuse({"a": 0.8}, {"a": 3.0}, {"a": 1.0}) == [("a", pytest.approx(1.0))]

    def test_without_shared_words_the_embedding_decides(self):
        assert [name for name, _ in fuse({"a": 0.1, "b": 0.2}, {})] == ["b", "a"]
        assert fuse({}, {}) == []

    def test_diversity_takes_the_different_one(self):
        vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
        assert diversify([1.0, 0.9, 0.5], vectors, 2, 0.0) == [0, 1]
        assert diversify([1.0, 0.9, 0.5], vectors, 2, 0.7) == [0, 2]
        assert diversify([], np.zeros((0, 2)), 2, 0.5) == []

    def test_a_fact_that_does_not_fit_is_passed_over(self):
        facts = [Fact(text=text, domain="x", kind="cause") for text in ("word " * 40, "short one")]
        kept = within_budget([ScoredFact(fact, 1.0) for fact in facts], 10)
        assert [item.fact.text for item in kept] == ["short one"]

    def test_tokens_are_not_underestimated(self):
        for text in ("A crack in the cell.", "electroluminescence, 45 degrees; IPC-A-610", "Größe: 3 µm"):
            assert count_tokens(text) >= len(minilm().tokens([text], longest=256)["input_ids"][0]) - 3

    def test_empty_parts_of_a_query_are_left_out(self):
        assert Query("", defect="crack").sentence() == "crack"
        assert Query("why?", place="upper left").sentence() == "why?. at the upper left"


class TestEmbedding:
    def test_vectors_are_those_of_sentence_transformers(self):
        """Known values of all-MiniLM-L6-v2: similar sentences are near, others are not, and lengths are 1."""
        vectors = default_embedder().encode(["A cat sits on the mat.", "A kitten is on a rug.", "Interest rates rose."])
        assert vectors.shape == (3, 384)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]

    def test_order_and_company_change_nothing(self):
        embedder = default_embedder()
        texts = ["short", "a much longer sentence about a solder bridge between two pads " * 4, "", "middle sized one"]
        together = embedder.encode(texts)
        np.testing.assert_allclose(together, embedder.encode(texts[::-1])[::-1], atol=1e-5)
        np.testing.assert_allclose(together[1], embedder.encode([texts[1]])[0], atol=1e-5)
        assert embedder.encode([]).shape == (0, 384)

    def test_one_string_is_a_mistake(self):
        with pytest.raises(TypeError):
            default_embedder().encode("a sentence")

    def test_an_unknown_model_is_one_line(self):
        with pytest.raises(InputError, match="no-such-model"):
            SentenceEmbedder("/no-such-model")

    def test_the_embedder_is_loaded_once(self):
        assert default_embedder() is default_embedder()

    def test_llama_index_gets_the_same_vectors(self):
        embedding = SageEmbedding()
        np.testing.assert_allclose(
            embedding.get_text_embedding("crack"), default_embedder().encode(["crack"])[0], atol=1e-6
        )
        assert len(embedding.get_query_embedding("crack")) == 384

    def test_batches_hold_the_budget(self):
        lengths = [3, 9, 1, 50, 7, 7]
        batches = list(batches_by_length(lengths, 20))
        assert sorted(index for batch in batches for index in batch) == list(range(6))
        assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 20 for batch in batches)
