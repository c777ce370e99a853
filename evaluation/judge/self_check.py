"""Scores without a gold answer: a self-check, and which of its levels may be shown as a number.

In live use an answer is held against what SAGE itself measured on the part. That can tell whether the answer contradicts
the measurement (place) or itself (logic). It cannot tell whether the defect is named right, so the type and the mean have
no number. Place and logic have one only where their rank correlation with the level with gold was measured and is high
enough (`self_check.yaml`, written by `python -m benchmarks.self_check`). The reasons stand in any case.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any

from sage_ad.evaluation.inspection import JudgeRequest, MLEScore

LEVELS = ("localisation", "logic")
"""What can be checked without gold."""
_NO_TYPE = "no gold answer says which defect it is"
_NUMBER = re.compile(r"^(type|localisation|logic) \d/5:")


@cache
def measured() -> dict[str, Any]:
    """The file of measured correlations: `needed` and, for each labelled set, one figure a level."""
    import yaml

    raw: dict[str, Any] = yaml.safe_load(
        files("sage_ad.evaluation.judge").joinpath("self_check.yaml").read_text(encoding="utf-8")
    )
    return raw


def shown_levels() -> frozenset[str]:
    """The levels whose measured correlation with gold is high enough on every labelled set.

    A correlation of null (one side never varies) is no correlation.
    """
    raw = measured()
    sets = list(raw["correlation"].values())
    return frozenset(
        level for level in LEVELS if sets and all((figures[level] or 0.0) >= raw["needed"] for figures in sets)
    )


def has_gold(request: JudgeRequest) -> bool:
    """Whether anything is known to be right about a request, beyond masks and measurements."""
    return request.gold is not None and request.gold.model_dump(exclude_none=True) != {}


def without_gold(score: MLEScore, request: JudgeRequest, shown: Collection[str]) -> MLEScore:
    """The score of a request without gold, with the levels that may be numbers.

    Args:
        score: as judged by the rubric.
        request: what was judged; with a mask, place and state are known and only the type is not.
        shown: the levels that are numbers in a self-check.
    """
    if score.mean is None or has_gold(request):
        return score
    if request.mask is not None:
        known = [level for level in (score.localisation, score.logic) if level is not None]
        kept = [reason for reason in score.deductions if not reason.startswith("type")]
        return score.model_copy(
            update={
                "type": None,
                "mean": round(sum(known) / len(known), 4) if known else None,
                "deductions": [*kept, f"type: not judged, {_NO_TYPE}"],
            }
        )
    hidden = [level for level in LEVELS if level not in shown]
    why = f"no level for type and no mean: {_NO_TYPE}"
    if hidden:
        why += (
            f"; no level for {' and '.join(hidden)}: without gold it does not follow the level with gold closely enough"
        )
    return MLEScore(
        localisation=score.localisation if "localisation" in shown else None,
        logic=score.logic if "logic" in shown else None,
        deductions=[
            reason if reason.split(" ", 1)[0] in shown else _NUMBER.sub(r"\1:", reason) for reason in score.deductions
        ],
        unscored=why,
        basis="self-check",
    )
