"""Which mechanisms beat the plain match, and on which products do they lose? Image AUROC beside it (docs/detection.md).

    .venv/bin/python benchmarks/evidence_trials.py ../shared/data --out runs/evidence-trials
    .venv/bin/python benchmarks/evidence_trials.py ../shared/data --groups test,train        # nine of the eighteen

Every category of *train*, *dev* and *test* that has good and defective test images (never *fresh*: it is there to
report). At most 20 good and 20 defective test images and 12 references a category, five draws of 1, 4 and 8 of these.
Distances of every image to every reference are measured once and kept in --out (about a minute a category on an idle
core), so that a new way to put them together costs seconds. A mechanism earns its place if the mean rises at 1, 4 and 8
references and no category loses more than 1.5 points.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GROUPS, SHOTS, DRAWS = ("dev", "test", "train"), (1, 4, 8), 5
TESTS, REFERENCES = 20, 12
SHARE = 0.004
WINDOWS = (0.05, 0.12, 0.25)
"""Half sides of the windows for a match at the same place, as shares of the picture's side."""
THINNED = 4
"""One in so many patches of each turned or mirrored copy is kept."""
MAPS = ("plain", "even", "whitened", "fine", "turned", *(f"place {w}" for w in WINDOWS), "fine place", "reverse")
"""Distances to each reference: as photographed; with one exposure (all that follow but `whitened`); under the
references' half-shrunk patch covariance; stride 8 weighed 3 : 1; to turned copies so weighed; near the same place
(`fine`: weighed); from the reference's patches to the image."""
Data = dict[str, Any]


def measured(root: Path, out: Path, groups: Sequence[str] = GROUPS) -> Iterator[tuple[str, Data]]:
    """Distances of each category, from disk or measured now.

    Keys: `anomalous`; `own` (each test image has a reference of its own); for image i (the tests, then the references)
    `i/shape`, `i/MAP` (references, patches) and `i/index` (nearest reference patch of `even`); for tests `i/mirror` and
    `i/looks` (patches).
    """
    from sage_ad.evaluation.datasets import open_dataset

    out.mkdir(parents=True, exist_ok=True)
    for group in groups:
        for category in open_dataset(root / group).categories:
            file = out / f"{category}.npz"
            if not file.exists():
                found = _measure(open_dataset(root / group, categories=[category]), category)
                if found is None:
                    continue
                np.savez_compressed(file.with_suffix(".part.npz"), **found)
                file.with_suffix(".part.npz").rename(file)
                print(f"{category}: measured", flush=True)
            with np.load(file, allow_pickle=False) as kept:
                yield category, {name: _wide(kept[name]) for name in kept.files}


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _measure(dataset: Any, category: str) -> Data | None:
    import torch
    from PIL import Image

    from sage_ad.vlm.evidence.defect_head import defect_logits
    from sage_ad.vlm.evidence.encoders import load_encoder
    from sage_ad.vlm.evidence.patch_matching import mirror_similarity
    from sage_ad.vlm.images import even_exposure, load_image

    torch.set_num_threads(1)
    tests: list[Any] = []
    for state in (False, True):
        same = sorted((s for s in dataset.samples(category, "test") if s.anomalous is state), key=lambda s: s.id)
        random.Random(f"{category}/{state}").shuffle(same)
        tests += same[:TESTS]
    own = all(sample.reference for sample in tests)
    pool = sorted(dataset.normals(category), key=lambda s: s.id)
    random.Random(category).shuffle(pool)
    references = [s.reference for s in tests] if own else [s.image for s in pool[:REFERENCES]]
    if len({sample.anomalous for sample in tests}) < 2 or not references:
        return None
    encoder = load_encoder()
    emphasis = encoder.emphasis
    assert emphasis is not None
    pictures = [load_image(sample.image) for sample in tests] + [load_image(path) for path in references]
    plain = [encoder.encode([picture])[0] for picture in pictures]
    seen = [encoder.encode([even_exposure(picture)], context=True) for picture in pictures]
    even = [features[0] for features in seen]
    copies = [
        [encoder.encode([even_exposure(picture).transpose(turn)])[0] * emphasis for turn in Image.Transpose]
        for picture in pictures[len(tests) :]
    ]
    turned = [torch.cat([g.flatten(0, 1)[i % THINNED :: THINNED] for i, g in enumerate(c)]) for c in copies]
    whitened = _whitened(plain, len(tests))
    found: Data = {"anomalous": np.array([bool(s.anomalous) for s in tests]), "own": np.bool_(own)}
    for i in range(len(tests) if own else len(pictures)):
        found[f"{i}/shape"] = np.array(even[i].shape[:2])
        rows: dict[str, list[torch.Tensor]] = {name: [] for name in (*MAPS, "index")}
        for j in [i] if own else range(len(references)):
            k = len(tests) + j
            rows["plain"].append(_nearest(plain[i], plain[k])[0])
            distance, index = _nearest(even[i], even[k])
            rows["even"].append(distance)
            rows["index"].append(index)
            rows["whitened"].append(_nearest_euclidean(whitened[i], whitened[k]))
            rows["fine"].append(_nearest(even[i] * emphasis, even[k] * emphasis)[0])
            rows["turned"].append(_nearest(even[i] * emphasis, turned[j])[0])
            for window in WINDOWS:
                rows[f"place {window}"].append(_near(even[i], even[k], window))
            rows["fine place"].append(_near(even[i] * emphasis, even[k] * emphasis, WINDOWS[0]))
            rows["reverse"].append(_nearest(even[k], even[i])[0])
        for name, values in rows.items():
            if len({len(value) for value in values}) == 1:
                found[f"{i}/{name}"] = torch.stack(values).numpy().astype(np.int16 if name == "index" else np.float16)
            else:  # the references of some categories have unlike shapes
                for j, value in enumerate(values):
                    found[f"{i}/{name}/{j}"] = value.numpy().astype(np.float16)
        if i < len(tests):
            found[f"{i}/mirror"] = (1 - mirror_similarity(even[i] * emphasis, 2)).numpy().astype(np.float16)
            context = seen[i].context
            found[f"{i}/looks"] = defect_logits(context[0]).numpy().astype(np.float16)  # type: ignore[index]
    for k in range(0 if own else min(DRAWS, len(references))):
        found[f"one/{k}"] = np.array(_one_reference(encoder, pictures[len(tests) + k]))
    return found


