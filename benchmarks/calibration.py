"""Refits how margins become probabilities in a shipped checkpoint, and shows on a set of its own how good they are.

    .venv/bin/python benchmarks/calibration.py ../shared/data/train --check ../shared/data/dev
    .venv/bin/python benchmarks/calibration.py ../shared/data/train --check ../shared/data/dev --write

Needed whenever the evidence changes: its margins then mean something else, while the trained weights stay. The parts are
those that `sage-train sft` measures with the options of the model card. What is fitted ships, so the first set must be
*train*. Up to 20 good and 20 defective test images of each headline category of the second set are measured with one
reference and with none; the figures are means over its categories.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from detection import HEADLINE

if TYPE_CHECKING:
    from sage_ad.alignment.data.features import VisualInputCache

SYNTHETIC, PASTED, LIMIT, SEED = 300, 30, 15, 1
"""The options of the model card."""
TESTS = 20
Rows = list[tuple[str, bool, float]]
"""Category, label and margin of parts."""


def fitted(data: Path, cache: VisualInputCache) -> dict[str, list[float]]:
    """The calibration that stage 1 would write."""
    from sage_ad.alignment.options import Stage1Run
    from sage_ad.alignment.sft.run import calibrated, labelled_parts

    run = Stage1Run(data=(data,), synthetic=SYNTHETIC, pasted=PASTED, limit=LIMIT, seed=SEED)
    return calibrated(labelled_parts(run), cache)


def margins(data: Path, cache: VisualInputCache) -> dict[str, Rows]:
    """Margins of test images of the headline categories, with one reference and with none."""
    from sage_ad.alignment.data.labelled import real_parts
    from sage_ad.evaluation.datasets import open_dataset

    parts = list(real_parts(open_dataset(data, categories=HEADLINE.get(data.name)), limit=TESTS))
    return {
        compared: [
            (p.category, p.anomalous, cache.get(p.picture, p.reference if given else None).margin) for p in parts
        ]
        for compared, given in (("references", True), ("builtin", False))
    }


def figures(rows: Rows, factor: float) -> dict[str, float]:
    """Means over categories; the calibration error is that of all parts together, as `sage-eval compare` has it."""
    from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
    from sklearn.utils.class_weight import compute_sample_weight

    from sage_ad.evaluation.reports.metrics import expected_calibration_error, reliability

    names, states, values = (np.array(column) for column in zip(*rows, strict=True))
    chances = 1 / (1 + np.exp(-factor * values))
    columns: dict[str, list[float]] = {"AUROC": [], "balanced accuracy": [], "log loss": []}
    for own in (names == name for name in np.unique(names)):
        state, even = states[own], compute_sample_weight("balanced", states[own])
        columns["AUROC"].append(roc_auc_score(state, values[own]))
        columns["balanced accuracy"].append(balanced_accuracy_score(state, values[own] > 0))
        columns["log loss"].append(log_loss(state, chances[own], sample_weight=even))
    error = expected_calibration_error(reliability(np.maximum(chances, 1 - chances), (values > 0) == states))
    assert error is not None
    return {name: float(np.mean(column)) for name, column in columns.items()} | {"calibration error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="what is fitted on, beside drawn and pasted parts")
    parser.add_argument("--check", type=Path, help="set on which the probabilities are measured")
    parser.add_argument("--write", action="store_true", help="write the fit into the shipped checkpoint")
    args = parser.parse_args()
    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.vlm.sage.checkpoint import BEST, FOLDER, SETTINGS

    cache, file = VisualInputCache(), FOLDER / BEST / SETTINGS
    settings = json.loads(file.read_text(encoding="utf-8"))
    calibrations = {"as shipped": settings["config"]["calibration"], "refitted": fitted(args.train, cache)}
    for name, calibration in calibrations.items():
        print(f"{name}: {calibration}")
    if args.check:
        for compared, rows in margins(args.check, cache).items():
            print(f"\n{compared}, {len(rows)} images of {args.check.name}")
            for name, calibration in calibrations.items():
                values = figures(rows, calibration[compared][0])
                print(f"  {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in values.items()))
    if args.write:
        settings["config"]["calibration"] = calibrations["refitted"]
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        print(f"\nWritten to {file}")


if __name__ == "__main__":
    main()
