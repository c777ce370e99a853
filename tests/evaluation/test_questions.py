"""Questions: what users type is read right, and what we build from labels is balanced and answered right."""

from __future__ import annotations

from collections import Counter

import pytest

from sage_ad.evaluation.inspection import FAMILIES
from sage_ad.evaluation.questions import (
    build_questions,
    defect_words,
    family_of,
    polarity_of,
    product_words,
    read_question,
    standard_questions,
    state_of,
    verdict_of,
    with_article,
    wordings,
)
from sage_ad.vlm.errors import InputError

FREE_WORDING = {
    "Is it free of defects?": "normal",
    "Is it defective?": "anomalous",
    "Isn't it defective?": "anomalous",
    "Is there no scratch on it?": "normal",
    "Compared with the normal reference, is this part defective?": "anomalous",
    "Does it differ from the good reference?": "anomalous",
    "Is this a good part?": "normal",
    "Can it still be used?": "normal",
    "Should it be scrapped?": "anomalous",
    "Is the defect harmless?": "normal",
    "Are the defects absent?": "normal",
    "Is it not free of defects?": "anomalous",
    "The part is defective. True or false?": "anomalous",
    "True or false: the cell is without cracks.": "normal",
    "Any defects visible?": "anomalous",
    "Can this part no longer be used?": "anomalous",
    "Is it kept out of use?": "anomalous",
    "Is nothing missing?": "normal",
    "Is there a crack in the upper left area?": "anomalous",
    "Does this part fail to meet the standard?": "anomalous",
    "Is this solar cell likely to fail in use?": "anomalous",
    "Is it true that the part has no flaws?": "normal",
    "IS THE PART OK?": "normal",
    "Which defect is it?": None,
    "In which area is the flaw?": None,
    "What should be done with it?": None,
    "Does the moon shine?": None,
}


@pytest.mark.parametrize(("text", "polarity"), FREE_WORDING.items())
def test_polarity_of_free_wording(text: str, polarity: str | None) -> None:
    assert polarity_of(text) == polarity


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("Is it normal?", "standard comparison"),
        ("Does it match the template?", "standard comparison"),
        ("Which defect is it?", "defect identification"),
        ("Where is the scratch?", "defect identification"),
        ("Can it still be used?", "defect diagnosis"),
        ("What are the consequences of the crack?", "defect diagnosis"),
    ],
)
def test_family_of_free_wording(text: str, family: str) -> None:
    assert family_of(text) == family


def test_own_wordings_are_understood_without_looking_them_up() -> None:
    """The reading rules must hold for our own templates when a product stands in them (then no look-up helps)."""
    for family, polarities in wordings()["templates"].items():
        for polarity, texts in polarities.items():
            for text in texts:
                asked = text.format(product="solar cell")
                assert (family_of(asked), polarity_of(asked)) == (family, polarity), asked


def test_standard_questions_cover_families_and_polarities() -> None:
    questions = standard_questions()
    assert len(questions) == 5
    assert {question.family for question in questions} == set(FAMILIES)
    assert {question.polarity for question in questions} == {"normal", "anomalous"}
    assert [read_question(question.text) for question in questions] == questions


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        read_question("  ")


def test_built_questions_are_balanced_and_seeded() -> None:
    sets = [build_questions(product="screw", anomalous=bool(i % 2), group=str(i)) for i in range(400)]
    assert all(Counter(q.family for q in five) == wordings()["per_image"] for five in sets)
    count = Counter((q.family, q.polarity) for five in sets for q in five)
    for family in FAMILIES:
        normal, anomalous = count[family, "normal"], count[family, "anomalous"]
        assert abs(normal - anomalous) <= 0.15 * (normal + anomalous)
    # A constant answer must not pay: "True" is right about half of the time, for good and for bad parts.
    for state in (False, True):
        true = [q.verdict for five in sets for q in five if q.anomalous is state]
        assert 0.45 < sum(map(bool, true)) / len(true) < 0.55
    assert sets[7] == build_questions(product="screw", anomalous=True, group="7")
    assert sets[7] != build_questions(product="screw", anomalous=True, group="7", seed=1)


def test_gold_answers_say_verdict_defect_and_place() -> None:
    consequence = "current is lost behind it"
    known = {"defect": "crack", "place": "upper left", "consequence": consequence}
    for question in build_questions(product="solar cell", anomalous=True, group="a", **known):
        assert question.polarity is not None
        assert question.verdict is (question.polarity == "anomalous")
        assert question.reference_answer.startswith(f"{question.verdict}. ")
        assert "a crack" in question.reference_answer
        assert "upper left" in question.reference_answer
        if question.family == "defect diagnosis":
            assert consequence in question.reference_answer
    for question in build_questions(product="solar cell", anomalous=False, defect="crack", place="centre", group="a"):
        assert (question.defect, question.place) == (None, None)
        assert "crack" not in question.reference_answer


def test_verdict_and_state_are_inverse() -> None:
    for polarity in ("normal", "anomalous"):
        for state in ("normal", "anomalous"):
            assert state_of(polarity, verdict_of(polarity, state)) == state


def test_names_in_words() -> None:
    assert defect_words("scratch_head") == "scratch on the head"
    assert defect_words("broken_yarn") == "broken yarn"
    assert [defect_words(name) for name in ("good", "defective", "ko", "3", None)] == [None] * 5
    assert product_words("fabric_03") == "fabric"
    assert product_words("pcb4") == "printed circuit board"
    assert product_words("") == "part"
    assert [with_article(name) for name in ("crack", "open circuit", "scratches", "rust", "scratch on the head")] == [
        "a crack",
        "an open circuit",
        "scratches",
        "rust",
        "a scratch on the head",
    ]
