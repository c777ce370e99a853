"""Fits `evaluation/judge/score_model.yaml`: what each feature weighs when an answer is compared with the gold answer.

    python -m benchmarks.train_score_model --keep FOLDER --out evaluation/judge/score_model.yaml
    python -m benchmarks.train_score_model --keep FOLDER --each     every pool judged by weights fitted without it

Three linear models by penalised maximum likelihood (scikit-learn, logistic and softmax): is the verdict right; and on defective
and on normal parts, does an answer with the right verdict tell the gold answer's particulars, too few, or others? The rank in a
pool says it: best to worst they are the full answer, the vague one, the right verdict with wrong particulars, the wrong
verdict. To the pools come two made answers a line: the gold answer copied, and copied with its yes or no turned round.

The verdict's weights are fitted on pools that the answer classifier has not been trained on, since it is surer of itself on the
others; the content's weights on all. `--keep` holds what was found in each pool (`PICKLE`), which takes most of the time: about
three minutes on one idle core; the fit takes seconds and has no chance in it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import JudgeRequest
    from sage_ad.evaluation.judge.features import Features
    from sage_ad.evaluation.judge.score_model import ScoreModel

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
UNSEEN = ("third", "training_a", "training_b")
POOLS = (*UNSEEN, "second", "fourth", "training", "first")
VERDICT_PENALTY, CONTENT_PENALTY = 10.0, 20.0
COPY, TURNED = -1, -2
OPENING = re.compile(r"^(yes|no)\b[\s,.;:-]*", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One answer with its features.

    Attributes:
        line: number of its line in the pool.
        rank: 0 (best) to the last; COPY for the gold answer itself, TURNED for the gold answer with the verdict turned.
        last: whether it has the wrong verdict.
        found: what rules and answer classifier find in it.
        verdict, content: its features.
        before: mean level without the score model.
        wrong: mean level if its verdict is taken to be wrong.
    """

    line: int
    rank: int
    last: bool
    found: Features
    verdict: dict[str, float]
    content: dict[str, float]
    before: float
    wrong: float


@dataclass
class Pool:
    """One writer's answers."""

    name: str
    rows: list[Row] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------------ features


def copies(gold: Any) -> list[tuple[int, str]]:
    """The gold answer as it is, and with its yes or no turned round."""
    opening = OPENING.match(gold.reference_answer or "")
    if not opening:
        return []
    rest = gold.reference_answer[opening.end() :]
    turned = "No" if opening.group(1).lower() == "yes" else "Yes"
    return [(COPY, gold.reference_answer)] + ([(TURNED, f"{turned}. {rest}")] if len(rest) > 2 else [])


def find(name: str) -> Pool:
    """Reads a pool and finds the features of every answer."""
    return Pool(name, rows_of(*answers(name)))


def answers(name: str) -> tuple[list[tuple[int, int, bool]], list[JudgeRequest]]:
    """All answers of a pool, and the copies of its gold answers, each with its line, its rank and whether it is wrong."""
    from sage_ad.evaluation.ranked import read_ranked
    from sage_ad.evaluation.reports.judge_run import requests_of

    path = DATA / f"ranked_{name}.jsonl"
    wanted, requests = [], []
    for number, line in enumerate(read_ranked(path)):
        asked = requests_of(line, path.parent)
        for rank, request in enumerate(asked):
            wanted.append((number, rank, rank == len(asked) - 1))
            requests.append(request)
        for rank, text in copies(line.gold) if name in UNSEEN else []:
            wanted.append((number, rank, rank == TURNED))
            requests.append(replace(asked[0], answer=text))
    return wanted, requests


def rows_of(wanted: Sequence[tuple[int, int, bool]], requests: Sequence[JudgeRequest]) -> list[Row]:
    """The features of answers; those that cannot be compared with a gold answer are left out."""
    from sage_ad.evaluation.judge.features import content_features, reference_of, verdict_features
    from sage_ad.evaluation.judge.local import LocalJudge, answer_features, find_faults, score_of, with_other_state

    cases, similarity, tokens = LocalJudge().prepare(requests)
    rows = []
    for (number, rank, last), one in zip(wanted, cases, strict=True):
        if one.gold.state is None or reference_of(one.request, one.gold) is None:
            continue
        case, found = answer_features(one, similarity)
        before, wrong = (
            score_of(find_faults(case, fused, similarity), case.gold).mean or 0.0
            for fused in (found.fused, with_other_state(found.fused, case.gold))
        )
        verdict, content = verdict_features(found, tokens), content_features(found, tokens)
        rows.append(Row(number, rank, last, found, verdict, content, before, wrong))
    return rows


def kept(name: str, folder: Path | None) -> Pool:
    """What was found in a pool, from the folder where it has been kept."""
    file = folder / f"{name}.pickle" if folder else None
    if file and file.exists():
        return pickle.loads(file.read_bytes())  # written by this script alone
    pool = find(name)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(pool))
    print(f"{name}: {len(pool.rows)} answers", flush=True)
    return pool


# ------------------------------------------------------------------------------------------------------------------ fit


