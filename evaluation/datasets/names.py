"""Which class names of a set mean a good part: what factories call it, in the languages and spellings that are met."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _lists() -> dict[str, Any]:
    import yaml

    read = yaml.safe_load(files("sage_ad.evaluation.datasets").joinpath("class_names.yaml").read_text(encoding="utf-8"))
    return {
        name: frozenset(word.strip() for word in value.split("|")) if isinstance(value, str) else value
        for name, value in read.items()
    }


def is_good_name(name: str) -> bool:
    """Whether a class of this name holds good parts: "ok_front", "iO", "OK parts", "non_defective", "良品", ..."""
    lists = _lists()
    words = _words(name)
    kept = [word for word in words if word not in lists["neutral"] and not word.isdigit()]
    if " ".join(words) in lists["good"] or " ".join(kept) in lists["good"]:
        return True
    if len(kept) == 1:
        return kept[0] not in lists["defect"] and re.sub("^(non|no)", "", kept[0]) in lists["defect"]
    if len(kept) != 2:
        return False
    return (kept[0] in lists["not"] and kept[1] in lists["defect"]) or (
        kept[1] == "free" and kept[0] in lists["defect"]
    )


def good_names(names: Iterable[str]) -> set[str]:
    """Those of a set's class names that mean a good part; where it has only 0 and 1, or negative and positive, the first."""
    names = list(names)
    found = {name for name in names if is_good_name(name)}
    spelled = {name.strip().casefold(): name for name in names}
    for pair in [] if found else _lists()["pairs"]:
        if pair[0] in spelled and spelled.keys() <= set(pair):
            return {spelled[pair[0]]}
    return found


def _words(name: str) -> list[str]:
    """A name in words: "OKParts", "ok_front" and "OK-parts2" are split alike; accents and letter case go."""
    plain = unicodedata.normalize("NFKD", name)
    if all(ord(letter) < 0x0370 for letter in plain):  # in other scripts the marks belong to the letters
        plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    else:
        plain = unicodedata.normalize("NFC", name)
    plain = re.sub(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z]{2})(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)", " ", plain)
    return re.sub(r"[\W_]+", " ", plain).casefold().split()
