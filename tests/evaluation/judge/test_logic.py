"""Logic: reasons support the verdict, nothing contradicts, cited facts exist and fit, the consequence agrees."""

from __future__ import annotations

from collections.abc import Callable

from sage_ad.evaluation.inspection import Gold, MLEScore

USE = "Can this part still be used?"
SCRATCHED = Gold(verdict=False, anomalous=True, defect="crack", place="centre")
FACTS = ("A crack in the housing lets moisture in.", "Fine grinding marks are harmless.")


def test_a_true_reason_is_worth_more_than_none_and_none_more_than_a_false_one(score: Callable[..., MLEScore]) -> None:
    reasoned = score("False. A scratch runs across the upper left.")
    bare = score("False.")
    false = score("False. A stain covers the upper left.")
    assert (reasoned.logic or 0) > (bare.logic or 0) > (false.logic or 0)


def test_reasons_that_imply_the_opposite_cost_nearly_everything(score: Callable[..., MLEScore]) -> None:
    found = score("False. The surface is flawless and conforms to the standard.")
    assert found.logic == 1
    assert any("implies the opposite" in reason for reason in found.deductions)


def test_self_contradiction_is_named_with_both_sides(score: Callable[..., MLEScore]) -> None:
    found = score("There is a scratch in the upper left. The part is free of defects.")
    assert found.logic == 1
    assert any("scratch" in reason and "free of defects" in reason for reason in found.deductions)


def test_a_consequence_must_agree_with_the_verdict(score: Callable[..., MLEScore]) -> None:
    right = score("No. The centre is cracked, so it must be scrapped.", USE, SCRATCHED)
    wrong = score("No. The centre is cracked, but it can be used without danger.", USE, SCRATCHED)
    assert right.logic == 5
    assert (wrong.logic or 5) <= 2


def test_an_open_question_for_the_consequence_wants_one(score: Callable[..., MLEScore]) -> None:
    question = "What does the state of this part mean for its use?"
    gold = SCRATCHED.model_copy(update={"verdict": None})
    stated = score("The centre is cracked; it must be replaced.", question, gold, family="defect diagnosis")
    missing = score("The centre is cracked.", question, gold, family="defect diagnosis")
    assert (stated.logic, missing.logic) == (5, 4)


def test_cited_facts_must_exist_and_fit(score: Callable[..., MLEScore]) -> None:
    right = score("No. The centre is cracked and lets moisture in [1].", USE, SCRATCHED, facts=FACTS)
    absent = score("No. The centre is cracked and lets moisture in [7].", USE, SCRATCHED, facts=FACTS)
    unfit = score("No. The centre is cracked and lets moisture in [2].", USE, SCRATCHED, facts=FACTS)
    made_up = score(
        "No. The centre is cracked. According to the facts, cracked parts attract lightning.",
        USE,
        SCRATCHED,
        facts=FACTS,
    )
    assert right.logic == 5
    assert absent.logic == 3
    assert unfit.logic == 3
    assert made_up.logic == 3


def test_harmless_marks_may_be_mentioned_on_a_normal_part(score: Callable[..., MLEScore]) -> None:
    normal = Gold(verdict=True, anomalous=False)
    for answer in (
        "True. The dark specks are only dust.",
        "True. What looks like a scratch is a reflection of the lamp.",
        "True. The rings are normal marks of turning.",
    ):
        assert score(answer, gold=normal).mean == 5.0, answer
    assert (score("True, although the rim is chipped.", gold=normal).mean or 5) < 3


def test_a_quoted_fact_is_no_claim_about_this_part() -> None:
    """A fact quoted word for word may say "passes" without letting the part pass; the same words unquoted may not."""
    from sage_ad.evaluation.inspection import JudgeRequest
    from sage_ad.evaluation.judge.local import LocalJudge

    fact = "A solar cell that passes less current than its string neighbours heats up to a hot spot."
    answer = f"No. There is a dark patch. It should not be used. If it is an isolated area, this applies: {fact}"
    question = "Can this part be used as intended?"
    quoted, unknown = LocalJudge(every_level=True).judge(
        [JudgeRequest(question, answer, facts=facts, evidence_verdict="anomalous") for facts in ([fact], [])]
    )
    assert quoted.logic == 5
    assert unknown.logic < 5
