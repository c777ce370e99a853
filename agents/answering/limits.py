"""How large a defect may be: the approved facts of a product that state a limit. Nothing measured answers this question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sage_ad.evaluation.questions import with_article
from sage_ad.knowledge.text.quantities import Quantity, aspect_of, find_quantities

LISTED = 3
"""So many facts are cited of all defects together, and twice as many of the one that is asked about."""
LIMITING = re.compile(
    r"\b(?:accept|allow|permi[ts]|toler|limit|maxim|minim|max\b|min\b|at most|at least|(?:no|not) more than|exceed|reject"
    r"|scrap|rework|downgrad|second choice|use as is|may (?:not )?be|must (?:not )?be|no defects?\b)",
    re.IGNORECASE,
)
"""What becomes of a part beyond a number, or within it."""
SIZE = re.compile(r"\b(?:large|big|long|small|size|length|diameter|area)\b")
YES_OR_NO = re.compile(r"\W*(?:and )?(?:is|are|may|can|could|would|will|should|must|does|do)\b")
NUMBER = re.compile(r"\b(?:many|number)\b")


def states_limit(text: str, question: str, *, named: bool = False) -> bool:
    """Whether a sentence states a limit of what a question asks for: a depth is no answer to a question for a length.

    With `named`, the sentence is about the defect that the question names: whether that is allowed at all ("Is a crack
    allowed?") is answered without a number, too.
    """
    asked = question.lower()
    if named and YES_OR_NO.match(asked) and LIMITING.search(text):
        return True

    def answers(quantity: Quantity) -> bool:
        if NUMBER.search(asked):
            return quantity.dimension.startswith("count")
        if (aspect := aspect_of(asked)) is not None:
            # A limit without such a word holds for every extent on the surface.
            return quantity.aspect == aspect or (aspect == "width" and _is_extent(quantity))
        return _is_extent(quantity) or not SIZE.search(asked)

    return bool(LIMITING.search(text)) and any(map(answers, find_quantities(text.lower())[0]))


def is_a_case(text: str) -> bool:
    """Whether what a sentence says follows holds only within the size or number that it states."""
    quantities = find_quantities(text.lower())[0]
    return bool(LIMITING.search(text)) and any(own.bound or not own.dimension.startswith("count") for own in quantities)


def _is_extent(quantity: Quantity) -> bool:
    return quantity.dimension in ("length", "area") and quantity.aspect is None


def limits_about(facts: Sequence[dict[str, Any]], defects: Sequence[str]) -> list[dict[str, Any]]:
    """Of facts that state a limit, those to cite about these defects, else one on all; some where none is asked about."""
    if not defects:
        return list(facts[:LISTED])
    own = [fact for fact in facts if set(defects) & set(fact["defects"])]  # one for each class or face of the part
    return own[: 2 * LISTED] or [fact for fact in facts if not fact["defects"]][:1]


def limit_line(limits: Sequence[dict[str, Any]], product: str | None, defect: str | None, *, searched: bool) -> str:
    """The limits as their facts state them, or that none does and how to add one.

    Args:
        limits: from `limits_about`.
        product: name of the product, if known.
        defect: the defect that is asserted, if any.
        searched: whether a pack was searched.
    """
    if limits:
        return " ".join(f"{fact['text'].rstrip('.')}." for fact in limits)
    if not searched:
        return "No pack was asked for a limit; name the product or choose a pack, and leave facts switched on."
    about = f" of {with_article(defect)}" if defect else ""
    return (
        f"No approved fact about {product or 'such parts'} states a limit{about}; add a sentence that does "
        f'("A {defect or "scratch"} up to 0.5 mm long is accepted.") to the pack, and approve it.'
    )
