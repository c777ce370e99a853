"""A fact keeps its identity however it is typed, and unusable ones are refused in one sentence."""

import json

import pytest
from pydantic import ValidationError

from sage_ad.knowledge.facts import Fact, FactLocation, FactSource, check_domain_name, fact_from_record, fact_id
from sage_ad.vlm.errors import InputError


def make(text="A crack shows as a thin dark line.", **changes):
    return Fact(**{"text": text, "domain": "photovoltaics", "kind": "appearance", **changes})


@pytest.mark.parametrize(
    "same",
    [
        "a  crack shows as a\nthin dark line",
        " A CRACK shows as a thin dark line. ",
        "Ａ crack shows as a thin dark line",
    ],
)
def test_id_ignores_how_a_sentence_is_typed(same):
    assert fact_id("photovoltaics", same) == make().id == make(same).id


def test_id_is_the_same_in_every_version():
    assert make().id == "5d0bb5cb463f6b09"


def test_the_same_sentence_in_two_domains_is_two_facts():
    assert make().id != make(domain="metal").id


def test_an_edited_text_keeps_the_id_but_not_the_key():
    edited = make().model_copy(update={"text": "A crack shows as a dark, branching line."})
    assert edited.id == make().id
    assert edited.key != make().key


def test_invisible_characters_are_taken_out():
    assert make("A cr\u200back\u202e shows\u0000 as a thin dark line.").text == "A crack shows as a thin dark line."


def test_record_round_trips_through_json():
    source = FactSource(
        file="manual.pdf",
        location=FactLocation(page=3, span=(10, 44)),
        sha256="ab",
        extractor="local",
        date="2026-11-22",
    )
    fact = make(status="approved", products=["solar cell"], sources=[source], flags=["instruction"])
    assert fact_from_record(json.loads(json.dumps(fact.record())), "line 1") == fact
    assert fact.source == "manual.pdf, page 3"


def test_source_names_the_model_that_wrote_it():
    assert str(FactSource(model="sage-tiny")) == "model sage-tiny"


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"text": "", "domain": "pcb", "kind": "cause"}, "text"),
        ({"text": "x" * 2001, "domain": "pcb", "kind": "cause"}, "text"),
        ({"text": "Fine.", "domain": "pcb", "kind": "rumour"}, "kind"),
        ({"text": "Fine.", "domain": "../pcb", "kind": "cause"}, "domain"),
        ({"text": "Fine.", "domain": "pcb", "kind": "cause", "colour": "red"}, "colour"),
        ({"domain": "pcb", "kind": "cause"}, "text"),
        ("Fine.", "str"),
    ],
)
def test_unusable_records_are_refused_by_name(record, field):
    with pytest.raises(InputError, match=field) as caught:
        fact_from_record(record, "facts/cause.yaml, entry 3")
    assert "facts/cause.yaml, entry 3" in str(caught.value)


def test_a_fact_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        make().text = "Something else."


@pytest.mark.parametrize("name", ["", "..", "a/b", "Metal", "-x", "x" * 65])
def test_names_that_cannot_be_folders_are_refused(name):
    with pytest.raises(InputError, match="Domain name"):
        check_domain_name(name)
