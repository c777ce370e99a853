"""Which facts state a limit of what is asked for."""

from __future__ import annotations

import pytest

from sage_ad.agents.answering.limits import is_a_case, limits_about, states_limit


@pytest.mark.parametrize(
    ("text", "question", "answers"),
    [
        ("Scratches of up to 0.5 mm are accepted.", "What is the limit?", True),
        ("Scratches of up to 0.5 mm are accepted.", "How wide may it be?", True),
        ("Scratches of up to 0.5 mm are accepted.", "How deep may it be?", False),
        ("Scratches deeper than 0.05 mm are rejected.", "How deep may it be?", True),
        ("Scratches deeper than 0.05 mm are rejected.", "How long may it be?", False),
        ("Scratches deeper than 0.05 mm are rejected.", "What tolerance applies?", True),
        ("Knots: Size: > 8 mm, disposition: scrap", "How large may a knot be?", True),
        ("At most three pores are allowed.", "How many pores are allowed?", True),
        ("At most three pores are allowed.", "How large may a pore be?", False),
        ("A crack longer than 5 mm grows under load.", "What is the limit?", False),
        ("Scratches are not accepted.", "What is the limit?", False),
    ],
)
def test_a_limit_is_a_number_and_what_becomes_of_parts_beyond_it(text: str, question: str, answers: bool) -> None:
    assert states_limit(text, question) is answers


def test_whether_a_named_defect_is_allowed_needs_no_number() -> None:
    question = "Is a scratch of 0.3 mm accepted?"
    assert states_limit("Scratches are not accepted.", question, named=True)
    assert not states_limit("Edges broken by hand are accepted.", question)
    assert not states_limit("Scratches are thin lines.", question, named=True)


def test_a_disposition_by_size_is_a_case() -> None:
    assert is_a_case("Chip, size: < 0.8 mm, disposition: accept")
    assert is_a_case("A part with more than 3 pores is scrapped.")
    assert not is_a_case("A cracked disc is scrapped at once.")
    assert not is_a_case("With one screw missing the assembly must not be delivered.")


def test_the_limit_of_another_defect_is_none_of_this_one() -> None:
    stain, hole, all_ = ({"id": name, "defects": [name] * bool(name)} for name in ("stain", "hole", ""))
    assert limits_about([all_, hole, stain], ["stain"]) == [stain]
    assert limits_about([all_, hole], ["stain"]) == [all_]
    assert limits_about([hole], ["stain"]) == []
    front = {"id": "front", "defects": ["stain"]}
    assert limits_about([stain, hole, front], ["stain"]) == [stain, front]
    assert len(limits_about([stain] * 9, ["stain"])) == 6, "accept, rework and scrap belong together"
    assert limits_about([all_, hole, stain], []) == [all_, hole, stain]
