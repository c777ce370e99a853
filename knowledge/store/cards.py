"""Defect cards: what a defect of a product looks like, what it is taken for, where it comes from, what follows.

A card is data that several rooms use. Its appearance is put into the controlled words in which regions are measured, so that a
measured region and a card can be compared word by word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage_ad.knowledge.facts import field_fault
from sage_ad.knowledge.store.packs import Term, parse_yaml
from sage_ad.vlm.errors import InputError

Tone = Literal["lighter", "darker", "same"]
Colour = Literal[
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "grey",
    "black",
    "white",
    "metallic",
    "rainbow",
]
Shape = Literal["line", "blob", "ring", "edge", "area"]
Size = Literal["tiny", "small", "medium", "large"]
"""Share of the picture of the part: below 0.1 %, 1 %, 10 %, and above."""
Texture = Literal["broken", "added", "missing", "smoother", "sharper", "same"]
Place = Literal[
    "anywhere", "surface", "edge", "corner", "centre", "end", "hole", "joint", "thread", "tooth", "tip", "inside", "label",
    "print", "cap", "body", "background",
]  # fmt: skip
Number = Literal["single", "several", "repeating"]
Severity = Literal["cosmetic", "functional", "safety"]


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardLook(_Card):
    """What a camera sees of the defect against a good part at the same place."""

    tone: tuple[Tone, ...] = Field(min_length=1)
    colour: tuple[Colour, ...] = ()
    shape: tuple[Shape, ...] = Field(min_length=1)
    size: tuple[Size, ...] = Field(min_length=1)
    texture: tuple[Texture, ...] = Field(min_length=1)
    place: tuple[Place, ...] = Field(min_length=1)
    number: tuple[Number, ...] = Field(min_length=1)
    text: str

    def agreement(self, words: Mapping[str, str]) -> int:
        """How many words of a description, by field ("tone", "shape", ...), this look has."""
        return sum(word in getattr(self, name) for name, word in words.items())


class TakenFor(_Card):
    """Another defect, or something harmless, that it is easily taken for, and how to tell them apart."""

    name: str
    difference: str


class DefectCard(_Card):
    """A defect of the products of a pack.

    Attributes:
        name: the trade's usual name; `synonyms`, `de` and `zh` are the other names (German, Chinese).
        products: names of the pack's products that it occurs on; empty: all of them.
        severity: the usual case: "cosmetic", "functional" or "safety".
        standards: numbers of the standards that govern it.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    de: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    look: CardLook
    taken_for: tuple[TakenFor, ...] = ()
    causes: tuple[str, ...] = Field(min_length=1)
    consequence: str
    severity: Severity
    action: str
    standards: tuple[str, ...] = ()

    @property
    def term(self) -> Term:
        """Its names as the pack's vocabulary has them."""
        return Term(name=self.name, synonyms=self.synonyms, de=self.de, zh=self.zh)


def card_words() -> dict[str, str]:
    """The words that a card may use in each of its fields, as a pack's author is shown them."""
    words = {
        "tone": Tone, "colour": Colour, "shape": Shape, "size": Size, "texture": Texture, "place": Place,
        "number": Number, "severity": Severity,
    }  # fmt: skip
    return {name: ", ".join(get_args(values)) for name, values in words.items()}


def read_cards(folder: Path) -> list[DefectCard]:
    """Reads the cards of a pack, `cards/*.yaml` below its folder.

    Raises:
        InputError: a file is no list of cards, a card lacks a field or has an unknown one, or two cards share a name.
    """
    cards = [
        card
        for path in sorted((folder / "cards").glob("*.yaml"))
        for card in read_card_file(path, f"{folder.name}/cards/{path.name}")
    ]
    if shared := shared_names(cards):
        raise InputError(f"{folder.name}: {shared[0]}")
    return cards


def read_card_file(path: Path, label: str) -> list[DefectCard]:
    """Reads one file of cards; `label` names it in errors, which are those of `read_cards`."""
    return parse_cards(path.read_bytes(), label)


def parse_cards(data: bytes, label: str) -> list[DefectCard]:
    """Makes cards of the content of a file of cards; as `read_card_file`."""
    entries = parse_yaml(data, label)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise InputError(f"{label} must be a list of cards ('- name: ...'); mend the file.")
    cards: list[DefectCard] = []
    wrong: list[str] = []
    for number, entry in enumerate(entries, start=1):
        try:
            cards.append(DefectCard.model_validate(entry))
        except ValidationError as error:
            wrong.append(f"card {number}: {', '.join(map(_fault, error.errors(include_url=False)))}")
    if wrong:
        raise InputError(f"{label}, {'; '.join(wrong)}; mend the file.")
    if shared := shared_names(cards):
        raise InputError(f"{label}: {shared[0]}")
    return cards


def _fault(error: Mapping[str, Any]) -> str:
    """What is wrong with a field, in words for the author of the card."""
    if error["type"] == "too_short":
        names = [part for part in error["loc"] if isinstance(part, str)]
        return f"field {'.'.join(names)!r} is empty (give {card_words().get(names[-1], 'at least one')})"
    return field_fault(error)


def shared_names(cards: Iterable[DefectCard]) -> list[str]:
    """One sentence for every name that two of these cards, all of one pack, have."""
    owner: dict[str, DefectCard] = {}
    found = []
    for card in cards:
        for name in {name.casefold() for name in card.term.names}:
            if (other := owner.setdefault(name, card)) is not card:
                found.append(f"{name!r} names {other.name!r} and {card.name!r}; keep it on one card.")
    return found
