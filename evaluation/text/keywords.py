"""What a text says in particular: what is left of it without general talk, places and the question's own words."""

from __future__ import annotations

from functools import cache

from sage_ad.evaluation.text.lexicon import cue_lists
from sage_ad.evaluation.text.localisation import PLACE_STEMS
from sage_ad.evaluation.text.normalise import stems
from sage_ad.evaluation.text.sentences import Clause


@cache
def _general() -> frozenset[str]:
    """Stems that tell nothing in particular."""
    lists = cue_lists()
    tellings = {stem for entry in lists["good-weak"] if " " not in entry for stem in stems(entry)}
    names = (
        "generic",
        "function",
        "good",
        "bad",
        "use-good",
        "use-bad",
        "negators",
        "hedges",
        "yes",
        "no",
        "rest",
        "undecided",
    )
    return (
        frozenset(stem for name in names for entry in lists[name] for stem in stems(str(entry))) - tellings
        | PLACE_STEMS
        | {","}
    )


@cache
def _stems_of(text: str) -> frozenset[str]:
    return frozenset(stems(text))


def particulars(clause: Clause, question: str = "", product: str | None = None) -> tuple[str, ...]:
    """The stems of a clause that tell something in particular.

    Args:
        clause: the clause.
        question: the question; its own words tell nothing new.
        product: the product's name, likewise.
    """
    known = _general() | _stems_of(question) | _stems_of(product or "")
    return tuple(stem for stem in clause.stems if stem not in known and not stem.isdigit())


def essence(clause: Clause) -> str:
    """A clause without its places, for comparison by similarity: where a defect lies says nothing of what it is."""
    return " ".join(
        word for word, stem in zip(clause.words, clause.stems, strict=True) if stem not in PLACE_STEMS and word != ","
    )
