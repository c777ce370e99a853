"""JSON objects in whatever a language model writes around them: words, code fences, other objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_DECODER = json.JSONDecoder(strict=False)


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """Every readable JSON object in a text, in order; one inside another only where the outer one is broken."""
    end = 0
    for start in re.finditer(r"\{", text):
        if start.start() >= end and (found := _object_at(text, start.start())):
            value, end = found
            yield value


def json_object_with(text: str, *names: str) -> dict[str, Any] | None:
    """The first JSON object in a text, at any depth, that has one of these names; None if there is none."""
    found = (_object_at(text, start.start()) for start in re.finditer(r"\{", text))
    return next((value for value, _ in filter(None, found) if set(names) & set(value)), None)


def _object_at(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    """The object that begins here, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return value, end
