"""Which levels of a self-check are worth a number: their rank correlation with the levels with gold.

    .venv/bin/python -m benchmarks.self_check [--data ../shared/data/dev --limit 60] [--write]

Two kinds of labelled data are measured: ranked answers (tests/data), held against what a perfect measurement of the part
would give; and inspections of labelled pictures, held against what the inspector itself measured. `--write` keeps the
figures in `evaluation/judge/self_check.yaml`, by which the judge decides what it shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage_ad.evaluation.inspection import JudgeRequest, MLEScore
from sage_ad.evaluation.judge.local import LocalJudge
from sage_ad.evaluation.reports.judge_run import correlations, requests_of, without_gold

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "evaluation" / "judge" / "self_check.yaml"
NEEDED = 0.6
Both = list[tuple[MLEScore, MLEScore]]


def judged(live: Sequence[JudgeRequest], gold: Sequence[JudgeRequest]) -> Both:
    """Scores without and with gold of the same answers, every level as a number."""
    judge = LocalJudge(every_level=True)
    return list(zip(judge.judge(live), judge.judge(gold), strict=True))


def ranked_answers() -> dict[str, Both]:
    """The ranked sets of the repository, by name."""
    from sage_ad.evaluation.ranked import read_ranked

    found = {}
    for path in sorted((ROOT / "tests" / "data").glob("ranked_*.jsonl")):
        requests = [requests_of(line, path.parent) for line in read_ranked(path)]
        kept = [entries for entries in requests if entries[0].gold and entries[0].gold.anomalous is not None]
        live = [one for entries in without_gold(kept) for one in entries]
        found[path.stem.removeprefix("ranked_")] = judged(live, [one for entries in kept for one in entries])
    return found


def inspections(data: Path, limit: int) -> Both:
    """Answers of the agent to the standard questions about labelled pictures, one reference each."""
    from PIL import Image

    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.inspection import load_inspector
    from sage_ad.evaluation.reports.answer_run import AnswerSettings, tasks_of
    from sage_ad.evaluation.reports.answer_scores import judge_requests

    dataset = open_dataset(data)
    inspector = load_inspector("sage")
    live: list[JudgeRequest] = []
    gold: list[JudgeRequest] = []
    for task in tasks_of(dataset, AnswerSettings(limit=limit)):
        trace = inspector.inspect(task.request)
        with Image.open(task.sample.image) as picture:
            size = picture.size
        gold += judge_requests(task, trace, dataset)
        live += [
            JudgeRequest(
                question=answer.question,
                answer=answer.text,
                family=answer.family,
                facts=[fact.text for fact in trace.facts],
                object=trace.product,
                regions=trace.regions,
                evidence_verdict=trace.verdict,
                image_size=size,
            )
            for answer in trace.answers
        ]
        print(f"{task.sample.id}: {trace.verdict}", flush=True)
    return judged(live, gold)


def main() -> None:
    """Measures, prints, and with --write keeps the figures."""
    import yaml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="labelled pictures to inspect")
    parser.add_argument("--limit", type=int, default=60, help="pictures to inspect, spread over categories and states")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    sets = ranked_answers()
    kinds = {"ranked answers": [pair for both in sets.values() for pair in both]}
    if options.data:
        kinds[f"inspections of {options.data.name}"] = inspections(options.data, options.limit)
    kept: dict[str, Any] = {}
    print(f"\n{'':28} {'level':14} {'n':>6} {'equal':>7} {'rho':>7} {'tau-b':>7}   mean without / with gold")
    for name, both in {**{f"ranked: {key}": own for key, own in sets.items()}, **kinds}.items():
        found = correlations(both)
        for level, row in found.items():
            ours, right = ([getattr(pair[side], level) for pair in both] for side in (0, 1))
            means = [
                sum(v for v in side if v is not None) / max(1, sum(v is not None for v in side))
                for side in (ours, right)
            ]
            rho, tau = (f"{row[key]:.3f}" if row[key] is not None else "-" for key in ("spearman", "kendall_tau"))
            print(
                f"{name:28} {level:14} {row['n']:6} {row['equal']:7.3f} {rho:>7} {tau:>7}   {means[0]:.2f} / {means[1]:.2f}"
            )
        if name in kinds:
            kept[name] = {level: found.get(level, {}).get("spearman") for level in ("type", "localisation", "logic")}
    if options.write:
        head = "# Spearman's rank correlation of levels without gold with levels with gold; written by\n# "
        TARGET.write_text(
            f"{head}python -m benchmarks.self_check --data DATA --write. A level is shown from `needed` on, on all rows.\n"
            + yaml.safe_dump({"needed": NEEDED, "correlation": kept}, sort_keys=False),
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
