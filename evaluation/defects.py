"""Which defect an answer names, and how that lies to the right one: the same, a near relative, another, or none.

Names are found with the curated lexicon; where the words of the right name stand in the answer that is enough; and
descriptions without a name ("a line gouged into the finish") are compared with the lexicon's glosses by sentence
embedding, with rounded similarities and margins, so that the outcome does not hang on the last bits of a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from evaluation.reading import Reading, lexicon
from evaluation.stemming import PhraseTable, stems

if TYPE_CHECKING:
    import numpy as np

Match = Literal["same", "near", "other", "none"]
GENERAL = frozenset(
    stems(
        "defect defective flaw fault faulty anomaly anomalous abnormality damage damaged problem issue irregularity imperfection "
        "deviation bad ng ko nok mixed and or the a of on in with part type surface error"
    )
)
DESCRIBED = 0.46
MARGIN = 0.04


@dataclass(frozen=True)
class Naming:
    """How the defects that an answer names lie to the right one.

    Attributes:
        match: "same", "near", "other" or "none" (nothing in particular is named).
        named: the words that name it.
        others: other defects that are named as present beside the right one.
    """

    match: Match
    named: str
    others: tuple[str, ...] = ()


@cache
def _names() -> PhraseTable:
    return PhraseTable({concept: [concept.replace("-", " "), *entry["terms"], *entry.get("weak", [])] for concept, entry in lexicon().items()})


@cache
def concepts_of(name: str) -> frozenset[str]:
    """The lexicon's concepts that stand in a defect's name ("casting_flaw", "scratched neck"); empty when unknown."""
    return frozenset(match[2] for match in _names().find(stems(name)))


def _group(concept: str) -> str:
    return lexicon()[concept]["group"]


def is_named(name: str | None) -> bool:
    """Whether a defect's name says more than "defect"."""
    return bool(name) and not set(stems(name or "")) <= GENERAL


def naming(reading: Reading, truth: str, similarities: dict[str, float] | None = None) -> Naming:
    """Compares the defects that a reading asserts with the right one.

    Args:
        reading: the answer, read.
        truth: name of the right defect.
        similarities: how near each clause comes to the right defect and to each concept (see `description_scores`).
    """
    wanted = concepts_of(truth)
    key = set(stems(truth)) - GENERAL
    spoken = [claim for claim in reading.claims if claim.stance == "bad" and claim.scope == "part" and not claim.excused and claim.concept]
    bad_clauses = {claim.clause for claim in reading.claims if claim.stance == "bad" and claim.scope == "part" and not claim.excused}
    literal = any(key and key <= set(reading.clauses[number].stems) for number in bad_clauses)
    same = [claim for claim in spoken if claim.concept in wanted]
    near = [claim for claim in spoken if not claim.weak and any(_group(claim.concept or "") == _group(concept) for concept in wanted)]
    others = [claim for claim in spoken if not claim.weak and claim not in same and claim not in near]
    if literal or same:
        extra = tuple(dict.fromkeys(claim.term for claim in others if not literal or claim.clause not in bad_clauses))
        return Naming("same", same[0].term if same else truth, extra)
    if near:
        return Naming("near", near[0].term)
    if others:
        return Naming("other", others[0].term)
    return Naming("none", "")
