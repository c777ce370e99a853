"""Does anything beat the plain match, and on which products does it lose? Image AUROC and thresholds (docs/detection.md).

    .venv/bin/python benchmarks/evidence_trials.py ../shared/data --out runs/evidence-trials
    .venv/bin/python benchmarks/evidence_trials.py ../shared/data --groups test,train        # a part of it
    .venv/bin/python benchmarks/evidence_trials.py ../shared/data --alone                    # without a reference

Every category of *train*, *dev* and *test* that has good and defective test images (never *fresh*: it is there to
report), at most 20 good and 20 defective test images and 12 references each, five draws of 1, 4 and 8 of these; beside
the mean, three of them with the part put on a black ground. Distances of every image to every reference are measured
once and kept in --out (one to two minutes a category on an idle core), so that a run that was stopped goes on. A
mechanism earns its place if the mean rises at 1, 4 and 8 references and no category loses more than 1.5 points.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL import Image

GROUPS, SHOTS, DRAWS = ("dev", "test", "train"), (1, 4, 8), 5
TESTS, REFERENCES = 20, 12
SHARE = 0.01
BLACK = ("screw", "bottle", "insulator_string")
STEPS, MOST = 8, 1.5
"""Light is changed in eighths of a doubling, by a factor of 2.8 at most."""
QUANTILES = np.linspace(0.005, 0.995, 100)
OTHER_WAYS = ("median", "level", "448", "centred")
"""Maps beside the pictures as they are: their median brought to 140; their mean weighted by brightness (which a dark
ground does not move) to 150; encoded at 448 pixels; less the reference's mean patch, again of unit length."""
NEAR, STRIDE_8 = 2, 48
"""Patches that overlap a patch, as in `sage_ad.vlm.evidence.memory_bank`; channels of the finer scale."""
FACTORS = (1.05, 1.1, 1.15, 1.2, 1.25)
SCATTERS = (0.5, 0.75, 1.0, 1.25)
ALONE = ("rarity (taken)", "rarity at 224 pixels", "mean of both maps", "five nearest patches", "stride 16 alone")
"""Without a reference: distance of each patch to the nearest in the rest of its picture, and what was tried in its place."""
OVERKILL = 0.25
Data = dict[str, Any]


def measured(root: Path, out: Path, groups: Sequence[str]) -> Iterator[tuple[str, Data]]:
    """Distances of each category, from disk or measured now.

    Keys: `anomalous`; `own` (each test image has a reference of its own); `quantiles` of the grey values of each image;
    for image i (the tests, then the references) `i/light K` at a light of K eighths of a doubling and `i/WAY`, each
    (references, patches); `j/rarity` for reference j.
    """
    from sage_ad.evaluation.datasets import open_dataset

    out.mkdir(parents=True, exist_ok=True)
    for group in groups:
        names = open_dataset(root / group).categories
        for category, black in [(c, False) for c in names] + [(c, True) for c in BLACK if c in names]:
            name = category + black * " on black"
            file = out / f"{name}.npz"
            if not file.exists():
                found = _measure(open_dataset(root / group, categories=[category]), category, black)
                if found is None:
                    continue
                np.savez_compressed(file.with_suffix(".part.npz"), **found)
                file.with_suffix(".part.npz").rename(file)
                print(f"{name}: measured", flush=True)
            with np.load(file, allow_pickle=False) as kept:
                yield name, {key: _wide(kept[key]) for key in kept.files}


def measured_alone(root: Path, out: Path, groups: Sequence[str]) -> Iterator[tuple[str, Data]]:
    """`anomalous`, and a score of each test image in each of the `ALONE` ways, from disk or measured now."""
    from sage_ad.evaluation.datasets import open_dataset

    out.mkdir(parents=True, exist_ok=True)
    for group in groups:
        for category in open_dataset(root / group).categories:
            file = out / f"{category} alone.npz"
            if not file.exists():
                tests = _tests(open_dataset(root / group, categories=[category]), category)
                if len({sample.anomalous for sample in tests}) < 2:
                    continue
                found = np.array([_scores_alone(sample.image) for sample in tests])
                states = np.array([bool(sample.anomalous) for sample in tests])
                np.savez(file, anomalous=states, **dict(zip(ALONE, found.T, strict=True)))
                print(f"{category}: measured", flush=True)
            with np.load(file) as kept:
                yield category, dict(kept)


