"""Which threshold keeps a promised rate of false alarms, from the good parts at hand.

Split conformal prediction (`evaluation.reports.calibration`): some good parts serve as references, the others are scored like
new parts, and the threshold is a quantile of their scores. With few good parts only high rates can be promised, and
lower ones are refused with what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_ad.demo.services.engine import Engine
from sage_ad.demo.view import render
from sage_ad.evaluation.reports.calibration import conformal_p_value, conformal_threshold, needed_normals
from sage_ad.vlm.errors import InputError


def split_goods(count: int) -> int:
    """How many of the good parts serve as references: a quarter (at least one); the others calibrate."""
    return max(1, count // 4)


def calibration_scores(engine: Engine, image: Path, goods: list[Path]) -> Iterator[dict[str, Any]]:
    """Scores the part and the spare good parts against the same references.

    Yields:
        {"event": "scored", "done", "of"} for each picture, then {"event": "scores", "score", "normals"}.
    """
    from sage_ad.vlm.images import load_image, shared_brightness

    resources = engine.inspector().resources
    kept = split_goods(len(goods))
    brightness = shared_brightness([image, *goods])
    bank = resources.extractor.prepare([load_image(path, brightness=brightness) for path in goods[:kept]])
    normals: list[float] = []
    for done, path in enumerate(goods[kept:], start=1):
        normals.append(float(resources.extractor.extract(load_image(path, brightness=brightness), bank).score))
        yield {"event": "scored", "done": done, "of": len(goods) - kept}
    score = float(resources.extractor.extract(load_image(image, brightness=brightness), bank).score)
    yield {"event": "scores", "score": score, "normals": normals}


def alarm_html(scores: dict[str, Any], rate: float) -> str:
    """What follows at this rate, or why nothing can be promised."""
    normals, score = scores["normals"], scores["score"]
    values = {"rate": rate, "score": score, "count": len(normals), "p": conformal_p_value(score, normals)}
    try:
        threshold = conformal_threshold(normals, rate)
    except InputError as error:
        return render.fragment("alarm", threshold=None, refused=str(error), needed=needed_normals(rate), **values)
    return render.fragment("alarm", threshold=threshold, refused="", needed=needed_normals(rate), **values)
