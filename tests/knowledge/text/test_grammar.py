"""Sentences told from titles, and orders from statements, by a few words."""

from __future__ import annotations

import pytest

from sage_ad.knowledge.text.grammar import gives_order, is_sentence, tells_disposition


@pytest.mark.parametrize(
    "line",
    [
        "Never pack a liner with a crack in the tip",
        "All rim chips on the pouring edge are scrapped without exception",
        "Place the part under the lamp",
        "The coating of a good liner is an even mirror",
    ],
)
def test_a_line_that_says_something_is_a_sentence(line: str) -> None:
    assert is_sentence(line)


@pytest.mark.parametrize(
    "line",
    [
        "Rim chip",
        "What is a rim chip?",
        "Faults that are allowed",
        "Can end dents",
        "Wear of the die",
        "Mark on the rim",
        "Cut edges",
        "Test methods",
        "Open joints",
        "Do's and don'ts",
        "No contamination allowed",
        "Cleaning before silvering",
    ],
)
def test_a_line_that_names_something_is_none(line: str) -> None:
    assert not is_sentence(line)


@pytest.mark.parametrize(
    "text",
    [
        "Do not touch the inner wall with bare fingers.",
        "Always store liners upside down.",
        "Operators must wear gloves when they load the rack.",
        "Wear gloves when touching a chipped rim.",
        "The liner must be rinsed before silvering.",
        "Before packing, wipe the neck.",
        "Scrap the part if the crack is longer than 5 mm.",
    ],
)
def test_an_order_is_told(text: str) -> None:
    assert gives_order(text)


@pytest.mark.parametrize(
    "text",
    [
        "Dents must not be deeper than 0.8 mm.",
        "Do not confuse a stain with dirt.",
        "The liner was not rinsed before silvering.",
        "Wear on the die leaves a groove in each part.",
        "Cut edges show burrs on the lower side.",
        "The mould must have been too cold.",
        "Contamination is to be expected when the nozzle drips.",
        "Inner layers shrink with heat, so artwork must be scaled.",
    ],
)
def test_a_statement_is_none(text: str) -> None:
    assert not gives_order(text)


def test_what_becomes_of_a_part_is_told() -> None:
    assert tells_disposition("Scrap the part if the crack is longer than 5 mm.")
    assert tells_disposition("Set it aside for the second choice.")
    assert not tells_disposition("Rinse the liner twice before silvering.")
