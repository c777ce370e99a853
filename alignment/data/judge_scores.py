"""Scores for ranked answers (Eq. 3), given once by a judge, ahead of training, and kept; and how they spread.

The mean of a judge's three levels is S_i. An answer that the judge could not score stays without one and is counted; no
score is ever made up. If every list has equal scores, entropy selects nothing, and the report says so.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.alignment.data.pairs import ENTROPY_FORMS, select_pairs
from sage_ad.evaluation.ranked import AnswerScore, RankedAnswers

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import Judge
    from sage_ad.evaluation.runs import Progress

CHUNK = 16
"""Lines that go to the judge together and are kept together; so much is lost at most when a run is killed."""


def score_lines(
    lines: Sequence[RankedAnswers],
    judge: Judge,
    *,
    folder: Path = Path("."),
    out: Path | None = None,
    progress: Progress | None = None,
) -> tuple[list[RankedAnswers], list[str]]:
    """Fills in the scores of all answers.

    Args:
        lines: ranked answers; scores that they have are replaced.
        judge: local, or a language model behind a URL (which keeps its replies too).
        folder: where relative paths of masks and images start from.
        out: folder in which finished chunks are kept, and found again; None keeps nothing.
        progress: where progress is said.

    Returns:
        The lines with `scores` and `judge`, and a sentence for each answer without a score.
    """
    from sage_ad.evaluation.reports.judge_run import requests_of
    from sage_ad.evaluation.runs import CellCache, Progress

    cache, progress = CellCache(out), progress or Progress(quiet=True)
    scored: list[RankedAnswers] = []
    problems: list[str] = []
    for start in progress.count(range(0, len(lines), CHUNK), "Scoring, batches", -(-len(lines) // CHUNK)):
        chunk = lines[start : start + CHUNK]
        key = _key(chunk, judge.name, folder)
        kept = cache.get(key)
        if kept is None:
            requests = [requests_of(line, folder) for line in chunk]
            flat = iter(judge.judge([one for entries in requests for one in entries]))
            kept = [[next(flat).model_dump(mode="json") for _ in line.answers] for line in chunk]
            # A judge that failed may answer next time; what it has answered is in its own cache.
            if all(entry["mean"] is not None for row in kept for entry in row):
                cache.put(key, kept)
        for line, row in zip(chunk, kept, strict=True):
            levels = [AnswerScore.model_validate(entry) if entry["mean"] is not None else None for entry in row]
            scored.append(line.model_copy(update={"scores": levels, "judge": judge.name}))
            problems += [
                f"line {line.id}, answer {place}: unscored: {entry['unscored']}"
                for place, entry in enumerate(row, start=1)
                if entry["mean"] is None
            ]
    return scored, problems


def _key(chunk: Sequence[RankedAnswers], judge: str, folder: Path) -> str:
    from sage_ad.evaluation.runs import cell_key, code_hash

    stamps = []
    for line in chunk:
        file = folder / line.mask if line.mask else None
        there = file is not None and file.is_file()
        stamps.append((file.stat().st_size, file.stat().st_mtime_ns) if there and file else None)
    content = [line.model_dump(mode="json", exclude={"scores", "judge"}) for line in chunk]
    return cell_key(kind="score", judge=judge, lines=content, masks=stamps, code=code_hash("evaluation"))


def means_of(line: RankedAnswers) -> list[float | None] | None:
    """S_i of each answer (None: unscored), or None for a line that no judge saw."""
    if line.scores is None:
        return None
    return [score.mean if score is not None else None for score in line.scores]


def spread(lines: Sequence[RankedAnswers]) -> dict[str, Any]:
    """How scores and entropy gaps spread over scored lines.

    Returns:
        Counts of `lists`, `answers` and `unscored`; `equal`, the lists in which no two scores differ; `places`, mean and
        standard deviation of the score at each rank; `disordered`, neighbours that the judge ranks the other way round,
        and `tied` ones; and for each form of the entropy the gaps of the closest neighbours and of the ends
        (minimum, median, maximum, in nats) and how often which neighbours are the closest.
    """
    means = [own for line in lines if (own := means_of(line)) is not None]
    longest = max((len(own) for own in means), default=0)
    by_place = [[value for own in means if (value := _at(own, i)) is not None] for i in range(longest)]
    steps = [(a, b) for own in means for a, b in pairwise(own) if a is not None and b is not None]
    return {
        "lists": len(means),
        "answers": sum(map(len, means)),
        "unscored": sum(value is None for own in means for value in own),
        "equal": sum(len({value for value in own if value is not None}) < 2 for own in means),
        "neighbours": len(steps),
        "tied": sum(a == b for a, b in steps),
        "disordered": sum(a < b for a, b in steps),
        "places": [
            {
                "place": place,
                "n": len(values),
                "mean": round(statistics.fmean(values), 4) if values else None,
                "deviation": round(statistics.pstdev(values), 4) if values else None,
            }
            for place, values in enumerate(by_place, start=1)
        ],
        "entropy": {form: _gaps(means, form) for form in ENTROPY_FORMS},
    }


def _at(values: Sequence[float | None], place: int) -> float | None:
    return values[place] if place < len(values) else None


def _gaps(means: Sequence[Sequence[float | None]], form: Any) -> dict[str, Any]:
    near = [pair for own in means for pair in select_pairs(own, "adjacent", form)]
    ends = [pair for own in means for pair in select_pairs(own, "extreme", form)]
    chosen = Counter(f"{pair.winner + 1}-{pair.loser + 1}" for pair in near)
    return {
        "closest": _quantiles([pair.gap for pair in near]),
        "ends": _quantiles([pair.gap for pair in ends]),
        "chosen": dict(sorted(chosen.items())),
    }


def _quantiles(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {"n": 0, "low": None, "median": None, "high": None}
    middle = statistics.median(values)
    return {"n": len(values), "low": round(min(values), 4), "median": round(middle, 4), "high": round(max(values), 4)}


def equal_everywhere(found: dict[str, Any]) -> str | None:
    """The sentence for data in which entropy selects nothing, or None."""
    if found["lists"] and found["equal"] == found["lists"]:
        return (
            f"None of the {found['lists']} lists has two different scores, so entropy selects nothing; mend the data or "
            "the judge before training."
        )
    return None


def report_markdown(found: dict[str, Any], judge: str, problems: Sequence[str] = ()) -> str:
    """The spread as Markdown."""
    from sage_ad.evaluation.reports.tables import markdown_table

    head = (
        f"{found['lists']} lists, {found['answers']} answers scored by the judge {judge}: {found['unscored']} unscored; "
        f"{found['equal']} lists with equal scores; of {found['neighbours']} neighbours {found['tied']} tied and "
        f"{found['disordered']} ranked the other way round by the judge."
    )
    places = markdown_table(
        ["place", "answers", "mean score", "deviation"],
        [[str(row["place"]), row["n"], row["mean"], row["deviation"]] for row in found["places"]],
    )
    rows = [
        [f"{form}, {name}", own["n"], own["low"], own["median"], own["high"]]
        for form, entry in found["entropy"].items()
        for name, own in (("closest neighbours", entry["closest"]), ("ends", entry["ends"]))
    ]
    gaps = markdown_table(["entropy gap (nats)", "lists", "lowest", "median", "highest"], rows)
    chosen = "\n".join(
        f"- closest neighbours by {form}: " + ", ".join(f"{pair} in {n}" for pair, n in entry["chosen"].items())
        for form, entry in found["entropy"].items()
        if entry["chosen"]
    )
    parts = [head, places, gaps, chosen, "\n".join(f"- {problem}" for problem in problems)]
    return "\n\n".join(part for part in parts if part)
