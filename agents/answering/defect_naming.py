"""Which defect of the domain fits what was measured: the pack says what such parts suffer from, the evidence what it looks like.

A name is never taken from the picture alone: the head of `vlm.sage.visual_inputs` knows seven kinds, the pack knows the words of
the trade ("blowhole", "broken pick"). `appearance.yaml` says which defect can look like what.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_ad.knowledge.store.fact_store import FactStore

APPEARANCE_FILE = Path(__file__).with_name("appearance.yaml")


def known_defects(store: FactStore, domain: str | None, product: str | None) -> Counter[str]:
    """Defects that the approved facts of a pack tell of, for this product or for any, with the number of their facts."""
    if domain is None:
        return Counter()
    name = (product or "").casefold()
    counts: Counter[str] = Counter()
    for fact in store.facts(domain, status="approved"):
        if not fact.products or any(known.casefold() in name for known in fact.products):
            counts.update(fact.defects)
    return counts


def ranked_names(known: Mapping[str, int], kinds: Mapping[str, float]) -> list[tuple[str, float]]:
    """Defects of a pack that fit the appearance, best first, with their scores.

    Args:
        known: names with the number of facts about them; what a pack tells more of is met more often.
        kinds: probability of each kind (`sage_ad.vlm.sage.visual_inputs.kind_probabilities`).
    """
    scored = [(name, math.log1p(count) * _fit(name, kinds)) for name, count in known.items()]
    return sorted((item for item in scored if item[1] > 0), key=lambda item: (-item[1], item[0]))


def _fit(name: str, kinds: Mapping[str, float]) -> float:
    """How probable the kinds are that a defect of this name can look like."""
    from sage_ad.evaluation.judge.defect_match import concepts_of

    fits = [
        sum(kinds.get(k, 0) * w for k, w in _appearances().get(concept, {}).items()) for concept in concepts_of(name)
    ]
    return max(fits, default=0.0)


@cache
def _appearances() -> dict[str, dict[str, float]]:
    import yaml

    appearances: dict[str, dict[str, float]] = yaml.safe_load(APPEARANCE_FILE.read_text(encoding="utf-8"))["appearance"]
    return appearances
