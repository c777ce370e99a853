"""What keeps a measured cell, and what throws it away."""

from __future__ import annotations

import pytest

from sage_ad.evaluation.runs import bare_code, code_hash

CODE = 'def share(good: int, bad: int) -> float:\n    """Share of good parts."""\n    return good / (good + bad)  # of all\n'


@pytest.mark.parametrize(
    ("old", "new"), [("of all", "of both"), ("Share of", "The share of"), ("good: int, bad", "good: int,  bad")]
)
def test_comments_docstrings_and_layout_keep_measured_cells(old: str, new: str) -> None:
    assert bare_code(CODE.replace(old, new)) == bare_code(CODE)


@pytest.mark.parametrize(("old", "new"), [("good / (", "bad / ("), ("share", "part"), ("-> float", "-> int")])
def test_a_change_of_code_throws_them_away(old: str, new: str) -> None:
    assert bare_code(CODE.replace(old, new)) != bare_code(CODE)


def test_rooms_have_digests_of_their_own() -> None:
    assert code_hash("alignment") == code_hash("alignment") != code_hash("agents")
