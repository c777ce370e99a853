"""Questions that measurement and pack answer: each gets what was asked, or that it is not known."""

from __future__ import annotations

from typing import Any

import pytest
from findings import CARDS, card, looks, state

from sage_ad.agents.answering.asked import answer_asked, asked_about, parts_of
from sage_ad.evaluation.questions import read_question


def said(text: str, own: dict[str, Any]) -> tuple[bool | None, str]:
    question = read_question(text)
    intent = asked_about(question)
    assert intent is not None, text
    answer = answer_asked(question, *intent, own, CARDS)
    return answer["verdict"], answer["text"]


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("How large is it?", "size"),
        ("And where is the fault?", "place"),
        ("What should I do with it?", "action"),
        ("Why did this happen?", "cause"),
        ("Which defect is it?", "name"),
        ("How many defects are there?", "number"),
        ("How sure are you?", "trust"),
        ("Is it a stain?", "is it"),
        ("Does the cloth have any scratches?", "is it"),
        ("Is there a crack in it?", "is it"),
        ("Is this part free of defects?", None),
        ("Can it be used?", "use"),
        ("Can I ship it?", "use"),
        ("Must it be kept out of the shipment?", None),
        ("Explain what was found.", "explain"),
        ("Could you summarise the inspection?", "explain"),
        ("Is it fit for use? Explain why.", "use"),
        ("Is it safe to ship?", "use"),
        ("Can it be repaired?", "action"),
        ("How serious is it?", "severity"),
        ("Is it dangerous?", "severity"),
        ("How deep is it?", "depth"),
        ("Is it longer than 5 mm?", "size"),
        ("How wide may it be?", "limit"),
        ("What tolerance applies?", "limit"),
        ("What is the limit?", "limit"),
        ("How many pores are allowed?", "limit"),
        ("Up to what size is a scratch accepted?", "limit"),
        ("Is it too wide?", "limit"),
        ("How long must it be kept?", "size"),
        ("Is it within tolerance?", None),
        ("Is the stain on the left?", "place"),
        ("What's wrong?", "name"),
        ("Any scratches?", "is it"),
        ("Rust?", "is it"),
        ("Is it not a stain?", "is it not"),
        ("Is it really not a stain?", "is it not"),
        ("Is there no stain?", "is it not"),
        ("Isn't it a stain?", "is it"),
        ("Is it a stain or not?", "is it"),
        ("Is it a stain or a hole?", "name"),
        ("Is a stain of 0.3 mm allowed?", "limit"),
        ("Are scratches ok?", "limit"),
        ("Should a hole be rejected?", "limit"),
        ("May a part with a crack be sold?", "limit"),
        ("Is the stain allowed?", "use"),
        ("Is this stain permitted?", "use"),
        ("Is this stain dangerous?", "severity"),
        ("Is this stain new?", "unknown"),
        ("Is it scrap?", "action"),
        ("Is there more than one defect?", "number"),
        ("Are there two stains?", "number"),
        ("Does it have a stain on the left?", "place"),
        ("Are scratches visible?", None),
        ("Is glass cracked?", None),
        ("Is it ok?", None),
        ("Blub wub?", "unknown"),
        ("Who made it?", "unknown"),
        ("Is it magnetic?", "unknown"),
        ("Compare with the last one", "unknown"),
        ("Ist das Teil in Ordnung?", "unknown"),
        ("Choose:\nA) stain\nB) hole", None),
    ],
)
def test_what_a_question_is_after(text: str, intent: str | None) -> None:
    found = asked_about(read_question(text))
    assert (found[0] if found else None) == intent


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Is it a stain and how large is it?", ["Is it a stain", "how large is it?"]),
        ("Where is it? What should I do?", ["Where is it", "What should I do?"]),
        ("Is it defective? If so, where?", ["Is it defective? If so, where?"]),
        ("Is the cloth stained and torn?", ["Is the cloth stained and torn?"]),
    ],
)
def test_two_questions_in_one_are_two_where_each_can_be_answered(text: str, parts: list[str]) -> None:
    assert [part.text for part in parts_of(read_question(text))] == parts


def test_is_it_compares_names() -> None:
    own = state(defect="stain", candidates=[looks("stain", 0.92)])
    assert said("Is it a stain?", own)[0] is True
    verdict, text = said("Is it a hole?", own)
    assert verdict is False
    assert text.startswith("No. Most likely a stain (0.92")


def test_is_it_not_turns_the_answer() -> None:
    own = state(defect="stain", candidates=[looks("stain", 0.92)])
    assert [said(f"Is it not a {name}?", own)[0] for name in ("stain", "hole")] == [False, True]
    assert said("Is it not a stain?", state("normal"))[0] is None


def test_how_serious_it_is_is_known_of_an_asserted_defect_alone() -> None:
    own = state(defect="hole", candidates=[looks("hole", 0.95)])
    assert said("How serious is it?", own)[1] == "Hole: usually functional. What follows from a hole."
    assert said("Is it dangerous?", state())[1].startswith("Its severity is not known")


def test_depth_is_said_not_to_show() -> None:
    assert said("How deep is it?", state())[1].startswith(
        "Depth does not show in one picture. Length and width: Upper left"
    )


def test_is_it_without_a_taught_name_is_not_known() -> None:
    verdict, text = said("Is it a stain?", state())
    assert verdict is None
    assert text.startswith("That is not known. The name of the defect was not taught")


@pytest.mark.parametrize("verdict", ["normal", "anomalous"])
def test_what_cannot_be_answered_is_said_to_be_so(verdict: str) -> None:
    assert said("Is it magnetic?", state(verdict))[1].startswith("Neither the picture nor the pack answers this.")