def linear(features: Sequence[dict[str, float]], classes: Sequence[int], penalty: float) -> dict[str, Any]:
    """A fitted model as it is shipped: bias and weights by name, for features as they come (not standardised)."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    names = list(features[0])
    rows = np.array([[one[name] for name in names] for one in features], dtype=float)
    middle, spread = rows.mean(axis=0), rows.std(axis=0)
    spread[spread < 1e-6] = 1e6  # a feature that never differs says nothing
    # Two classes are fitted by one vector, whose square is half of what both of them would pay.
    strength = (2 if len(set(classes)) == 2 else 1) / penalty
    model = LogisticRegression(C=strength, max_iter=500, tol=1e-8).fit((rows - middle) / spread, classes)
    weights = (model.coef_ / spread).T
    bias = model.intercept_ - middle @ weights
    return {
        "bias": [round(float(one), 4) for one in bias],
        "weights": {name: [round(float(one), 4) for one in row] for name, row in zip(names, weights, strict=True)},
    }


def fit(pools: Sequence[Pool]) -> dict[str, Any]:
    """All weights, as `score_model.yaml` holds them."""
    unseen = [row for pool in pools if pool.name in UNSEEN for row in pool.rows]
    verdict = linear([row.verdict for row in unseen], [int(not row.last) for row in unseen], VERDICT_PENALTY)
    content = {}
    for state in ("anomalous", "normal"):
        rows = [row for pool in pools for row in pool.rows if row.found.gold.state == state and not row.last]
        classes = [0 if row.rank == COPY else min(2, row.rank) for row in rows]
        content[state] = linear([row.content for row in rows], classes, CONTENT_PENALTY)
    return {"verdict": verdict, "content": content}


# -------------------------------------------------------------------------------------------------------------- measure


def mean_of(row: Row, model: ScoreModel) -> float:
    """Mean level of an answer, judged with a score model."""
    from sage_ad.evaluation.judge.local import score_of
    from sage_ad.evaluation.judge.score_model import Comparison, softmax
    from sage_ad.evaluation.judge.score_resolution import has_right_verdict, is_hard_to_make_out, resolve_faults

    right = round(model.verdict(row.verdict)[0], 2)
    chances = softmax(model.content[str(row.found.gold.state)](row.content))
    comparison = Comparison(right, *(round(one, 2) for one in chances))
    if not has_right_verdict(row.found, comparison):
        placed = row.found.gold.state == "normal" or bool(row.found.gold.cells)
        # `wrong_verdict` takes the place one level up, which is a third of a level of the mean.
        return row.wrong + (1 / 3 if placed and is_hard_to_make_out(row.found, comparison) else 0.0)
    mean = score_of(resolve_faults(row.found, comparison), row.found.gold).mean
    return mean if mean is not None else 0.0


def order(rows: Sequence[Row], means: Sequence[float]) -> dict[str, Any]:
    """Pairwise figures of a pool; made answers are left out."""
    from sage_ad.evaluation.reports.judge_run import figures, pairs_of

    lines: dict[int, list[float]] = {}
    for row, mean in zip(rows, means, strict=True):
        if row.rank >= 0:
            lines.setdefault(row.line, []).append(mean)
    return figures(pairs_of(list(lines.values())))


def measure(pools: Sequence[Pool]) -> None:
    """Every pool judged by weights that were fitted without it, beside the judge without a score model."""
    from sage_ad.evaluation.judge.score_model import score_model_from

    print("pool: before (all / adjacent) -> after; verdicts read rightly; turned copies that pass")
    for pool in pools:
        model = score_model_from(fit([other for other in pools if other is not pool]))
        means = [mean_of(row, model) for row in pool.rows]
        one, two = order(pool.rows, [row.before for row in pool.rows]), order(pool.rows, means)
        rows = [row for row in pool.rows if row.rank >= 0]
        right = sum((model.verdict(row.verdict)[0] > 0) != row.last for row in rows) / len(rows)
        turned = [mean for row, mean in zip(pool.rows, means, strict=True) if row.rank == TURNED]
        passed = sum(mean > 2.5 for mean in turned)
        cells = [f"{entry[key]['value']:.3f}" for entry in (one, two) for key in ("pairwise_all", "pairwise_adjacent")]
        print(
            f"{pool.name}: {cells[0]} / {cells[1]} -> {cells[2]} / {cells[3]}; {right:.3f}; {passed} of {len(turned)}"
        )


def main() -> None:
    """Fits the weights on all pools and writes them, or measures each pool with weights fitted without it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder that holds what was found in the pools")
    parser.add_argument("--out", type=Path, help="file to write, .yaml")
    parser.add_argument("--each", action="store_true", help="judge every pool by weights fitted without it")
    wanted = parser.parse_args()
    import torch
    import yaml

    torch.set_num_threads(1)
    pools = [kept(name, wanted.keep) for name in POOLS]
    if wanted.each:
        measure(pools)
    if wanted.out:
        head = "# Weights of the score model, by feature; written by benchmarks/train_score_model.py.\n"
        text = yaml.safe_dump(json.loads(json.dumps(fit(pools))), sort_keys=False, default_flow_style=None, width=120)
        wanted.out.write_text(head + text, encoding="utf-8")
        print(f"written: {wanted.out}")


if __name__ == "__main__":
    main()
