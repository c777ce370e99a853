"""Figures of a language run, each with its bootstrap interval, beside baselines that cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sage_ad.evaluation.inspection import FAMILIES, Verdict
from sage_ad.evaluation.questions import verdict_of
from sage_ad.evaluation.reports.answer_scores import AnswerRow, Answers, ImageRow, state_said
from sage_ad.evaluation.reports.finished_runs import ANSWER_FIGURES, figure_at
from sage_ad.evaluation.reports.metrics import Figure, bootstrap, bootstrap_mean, macro, rank_auroc
from sage_ad.evaluation.reports.tables import bullet_list, markdown_table

ROUNDS = 500
LEVELS = ("type", "localisation", "logic", "mean")
CONSTANTS: dict[str, Verdict] = {"constant anomalous": "anomalous", "constant normal": "normal"}


def _json(figure: Figure | None) -> dict[str, Any]:
    """A figure as JSON; an absent one keeps its keys, so that readers need no special case."""
    return figure.to_json() if figure else {"value": None, "low": None, "high": None, "n": 0}


def both_states(rows: Iterable[AnswerRow]) -> set[str]:
    """Categories with good and defective parts: only there does a verdict mean anything."""
    seen: dict[str, set[bool]] = {}
    for row in rows:
        seen.setdefault(row.category, set()).add(row.anomalous)
    return {category for category, states in seen.items() if len(states) == 2}


def accuracy(rows: Sequence[AnswerRow], right: Sequence[bool | None] | None = None, seed: int = 0) -> Figure | None:
    """Accuracy balanced over good and defective parts in each category, then averaged over categories.

    Args:
        rows: the answers; those without a right verdict, and those of categories with one state only, are left out.
        right: judgement of each row instead of its own (for baselines).
        seed: of the bootstrap.
    """
    decided = list(zip(rows, [row.right for row in rows] if right is None else right, strict=True))
    wanted = both_states(row for row, ok in decided if ok is not None)
    kept = [(row, float(ok)) for row, ok in decided if ok is not None and row.category in wanted]
    # Two states in each category: the mean over categories of balanced accuracy is the mean over (category, state).
    return bootstrap_mean(
        [ok for _, ok in kept],
        [row.image for row, _ in kept],
        strata=[(row.category, row.anomalous) for row, _ in kept],
        seed=seed,
    )


def by_family(rows: Sequence[AnswerRow], right: Sequence[bool | None] | None = None) -> dict[str, dict[str, Any]]:
    """`accuracy` of each question family."""
    judged = [row.right for row in rows] if right is None else list(right)
    result: dict[str, dict[str, Any]] = {}
    for family in FAMILIES:
        places = [place for place, row in enumerate(rows) if row.family == family]
        result[family] = _json(accuracy([rows[p] for p in places], [judged[p] for p in places]))
    return result


def acc_g(rows: Sequence[AnswerRow], right: Sequence[bool | None] | None = None) -> Figure | None:
    """Acc-G: share of images all of whose answers are right, balanced and averaged like `accuracy`."""
    judged = [row.right for row in rows] if right is None else list(right)
    first: dict[str, AnswerRow] = {}
    whole: dict[str, bool] = {}
    for row, ok in zip(rows, judged, strict=True):
        if ok is not None:
            first.setdefault(row.image, row)
            whole[row.image] = whole.get(row.image, True) and ok
    return accuracy(list(first.values()), list(whole.values()))


def consistency(rows: Sequence[AnswerRow]) -> Figure | None:
    """Share of images whose answers do not contradict one another: all of them assert the same state of the part."""
    said: dict[str, set[Verdict]] = {}
    for row in rows:
        state = state_said(row)
        if state:
            said.setdefault(row.image, set()).add(state)
    return bootstrap_mean([float(len(states) == 1) for states in said.values()])


def _auroc(images: Sequence[ImageRow], score: Callable[[ImageRow], float]) -> Figure | None:
    """AUROC of a score of whole images, averaged over the categories that have both states."""
    known = [row for row in images if row.anomalous is not None]
    labels = np.array([bool(row.anomalous) for row in known])
    scores = np.array([score(row) for row in known])
    names = sorted({row.category for row in known})
    category = np.array([names.index(row.category) for row in known], int)

    def statistic(indices: np.ndarray) -> float | None:
        parts = (indices[category[indices] == number] for number in range(len(names)))
        return macro(rank_auroc(labels[part], scores[part]) for part in parts)

    strata = [(row.category, row.anomalous) for row in known]
    return bootstrap(statistic, len(known), strata=strata, rounds=ROUNDS)


def verdict_auroc(images: Sequence[ImageRow]) -> Figure | None:
    """AUROC of the belief that the part is anomalous: the confidence, turned round for a normal verdict.

    Where an inspector gives no confidence, its verdict alone (0 or 1) is ranked.
    """

    def belief(row: ImageRow) -> float:
        sure = 1.0 if row.confidence is None else row.confidence
        return sure if row.verdict == "anomalous" else 1 - sure

    return _auroc(images, belief)


def evidence_auroc(images: Sequence[ImageRow]) -> Figure | None:
    """AUROC of the measured anomaly score, in units of its threshold (thresholds may differ between images)."""
    return _auroc(images, lambda row: row.score / max(row.threshold, 1e-9))


def figures_of(answers: Answers) -> dict[str, Any]:
    """All figures of one inspector's answers, as JSON."""
    rows, images = answers.rows, answers.images
    groups = [row.image for row in rows]
    unscored = sum(row.unscored is not None for row in rows)
    result: dict[str, Any] = {
        "n": len({row.image for row in rows}),
        "answers": len(rows),
        "accuracy": _json(accuracy(rows)),
        "by_family": by_family(rows),
        "acc_g": _json(acc_g(rows)),
        "sbert": _json(bootstrap_mean([row.sbert for row in rows], groups)),
        "mle": {
            level: _json(bootstrap_mean([row.mle[level] if row.mle else None for row in rows], groups))
            for level in LEVELS
        },
        "naming": _json(_share([row.named for row in rows], groups)),
        "place": _json(_share([row.placed for row in rows], groups)),
        # Whoever misses a defect cannot place it: this one looks only where the verdict was right.
        "place_found": _json(_share([row.placed if row.right else None for row in rows], groups)),
        "verdict_auroc": _json(verdict_auroc(images)),
        "evidence_auroc": _json(evidence_auroc(images)),
        "consistency": _json(consistency(rows)),
        # A count is known exactly; `n` says of how many.
        "unscored": {"value": unscored, "low": unscored, "high": unscored, "n": len(rows)},
        "undecided": sum(row.verdict is None and row.gold is not None for row in rows),
        "seconds_per_image": round(float(np.median([row.seconds for row in images])), 4) if images else None,
    }
    subtasks = by_subtask(rows)
    if subtasks:
        result["by_subtask"] = subtasks
        result["accuracy"] = _json(mean_of_subtasks(rows))
    return result


