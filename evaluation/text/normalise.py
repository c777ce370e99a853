"""Words for comparison: lower case, plain apostrophes, contractions opened, one spelling, and a light stem."""

from __future__ import annotations

import re

from sage_ad.knowledge.text.stemming import stem

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "–": " - ", "—": " - ", "“": '"', "”": '"'})
_CONTRACTIONS = (
    (re.compile(r"\b(can)(?:'t|not)\b"), r"\1 not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"\bain't\b"), "is not"),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|had|would|could|should|must|need|might)n'?t\b"), r"\1 not"),
    (re.compile(r"\b(\w+)'(?:re)\b"), r"\1 are"),
    (re.compile(r"\b(i)'m\b"), r"\1 am"),
    (re.compile(r"\b(\w+)'ll\b"), r"\1 will"),
    (re.compile(r"\b(\w+)'ve\b"), r"\1 have"),
    (re.compile(r"\b(i|we|you|they|he|she)'d\b"), r"\1 would"),
    (re.compile(r"\b(it|that|there|here|what|who|he|she|everything|nothing|something|all)'s\b"), r"\1 is"),
    (re.compile(r"\b(\w+)'s\b"), r"\1"),
)
_WORD = re.compile(r"[a-z0-9]+(?:[-/'][a-z0-9]+)*")


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as one string."""
    return frozenset(text.split())


def stem_set(text: str) -> frozenset[str]:
    """The stems of the words of a list that is written as one string (punctuation marks stay as they are)."""
    return frozenset(stem(word) for word in text.split())


def plain(text: str) -> str:
    """Lower case, plain apostrophes, contractions opened, underscores as spaces."""
    text = text.translate(_APOSTROPHES).replace("_", " ").lower()
    for pattern, opened in _CONTRACTIONS:
        text = pattern.sub(opened, text)
    return text


def words(text: str) -> list[str]:
    """The words of a text, after `plain`."""
    return _WORD.findall(plain(text))


def stems(text: str) -> tuple[str, ...]:
    """The stems of the words of a text."""
    return tuple(stem(word) for word in words(text))


class PhraseTable:
    """Finds phrases in a sequence of stems, the longest first, each word used at most once.

    Args:
        phrases: name of a class of phrases -> its phrases. A phrase of two classes "defect:a" and "defect:b" is found as
            "defect:a|b"; otherwise the first class that lists it has it.
    """

    def __init__(self, phrases: dict[str, list[str]]) -> None:
        names: dict[tuple[str, ...], str] = {}
        for name, entries in phrases.items():
            for key in dict.fromkeys(stems(str(entry)) for entry in entries):
                if key and key not in names:
                    names[key] = name
                elif key and ":" in name and names[key].partition(":")[0] == name.partition(":")[0]:
                    names[key] += "|" + name.partition(":")[2]
        self._by_first: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for key, name in names.items():
            self._by_first.setdefault(key[0], []).append((key, name))
        for candidates in self._by_first.values():
            candidates.sort(key=lambda item: -len(item[0]))

    def find(self, sequence: tuple[str, ...] | list[str]) -> list[tuple[int, int, str]]:
        """Matches as (start, end, name), in order, without overlap."""
        found, position = [], 0
        while position < len(sequence):
            for key, name in self._by_first.get(sequence[position], ()):
                if tuple(sequence[position : position + len(key)]) == key:
                    found.append((position, position + len(key), name))
                    position += len(key) - 1
                    break
            position += 1
        return found
