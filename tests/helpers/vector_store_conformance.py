"""What any llama-index vector store must do for the knowledge base; every store that we offer runs through it.

A test module subclasses `VectorStoreConformance` and gives a fixture `store` with an empty store of 8-dimensional
vectors. Nothing in here knows which store it tests.
"""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

DIMENSIONS = 8


def name(number: int) -> str:
    """A node id of the only form that every server takes."""
    return str(uuid.UUID(int=number))


def unit(*values: float) -> list[float]:
    """A vector of length 1 that begins with these values."""
    vector = np.zeros(DIMENSIONS)
    vector[: len(values)] = values
    return (vector / np.linalg.norm(vector)).tolist()


def node(number: int, vector: list[float], document: str = "a", **metadata: object) -> TextNode:
    """A node of a source document."""
    return TextNode(
        id_=name(number),
        text=f"text {number}",
        embedding=vector,
        metadata=metadata,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)},
    )


def where(condition: FilterCondition = FilterCondition.AND, **fields: object) -> MetadataFilters:
    """Filters: a list means "one of", any other value "equal"."""
    filters = [
        MetadataFilter(key=k, value=v, operator=FilterOperator.IN if isinstance(v, list) else FilterOperator.EQ)
        for k, v in fields.items()
    ]
    return MetadataFilters(filters=filters, condition=condition)


def ask(store, vector, k=10, filters=None):
    """Ids and similarities of a query."""
    result = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=k, filters=filters))
    ids = result.ids if result.ids is not None else [found.node_id for found in result.nodes]
    return list(ids), list(result.similarities)


class VectorStoreConformance:
    """The suite."""

    @pytest.fixture
    def filled(self, store):
        store.add(
            [
                node(1, unit(1.0), "a", domain="metal", kind="cause"),
                node(2, unit(1.0, 0.2), "a", domain="metal", kind="appearance"),
                node(3, unit(1.0, 0.5), "b", domain="pcb", kind="cause"),
                node(4, unit(1.0, 1.0), "b", domain="glass", kind="cause"),
            ]
        )
        return store

    def test_an_empty_store_finds_nothing(self, store):
        assert ask(store, unit(1.0))[0] == []

    def test_nearest_come_first(self, filled):
        ids, similarities = ask(filled, unit(1.0))
        assert ids == [name(1), name(2), name(3), name(4)]
        assert similarities == sorted(similarities, reverse=True)
        assert similarities[0] == pytest.approx(1.0, abs=1e-3)

    def test_add_returns_the_ids(self, store):
        assert store.add([node(7, unit(1.0))]) == [name(7)]

    def test_k_limits_the_answer(self, filled):
        assert ask(filled, unit(1.0), k=2)[0] == [name(1), name(2)]

    def test_an_equality_filter_lets_only_equals_pass(self, filled):
        assert ask(filled, unit(1.0), filters=where(domain="pcb"))[0] == [name(3)]

    def test_a_filter_is_applied_before_the_k_best_are_taken(self, filled):
        assert ask(filled, unit(1.0), k=1, filters=where(domain="glass"))[0] == [name(4)]

    def test_one_of_several_values(self, filled):
        assert ask(filled, unit(1.0), filters=where(domain=["pcb", "glass"]))[0] == [name(3), name(4)]

    def test_filters_are_joined_by_and(self, filled):
        assert ask(filled, unit(1.0), filters=where(domain="metal", kind="cause"))[0] == [name(1)]

    def test_filters_are_joined_by_or(self, filled):
        found = ask(filled, unit(1.0), filters=where(FilterCondition.OR, domain="pcb", kind="appearance"))[0]
        assert found == [name(2), name(3)]

    def test_a_filter_that_nothing_passes(self, filled):
        assert ask(filled, unit(1.0), filters=where(domain="food"))[0] == []

    def test_a_deleted_node_is_never_found_again(self, filled):
        filled.delete_nodes([name(1)])
        assert ask(filled, unit(1.0))[0] == [name(2), name(3), name(4)]

    def test_deleting_what_is_not_there_changes_nothing(self, filled):
        filled.delete_nodes([name(99)])
        assert len(ask(filled, unit(1.0))[0]) == 4

    def test_a_source_document_is_deleted_with_all_its_nodes(self, filled):
        filled.delete("a")
        assert ask(filled, unit(1.0))[0] == [name(3), name(4)]

    def test_what_is_added_after_a_deletion_is_itself(self, filled):
        """A number that is used again would answer with the deleted node, or not at all."""
        filled.delete_nodes([name(4)])
        filled.add([node(5, unit(0.0, 0.0, 1.0), domain="food", kind="cause")])
        ids, similarities = ask(filled, unit(0.0, 0.0, 1.0), k=1)
        assert ids == [name(5)]
        assert similarities[0] == pytest.approx(1.0, abs=1e-3)

    def test_a_node_deleted_and_added_anew_has_its_new_vector(self, filled):
        filled.delete_nodes([name(1)])
        filled.add([node(1, unit(0.0, 0.0, 1.0), domain="food", kind="cause")])
        assert ask(filled, unit(0.0, 0.0, 1.0), k=1)[0] == [name(1)]
        assert ask(filled, unit(1.0), k=1)[0] == [name(2)]
        assert ask(filled, unit(1.0), filters=where(domain="metal"))[0] == [name(2)]

    def test_random_changes_agree_with_a_plain_list(self, store):
        rng = np.random.default_rng(0)
        expected: dict[str, tuple[np.ndarray, str]] = {}
        for number in range(1, 121):
            vector = rng.standard_normal(DIMENSIONS)
            vector /= np.linalg.norm(vector)
            domain = str(rng.choice(["metal", "pcb", "glass"]))
            store.add([node(number, vector.tolist(), domain=domain, kind="cause")])
            expected[name(number)] = (vector, domain)
            if number % 3 == 0:
                gone = str(rng.choice(sorted(expected)))
                store.delete_nodes([gone])
                del expected[gone]
        query = rng.standard_normal(DIMENSIONS)
        query /= np.linalg.norm(query)
        for domain in ("metal", "pcb", "glass"):
            ids, similarities = ask(store, query.tolist(), k=5, filters=where(domain=domain))
            exact = sorted((float(v @ query) for v, d in expected.values() if d == domain), reverse=True)[:5]
            assert similarities == pytest.approx(exact, abs=2e-3)
            assert all(expected[found][1] == domain for found in ids)