def _scores_alone(path: Path) -> list[float]:
    import torch.nn.functional as F

    from sage_ad.vlm.evidence.encoders import load_encoder, one_thread
    from sage_ad.vlm.evidence.patch_matching import within_similarity
    from sage_ad.vlm.images import load_image

    encoder, picture = load_encoder(), load_image(path)
    with one_thread():
        fine, coarse = encoder.encode([picture])[0], encoder.encode([picture], 224)[0]
        plain, small = (1 - within_similarity(grid, NEAR) for grid in (fine, coarse))
        large = F.interpolate(small[None, None], size=plain.shape, mode="bilinear", align_corners=False)[0, 0]
        deep = 1 - within_similarity(F.normalize(fine[..., STRIDE_8:], dim=-1), NEAR)
        maps = (plain, small, (plain + large) / 2, _five_nearest(fine), deep)
    return [top(values.numpy()) for values in maps]


def _five_nearest(grid: torch.Tensor) -> torch.Tensor:
    """(h * w,) mean distance of each patch to the five nearest in the rest of its picture."""
    import torch

    height, width = grid.shape[:2]
    index = torch.arange(height * width)
    rows, columns = index // width, index % width
    near = ((rows[:, None] - rows).abs() <= NEAR) & ((columns[:, None] - columns).abs() <= NEAR)
    tokens = grid.flatten(0, 1)
    return 1 - (tokens @ tokens.T).masked_fill_(near, -1.0).topk(5, dim=1).values.mean(dim=1)


def _tests(dataset: Any, category: str) -> list[Any]:
    """At most 20 good and 20 defective test images."""
    tests: list[Any] = []
    for state in (False, True):
        same = sorted((s for s in dataset.samples(category, "test") if s.anomalous is state), key=lambda s: s.id)
        random.Random(f"{category}/{state}").shuffle(same)
        tests += same[:TESTS]
    return tests


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _measure(dataset: Any, category: str, black: bool) -> Data | None:
    import torch

    from sage_ad.vlm.evidence.encoders import load_encoder
    from sage_ad.vlm.evidence.patch_matching import within_similarity
    from sage_ad.vlm.images import load_image

    torch.set_num_threads(1)
    tests = _tests(dataset, category)
    own = all(sample.reference for sample in tests)
    pool = sorted(dataset.normals(category), key=lambda s: s.id)
    random.Random(category).shuffle(pool)
    references = [s.reference for s in tests] if own else [s.image for s in pool[:REFERENCES]]
    if len({sample.anomalous for sample in tests}) < 2 or not references:
        return None
    pictures = [load_image(path) for path in (*(sample.image for sample in tests), *references)]
    pictures = [_on_black(picture) for picture in pictures] if black else pictures
    encoder, first = load_encoder(), len(tests)
    seen = {
        "light 0": [encoder.encode([picture])[0] for picture in pictures],
        "median": [encoder.encode([_lit(p, 140 / max(float(np.median(np.asarray(p))), 20.0))])[0] for p in pictures],
        "level": [encoder.encode([_lit(p, min(150 / _level(p), 7.0))])[0] for p in pictures],
        "448": [encoder.encode([picture], 448)[0] for picture in pictures],
    }
    quantiles = np.array([np.quantile(np.asarray(p), QUANTILES).astype(np.float32) + 0.5 for p in pictures])
    found: Data = {"anomalous": np.array([bool(s.anomalous) for s in tests]), "own": own, "quantiles": quantiles}
    for i in range(first if own else len(pictures)):
        others = [first + i] if own else range(first, len(pictures))
        plain = [seen["light 0"][j] for j in others]
        for way, grids in seen.items():
            found[f"{i}/{way}"] = _distances(grids[i], [grids[j] for j in others])
        pairs = [(_centred(seen["light 0"][i], grid), _centred(grid, grid)) for grid in plain]
        found[f"{i}/centred"] = np.concatenate([_distances(test, [grid]) for test, grid in pairs])
        lights = [_light(quantiles[i], quantiles[j]) for j in others if j != i]
        for step in range(min(0, _step(min(lights))), max(0, _step(max(lights))) + 1):
            if step:
                found[f"{i}/light {step}"] = _distances(
                    encoder.encode([_lit(pictures[i], 2 ** (step / STEPS))])[0], plain
                )
    for j in range(0 if own else min(DRAWS, len(references))):
        found[f"{j}/rarity"] = (1 - within_similarity(seen["light 0"][first + j], NEAR)).numpy().astype(np.float16)
    return found