def _share(values: Sequence[bool | None], groups: Sequence[str]) -> Figure | None:
    return bootstrap_mean([None if value is None else float(value) for value in values], groups)


def by_subtask(rows: Sequence[AnswerRow]) -> dict[str, dict[str, Any]]:
    """Plain accuracy of each subtask of a multiple-choice set (MMAD); empty for other sets."""
    result = {}
    for name in sorted({row.subtask for row in rows if row.subtask}):
        part = [row for row in rows if row.subtask == name]
        result[name] = _json(_share([row.right for row in part], [row.image for row in part]))
    return result


def mean_of_subtasks(rows: Sequence[AnswerRow]) -> Figure | None:
    """MMAD's figure: accuracy of each subtask, then their mean."""
    kept = [row for row in rows if row.subtask and row.right is not None]
    names = sorted({str(row.subtask) for row in kept})
    hits = np.array([bool(row.right) for row in kept], float)
    task = np.array([names.index(str(row.subtask)) for row in kept], int)

    def statistic(indices: np.ndarray) -> float | None:
        parts = [indices[task[indices] == number] for number in range(len(names))]
        return macro(float(hits[part].mean()) for part in parts if len(part))

    return bootstrap(statistic, [row.image for row in kept], rounds=ROUNDS)


def constant_baseline(rows: Sequence[AnswerRow], state: Verdict) -> dict[str, Any]:
    """What an inspector would get that calls every part the same."""
    right = [
        None if row.gold is None or row.polarity is None else verdict_of(row.polarity, state) == row.gold
        for row in rows
    ]
    return {
        "accuracy": _json(accuracy(rows, right)),
        "by_family": by_family(rows, right),
        "acc_g": _json(acc_g(rows, right)),
    }


