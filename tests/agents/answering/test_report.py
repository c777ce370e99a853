"""The explanation: every line has a source, and nothing is asserted that was not taught."""

from __future__ import annotations

from typing import Any

import pytest
from findings import CARDS, card, looks, state

from sage_ad.agents.answering.report import explanation

FACT = {
    "id": "f1",
    "text": "A stain is a reject in outer fabric.",
    "kind": "consequence",
    "status": "approved",
    "defects": ["stain"],
}


def lines(own: dict[str, Any], cards: Any = CARDS) -> list[str]:
    names = ("product", "defect", "candidates", "facts")
    text, _ = explanation(own["evidence"], cards=cards, **{name: own[name] for name in names})
    return text.splitlines()


def test_a_taught_name_is_asserted_with_its_consequence_and_action() -> None:
    own = state(defect="stain", candidates=[looks("stain", 0.92), looks("hole", 0.05)], facts=[FACT])
    said = lines(own)
    assert said[0] == "The woven cloth is anomalous: its score is 0.63, the threshold for good parts is 0.50."
    assert said[1] == (
        "Upper left: grey round spot, 40 x 30 px, 1.0 % of the picture, 18 % darker than the reference there, no clear edge."
    )
    assert said[2] == "Most likely a stain (0.92, like 3 of your 3 examples); else hole (0.05)."
    assert said[3:] == [
        "A stain is a reject in outer fabric.",
        "What to do: How to treat a stain (ISO 1).",
        "How sure: 0.90. From three good parts.",
    ]


def test_without_a_taught_name_none_is_asserted() -> None:
    said = lines(state())
    assert said[2] == "The name of the defect was not taught; three pictures of such a defect teach it."
    assert said[3] == "What to do: have the marked areas checked by eye."
    assert not any("What follows from" in line for line in said)


@pytest.mark.parametrize(
    ("chances", "words"),
    [
        ((0.5, 0.3), "It is not sure which of the taught defects it is: stain (0.50) and hole (0.30); {} 0.90 on."),
        (
            (0.92, 0.01),
            "It is not sure which of the taught defects it is: stain (0.92) and hole (0.01); {} its second example on.",
        ),
        (
            (0.2, 0.1),
            "It is probably none of the taught defects (0.70); the likeliest of them: stain (0.20) and hole (0.10); {} 0.90 on.",
        ),
        ((0.5,), "Whether it is a stain is not sure (0.50): nothing else was taught, and {} 0.90 on."),
    ],
)
def test_what_is_unsure_or_unlike_everything_taught_is_said_so(chances: tuple[float, ...], words: str) -> None:
    found = [looks(name, chance) for name, chance in zip(("stain", "hole"), chances, strict=False)]
    assert lines(state(candidates=found))[2] == words.format("a name is asserted from")


def test_a_product_without_a_pack_says_how_to_begin_one() -> None:
    said = lines(state(), {})[2]
    assert said.startswith("No pack knows woven cloth")
    assert "begin one with your manual" in said
    assert "sage-kb" not in said, "the page and the service say it, too"
    assert "No product was named" in lines(state(product=None), {})[2]


def test_a_defect_taught_by_a_synonym_gets_the_card_and_the_facts_of_its_name() -> None:
    cards = {"stain": card("stain", synonyms=["oil mark"])}
    own = state(defect="oil mark", candidates=[looks("oil mark", 0.95)], facts=[FACT])
    said = lines(own, cards)
    assert FACT["text"] in said
    assert "What to do: How to treat a stain." in said
    own["facts"] = []
    assert "What follows from a stain." in lines(own, cards)


def test_a_normal_part_gets_no_defect_and_no_fact_but_the_place_that_came_closest() -> None:
    """No measurement tells whether a fact about good parts holds of this one: it would read like an excuse."""
    fact = {**FACT, "kind": "normal-variation", "text": "Slubs are normal.", "defects": []}
    said = lines(state("normal", facts=[fact]))
    assert said == [
        "The woven cloth is normal: its score is 0.41, the threshold for good parts is 0.50.",
        "Closest to the threshold: upper left.",
        "How sure: 0.90. From three good parts.",
    ]


def test_what_holds_of_several_areas_is_told_once() -> None:
    own = state()
    plain = {"description": "area, 9 x 8 px, poor match with good parts"}
    for at in (95, 105):
        region = own["evidence"]["regions"][0]
        measured = {**region["measured"], "tone": None, "box": [at, at, at + 9, at + 8]}
        own["evidence"]["regions"].append({**region, **plain, "place": "centre", "measured": measured})
    said = lines(own)
    assert said[2] == "Centre (9 x 8 px and 9 x 8 px): poor match with good parts; no mark could be measured."


def test_marks_that_look_alike_are_told_as_one() -> None:
    own = state()
    (region,) = own["evidence"]["regions"]
    lighter = {**region, "measured": {**region["measured"], "tone": 0.3}}
    own["evidence"]["regions"] += [region, lighter]
    said = lines(own)
    assert said[1].endswith("; 1 more like it.")
    assert said[2].startswith("Upper left: ")
    own["evidence"]["regions"][1] = {**region, "place": "centre"}
    assert lines(own)[1].endswith("; 1 more like it, in the centre.")


def test_a_picture_that_differs_as_a_whole_is_no_area_of_the_part() -> None:
    own = state()
    measured = {**own["evidence"]["regions"][0]["measured"], "tone": None, "share": 0.8}
    own["evidence"]["regions"][0] |= {
        "description": "area, 180 x 170 px, poor match with good parts",
        "measured": measured,
    }
    assert lines(own)[1:-1] == [
        "Most of the picture matches good parts poorly.",
        "What to do: check that product, view and light are those of the good parts, and inspect it again.",
    ]


def test_a_close_verdict_is_called_narrow() -> None:
    own = state()
    own["evidence"]["confidence"] = 0.55
    assert lines(own)[0].startswith("The woven cloth is anomalous, narrowly:")
