"""Cards that fit a measured region come first."""

from __future__ import annotations

from sage_ad.knowledge.looks.card_match import card_fit, ranked_cards
from sage_ad.knowledge.store.cards import CardLook, DefectCard
from sage_ad.vlm.evidence.description import Description


def found(**changes: object) -> Description:
    values: dict[str, object] = {
        "box": (10, 10, 60, 50),
        "background": "reference",
        "tone": -0.3,
        "colour": (0.0, 0.0),
        "colour_change": None,
        "colour_name": "dark grey",
        "texture": 1.0,
        "edge": 0.1,
        "shape": "round spot",
        "angle": None,
        "length": 50.0,
        "width": 40.0,
        "area": 1500,
        "share": 0.02,
        "count": 1,
    }
    return Description(**{**values, **changes})  # type: ignore[arg-type]


def look(**changes: object) -> CardLook:
    values: dict[str, object] = {
        "tone": ["darker"],
        "shape": ["blob"],
        "size": ["medium"],
        "texture": ["same"],
        "place": ["surface"],
        "number": ["single"],
        "text": "A dark spot.",
    }
    return CardLook.model_validate({**values, **changes})


def card(name: str, own: CardLook) -> DefectCard:
    return DefectCard(
        name=name, look=own, causes=("Oil.",), consequence="It shows.", severity="cosmetic", action="Wash it."
    )


def test_a_grey_blob_calls_up_the_stain_and_not_the_broken_end() -> None:
    stain = card("stain", look())
    broken = card("broken end", look(tone=["lighter"], shape=["line"], texture=["missing"]))
    assert [item.name for item, _ in ranked_cards([broken, stain], found())] == ["stain", "broken end"]


def test_every_field_that_does_not_fit_costs() -> None:
    whole = card_fit(look(), found())
    assert whole == 1
    for changes in (
        {"tone": ["lighter"]},
        {"shape": ["line"]},
        {"size": ["tiny"]},
        {"texture": ["broken"]},
        {"colour": ["red"]},
        {"number": ["repeating"]},
    ):
        assert card_fit(look(**changes), found()) < whole, changes


def test_the_number_is_that_of_the_regions_and_of_the_pieces() -> None:
    repeating = look(number=["repeating"])
    assert card_fit(repeating, found(), regions=4) == card_fit(repeating, found(count=3)) == 1
