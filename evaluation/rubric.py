"""Reads `rubric.yaml`: what each level of each dimension means, and which fault takes an answer down to which level."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Dimension = Literal["type", "localisation", "logic"]
DIMENSIONS: tuple[Dimension, ...] = ("type", "localisation", "logic")
BEST = 5


@dataclass(frozen=True)
class RubricDimension:
    """One dimension: its title, the question that it asks, and the meaning of its levels 1 to 5."""

    title: str
    asks: str
    levels: dict[int, str]


@dataclass(frozen=True)
class FaultRule:
    """A kind of fault: the dimension that it lowers, the level that it caps it at, and its reason in words."""

    dimension: Dimension
    level: int
    text: str


@dataclass(frozen=True)
class Rubric:
    """The whole rubric; `text()` is how a language model gets it.

    Attributes:
        version: of the rubric.
        dimensions: the three dimensions.
        faults: every kind of fault, by name.
        ladder: for the part's state, faults by how little an answer tells of what the gold answer tells: each counts below
            its number (0 to 1).
    """

    version: int
    dimensions: dict[Dimension, RubricDimension]
    faults: dict[str, FaultRule]
    ladder: dict[str, tuple[tuple[float, str], ...]]

    def text(self) -> str:
        """The rubric in plain words, level 5 first."""
        blocks = []
        for name, dimension in self.dimensions.items():
            levels = "\n".join(
                f"  {level}: {dimension.levels[level]}" for level in sorted(dimension.levels, reverse=True)
            )
            blocks.append(f"{name} ({dimension.title}). {dimension.asks}\n{levels}")
        return "\n".join(blocks)


@dataclass(frozen=True)
class Fault:
    """A fault found in an answer: its name in the rubric and the words that fill its reason."""

    name: str
    words: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, **words: str) -> Fault:
        """Makes a fault; `words` fill the places of its text."""
        return cls(name, tuple(words.items()))


@cache
def load_rubric() -> Rubric:
    """The shipped rubric (read once)."""
    import yaml

    raw = yaml.safe_load(files("sage_ad.evaluation").joinpath("rubric.yaml").read_text(encoding="utf-8"))
    return Rubric(
        version=raw["version"],
        dimensions={name: RubricDimension(**raw["dimensions"][name]) for name in DIMENSIONS},
        faults={name: FaultRule(**rule) for name, rule in raw["faults"].items()},
        ladder={
            state: tuple((step["below"], step["fault"]) for step in steps) for state, steps in raw["ladder"].items()
        },
    )


def level_and_reasons(dimension: Dimension, faults: list[Fault]) -> tuple[int, list[str]]:
    """The level of one dimension (5, capped by its faults) and the reason in words for every point taken off.

    Faults that cap at a higher level than the worst one are named too: they are true, if not decisive.
    """
    rules = load_rubric().faults
    mine = [fault for fault in dict.fromkeys(faults) if rules[fault.name].dimension == dimension]
    mine.sort(key=lambda fault: rules[fault.name].level)
    level = min([BEST, *(rules[fault.name].level for fault in mine)])
    reasons = [
        f"{dimension} {rules[fault.name].level}/5: the answer {rules[fault.name].text.format(**dict(fault.words))}."
        for fault in mine
    ]
    return level, reasons
