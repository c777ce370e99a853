"""Defect cards: what a defect of a product looks like, what it is taken for, where it comes from, what follows.

A card is data that several rooms use. Its look is put into the controlled words in which regions are measured, so that a
measured region and a card can be compared word by word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    severity: Literal["cosmetic", "functional", "safety"]
    action: str
    standards: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, in every language."""
        return (self.name, *self.synonyms, *self.de, *self.zh)


def read_cards(folder: Path) -> list[DefectCard]:
    """Reads the cards of a pack, `cards/*.yaml` below its folder.

    Raises:
        InputError: a file is no list of cards, a card lacks a field or has an unknown one, or two cards share a name.
    """
    cards: list[DefectCard] = []
    owner: dict[str, str] = {}
    for path in sorted((folder / "cards").glob("*.yaml")):
        where = f"{folder.name}/cards/{path.name}"
        try:
            entries: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{where} is no YAML ({' '.join(str(error).split())[:120]}); mend the file.") from None
        if not isinstance(entries, list):
            raise InputError(f"{where} must be a list of cards ('- name: ...'); mend the file.")
        for number, entry in enumerate(entries, start=1):
            try:
                card = DefectCard.model_validate(entry)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                raise InputError(f"{where}, card {number}: field {field!r}: {first['msg']}; mend the file.") from None
            for name in {name.casefold() for name in card.names}:
                if owner.setdefault(name, card.name) != card.name:
                    raise InputError(f"{where}: {name!r} names {owner[name]!r} and {card.name!r}; keep it on one card.")
            cards.append(card)
    return cards
