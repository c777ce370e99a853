"""Sentences that a small model writes in place of a fact: about this picture, saying a term again, empty, broken.

A fact describes a kind of product. What a model writes about the part before it ("in the centre area", "this part"), a
tautology or broken English would be cited later as knowledge. The rules are words (`data/written.yaml`) and, for
tautologies, the comparison of what a sentence says with what it is about.
"""

from __future__ import annotations

import functools
import re

from sage_ad.knowledge.text.resources import resource

_COPULA = re.compile(
    r"\b(?:is (?:called|when|where|that|caused by)|are (?:called|when)|is|are|means? that|means?|shows?|has|have)\b",
    re.I,
)
_SUFFIX = re.compile(r"(?:ations?|ination|ities|ity|ive|ings?|ions?|ied|ed|en|es|s|y|e)$")
_LONGEST_SUBJECT = 9  # words; a copula further on belongs to a second clause
# Words that name no property, so that repeating the others says nothing.
_HOLLOW = re.compile(
    r"(?:an?|the|of|in|on|at|to|its?|that|which|who|this|when|since|because|is|are|was|be|been|being|has|have|had|can|may|"
    r"seen|found|called|and|or|with|by|from|for|as|parts?|things?|objects?|surface|causes?|consequence|effect|result|reason|"
    r"means|not|one|they|their|there)"
)


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(pattern, re.I), reason)
        for reason, patterns in resource("written.yaml").items()
        for pattern in patterns
    )


def written_reason(text: str) -> str | None:
    """Why a sentence of a small model is no fact about a kind of product; None when nothing speaks against it.

    Args:
        text: one sentence of English.
    """
    for pattern, reason in _patterns():
        if pattern.search(text):
            return reason
    return "says a term again" if _is_tautology(text) else None


def _is_tautology(text: str) -> bool:
    """Whether what is said adds no word to what it is said of ("a bent wire is a wire that is bent"), or comes twice."""
    words = re.findall(r"[\w'-]+", text.lower())
    if len({*zip(words, words[1:], words[2:], words[3:], strict=False)}) < len(words) - 3:
        return True
    copula = _COPULA.search(text)
    if copula is None or len(text[: copula.start()].split()) > _LONGEST_SUBJECT:
        return False
    subject, said = _stems(text[: copula.start()]), _stems(text[copula.end() :])
    if not subject or not said:
        return False
    # Also when the sentence begins again with its own subject ("a hole in fabric is a hole in ...").
    again = said[0] == subject[0] and copula.group().lower() in {"is", "are", "show", "shows"}
    return again or all(any(_alike(word, other) for other in subject) for word in said)


def _alike(first: str, second: str) -> bool:
    shorter, longer = sorted((first, second), key=len)
    return shorter == longer or (len(shorter) > 3 and shorter in longer)


def _stems(text: str) -> list[str]:
    words = re.findall(r"[a-z]+", text.lower())
    return [
        _SUFFIX.sub("", word) if len(word) > 4 else word.rstrip("s") for word in words if not _HOLLOW.fullmatch(word)
    ]
