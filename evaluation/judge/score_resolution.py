"""Which of the rules' faults stand, and what the score model adds.

How much an answer tells of what the gold answer tells comes as one number from the score model, and goes down a ladder of
faults (`rubric.yaml`). The rules' faults stand, with their words, where both find the same; where they differ the score
model decides, since its weights already count the rules' faults as features, and the rules' faults of the other kind fall.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sage_ad.evaluation.judge.features import Features, reference_of
from sage_ad.evaluation.judge.score_model import Comparison
from sage_ad.evaluation.judge.verdict_fusion import denies_the_defect
from sage_ad.evaluation.rubric import Fault, load_rubric
from sage_ad.evaluation.text.localisation import place_words

UNHEARD = 2.0
"""An answer in which neither rules nor answer classifier hear a verdict needs these log-odds to have the right one."""
DOUBTFUL = -1.5
"""Down to these log-odds, a verdict that counts as wrong is hard to make out."""
ALIKE = 0.3
"""From so much on, the answer is not plainly about something else."""
REPORTED = 0.6
"""From so much on, what an answer on a normal part seems to report is not meant as a report."""
RIGHT = 0.75
"""From so much on, the answer tells what is there."""

PLAIN = 0.95
"""From so much on, even a known word for another defect, at the place of the right one, is taken for the right one."""
_ANOTHER = frozenset({"wrong-defect", "false-reason"})
_PLACES = frozenset({"no-place", "wrong-place", "beside-place", "mixed-place"})
_OTHER = frozenset(
    {
        "wrong-defect",
        "false-reason",
        "wrong-place",
        "beside-place",
        "false-place",
        "mixed-place",
        "invented-defect",
        "invented-anywhere",
        "tolerated-defect",
        "wrong-consequence",
        "split-state",
        "split-verdict",
        "unsupported-place",
    }
)
"""Faults that say: it tells something else than what is there. Contradictions are not among them: they stand."""
_FEW = frozenset(
    {
        "no-place",
        "unnamed-defect",
        "near-defect",
        "unclear-defect",
        "thin-reason",
        "general-reason",
        "no-reason",
        "tolerated-report",
        "tolerated-reason",
    }
)
"""Faults that say: it tells too little."""


def has_right_verdict(found: Features, comparison: Comparison) -> bool:
    """Whether an answer gives the right verdict, all features weighed; to deny the very defect that is there is none."""
    heard = found.fused.verdict.state
    if heard != found.gold.state and denies_the_defect(found.parsed, found.gold):
        return False
    return comparison.right > (UNHEARD if heard is None else 0.0)


def resolve_faults(found: Features, comparison: Comparison) -> list[Fault]:
    """The faults of an answer with the right verdict."""
    coverage = comparison.full + comparison.vague / 2
    normal = found.gold.state == "normal"
    fallen = (_OTHER if coverage > (REPORTED if normal else ALIKE) else frozenset()) | (
        _FEW if coverage > RIGHT else frozenset()
    )
    if _names_another(found) and coverage < PLAIN:
        fallen = fallen - _ANOTHER
    faults = _without(found.faults, fallen)
    steps = load_rubric().ladder[str(found.gold.state)]
    right = found.gold.defect or reference_of(found.request, found.gold) or "the defect"
    place = place_words(found.gold.cells)
    for name in (name for below, name in steps if coverage < below):
        gold = place if load_rubric().faults[name].dimension == "localisation" else right
        faults.append(Fault.of(name, named=_words_about(found), gold=gold))
    return faults


def _names_another(found: Features) -> bool:
    """Whether a known word names another defect at the very place of the right one: a stain is no scratch."""
    placed = bool(found.gold.cells) and not _PLACES & {fault.name for fault in found.faults}
    return placed and found.named is not None and found.named.known


def wrong_verdict(found: Features, comparison: Comparison, faults: Iterable[Fault]) -> list[Fault]:
    """The faults of an answer with the wrong verdict; its place is not held against it where that is hard to make out."""
    if not is_hard_to_make_out(found, comparison):
        return list(faults)
    softer = {"denied-place": "unsupported-place", "invented-place": "invented-anywhere"}
    return [replace(fault, name=softer.get(fault.name, fault.name)) for fault in faults]


def is_hard_to_make_out(found: Features, comparison: Comparison) -> bool:
    """Whether a verdict that counts as wrong might be meant otherwise."""
    return found.fused.verdict.state is not None and comparison.right > DOUBTFUL


def _without(faults: Iterable[Fault], fallen: frozenset[str]) -> list[Fault]:
    return [fault for fault in faults if fault.name not in fallen]


def _words_about(found: Features) -> str:
    """What the answer tells instead: what the rules found named, else its last clause."""
    if found.named is not None and found.named.named:
        return found.named.named
    return found.parsed.clauses[-1].text if found.parsed.clauses else found.request.answer
