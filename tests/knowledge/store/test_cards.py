"""Defect cards: the schema is held to, and what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_ad.knowledge.store.cards import card_words, read_cards
from sage_ad.vlm.errors import InputError

CARD = """
- name: scratch
  look: {tone: [lighter], shape: [line], size: [small], texture: [added], place: [surface], number: [single], text: A line.}
  causes: [Handling.]
  consequence: It spoils the finish.
  severity: cosmetic
  action: Rework.
"""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("severity: cosmetic", "severity: mild"), "severity"),
        (("tone: [lighter]", "tone: [paler]"), "look.tone"),
        (("  action: Rework.\n", ""), "action"),
        (("action:", "cure:"), "action"),
        (("- name: scratch", "name: scratch"), "cannot be read"),
        (("- name: scratch", "- - name"), "cannot be read"),
    ],
)
def test_a_faulty_card_is_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "cards.yaml").write_text(CARD.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=named):
        read_cards(tmp_path)


def test_every_fault_of_every_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    faulty = CARD.replace("tone: [lighter]", "tone: []").replace("  action: Rework.\n", "")
    (tmp_path / "cards" / "cards.yaml").write_text(faulty + CARD.replace("look:", "looks:"), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_cards(tmp_path)
    said = str(caught.value)
    assert "card 1: field 'look.tone' is empty (give lighter, darker, same), field 'action' is missing" in said
    assert "card 2: field 'look' is missing, field 'looks' is not known" in said


def test_two_cards_cannot_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    other = CARD.replace("name: scratch", "name: score\n  synonyms: [Scratch]")
    (tmp_path / "cards" / "cards.yaml").write_text(CARD + other, encoding="utf-8")
    with pytest.raises(InputError, match="keep it on one card"):
        read_cards(tmp_path)


def test_two_files_cannot_share_a_name_either(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    for name in ("a", "b"):
        (tmp_path / "cards" / f"{name}.yaml").write_text(CARD, encoding="utf-8")
    with pytest.raises(InputError, match="keep it on one card"):
        read_cards(tmp_path)


def test_the_words_shown_to_authors_are_those_that_the_schema_takes(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    for word in card_words()["place"].split(", "):
        (tmp_path / "cards" / "cards.yaml").write_text(CARD.replace("[surface]", f"[{word}]"), encoding="utf-8")
        (card,) = read_cards(tmp_path)
        assert card.look.place == (word,)
