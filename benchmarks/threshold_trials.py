"""Can a threshold for one reference be told better? Regressions on what one picture tells, each category left out in turn.

    .venv/bin/python benchmarks/threshold_trials.py ../shared/data/dev ../shared/data/train --out runs/thresholds

Measures 20 good and 20 defective images a category against three draws of one reference (kept in --out), then fits the
state on score, self-similarity of the reference, quantiles of the evidence map and the zero-shot score. A form that
does better than the product's rule on categories that it was not fitted on would be worth taking.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

QUANTILES = (10, 25, 50, 75, 90, 95, 99)
FORMS: dict[str, tuple[str, ...]] = {
    "score": ("score",),
    "score, self": ("score", "self"),
    **{f"score, map's {q} %": ("score", f"q{q}") for q in QUANTILES},
    "score, self, map's median": ("score", "self", "q50"),
    "score, self, map's 90 %": ("score", "self", "q90"),
    "score, self, looks": ("score", "self", "looks"),
    "score, self, median, 90 %, looks": ("score", "self", "q50", "q90", "looks"),
    "all": ("score", "self", *(f"q{q}" for q in QUANTILES), "looks"),
}


def measured(data: Path, draws: int, count: int) -> Iterator[dict[str, Any]]:
    """One row an image and draw: state, category, score, threshold, and what else one picture tells."""
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.evidence.thresholds import ONE_REFERENCE
    from sage_ad.vlm.images import load_image

    extractor, dataset = EvidenceExtractor(), open_dataset(data)
    factor, offset = ONE_REFERENCE
    for category in dataset.categories:
        tests = sorted(dataset.samples(category, "test"), key=lambda sample: sample.id)
        random.Random(category).shuffle(tests)
        chosen = [sample for state in (False, True) for sample in [s for s in tests if s.anomalous is state][:count]]
        pool = sorted(dataset.normals(category), key=lambda sample: sample.id)
        if not any(sample.anomalous is False for sample in chosen):
            continue
        looks = {sample.id: extractor.extract(load_image(sample.image)).margin for sample in chosen}
        for draw in range(draws):
            print(f"{data.name}, {category}, draw {draw}", file=sys.stderr, flush=True)
            common = random.Random(f"{draw}/{category}").sample(pool, 1)[0].image if pool else None
            bank = extractor.prepare([load_image(common)]) if common else None
            for sample in chosen:
                if sample.reference:
                    if draw:
                        continue
                    bank = extractor.prepare([load_image(sample.reference)])
                evidence = extractor.extract(load_image(sample.image), bank)
                levels = np.percentile(evidence.distances.float().numpy(), QUANTILES)
                yield {
                    "category": category, "anomalous": bool(sample.anomalous), "score": evidence.score,
                    "threshold": evidence.threshold, "self": (evidence.threshold - offset) / factor,
                    "looks": looks[sample.id], **{f"q{q}": float(v) for q, v in zip(QUANTILES, levels, strict=True)},
                }  # fmt: skip


def left_out(columns: np.ndarray, state: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Decision values of a logistic regression that was fitted on all categories but the row's own."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    weight = np.zeros(len(state))
    for name in np.unique(category):
        for value in (False, True):
            cell = (category == name) & (state == value)
            weight[cell] = 1 / max(cell.sum(), 1)
    result = np.zeros(len(state))
    for name in np.unique(category):
        other = category != name
        scale = StandardScaler().fit(columns[other])
        share = weight[other] * other.sum() / weight[other].sum()
        model = LogisticRegression(C=10.0).fit(scale.transform(columns[other]), state[other], sample_weight=share)
        result[~other] = model.decision_function(scale.transform(columns[~other]))
    return result


def balanced(decision: np.ndarray, state: np.ndarray, category: np.ndarray) -> list[float]:
    """Balanced accuracy of each category."""
    cells = [category == name for name in np.unique(category)]
    return [float(((decision[c & state] > 0).mean() + (decision[c & ~state] <= 0).mean()) / 2) for c in cells]


def best_possible(score: np.ndarray, state: np.ndarray, category: np.ndarray) -> list[float]:
    """The same with the threshold that suits each category best, chosen in hindsight."""
    found = []
    for name in np.unique(category):
        cell = category == name
        lines = np.concatenate(([-np.inf], np.unique(score[cell])))
        found.append(max(balanced(score[cell] - line, state[cell], category[cell])[0] for line in lines))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--images", type=int, default=20, help="good and defective images a category")
    parser.add_argument("--out", type=Path, default=Path("runs/thresholds"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for data in args.data:
        kept = args.out / f"{data.resolve().name}-{args.draws}-{args.images}.json"
        if not kept.is_file():
            kept.write_text(json.dumps(list(measured(data, args.draws, args.images))), encoding="utf-8")
        rows += json.loads(kept.read_text(encoding="utf-8"))
    state = np.array([row["anomalous"] for row in rows])
    category = np.array([row["category"] for row in rows])
    score = np.array([row["score"] for row in rows])
    print("| threshold | mean | " + " | ".join(np.unique(category)) + " |")
    print("|---" * (2 + len(np.unique(category))) + "|")

    def line(name: str, values: list[float]) -> None:
        print(f"| {name} | {np.mean(values):.3f} | " + " | ".join(f"{value:.2f}" for value in values) + " |")

    line("the product's rule", balanced(score - np.array([row["threshold"] for row in rows]), state, category))
    line("best of each category, in hindsight", best_possible(score, state, category))
    for name, fields in FORMS.items():
        columns = np.array([[row[field] for field in fields] for row in rows])
        line(name, balanced(left_out(columns, state, category), state, category))


if __name__ == "__main__":
    main()