def _one_reference(encoder: Any, picture: Any) -> float:
    """The product's threshold from this reference alone."""
    from sage_ad.vlm.evidence.memory_bank import BankSettings, build_bank

    return build_bank(encoder, [picture], BankSettings("sage", "nearest", encoder.size, SHARE)).threshold


def _nearest(test: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    best = (test.flatten(0, -2) @ reference.flatten(0, -2).T).max(dim=1)
    return 1 - best.values, best.indices


def _near(test: torch.Tensor, reference: torch.Tensor, window: float) -> torch.Tensor:
    """Distance to the best match whose rows and columns differ by at most `window` of the side."""
    import torch

    def apart(a: int, b: int) -> torch.Tensor:
        return ((torch.arange(a)[:, None] + 0.5) / a - (torch.arange(b) + 0.5) / b).abs() > window + 1e-6

    rows, columns = (apart(test.shape[axis], reference.shape[axis]) for axis in (0, 1))
    outside = (rows[:, None, :, None] | columns[None, :, None, :]).reshape(-1, reference.shape[0] * reference.shape[1])
    similarity = test.flatten(0, 1) @ reference.flatten(0, 1).T
    return 1 - similarity.masked_fill_(outside, -1.0).amax(dim=1)


def _whitened(features: Sequence[torch.Tensor], first: int) -> list[torch.Tensor]:
    """Features under the inverse root of the covariance of all references, drawn half-way to a multiple of one."""
    import torch

    patches = torch.cat([grid.flatten(0, 1) for grid in features[first:]])
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    level = values.mean()
    matrix = (vectors * (level / (0.5 * values + 0.5 * level)).sqrt()) @ vectors.T
    return [(grid.flatten(0, 1) - patches.mean(dim=0)) @ matrix for grid in features]


def _nearest_euclidean(test: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return (test.square().sum(1) + (reference.square().sum(1) - 2 * test @ reference.T).amin(dim=1)).clamp(min=0) / 2


# --- ways to put them together: (data, image, drawn references) to a score ------------------------------------------

Score = Callable[[Data, int, Sequence[int]], float]


def top(values: np.ndarray, share: float) -> float:
    """Mean of the highest share."""
    count = max(1, round(share * values.size))
    return float(np.partition(values.ravel(), values.size - count)[values.size - count :].mean())


def explained(data: Data, image: int, drawn: Sequence[int], name: str) -> np.ndarray:
    """Distance of each patch to the nearest of the drawn references."""
    return np.asarray(data[f"{image}/{name}"][list(drawn)].min(axis=0))


def nearest(name: str, share: float, level: float = 0.0, smooth: float = 0.0) -> Score:
    """The highest share of one map, perhaps less a part of its own 95th percentile, perhaps smoothed."""
    from scipy.ndimage import gaussian_filter

    def score(data: Data, image: int, drawn: Sequence[int]) -> float:
        values = explained(data, image, drawn, name)
        if smooth:
            values = gaussian_filter(values.reshape(data[f"{image}/shape"]), smooth, mode="nearest")
        return top(values, share) - level * float(np.percentile(values, 95))

    return score


def summed(names: dict[str, float], share: float = SHARE) -> Score:
    """Weighted sum of maps."""
    return lambda data, image, drawn: top(
        np.sum([weight * explained(data, image, drawn, name) for name, weight in names.items()], axis=0), share
    )


def with_turned(share: float = SHARE) -> Score:
    """Turned and mirrored copies of the references beside them."""
    return lambda data, image, drawn: top(
        np.minimum(explained(data, image, drawn, "fine"), explained(data, image, drawn, "turned")), share
    )


def with_looks(weight: float, share: float = SHARE) -> Score:
    """What the defect head sees beside the references."""
    return lambda data, image, drawn: (
        top(explained(data, image, drawn, "even"), share) + weight * top(data[f"{image}/looks"], 0.01)
    )


def with_reverse(weight: float, share: float = SHARE) -> Score:
    """What the references have and the image lacks."""

    def lacking(data: Data, image: int, drawn: Sequence[int]) -> float:
        rows = [
            data[f"{image}/reverse"][j] if f"{image}/reverse" in data else data[f"{image}/reverse/{j}"] for j in drawn
        ]
        return min(top(row, share) for row in rows)

    return lambda data, image, drawn: (
        top(explained(data, image, drawn, "even"), share) + weight * lacking(data, image, drawn)
    )


def calibrated(weight: float, share: float = SHARE) -> Score:
    """Less what the matched patch itself leaves unexplained when its reference is compared with the others."""

    def score(data: Data, image: int, drawn: Sequence[int]) -> float:
        if len(drawn) == 1:
            return top(explained(data, image, drawn, "even"), share)
        first, rows = len(data["anomalous"]), data[f"{image}/even"][list(drawn)]
        which, usual = rows.argmin(axis=0), np.empty(rows.shape[1], np.float32)
        for row, j in enumerate(drawn):
            own = explained(data, first + j, [k for k in drawn if k != j], "even")
            here = which == row
            usual[here] = own[data[f"{image}/index"][j][here]]
        return top(rows.min(axis=0) - weight * usual, share)

    return score


def until_now(data: Data, image: int, drawn: Sequence[int]) -> float:
    """The product's method up to 0.2: four distances, weighed by whether they explain the typical patch, and looks."""
    anywhere = np.minimum(explained(data, image, drawn, "fine"), explained(data, image, drawn, "turned"))
    same, mirror = explained(data, image, drawn, "fine place"), data[f"{image}/mirror"].ravel()
    place = 1 / (1 + np.exp((np.median(same - anywhere) - 0.08) / 0.04))
    own = 1 / (1 + np.exp((np.median(mirror - anywhere) - 0.10) / 0.05))
    total = anywhere + explained(data, image, drawn, "even") + place * same + own * mirror
    looks = top(data[f"{image}/looks"], 0.01) + 10 * top(mirror, 0.01)
    return top(total / (2 + place + own), 0.003) + 0.025 * looks


TRIALS: dict[str, Score] = {
    "plain match, highest 1 %": nearest("plain", 0.01),
    "method until now": until_now,
    "highest 0.3 %": nearest("plain", 0.003),
    "highest 0.4 %": nearest("plain", 0.004),
    "highest 3 %": nearest("plain", 0.03),
    "highest 1 % less half the 95th percentile": nearest("plain", 0.01, level=0.5),
    "smoothed by 0.7 patches": nearest("plain", 0.004, smooth=0.7),
    "whitened (covariance of 12 references)": nearest("whitened", 0.004),
    "one exposure, highest 1 %": nearest("even", 0.01),
    "**one exposure, highest 0.4 %**": nearest("even", SHARE),
    "+ stride 8 weighed 3 : 1": nearest("fine", 0.004),
    "+ 3 : 1 and turned copies": with_turned(),
    "+ same place, 5 % of the side": summed({"even": 1, f"place {WINDOWS[0]}": 0.3}),
    "+ same place, 12 %": summed({"even": 1, f"place {WINDOWS[1]}": 0.3}),
    "+ same place, 25 %": summed({"even": 1, f"place {WINDOWS[2]}": 0.3}),
    "+ what the image lacks": with_reverse(0.5),
    "+ looks": with_looks(0.01),
    "+ less what good parts leave unexplained there": calibrated(0.3),
}


def draws(count: int, shots: int) -> list[list[int]]:
    """Draw k begins with reference k, so that single references differ."""
    return [[k, *random.Random(k).sample([i for i in range(count) if i != k], count - 1)][:shots] for k in range(DRAWS)]


def auroc(data: Data, shots: int, score: Score) -> float:
    """Image AUROC, mean over the draws; NaN where an image has one reference of its own."""
    from sage_ad.evaluation.reports.metrics import rank_auroc

    state = data["anomalous"]
    if data["own"]:
        chosen = [[0]] if shots == 1 else []
    else:
        chosen = draws(len([k for k in data if k.endswith("/even")]) - len(state), shots)
    values = [rank_auroc(state, np.array([score(data, i, drawn) for i in range(len(state))])) for drawn in chosen]
    return float(np.mean([v for v in values if v is not None])) if values else float("nan")


def verdicts(data: Data, shots: int) -> tuple[float, float] | None:
    """Overkill and miss at the product's threshold, mean over the draws; None where an image has its own reference."""
    from sage_ad.vlm.evidence.thresholds import threshold_from_several

    if data["own"]:
        return None
    state, count = data["anomalous"], len([k for k in data if k.endswith("/even")]) - len(data["anomalous"])
    method, rates = nearest("even", SHARE), []
    for drawn in draws(count, shots):
        if shots == 1:
            threshold = float(data[f"one/{drawn[0]}"])
        else:
            left_out = [method(data, len(state) + j, [k for k in drawn if k != j]) for j in drawn]
            threshold = threshold_from_several(left_out)[0]
        called = np.array([method(data, i, drawn) > threshold for i in range(len(state))])
        rates.append((called[~state].mean(), (~called[state]).mean()))
    overkill, miss = np.mean(rates, axis=0)
    return float(overkill), float(miss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds the groups")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-trials"))
    parser.add_argument("--groups", default=",".join(GROUPS), help="groups of categories, with commas between them")
    args = parser.parse_args()
    groups = args.groups.split(",")
    if unknown := [group for group in groups if group not in GROUPS]:
        parser.error(f"no group {unknown[0]!r}; choose among {', '.join(GROUPS)}")
    table: dict[str, dict[str, list[float]]] = {name: {} for name in TRIALS}
    at_threshold: dict[int, list[tuple[float, float]]] = {shots: [] for shots in SHOTS}
    for category, data in measured(args.data, args.out, groups):
        for name, score in TRIALS.items():
            table[name][category] = [auroc(data, shots, score) for shots in SHOTS]
        for shots in SHOTS:
            if rates := verdicts(data, shots):
                at_threshold[shots].append(rates)
    baseline = np.array([*table["plain match, highest 1 %"].values()])
    names = [*table["plain match, highest 1 %"]]
    print("| | " + " | ".join(f"{s} ref. | worst against plain" for s in SHOTS) + " |")
    print("|---" * (1 + 2 * len(SHOTS)) + "|")
    for name, cells in table.items():
        values = np.array([*cells.values()])
        lost, means = 100 * (values - baseline), np.nanmean(values, axis=0)
        worst = [f"{np.nanmin(lost[:, k]):+.1f} {names[int(np.nanargmin(lost[:, k]))]}" for k in range(len(SHOTS))]
        print(f"| {name} | " + " | ".join(f"{m:.3f} | {w}" for m, w in zip(means, worst, strict=True)) + " |")
    print("\n| references | overkill | miss | balanced accuracy |\n|---|---|---|---|")
    for shots, rows in at_threshold.items():
        overkill, miss = np.mean(rows, axis=0)
        print(f"| {shots} | {overkill:.3f} | {miss:.3f} | {1 - (overkill + miss) / 2:.3f} |")
    for shots, column in zip(SHOTS, range(len(SHOTS)), strict=True):
        print(f"\n| {shots} references | " + " | ".join(names) + " |")
        print("|---" * (1 + len(names)) + "|")
        for name, cells in table.items():
            print(f"| {name} | " + " | ".join(f"{cells[c][column]:.3f}" for c in names) + " |")


if __name__ == "__main__":
    main()
