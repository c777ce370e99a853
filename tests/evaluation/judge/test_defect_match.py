"""The defect is recognised by name, synonym and paraphrase, and another one is not taken for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sage_ad.evaluation.inspection import Gold, MLEScore
from sage_ad.evaluation.judge.defect_match import concepts_of, is_named
from sage_ad.evaluation.text.lexicon import lexicon


def gold(defect: str) -> Gold:
    return Gold(verdict=False, anomalous=True, defect=defect, place=None)


@pytest.mark.parametrize(
    ("defect", "description"),
    [
        ("scratch", "No. A line has been gouged into the finish."),
        ("scratch", "No. Something sharp has been dragged across the surface."),
        ("crack", "No. A fissure runs through it."),
        ("crack", "No. It has split open."),
        ("dent", "No. Something struck it and pushed the surface in."),
        ("hole", "No. It has been pierced."),
        ("missing_screw", "No. One of the screws has been left out."),
        ("discolouration", "No. It has taken on another colour."),
        ("bent lead", "No. One of the leads is no longer straight."),
        ("rust", "No. It is corroded."),
        ("melted plastic", "No. The plastic has melted."),
        ("contamination", "No. A foreign particle sticks to it."),
    ],
)
def test_synonym_and_paraphrase_name_the_defect(score: Callable[..., MLEScore], defect: str, description: str) -> None:
    assert (score(description, gold=gold(defect)).type or 0) >= 4


@pytest.mark.parametrize(
    ("defect", "description"),
    [
        ("scratch", "No. A piece of the rim is missing."),
        ("crack", "No. It is stained with oil."),
        ("missing screw", "No. It is covered with rust."),
        ("discolouration", "No. A hole has been punched into it."),
        ("hole", "No. It is stained with ink."),
    ],
)
def test_another_defect_is_not_taken_for_it(score: Callable[..., MLEScore], defect: str, description: str) -> None:
    found = score(description, gold=gold(defect))
    assert found.type == 2
    assert any("where the defect is" in reason for reason in found.deductions)


def test_a_vague_complaint_names_nothing(score: Callable[..., MLEScore]) -> None:
    assert score("No, something is wrong with it.", gold=gold("scratch")).type == 3


def test_a_denied_defect_is_not_named(score: Callable[..., MLEScore]) -> None:
    assert score("No. It is not a scratch but a dent.", gold=gold("scratch")).type in (2, 3)


def test_folder_names_are_understood() -> None:
    assert "scratch" in concepts_of("scratch_head")
    assert is_named("casting_flaw")
    assert not is_named("defective")
    assert not is_named(None)


def test_every_concept_of_the_lexicon_has_a_group_terms_and_glosses() -> None:
    for name, entry in lexicon().items():
        assert entry["group"], name
        assert entry["terms"], name
        assert entry["glosses"], name
