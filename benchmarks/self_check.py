"""Which levels of a self-check are worth a number: their rank correlation with the levels with gold.

    .venv/bin/python -m benchmarks.self_check --ranked --data ../shared/data/dev --limit 60 [--write]

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
HEAD = """# Spearman's rank correlation of the levels without gold with the levels with gold, by labelled set; written by
# python -m benchmarks.self_check --ranked --data DATA --write. A level is shown where every row reaches `needed`.
"""
Both = list[tuple[MLEScore, MLEScore]]


def judged(live: Sequence[JudgeRequest], gold: Sequence[JudgeRequest]) -> Both:
    """Scores without and with gold of the same answers, every level as a number."""
    judge = LocalJudge(every_level=True)
    return list(zip(judge.judge(live), judge.judge(gold), strict=True))


def ranked_answers(path: Path) -> Both:
    """Scores of the answers of a ranked set; lines whose gold does not say whether the part is defective are left out."""
    from sage_ad.evaluation.ranked import read_ranked

    requests = [requests_of(line, path.parent) for line in read_ranked(path)]
    kept = [entries for entries in requests if entries[0].gold and entries[0].gold.anomalous is not None]
    live = [one for entries in without_gold(kept) for one in entries]
    return judged(live, [one for entries in kept for one in entries])


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
    return judged(live, gold)


def report(name: str, both: Both) -> dict[str, Any]:
    """Prints the figures of one kind of data and gives Spearman's rho of each level."""
    found = correlations(both)
    for level, row in found.items():
        means = []
        for side in (0, 1):
            values = [value for pair in both if (value := getattr(pair[side], level)) is not None]
            means.append(f"{sum(values) / len(values):.2f}" if values else "-")
        rho, tau = (f"{row[key]:.3f}" if row[key] is not None else "-" for key in ("spearman", "kendall_tau"))
        numbers = f"{row['n']:6} {row['equal']:7.3f} {rho:>7} {tau:>7}   {means[0]} / {means[1]}"
        print(f"{name:28} {level:14} {numbers}", flush=True)
    values = {level: found.get(level, {}).get("spearman") for level in ("type", "localisation", "logic")}
    return {level: None if value is None else round(value, 3) for level, value in values.items()}


def main() -> None:
    """Measures, prints, and with --write keeps the figures."""
    import yaml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranked", nargs="*", help="ranked sets to judge (without names: all), such as first third")
    parser.add_argument("--data", type=Path, help="labelled pictures to inspect")
    parser.add_argument("--limit", type=int, default=60, help="pictures to inspect, spread over categories and states")
    parser.add_argument("--write", action="store_true", help="keep the figures of what was measured")
    options = parser.parse_args()
    if options.ranked is None and options.data is None:
        parser.error("give --ranked, --data FOLDER, or both")
    kept: dict[str, Any] = {}
    print(f"{'':28} {'level':14} {'n':>6} {'equal':>7} {'rho':>7} {'tau-b':>7}   mean without / with gold")
    if options.data:
        name = f"inspections of {options.data.name}"
        kept[name] = report(name, inspections(options.data, options.limit))
    if options.ranked is not None:
        every: Both = []
        for path in sorted((ROOT / "tests" / "data").glob("ranked_*.jsonl")):
            name = path.stem.removeprefix("ranked_")
            if not options.ranked or name in options.ranked:
                both = ranked_answers(path)
                kept[f"ranked {name}"] = report(f"ranked {name}", both)
                every += both
        report("all ranked sets", every)
    if options.write:
        raw = yaml.safe_load(TARGET.read_text(encoding="utf-8"))
        raw["correlation"] = dict(sorted({**raw["correlation"], **kept}.items()))
        TARGET.write_text(HEAD + yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
