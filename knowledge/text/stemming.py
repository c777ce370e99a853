"""A light stem, which brings the forms of one word together ("scratches", "scratched").

Both sides of every comparison go through it, so an odd-looking stem does no harm.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from sage_ad.knowledge.text.resources import resource

_DOUBLED = re.compile(r"([bdgmnprt])\1$")


@cache
def _irregular() -> dict[str, str]:
    """Words whose stem no rule gives; a stem on the list is its own."""
    listed = resource("irregular.yaml")
    return {stem: stem for stem in listed} | {word: stem for stem, words in listed.items() for word in words.split()}


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The light stem of one lower-case word: "scratches" -> "scratch", "chipped" -> "chip", "rusty" -> "rust"."""
    if word in _irregular():
        return _irregular()[word]
    if len(word) < 4 or not word[0].isalpha():
        return word
    word = word.replace("colour", "color").replace("grey", "gray").replace("fibre", "fiber").replace("mould", "mold")
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and re.search("[aeiouy]", word[: -len(ending)]):
            word = word[: -len(ending)]
            if _DOUBLED.search(word):
                word = word[:-1]
            break
    if word.endswith("ly") and len(word) > 5:
        word = word[:-2]
    if word.endswith("e") and len(word) > 3:
        word = word[:-1]
    if word.endswith("y") and len(word) > 3:
        word = word[:-1]
    return word
