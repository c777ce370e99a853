"""Trains the head that tells kinds of defects (vlm/sage/defect_kinds.safetensors), and says how far it goes.

    .venv/bin/python benchmarks/train_defect_kinds.py --train ../shared/data/train --dev ../shared/data/dev

It learns from drawn parts and from defects pasted on good parts of *train*; the figures are for products that it did not
learn from (each product left out in turn), and for the typed defects of *dev*. `--write` writes the weights.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

STRENGTH = 0.003
"""Inverse of the regularisation (chosen on left-out drawn products among 0.003, 0.01, 0.03 and 0.1)."""


def kind_of(defect: str | None) -> str | None:
    """One of the seven kinds for a defect's name, or None."""
    from sage_ad.vlm.sage.visual_inputs import KINDS

    name = (defect or "").casefold()
    if name.startswith("missing"):
        return "missing part"
    return next((kind for kind in KINDS if kind == name), None)


def gathered(parts: Any, cache: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, kinds and categories of the defective parts among them."""
    from sage_ad.alignment.data.questions import Stage1Settings, seeded
    from sage_ad.vlm.sage.visual_inputs import kind_features

    settings, rows = Stage1Settings(seed=1), []
    for part in parts:
        if (kind := kind_of(part.defect)) is not None:
            shown = seeded(settings.seed, "part", part.group).random() < settings.one_shot
            visual = cache.get(part.picture, part.reference if shown else None)
            rows.append((kind_features(visual).numpy(), kind, part.category))
    inputs, kinds, categories = zip(*rows, strict=True)
    return np.stack(inputs), np.array(kinds), np.array(categories)


def fitted(inputs: np.ndarray, kinds: np.ndarray) -> Any:
    """Standardised multinomial logistic regression, kinds weighed alike."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=3000)
    return make_pipeline(StandardScaler(), head).fit(inputs, kinds)


def left_out(inputs: np.ndarray, kinds: np.ndarray, categories: np.ndarray) -> tuple[float, float]:
    """Accuracy, plain and balanced over kinds, for categories that were left out in turn."""
    from sklearn.model_selection import LeaveOneGroupOut

    said = np.empty(len(kinds), object)
    for learnt, asked in LeaveOneGroupOut().split(inputs, kinds, categories):
        said[asked] = fitted(inputs[learnt], kinds[learnt]).predict(inputs[asked])
    return float((said == kinds).mean()), float(np.mean([(said[kinds == k] == k).mean() for k in np.unique(kinds)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path)
    parser.add_argument("--drawn", type=int, default=500)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    import torch
    from safetensors.torch import save_file

    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.alignment.data.labelled import drawn_parts, pasted_parts, real_parts
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.vlm.sage.visual_inputs import HEAD_FILE, KINDS, kind_features

    cache = VisualInputCache()
    parts = [*drawn_parts(args.drawn, seed=1), *pasted_parts(open_dataset(args.train), seed=1, limit=60)]
    inputs, kinds, categories = gathered(parts, cache)
    print(f"{len(kinds)} defects: {dict(Counter(kinds.tolist()))}")
    plain, balanced = left_out(inputs, kinds, categories)
    print(f"products left out in turn: accuracy {plain:.3f}, balanced over kinds {balanced:.3f} (chance {1 / 7:.3f})")
    model = fitted(inputs, kinds)
    if args.dev:
        seen: dict[tuple[str, str], Counter[str]] = {}
        for part in real_parts(open_dataset(args.dev), seed=1, limit=20):
            if part.anomalous and part.defect:
                visual = cache.get(part.picture, part.reference)
                said = str(model.predict(kind_features(visual).numpy()[None])[0])
                seen.setdefault((part.category, part.defect), Counter())[said] += 1
        for (category, defect), counts in seen.items():
            print(f"{category}, {defect}: {dict(counts)}")
    if args.write:
        scaler, head = model[0], model[1]
        assert tuple(head.classes_) == KINDS
        arrays = {"mean": scaler.mean_, "spread": scaler.scale_, "weight": head.coef_, "bias": head.intercept_}
        save_file({n: torch.tensor(np.ascontiguousarray(a), dtype=torch.float32) for n, a in arrays.items()}, HEAD_FILE)
        print(f"Written: {HEAD_FILE.name}, {HEAD_FILE.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