def test_sizes_and_places_are_those_that_were_measured() -> None:
    assert "Upper left: 40 x 30 px." in said("How large is it?", state())[1]
    scaled = state(settings={"mm_per_pixel": 0.1, "facts": "auto"})
    assert said("How large is it?", scaled)[1] == "Upper left: 40 x 30 px (4 x 3 mm)."
    assert said("Where is it?", state())[1] == "Upper left: box x 10 to 50, y 20 to 50 px."


def test_whether_it_may_be_used_follows_from_verdict_and_card() -> None:
    assert said("Can I ship it?", state("normal")) == (True, "Yes, as far as was measured. Nothing stands out.")
    assert said("May it be used?", state()) == (
        False,
        "No. Have the marked areas checked by eye.",
    )


def test_what_to_do_keeps_the_names_of_standards() -> None:
    own = state(defect="stain", candidates=[looks("stain", 0.95)])
    assert said("What should I do?", own)[1].startswith("How to treat a stain (ISO 1).")


def test_a_fact_that_an_answer_tells_is_cited() -> None:
    fact = {
        "id": "f1", "kind": "consequence", "text": "A stain is a reject in outer fabric.", "status": "approved",
        "defects": ["stain"],
    }  # fmt: skip
    own = state(
        defect="stain", candidates=[looks("stain", 0.95)], facts=[fact, {**fact, "id": "f2", "text": "Not told."}]
    )
    for text in ("What should I do?", "May it be used?", "How serious is it?"):
        question = read_question(text)
        intent, named = asked_about(question) or ("", "")
        answer = answer_asked(question, intent, named, own, CARDS)
        assert "A stain is a reject in outer fabric" in answer["text"]
        assert answer["facts"] == ["f1"]


def test_the_cause_of_what_has_no_name_is_not_known() -> None:
    assert said("Why did it happen?", state())[1].startswith("The cause is not known")
    named = said("Why did it happen?", state(defect="hole", candidates=[looks("hole", 0.95)]))[1]
    assert named == "Hole: What causes a hole."


def test_causes_with_an_and_of_their_own_are_kept_apart() -> None:
    cards = {"hole": card("hole", causes=["Knots and nails.", "Tension peaks."])}
    own = state(defect="hole", candidates=[looks("hole", 0.95)])
    answer = answer_asked(read_question("Why?"), "cause", "", own, cards)
    assert answer["text"] == "Hole: Knots and nails; Tension peaks."


LIMIT = {"id": "f2", "text": "A stain of at most 2 mm is accepted.", "defects": ["stain"], "status": "approved"}


def test_a_limit_is_that_of_a_fact_with_the_measured_size_of_the_asserted_defect() -> None:
    own = state(defect="stain", candidates=[looks("stain", 0.95)])
    question = read_question("How wide may it be?")
    answer = answer_asked(question, "limit", "", own, CARDS, [LIMIT])
    assert answer["text"].startswith("A stain of at most 2 mm is accepted. Measured: Upper left: 40 x 30 px.")
    assert (answer["facts"], answer["verdict"]) == (["f2"], None)
    plain = answer_asked(question, "limit", "", state("normal"), CARDS, [LIMIT])
    assert plain["text"] == "A stain of at most 2 mm is accepted."


def test_what_was_measured_is_not_told_beside_the_limit_of_another_defect() -> None:
    own = state(defect="stain", candidates=[looks("stain", 0.92)])
    assert "Measured" not in said("Is a hole of 2 mm allowed?", own)[1]


def test_a_limit_that_no_fact_states_is_not_made_up() -> None:
    text = said("What is the limit?", state())[1]
    assert text.startswith("No approved fact about woven cloth states a limit; add a sentence that does")
    assert "approve it" in text
    assert "40 x 30" not in text
    assert said("What is the limit?", state(domain=None))[1].startswith("No pack was asked")


def test_a_picture_that_was_taught_as_a_defect_is_said_to_be_one_that_the_evidence_does_not_see() -> None:
    own = state("normal", taught_as="stain")
    unseen = "This picture was taught as a stain, which the evidence does not see."
    assert said("Is it a stain?", own) == (None, unseen)
    assert said("Can I ship it?", own) == (None, f"That is not known. {unseen}")
    assert unseen in said("Explain what was found.", own)[1]


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        ({"confidence": 0.55}, "Nothing stands out, but the score is close to the threshold."),
        ({"threshold_from": "builtin"}, "Nothing stands out, but no good part was there to compare with."),
    ],
)
def test_a_part_that_is_hardly_normal_gets_no_yes_and_no_no(measured: dict[str, Any], why: str) -> None:
    own = state("normal")
    own["evidence"] |= measured
    assert said("Can I ship it?", own) == (None, f"That is not sure. {why}")
    assert said("Is it a stain?", own) == (None, why)
    assert said("How large is it?", own) == (None, "Nothing stands out.")


def test_a_normal_part_has_nothing_to_name_or_measure() -> None:
    assert said("Is it a stain?", state("normal")) == (False, "No. Nothing stands out.")
    assert said("How large is it?", state("normal")) == (None, "Nothing stands out.")


def test_the_explanation_is_that_of_the_report() -> None:
    own = state(defect="stain", candidates=[looks("stain", 0.92)])
    verdict, text = said("Explain what was found.", own)
    assert verdict is None
    assert "Most likely a stain (0.92" in text
    assert "What to do: " in text
    assert "is normal" in said("Please explain.", state("normal"))[1]
