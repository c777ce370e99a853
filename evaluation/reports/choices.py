"""Multiple-choice answers: which letter a free text means."""

from __future__ import annotations

import re
from collections.abc import Mapping

NEAR_ENOUGH = 0.5
"""Cosine similarity from which an answer that names no choice is taken for the one nearest in meaning."""


def choice_of(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter that an answer chooses.

    A letter decides ("B", "(B)", "Answer: B."); else a choice whose words stand in the answer, if it is only one; else
    yes or no, where those are the choices; else the nearest in meaning, if it is near enough.

    Returns:
        None when the answer chooses nothing.
    """
    return (
        _by_letter(answer, options)
        or _by_words(answer, options)
        or _by_yes_or_no(answer, options)
        or _by_meaning(answer, options)
    )


def _by_letter(answer: str, options: Mapping[str, str]) -> str | None:
    letters = "|".join(re.escape(letter) for letter in options)
    text = answer.strip()
    patterns = (
        rf"^\W*({letters})(?:\W|$)(?!\s*[a-z])",
        rf"^\W*({letters})\s*[:.)]",
        rf"\b(?:[Aa]nswer|[Cc]hoice|[Oo]ption)\b(?: is)?\W*({letters})\b",
        rf"\(({letters})\)",
    )
    for pattern in patterns:
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _by_words(answer: str, options: Mapping[str, str]) -> str | None:
    said = f" {_plain(answer)} "
    found = [letter for letter, text in options.items() if len(_plain(text)) > 3 and f" {_plain(text)} " in said]
    return found[0] if len(found) == 1 else None


def _by_yes_or_no(answer: str, options: Mapping[str, str]) -> str | None:
    words = {letter: (_plain(text).split() or [""])[0] for letter, text in options.items()}
    if not set(words.values()) >= {"yes", "no"}:
        return None
    first = (_plain(answer).split() or [""])[0]
    meant = {"true": "yes", "false": "no"}.get(first, first)
    return next((letter for letter, word in words.items() if word == meant), None)


def _by_meaning(answer: str, options: Mapping[str, str]) -> str | None:
    if not answer.strip():
        return None
    from sage_ad.knowledge.vectors.embedding import default_embedder

    vectors = default_embedder().encode([answer, *options.values()])
    similarity = vectors[1:] @ vectors[0]
    best = int(similarity.argmax())
    return list(options)[best] if similarity[best] >= NEAR_ENOUGH else None
