"""`sage-eval judge`: how well a judge puts ranked answers in order, beside two baselines measured in the same run.

A pair of answers counts 1 if the judge's mean puts the better one higher, 0 if lower, and a half if both are equal;
how many are equal stands beside it. Answers are shuffled before they are judged, so that no judge can live on order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sage_ad.vlm.commandline import quiet_libraries
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import Judge, JudgeRequest, MLEScore, Verdict
    from sage_ad.evaluation.ranked import RankedAnswers

DIMENSIONS = ("type", "localisation", "logic", "mean")
Values = Sequence[float | None]


@dataclass(frozen=True)
class Pair:
    """One comparison of two answers: the line it stems from, whether they are neighbours, and 1, 0.5 or 0."""

    line: int
    adjacent: bool
    value: float


def pairs_of(values: Iterable[Values]) -> list[Pair]:
    """All comparisons within each line's values (best answer first); pairs with an unscored answer are left out."""
    pairs = []
    for line, scores in enumerate(values):
        for better, worse in combinations(range(len(scores)), 2):
            left, right = scores[better], scores[worse]
            if left is not None and right is not None:
                value = 1.0 if left > right else 0.5 if left == right else 0.0
                pairs.append(Pair(line, worse == better + 1, value))
    return pairs


def figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Pairwise accuracy over all and over adjacent pairs, Kendall's tau (tau-a), and how many pairs are ties.

    Every figure has its bootstrap interval over lines.
    """
    from sage_ad.evaluation.reports.metrics import bootstrap_mean

    def figure(some: Sequence[Pair], value: Callable[[Pair], float]) -> dict[str, Any] | None:
        found = bootstrap_mean([value(pair) for pair in some], [pair.line for pair in some])
        return found.to_json() if found else None

    adjacent = [pair for pair in pairs if pair.adjacent]
    return {
        "pairwise_all": figure(pairs, lambda pair: pair.value),
        "pairwise_adjacent": figure(adjacent, lambda pair: pair.value),
        "kendall_tau": figure(pairs, lambda pair: 2 * pair.value - 1),
        "pairs": len(pairs),
        "ties": sum(pair.value == 0.5 for pair in pairs),
        "adjacent_ties": sum(pair.value == 0.5 for pair in adjacent),
    }


# ----------------------------------------------------------------------------------------------------------- judging


def requests_of(line: RankedAnswers, folder: Path) -> list[JudgeRequest]:
    """One request per answer of a line; a mask is looked for beside the file of the line.

    Raises:
        InputError: the mask cannot be read.
    """
    from sage_ad.evaluation.inspection import JudgeRequest

    mask = _read_mask(folder / line.mask, line.id) if line.mask else None
    return [
        JudgeRequest(
            question=line.question,
            answer=answer,
            family=line.pair_type,
            gold=line.gold,
            facts=tuple(line.facts),
            object=line.object,
            mask=mask,
            image=str(folder / line.image) if line.image else None,
        )
        for answer in line.answers
    ]


def _read_mask(path: Path, line: str | None) -> Any:
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) > 0
    except (OSError, UnidentifiedImageError):
        raise InputError(f"The mask {path} of line {line} cannot be read; mend its path or set it to null.") from None


def judge_lines(judge: Judge, requests: Sequence[Sequence[JudgeRequest]], seed: int) -> list[list[MLEScore]]:
    """Scores of each line's answers, judged in an order shuffled over the whole file."""
    flat = [(line, place) for line, entries in enumerate(requests) for place in range(len(entries))]
    random.Random(seed).shuffle(flat)
    scores = judge.judge([requests[line][place] for line, place in flat])
    by_place = dict(zip(flat, scores, strict=True))
    return [[by_place[line, place] for place in range(len(entries))] for line, entries in enumerate(requests)]


def without_gold(requests: Sequence[Sequence[JudgeRequest]]) -> list[list[JudgeRequest]]:
    """The same answers as in live use: no gold, but the verdict and the region that a perfect look at the part gives.

    Lines whose gold does not say whether the part is defective are left out.
    """
    from sage_ad.evaluation.text.localisation import region_of_words

    live = []
    for entries in requests:
        gold = entries[0].gold
        if gold is None or gold.anomalous is None:
            continue
        regions = region_of_words(gold.place) if gold.anomalous and entries[0].mask is None else None
        verdict: Verdict = "anomalous" if gold.anomalous else "normal"
        live.append(
            [
                replace(one, gold=None, evidence_verdict=verdict, regions=regions, image_size=(300, 300))
                for one in entries
            ]
        )
    return live


