"""The judge's words as data: `cues.yaml` (what judges, negates, doubts) and `lexicon.yaml` (what defects are called)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from sage_ad.evaluation.text.normalise import PhraseTable, stems


def _yaml(name: str) -> Any:
    import yaml

    return yaml.safe_load(files("sage_ad.evaluation.text").joinpath(name).read_text(encoding="utf-8"))


@cache
def cue_lists() -> dict[str, list[str]]:
    """The word lists of cues.yaml."""
    return _yaml("cues.yaml")


@cache
def lexicon() -> dict[str, dict[str, Any]]:
    """The concepts of lexicon.yaml: group, terms, weak terms, glosses."""
    return _yaml("lexicon.yaml")


@cache
def cue_table(*names: str) -> PhraseTable:
    """One or several lists of cues.yaml as a table."""
    return PhraseTable({name: cue_lists()[name] for name in names})


def has_cue(name: str, sequence: tuple[str, ...]) -> bool:
    """Whether a phrase of one list stands in a sequence of stems."""
    return bool(cue_table(name).find(sequence))


@cache
def judging_table() -> PhraseTable:
    """Every phrase that carries a stance; defect words come as "defect:<concept>" or "weak:<concept>"."""
    phrases = {name: cue_lists()[name] for name in ("neutral", "use-good", "use-bad", "good", "bad")}
    for concept, entry in lexicon().items():
        phrases[f"weak:{concept}"] = entry.get("weak", [])
        phrases[f"defect:{concept}"] = entry["terms"]
    return PhraseTable(phrases)


@cache
def weak_good() -> frozenset[tuple[str, ...]]:
    """Good words that alone are a weak judgement ("smooth")."""
    return frozenset(stems(entry) for entry in cue_lists()["good-weak"])


@cache
def concept_table() -> PhraseTable:
    """Names, terms and weak terms of every concept, under the concept's name."""
    return PhraseTable(
        {
            f"concept:{concept}": [concept.replace("-", " "), *entry["terms"], *entry.get("weak", [])]
            for concept, entry in lexicon().items()
        }
    )


@cache
def exemplars() -> dict[str, list[str]]:
    """The exemplar clauses of exemplars.yaml: good and bad."""
    return _yaml("exemplars.yaml")
