"""Places in words."""

from __future__ import annotations

import pytest

from sage_ad.vlm.places import PLACES, cell_of_place, place_of_box, place_of_point


def test_the_nine_places_tile_the_picture() -> None:
    found = [place_of_point(x, y, 300, 150) for y in (25, 75, 125) for x in (50, 150, 250)]
    assert tuple(found) == PLACES
    assert PLACES[0] == "upper left"
    assert PLACES[4] == "centre"
    assert PLACES[8] == "lower right"


@pytest.mark.parametrize(
    ("box", "place"),
    [((0, 0, 10, 10), "upper left"), ((90, 0, 100, 100), "centre right"), ((0, 0, 100, 100), "centre")],
)
def test_a_box_is_where_its_middle_is(box: tuple[int, int, int, int], place: str) -> None:
    assert place_of_box(box, 100, 100) == place


def test_points_on_and_over_the_edge_count_to_the_nearest_cell() -> None:
    assert place_of_point(100, 100, 100, 100) == "lower right"
    assert place_of_point(-5, 50, 100, 100) == "centre left"


def test_places_have_cells_and_other_words_do_not() -> None:
    assert [cell_of_place(place) for place in PLACES[3:6]] == [(1, 0), (1, 1), (1, 2)]
    with pytest.raises(ValueError, match="upper left"):
        cell_of_place("top")