def agreement(requests: Sequence[Sequence[JudgeRequest]], scores: list[list[MLEScore]]) -> dict[str, Any]:
    """How the local judge's levels without gold lie to those with gold: share of equal levels, rank correlations, order.

    Every level is given a number here, also those that a self-check does not show (`evaluation.judge.self_check`).
    """
    from sage_ad.evaluation.judge.local import LocalJudge

    kept = [i for i, entries in enumerate(requests) if entries[0].gold and entries[0].gold.anomalous is not None]
    if not kept:
        return {}
    live = judge_lines(LocalJudge(every_level=True), without_gold(requests), 0)
    both = [pair for line, index in zip(live, kept, strict=True) for pair in zip(line, scores[index], strict=True)]
    return {
        "lines": len(kept),
        **correlations(both),
        "order": figures(pairs_of([[score.mean for score in line] for line in live])),
    }


def correlations(both: Sequence[tuple[MLEScore, MLEScore]]) -> dict[str, Any]:
    """Levels without gold against levels with gold, by dimension: equal ones, Spearman's rho, Kendall's tau-b, count.

    A correlation is None where one side has a single value.
    """
    from scipy.stats import kendalltau, spearmanr

    result = {}
    for name in DIMENSIONS:
        known = [(getattr(a, name), getattr(b, name)) for a, b in both]
        known = [(a, b) for a, b in known if a is not None and b is not None]
        if not known:
            continue
        varied = all(len(set(side)) > 1 for side in zip(*known, strict=True))
        columns = tuple(zip(*known, strict=True))
        result[name] = {
            "equal": round(sum(a == b for a, b in known) / len(known), 4),
            "spearman": round(float(spearmanr(*columns).statistic), 4) if varied else None,
            "kendall_tau": round(float(kendalltau(*columns).statistic), 4) if varied else None,
            "n": len(known),
        }
    return result


# --------------------------------------------------------------------------------------------------------- baselines


def word_overlap(lines: Sequence[RankedAnswers]) -> list[list[float | None]]:
    """F1 of the words that an answer shares with the reference answer; None without a reference answer."""
    from sage_ad.evaluation.text.normalise import words

    def overlap(answer: str, reference: str) -> float:
        mine, right = set(words(answer)), set(words(reference))
        shared = len(mine & right)
        return 2 * shared / (len(mine) + len(right)) if shared else 0.0

    return [
        [
            overlap(answer, line.gold.reference_answer) if line.gold and line.gold.reference_answer else None
            for answer in line.answers
        ]
        for line in lines
    ]


def sbert_similarity(lines: Sequence[RankedAnswers]) -> list[list[float | None]]:
    """Cosine of the sentence embeddings of an answer and the reference answer; None without a reference answer."""
    from sage_ad.knowledge.vectors.embedding import default_embedder

    texts = [text for line in lines for text in line.answers]
    references = [line.gold.reference_answer if line.gold else None for line in lines]
    vectors = iter(default_embedder().encode(texts))
    known = [text for text in references if text]
    right = iter(default_embedder().encode(known)) if known else iter(())
    result: list[list[float | None]] = []
    for line, reference in zip(lines, references, strict=True):
        target = next(right) if reference else None
        values = [next(vectors) for _ in line.answers]
        result.append([round(float(value @ target), 6) if target is not None else None for value in values])
    return result


# ------------------------------------------------------------------------------------------------------------ report


