"""Trials of how the explanations of a patch are put together (docs/detection.md): image AUROC on *dev*.

    .venv/bin/python benchmarks/evidence_trials.py ../shared/data/dev --out runs/evidence-trials

The distances of every explanation are measured once an image and kept in --out (about 0.3 s an image), so that a new
way to put them together costs seconds. Never run it on *test*: it is there to choose by.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HEADLINE = ("solar_cell_mono", "solar_cell_poly", "screw", "pump_impeller", "fabric_02", "fabric_03")
PER_CLASS, DRAWS = 30, 2
Row = dict[str, Any]


def measured(root: Path, out: Path, category: str) -> list[Row]:
    """Distances of each explanation for the test images of a category, from disk or measured now.

    Keys of a row: `anywhere`, `place`, `mirror`, `plain` and `looks`, each (h, w); `anomalous`, `draw`.
    """
    from sage_ad.evaluation.datasets import open_dataset

    file = out / f"{category}.npz"
    if file.exists():
        kept = np.load(file, allow_pickle=False)
        return [{name: kept[f"{i}/{name}"] for name in KEPT} for i in range(int(kept["count"]))]
    dataset = open_dataset(root, categories=[category])
    chosen: list[Any] = []
    for state in (False, True):
        own = sorted((s for s in dataset.samples(category, "test") if s.anomalous is state), key=lambda s: s.id)
        random.Random(f"{category}/{state}").shuffle(own)
        chosen += own[:PER_CLASS]
    if len({sample.anomalous for sample in chosen}) < 2:
        return []
    pool = sorted(dataset.normals(category), key=lambda s: s.id)
    draws = [random.Random(f"{draw}/{category}").choice(pool).image for draw in range(DRAWS)]
    rows = []
    for sample in chosen:
        for draw, reference in enumerate([sample.reference] if sample.reference else draws):
            rows.append({**_distances(sample.image, reference), "anomalous": bool(sample.anomalous), "draw": draw})
    out.mkdir(parents=True, exist_ok=True)
    arrays = {f"{i}/{name}": np.asarray(row[name]) for i, row in enumerate(rows) for name in KEPT}
    np.savez_compressed(file, count=np.int64(len(rows)), **arrays)
    return rows


KEPT = ("anywhere", "place", "mirror", "plain", "looks", "anomalous", "draw")
_banks: dict[Path, Any] = {}
_extractor: Any = None


def _distances(image: Path, reference: Path) -> dict[str, np.ndarray]:
    from sage_ad.vlm.evidence.defect_head import defect_logits
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.evidence.memory_bank import View
    from sage_ad.vlm.evidence.patch_matching import mirror_similarity, patch_similarity, window_similarity
    from sage_ad.vlm.evidence.score_terms import WINDOW, on_grid
    from sage_ad.vlm.images import even_exposure, load_image

    global _extractor
    _extractor = _extractor or EvidenceExtractor()
    if reference not in _banks:
        _banks[reference] = _extractor.prepare([load_image(reference)])
    bank, encoder = _banks[reference], _extractor.encoder
    seen = encoder.encode([even_exposure(load_image(image))], None, context=True)
    look = View(encoder, seen[0], seen.context[0])
    shape = look.tokens.shape[:2]
    plain = bank.features[0].flatten(0, 1)
    found = {
        "anywhere": 1 - patch_similarity(look.tokens.flatten(0, 1), bank.patches).reshape(shape),
        "place": 1 - window_similarity(look.tokens, on_grid(bank.grids[0], shape), WINDOW),
        "mirror": 1 - mirror_similarity(look.tokens, WINDOW),
        "plain": 1 - patch_similarity(look.features.flatten(0, 1), plain).reshape(shape),
        "looks": defect_logits(seen.context[0]),
    }
    return {name: value.numpy().astype(np.float16) for name, value in found.items()}


def top(values: np.ndarray, share: float) -> float:
    """Mean of the highest share."""
    ordered = np.sort(values.astype(np.float32).ravel())[::-1]
    return float(ordered[: max(1, round(share * ordered.size))].mean())


def weights(row: Row, place: tuple[float, float] | None, mirror: tuple[float, float] | None) -> tuple[float, float]:
    """Applicability of the same place and of the mirror (1 where a rule is None)."""

    def one(name: str, rule: tuple[float, float] | None) -> float:
        if rule is None:
            return 1.0
        excess = float(np.median(row[name].astype(np.float32) - row["anywhere"].astype(np.float32)))
        return float(1 / (1 + np.exp((excess - rule[0]) / rule[1])))

    return one("place", place), one("mirror", mirror)


def combined(
    place: tuple[float, float] | None = None,
    mirror: tuple[float, float] | None = None,
    plain: float = 0.0,
    looks: float = 0.0,
    share: float = 0.003,
) -> Callable[[Row], float]:
    """A score from weighted explanations.

    Args:
        place, mirror: median excess at which the explanation counts half, and softness; None always counts it.
        plain: weight of the plain match.
        looks: weight of the zero-shot log-odds.
        share: share of the highest patches.
    """

    def score(row: Row) -> float:
        same, own = weights(row, place, mirror)
        parts = {name: row[name].astype(np.float32) for name in ("anywhere", "place", "mirror", "plain")}
        total = parts["anywhere"] + same * parts["place"] + own * parts["mirror"] + plain * parts["plain"]
        seen = top(row["looks"], 0.01) + 10 * top(row["mirror"], 0.01)
        return top(total / (1 + same + own + plain), share) + looks * seen

    return score


GATES: dict[str, Any] = {"place": (0.08, 0.04), "mirror": (0.10, 0.05)}
TRIALS: dict[str, Callable[[Row], float]] = {
    "plain match, highest 1 %": lambda row: top(row["plain"], 0.01),
    "three explanations, equal (until now)": combined(),
    "+ weights by applicability": combined(**GATES),
    "+ plain match": combined(**GATES, plain=1.0),
    "+ looks (taken)": combined(**GATES, plain=1.0, looks=0.025),
    "looks, without the plain match": combined(**GATES, looks=0.025),
    "plain and looks, without applicability": combined(plain=1.0, looks=0.025),
    "taken, looks 0.01": combined(**GATES, plain=1.0, looks=0.01),
    "taken, looks 0.04": combined(**GATES, plain=1.0, looks=0.04),
    "taken, later gates (0.12, 0.15)": combined((0.12, 0.04), (0.15, 0.05), 1.0, 0.025),
    "taken, highest 1 %": combined(**GATES, plain=1.0, looks=0.025, share=0.01),
}


def auroc(rows: list[Row], score: Callable[[Row], float]) -> float:
    """Image AUROC, mean over the draws of the reference."""
    from sage_ad.evaluation.reports.metrics import rank_auroc

    values = []
    for draw in sorted({int(row["draw"]) for row in rows}):
        own = [row for row in rows if int(row["draw"]) == draw]
        value = rank_auroc(np.array([bool(r["anomalous"]) for r in own]), np.array([score(r) for r in own]))
        values.append(float(value if value is not None else np.nan))
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-trials"))
    args = parser.parse_args()
    from sage_ad.evaluation.datasets import open_dataset

    data: dict[str, list[Row]] = {}
    for category in open_dataset(args.data).categories:
        rows = measured(args.data, args.out, category)
        if rows:
            data[category] = rows
            print(f"{category}: {len(rows)} comparisons", flush=True)
        _banks.clear()
    print(f"\n| with one reference | headline | others | all | {' | '.join(data)} |")
    print("|---" * (4 + len(data)) + "|")
    for name, score in TRIALS.items():
        values = {category: auroc(rows, score) for category, rows in data.items()}
        head = [v for c, v in values.items() if c in HEADLINE]
        rest = [v for c, v in values.items() if c not in HEADLINE]
        means = [np.mean(part) if part else np.nan for part in (head, rest, [*values.values()])]
        print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in [*means, *values.values()]) + " |", flush=True)


if __name__ == "__main__":
    main()
