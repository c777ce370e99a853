"""Is the confidence in a verdict the share of verdicts that are right? With 1, 4 and 8 references, on products left out in turn.

    .venv/bin/python benchmarks/confidence.py ../shared/data [--each 10] [--out FILE]

Up to so many good and defective test images of each category of *train*, *dev* and *test*, with references drawn by seed. The
margin of a verdict is the distance between score and threshold, in units of the references' scatter. The odds that the verdict is
right are taken for (1 + margin) to a power, which is fitted on all categories but one and measured on that one. Beside it stand
the power that ships, the margin as log-odds, and the plainest rule: the share of right verdicts, for all the same. `--out`
keeps the margins, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path

import numpy as np

SHOTS = (1, 4, 8)
GROUPS = ("train", "dev", "test")


def margins(data: Path, each: int, kept: Path | None) -> list[tuple[str, int, bool, float]]:
    """Category, number of references, label and margin of each part."""
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.images import load_image

    done = {}
    if kept and kept.exists():
        done = dict(json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines())
    extractor, rows = EvidenceExtractor(), []
    for group in GROUPS:
        dataset = open_dataset(data / group)
        for category in dataset.categories:
            rng = random.Random(category)
            normals = [sample.image for sample in dataset.normals(category)]
            tests = sorted(dataset.samples(category, "test"), key=lambda sample: sample.id)
            chosen = []
            for state in (True, False):
                own = [sample for sample in tests if sample.anomalous is state]
                chosen += rng.sample(own, min(each, len(own)))
            if len({sample.anomalous for sample in chosen}) < 2 or len(normals) <= SHOTS[-1]:
                continue
            for shots in SHOTS:
                key = f"{group}/{category}/{shots}"
                if key not in done:
                    references = rng.sample(normals, shots)
                    bank = extractor.prepare([load_image(path) for path in references])
                    found = [
                        (bool(sample.anomalous), extractor.extract(load_image(sample.image), bank).margin)
                        for sample in chosen
                        if sample.image not in references
                    ]
                    done[key] = found
                    if kept:
                        with kept.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps([key, found]) + "\n")
                    print(key, flush=True)
                rows += [(category, shots, state, margin) for state, margin in done[key]]
    return rows


def fitted(right: np.ndarray, size: np.ndarray) -> float:
    """The power with the least log loss for "the verdict is right"."""
    from scipy.optimize import minimize_scalar

    return float(
        minimize_scalar(lambda f: np.mean(np.logaddexp(0, np.where(right, -f, f) * np.log1p(size))), (0.1, 1)).x
    )


def chance(size: np.ndarray, power: float) -> np.ndarray:
    """That a verdict is right."""
    return 1 / (1 + (1 + size) ** -power)


def measured(right: np.ndarray, chances: np.ndarray) -> str:
    """Mean confidence, log loss and calibration error (ten bins of equal width)."""
    from sage_ad.evaluation.reports.metrics import expected_calibration_error, reliability

    chances = np.clip(chances, 1e-4, 1 - 1e-4)
    loss = -np.mean(np.log(np.where(right, chances, 1 - chances)))
    error = expected_calibration_error(reliability(chances, right))
    return f"{chances.mean():.3f} | {loss:.3f} | {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    from sage_ad.vlm.evidence.extractor import CONFIDENCE

    rows = margins(args.data, args.each, args.out)
    names, shots, states, values = (np.array(column) for column in zip(*rows, strict=True))
    right, size = (values > 0) == states, np.abs(values)
    print(f"load average {os.getloadavg()[0]:.1f}; {len(rows)} verdicts on {len(np.unique(names))} categories; power of all "
          f"together {fitted(right, size):.3f}\n")  # fmt: skip
    print("| references | right | confidence from | mean | log loss | calibration error |\n|---|---|---|---|---|---|")
    for number in SHOTS:
        of = shots == number
        left_out, plain = np.zeros(len(rows)), np.zeros(len(rows))
        for name in np.unique(names):
            others = of & (names != name)
            power = fitted(right[names != name], size[names != name])
            left_out[names == name] = chance(size[names == name], power)
            plain[names == name] = right[others].mean()
        ways = {
            "the margin as log-odds": 1 / (1 + np.exp(-size)),
            "fitted on the other categories": left_out,
            f"as shipped ({CONFIDENCE})": chance(size, CONFIDENCE),
            "the share of the others that is right": plain,
        }
        for way, chances in ways.items():
            print(f"| {number} | {right[of].mean():.3f} | {way} | {measured(right[of], chances[of])} |")


if __name__ == "__main__":
    main()