def measure_judge(
    lines: Sequence[RankedAnswers], judge: Judge, *, folder: Path = Path("."), seed: int = 0
) -> dict[str, Any]:
    """Judges ranked answers and measures the order.

    Args:
        lines: ranked answers, best first.
        judge: the judge to be measured.
        folder: folder that relative mask and image paths start from.
        seed: of the shuffle.

    Returns:
        The JSON of `sage-eval judge`; under "scored" the lines with `scores` filled.
    """
    from sage_ad.evaluation.ranked import AnswerScore

    requests = [requests_of(line, folder) for line in lines]
    scores = judge_lines(judge, requests, seed)
    means = [[score.mean for score in line] for line in scores]
    families = sorted({line.pair_type or "unknown" for line in lines})
    problems = [
        f"line {line.id}, answer {place}: unscored: {score.unscored}"
        for line, entries in zip(lines, scores, strict=True)
        for place, score in enumerate(entries, start=1)
        if score.mean is None
    ]
    scored = [
        line.model_copy(
            update={
                "scores": [AnswerScore(**one.model_dump()) if one.mean is not None else None for one in entries],
                "judge": judge.name,
            }
        )
        for line, entries in zip(lines, scores, strict=True)
    ]
    return {
        "judge": judge.name,
        "lines": len(lines),
        "answers": sum(len(line.answers) for line in lines),
        "unscored": len(problems),
        **figures(pairs_of(means)),
        "by_family": {
            family: figures(
                pairs_of([m for m, line in zip(means, lines, strict=True) if (line.pair_type or "unknown") == family])
            )
            for family in families
        },
        "by_dimension": {
            name: figures(pairs_of([[getattr(score, name) for score in line] for line in scores]))
            for name in DIMENSIONS[:3]
        },
        "baselines": {
            "sbert": figures(pairs_of(sbert_similarity(lines))),
            "word-overlap": figures(pairs_of(word_overlap(lines))),
        },
        "without_gold": agreement(requests, scores) if judge.name == "local" else None,
        "problems": problems,
        "scored": scored,
    }


def report_markdown(result: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    from sage_ad.evaluation.ranked import unknown_in_words
    from sage_ad.evaluation.reports.tables import markdown_table

    def row(name: str, entry: dict[str, Any]) -> list[Any]:
        return [name, *(entry[key] for key in ("pairwise_all", "pairwise_adjacent", "kendall_tau", "ties"))]

    head = ["", "all pairs", "adjacent pairs", "Kendall tau", "ties"]
    order = [row(f"judge {result['judge']}", result)]
    order += [row(f"baseline {name}", entry) for name, entry in result["baselines"].items()]
    parts = [
        f"{result['lines']} lines, {result['answers']} answers, {result['unscored']} unscored (a tie counts a half)",
        markdown_table(head, order),
        markdown_table(head, [row(name, entry) for name, entry in result["by_family"].items()]),
        markdown_table(head, [row(name, entry) for name, entry in result["by_dimension"].items()]),
    ]
    if live := result.get("without_gold"):
        rows = [
            [name, live[name]["equal"], live[name]["spearman"], live[name]["kendall_tau"]]
            for name in DIMENSIONS
            if name in live
        ]
        parts.append(
            "Without gold (verdict and region as a perfect measurement would give them), against the scores with gold:"
        )
        parts.append(markdown_table(["", "equal", "Spearman rho", "Kendall tau"], rows))
        parts.append(markdown_table(head, [row("order without gold", live["order"])]))
    if usage := result.get("usage"):
        parts.append(
            f"- {usage['calls']} calls of the server; {usage['cached']} answers scored from replies kept before"
        )
    if unknown := result.get("unknown_keys"):
        parts.append(f"- {unknown_in_words(Counter(unknown))}")
    parts += [f"- {problem}" for problem in result["problems"]]
    return "\n\n".join(parts)


def judge_command(
    ranked: Annotated[
        Path,
        typer.Argument(
            help="Ranked answers (JSONL, best first), AD-PL, or TRL or LlamaFactory pairs.", show_default=False
        ),
    ],
    judge: Annotated[str, typer.Option(help="local, or http://host:port/v1#model.")] = "local",
    seed: Annotated[int, typer.Option(help="Seed of the shuffle.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Status 1 also for keys of the file that are not read.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json, report.md and scored.jsonl.")] = None,
) -> None:
    """How well a judge orders ranked answers, beside sentence similarity and word overlap."""
    quiet_libraries()
    from sage_ad.evaluation.judge.loading import load_judge
    from sage_ad.evaluation.preference_data import beside, read_answers
    from sage_ad.evaluation.ranked import write_ranked
    from sage_ad.evaluation.runs import finish

    unknown = Counter[str]()
    lines = read_answers(ranked, out / "pictures" if out else None, unknown)
    judging = load_judge(judge)
    result = measure_judge(lines, judging, seed=seed)
    if usage := getattr(judging, "usage", None):
        result["usage"] = asdict(usage)
    if unknown:
        result["unknown_keys"] = dict(unknown)
    scored = result.pop("scored")
    if out:
        write_ranked(out / "scored.jsonl", beside(scored, out))
    finish(result, report_markdown(result), out, json, strict)
