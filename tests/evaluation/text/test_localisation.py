"""Places in words are read into cells of the 3 x 3 grid and compared with words, masks and boxes."""

from __future__ import annotations

import numpy as np
import pytest

from sage_ad.evaluation.text.answer_parser import read
from sage_ad.evaluation.text.localisation import (
    cells_of_mask,
    cells_of_regions,
    cells_of_words,
    places_in,
    pointed_faults,
    region_of_words,
)
from sage_ad.vlm.places import PLACES, cell_of_place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("in the top left-hand corner", "upper left"),
        ("at the top, in the middle", "upper centre"),
        ("on the right, halfway up", "centre right"),
        ("at the right edge, about midway between top and bottom", "centre right"),
        ("at 12 o'clock", "upper centre"),
        ("near nine o'clock", "centre left"),
        ("in the south-west part", "lower left"),
        ("right in the centre", "centre"),
        ("in the lower third on the right", "lower right"),
        ("upper-right quadrant", "upper right"),
    ],
)
def test_one_cell_is_named_in_many_ways(text: str, place: str) -> None:
    assert [found.cells for found in places_in(text)] == [frozenset({cell_of_place(place)})]


@pytest.mark.parametrize(
    "text",
    [
        "that is right",
        "right, there are none",
        "what is left may fail",
        "something is not right with it",
        "left out",
        "below standard",
    ],
)
def test_words_that_only_look_like_places_are_none(text: str) -> None:
    assert places_in(text) == []


@pytest.mark.parametrize("place", PLACES)
def test_every_place_of_the_grid_is_read_back(place: str) -> None:
    assert cells_of_words(place) == {cell_of_place(place)}


def levels(answer: str, place: str) -> list[str]:
    return [fault.name for fault in pointed_faults(read(answer), cells_of_words(place))]


def test_right_coarse_beside_and_wrong_places_are_told_apart() -> None:
    assert levels("A scratch in the upper left.", "upper left") == []
    assert levels("A scratch on the left.", "upper left") == ["coarse-place"]
    assert levels("A scratch at the top.", "upper centre") == []
    assert levels("A scratch in the upper centre.", "upper left") == ["beside-place", "false-place"]
    assert levels("A scratch in the lower right.", "upper left") == ["wrong-place", "false-place"]
    assert levels("A scratch.", "upper left") == ["no-place"]


def test_what_is_said_to_be_clean_points_at_nothing() -> None:
    assert levels("The lower right is clean, but a scratch is in the upper left.", "upper left") == []


def test_a_mask_gives_its_cells_whatever_its_size() -> None:
    mask = np.zeros((90, 300), bool)
    mask[70:80, 10:30] = True
    assert cells_of_mask(mask) == {(2, 0)}
    assert cells_of_mask(np.zeros((5, 5), bool)) == frozenset()


def test_regions_need_a_size_only_when_they_carry_no_place() -> None:
    assert cells_of_regions([(0, 0, 10, 10)], (90, 90)) == {(0, 0)}
    assert cells_of_regions([(0, 0, 10, 10)], None) == frozenset()
    assert cells_of_regions(region_of_words("lower right") or [], (300, 300)) == {(2, 2)}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Low in the middle something struck the pane.", "lower centre"),
        ("Up at the left the bristles stick out.", "upper left"),
        ("Light comes through high on the right.", "upper right"),
        ("Halfway up on the right it is worn.", "centre right"),
        ("One of the springs down left has snapped.", "lower left"),
    ],
)
def test_levels_in_words_are_understood(text: str, place: str) -> None:
    assert [found.cells for found in places_in(text)] == [frozenset({cell_of_place(place)})]


def test_a_place_told_from_a_part_of_the_product_is_no_place_in_the_picture() -> None:
    assert places_in("a pinhole just below the handle") == []
    assert [found.words for found in places_in("at the upper end, just below the head")] == ["upper"]


def test_from_one_place_to_another_is_two_places() -> None:
    found = places_in("It runs from the lower left to the centre.")
    assert [place.words for place in found] == ["lower left", "centre"]


def test_a_row_and_a_column_that_cross_in_a_corner_are_not_the_same_place() -> None:
    faults = pointed_faults(read("No. It is burnt across the top."), cells_of_words("right edge"))
    assert [fault.name for fault in faults] == ["beside-place", "false-place"]