def _distances(test: torch.Tensor, references: Sequence[torch.Tensor]) -> np.ndarray:
    """(references, patches) distance of each patch to the nearest of each reference."""
    rows = [1 - (test.flatten(0, 1) @ grid.flatten(0, 1).T).amax(dim=1).numpy() for grid in references]
    return np.stack(rows).astype(np.float16)


def _centred(grid: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    import torch.nn.functional as F

    return F.normalize(grid - reference.mean(dim=(0, 1)), dim=-1)


def _lit(picture: Image.Image, factor: float) -> Image.Image:
    return picture.point(np.clip(np.arange(256) * factor + 0.5, 0, 255).astype(np.uint8).tolist() * 3)


def _level(picture: Image.Image) -> float:
    """Mean grey value weighted by itself."""
    grey = np.asarray(picture, np.float64)
    return float(np.square(grey).sum() / max(grey.sum(), 1.0))


def _light(test: np.ndarray, reference: np.ndarray) -> float:
    """Doublings of light that bring the quantiles of a test image nearest to those of a reference."""
    return float(np.clip(np.log2(test @ reference / (test @ test)), -MOST, MOST))


def _step(doublings: float) -> int:
    return round(STEPS * doublings)


def _on_black(picture: Image.Image) -> Image.Image:
    """The part alone: what touches the edge of the picture and is about as bright as it becomes black."""
    from PIL import Image
    from scipy.ndimage import label

    grey = np.asarray(picture.convert("L"), float)
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    areas = label(np.abs(grey - np.median(edge)) < 45)[0]
    at_edge = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    pixels = np.asarray(picture).copy()
    pixels[np.isin(areas, at_edge[at_edge > 0])] = 10
    return Image.fromarray(pixels)


# --- what is tried: (data, image, drawn references) to the distance of each patch ----------------------------------

Map = Callable[[Data, int, Sequence[int]], np.ndarray]


def way(name: str) -> Map:
    """Distance to the nearest of the drawn references in one of the ways that were measured."""
    return lambda data, image, drawn: data[f"{image}/{name}"][list(drawn)].min(axis=0)


plain = way("light 0")


def relative(*, middle: bool = False, most: float = MOST, better: bool = False) -> Map:
    """The image brought to the light of the drawn references: of the nearest of them, or of their middle.

    `most` bounds it in doublings; `better` takes it only where half of the patches are then explained better.
    """

    def distances(data: Data, image: int, drawn: Sequence[int]) -> np.ndarray:
        first, levels = len(data["anomalous"]), data["quantiles"]
        lights = [_light(levels[image], levels[first + (image if data["own"] else j)]) for j in drawn]
        wanted = float(np.mean(lights)) if middle else 0.0 if min(lights) <= 0 <= max(lights) else min(lights, key=abs)
        values = way(f"light {_step(float(np.clip(wanted, -most, most)))}")(data, image, drawn)
        as_it_is = plain(data, image, drawn)
        return as_it_is if better and np.median(as_it_is) <= np.median(values) else values

    return distances


def agreed(changed: Map) -> Map:
    """A change only where it makes the references (four or more) explain one another better."""
    known: dict[tuple[int, ...], bool] = {}

    def distances(data: Data, image: int, drawn: Sequence[int]) -> np.ndarray:
        key = (id(data), *drawn)
        if key not in known:
            both = [left_out(data, drawn, method) for method in (changed, plain)]
            known[key] = len(drawn) >= 4 and float(np.log(both[0]).mean() - np.log(both[1]).mean()) < -0.02
        return (changed if known[key] else plain)(data, image, drawn)

    return distances


def left_out(data: Data, drawn: Sequence[int], method: Map) -> np.ndarray:
    """Score of each drawn reference against the others."""
    first = len(data["anomalous"])
    return np.array([top(method(data, first + j, [k for k in drawn if k != j])) for j in drawn if len(drawn) > 1])


TRIALS: dict[str, tuple[Map, float]] = {
    "**plain match, highest 1 % (taken)**": (plain, SHARE),
    **{f"highest {100 * share:g} %": (plain, share) for share in (0.007, 0.005, 0.004, 0.003)},
    "median to 140": (way("median"), SHARE),
    "median to 140, highest 0.4 % (until now)": (way("median"), 0.004),
    "weighted mean to 150": (way("level"), SHARE),
    "weighted mean to 150, highest 0.4 %": (way("level"), 0.004),
    "light of the nearest reference": (relative(), SHARE),
    "light of the references' middle": (relative(middle=True), SHARE),
    "light of the nearest, 1.4 times at most": (relative(most=0.5), SHARE),
    "light of the nearest, where it explains better": (relative(better=True), SHARE),
    "light of the nearest, where references agree": (agreed(relative()), SHARE),
    "median to 140, where references agree": (agreed(way("median")), SHARE),
    "encoded at 448 pixels": (way("448"), SHARE),
    "less the reference's mean patch": (way("centred"), SHARE),
}


def top(values: np.ndarray, share: float = SHARE) -> float:
    """Mean of the highest share."""
    count = max(1, round(share * values.size))
    return float(np.partition(values.ravel(), values.size - count)[values.size - count :].mean())


def draws(data: Data, shots: int) -> list[list[int]]:
    """Draw k begins with reference k, so that single references differ; none where images have one of their own."""
    if data["own"]:
        return [[0]] if shots == 1 else []
    count = len(data["quantiles"]) - len(data["anomalous"])
    return [[k, *random.Random(k).sample([i for i in range(count) if i != k], count - 1)][:shots] for k in range(DRAWS)]


def scores(data: Data, drawn: Sequence[int], method: Map, share: float) -> np.ndarray:
    """Score of each test image."""
    return np.array([top(method(data, i, drawn), share) for i in range(len(data["anomalous"]))])


def auroc(data: Data, shots: int, method: Map, share: float) -> float:
    """Image AUROC, mean over the draws; NaN where there are none."""
    from sage_ad.evaluation.reports.metrics import rank_auroc

    values = [rank_auroc(data["anomalous"], scores(data, drawn, method, share)) for drawn in draws(data, shots)]
    return float(np.mean([v for v in values if v is not None])) if values else float("nan")


def rates(data: Data, shots: int, threshold: Callable[[Sequence[int]], float]) -> np.ndarray:
    """Overkill and miss of the plain match, mean over the draws."""
    state, rows = data["anomalous"], []
    for drawn in draws(data, shots):
        called = scores(data, drawn, plain, SHARE) > threshold(drawn)
        rows.append((called[~state].mean(), (~called[state]).mean()))
    return np.mean(rows, axis=0)


def thresholds(data: Data) -> dict[str, np.ndarray]:
    """Overkill and miss of each rule, and of the best threshold of the category in hindsight."""
    from sage_ad.vlm.evidence.thresholds import LEAST_SCATTER

    def above_others(drawn: Sequence[int], scatters: float) -> float:
        logs = np.log(left_out(data, drawn, plain))
        return float(np.exp(logs.mean() + scatters * np.hypot(logs.std(ddof=1), LEAST_SCATTER)))

    def above_itself(drawn: Sequence[int], factor: float, border: int = 0, share: float = SHARE) -> float:
        rarity = data[f"{drawn[0]}/rarity"]
        inner = rarity[border : rarity.shape[0] - border, border : rarity.shape[1] - border]
        return factor * top(inner, share * rarity.size / inner.size)

    found = {f"1, rarity x {f:g}": rates(data, 1, partial(above_itself, factor=f)) for f in FACTORS}
    for f in (1.2, 1.25):
        found[f"1, rarity two patches from the edge x {f:g}"] = rates(
            data, 1, partial(above_itself, factor=f, border=2)
        )
        found[f"1, highest 2 % of the rarity x {f:g}"] = rates(data, 1, partial(above_itself, factor=f, share=0.02))
    for shots in SHOTS[1:]:
        found |= {
            f"{shots}, mean + {s:g} scatters": rates(data, shots, partial(above_others, scatters=s)) for s in SCATTERS
        }
    for shots in SHOTS:
        seen = np.concatenate([scores(data, drawn, plain, SHARE) for drawn in draws(data, shots)])
        levels = [
            rates(data, shots, lambda _, level=level: level) for level in np.quantile(seen, np.linspace(0, 1, 41))
        ]  # type: ignore[misc]
        found[f"{shots}, best in hindsight"] = min(levels, key=np.sum)
    return found


def print_alone(table: dict[str, Data]) -> None:
    """AUROC without a reference, and the built-in threshold with each category left out of its choice."""
    from sklearn.linear_model import LogisticRegression

    from sage_ad.evaluation.reports.metrics import rank_auroc
    from sage_ad.vlm.evidence.extractor import RARITY_THRESHOLD

    values = np.array([[rank_auroc(data["anomalous"], data[way]) for way in ALONE] for data in table.values()], float)
    print("| | mean | " + " | ".join(table) + " |\n" + "|---" * (2 + len(table)) + "|")
    for way, column in zip(ALONE, values.T, strict=True):
        print(f"| {way} | {column.mean():.3f} | " + " | ".join(f"{cell:.3f}" for cell in column) + " |")
    for way, lost in zip(ALONE[1:], (values[:, 1:] - values[:, :1]).T, strict=True):
        worst = f"{100 * lost.min():+.1f} ({list(table)[int(lost.argmin())]})"
        print(f"{way}: {100 * lost.mean():+.1f} points in the mean, worst {worst}, {int((lost >= 0).sum())} not below")
    good = [data[ALONE[0]][~data["anomalous"]] for data in table.values()]
    bad = [data[ALONE[0]][data["anomalous"]] for data in table.values()]
    grid = np.arange(0.2, 0.7, 0.01)
    over = np.array([[(scores > level).mean() for level in grid] for scores in good])
    chosen = [grid[np.argmax(np.delete(over, k, 0).mean(axis=0) <= OVERKILL)] for k in range(len(good))]
    for title, levels in (("built in", [RARITY_THRESHOLD] * len(good)), ("chosen without the category", chosen)):
        alarms = [(scores > level).mean() for scores, level in zip(good, levels, strict=True)]
        missed = np.mean([(scores <= level).mean() for scores, level in zip(bad, levels, strict=True)])
        print(
            f"threshold {title} ({min(levels):.2f} to {max(levels):.2f}): overkill {np.mean(alarms):.2f}, miss {missed:.2f}; "
            f"every good part alarms in {sum(a == 1 for a in alarms)} categories, none in {sum(a == 0 for a in alarms)}"
        )
    states = np.repeat([False, True] * len(good), [len(own) for pair in zip(good, bad, strict=True) for own in pair])
    scores = np.concatenate([own for pair in zip(good, bad, strict=True) for own in pair])
    fitted = LogisticRegression(C=1e4, class_weight="balanced").fit(scores[:, None], states)
    print(f"the odds of a defect grow e-fold in {1 / fitted.coef_[0, 0]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds the groups")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-trials"))
    parser.add_argument("--alone", action="store_true", help="without a reference, in place of with some")
    parser.add_argument("--groups", default=",".join(GROUPS), help="groups of categories, with commas between them")
    args = parser.parse_args()
    groups = args.groups.split(",")
    if unknown := [group for group in groups if group not in GROUPS]:
        parser.error(f"no group {unknown[0]!r}; choose among {', '.join(GROUPS)}")
    if args.alone:
        print_alone(dict(measured_alone(args.data, args.out, groups)))
        return
    table: dict[str, dict[str, list[float]]] = {trial: {} for trial in TRIALS}
    rules: list[dict[str, np.ndarray]] = []
    for category, data in measured(args.data, args.out, groups):
        for trial, (method, share) in TRIALS.items():
            table[trial][category] = [auroc(data, shots, method, share) for shots in SHOTS]
        if not data["own"] and not category.endswith(" on black"):
            rules.append(thresholds(data))
    names = [category for category in next(iter(table.values())) if not category.endswith(" on black")]
    baseline = np.array([next(iter(table.values()))[category] for category in names])
    print("| | " + " | ".join(f"{s} ref. | worst against plain" for s in SHOTS) + " |")
    print("|---" * (1 + 2 * len(SHOTS)) + "|")
    for trial, cells in table.items():
        values = np.array([cells[category] for category in names])
        lost, means = 100 * (values - baseline), np.nanmean(values, axis=0)
        worst = [f"{np.nanmin(lost[:, k]):+.1f} {names[int(np.nanargmin(lost[:, k]))]}" for k in range(len(SHOTS))]
        print(f"| {trial} | " + " | ".join(f"{m:.3f} | {w}" for m, w in zip(means, worst, strict=True)) + " |")
    print("\n| references, rule | overkill | miss | balanced accuracy |\n|---|---|---|---|")
    for rule in rules[0]:
        overkill, miss = np.mean([found[rule] for found in rules], axis=0)
        print(f"| {rule} | {overkill:.3f} | {miss:.3f} | {1 - (overkill + miss) / 2:.3f} |")
    for column, shots in enumerate(SHOTS):
        print(f"\n| {shots} references | " + " | ".join(next(iter(table.values()))) + " |")
        print("|---" * (1 + len(next(iter(table.values())))) + "|")
        for trial, cells in table.items():
            print(f"| {trial} | " + " | ".join(f"{cell[column]:.3f}" for cell in cells.values()) + " |")


if __name__ == "__main__":
    main()