def by_category(rows: Sequence[AnswerRow]) -> dict[str, dict[str, Any]]:
    """Accuracy, MLE, naming and place of each category."""
    result = {}
    for name in sorted({row.category for row in rows}):
        part = [row for row in rows if row.category == name]
        groups = [row.image for row in part]
        result[name] = {
            "n": len(set(groups)),
            "accuracy": _json(accuracy(part)),
            "acc_g": _json(acc_g(part)),
            "mle": _json(bootstrap_mean([r.mle["mean"] if r.mle else None for r in part], groups)),
            "naming": _json(_share([row.named for row in part], groups)),
            "place": _json(_share([row.placed for row in part], groups)),
        }
    return result


def report_json(
    dataset: str,
    shots: int,
    judge: str,
    answers: Answers,
    baselines: dict[str, dict[str, Any]],
    notes: Sequence[str],
    problems: Sequence[str],
) -> dict[str, Any]:
    """The object that `sage-eval answer --json` prints."""
    return {
        "dataset": dataset,
        "inspector": answers.inspector,
        "model": answers.model,
        "judge": judge,
        "shots": shots,
        **figures_of(answers),
        "baselines": baselines,
        "categories": by_category(answers.rows),
        "notes": list(notes),
        "problems": list(problems),
    }


def report_markdown(result: dict[str, Any]) -> str:
    """The same as a report: one column an inspector, baselines beside it, then families and categories."""
    columns = {result["model"]: result, **result["baselines"]}
    shots = "1 reference" if result["shots"] else "no reference"
    text = (
        f"# Answers on {result['dataset']}: {result['inspector']} ({result['model']}), {shots}, judge "
        f"{result['judge']}\n\n{result['n']} images, {result['answers']} answers; each figure with its bootstrap 95 % "
        "interval. Accuracy is balanced over good and defective parts in each category, then averaged.\n\n"
    )
    rows = [[label, *(figure_at(figures, path) for figures in columns.values())] for label, path in ANSWER_FIGURES]
    rows += [
        [f"accuracy, {family}", *(figures["by_family"][family] for figures in columns.values())] for family in FAMILIES
    ]
    for name in result.get("by_subtask", {}):
        rows.append([name, *(figures.get("by_subtask", {}).get(name) for figures in columns.values())])
    text += markdown_table(["figure", *columns], rows)
    text += f"\n\nUnscored answers: {result['unscored']['value']}; answers without a verdict: {result['undecided']}.\n"
    head = ["category", "images", "accuracy", "Acc-G", "MLE", "named", "place"]
    lines = [
        [name, v["n"], v["accuracy"], v["acc_g"], v["mle"], v["naming"], v["place"]]
        for name, v in result["categories"].items()
    ]
    text += f"\n## Categories\n\n{markdown_table(head, lines)}\n"
    return text + bullet_list("Notes", result["notes"]) + bullet_list("Problems", result["problems"])
