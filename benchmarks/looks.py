"""How well defects are named from a few taught examples: sets of typed defects, each left out of whatever is fitted.

    .venv/bin/python benchmarks/looks.py ../shared/data --out runs/looks

Reads up to ten pictures a type and sixty a set, and keeps their vectors in --out (delete the folder to measure again). Then,
20 times over, it teaches 1, 3 or 5 pictures of each type and names the others. It prints the share named rightly (mean over
types), beside it what the mean of the region's patches alone would name (nearest taught example), and how well a type that
was not taught is told from those that were (AUROC). Sets with masks or boxes come a second time, with the region pointed at
in the taught pictures, and a third time with the region pointed at in the others, too. Then follow what probabilities and
assertions are worth on sets that the calibration was not fitted on, and the constants of `sage_ad.knowledge.looks.index`,
fitted on all sets.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sage_ad.knowledge.looks import index as looks_index
from sage_ad.knowledge.looks.index import PRIOR, PRIOR_WITHOUT_REFERENCE, LooksIndex
from sage_ad.vlm.evidence.region_features import Box, RegionFeatures

if TYPE_CHECKING:
    from sage_ad.evaluation.datasets.sample import Sample

SETS = (
    ("dev", "hot_rolled_steel"),
    ("dev", "fabric_02"),
    ("dev", "fabric_03"),
    ("dev", "screw"),
    ("test", "magnetic_tile"),
    ("test", "bottle"),
    ("test", "sewing_stitch"),
    ("train", "pcb_pattern"),
)
"""Development sets with typed defects; steel has no good picture, boards and stitches bring a reference each."""

SHOTS = (1, 3, 5)
PICTURES, REFERENCES = 60, 4
"""Pictures of a set, and references of a product, at most."""
UNTYPED = ("good", "defective")
UNKNOWN_SHARE = 0.2
"""Share of defects of a kind never taught for which probabilities are calibrated."""

Constants = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
Rows = list[tuple[str, RegionFeatures]]


@dataclass
class Case:
    """One region named: similarity to each name, place of the right one (None: it was not taught), and the reliability.

    `plain`: whether the nearest taught region by the cosine of its mean patch alone has the right name.
    """

    similarity: np.ndarray
    right: int | None
    reliability: float | None
    plain: bool = False


def box_of(sample: Sample) -> Box | None:
    """The largest annotated box, or the box of the largest piece of the mask; None where the set has neither."""
    from scipy import ndimage

    from sage_ad.evaluation.datasets import load_mask

    if sample.boxes:
        x0, y0, x1, y1 = max(sample.boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        return int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1))
    mask = load_mask(sample)
    if mask is None or not mask.any():
        return None
    labels, _ = ndimage.label(mask, np.ones((3, 3), int))
    rows, columns = ndimage.find_objects(labels)[int(np.bincount(labels[mask]).argmax()) - 1]
    return columns.start, rows.start, columns.stop, rows.stop


def measured(data: Path, group: str, category: str, out: Path) -> tuple[Rows, Rows]:
    """Type and vectors of the pictures of one set, and those with the region pointed at, where masks or boxes say it.

    They come from `out` where they were measured before.
    """
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.evidence.region_features import region_features
    from sage_ad.vlm.images import load_image

    kept = out / f"{category}.npz"
    if not kept.is_file():
        dataset, extractor = open_dataset(data / group), EvidenceExtractor()
        goods = sorted((sample.image for sample in dataset.normals(category)), key=str)
        chosen = random.Random(category).sample(goods, min(REFERENCES, len(goods)))
        tests = sorted(dataset.samples(category, "test"), key=lambda sample: sample.id)
        names, found, pointed = [], [], []
        common, marked = None, 0
        types = sorted({sample.defect for sample in tests} - set(UNTYPED))
        each = PICTURES // max(len(types), PICTURES // 10)
        for defect in types:
            samples = [sample for sample in tests if sample.defect == defect]
            random.Random(0).shuffle(samples)
            for sample in samples[:each]:
                references = [sample.reference] if sample.reference else chosen
                shown, bank = [load_image(path) for path in references], common
                if bank is None and references:
                    bank = extractor.prepare(shown)
                    common = None if sample.reference else bank
                image, box = load_image(sample.image), box_of(sample)
                heat = extractor.extract(image, bank).distances.cpu().numpy()
                names.append(defect)
                found.append(region_features(extractor.encoder, image, heat=heat, references=shown))
                marked += box is not None
                own = region_features(extractor.encoder, image, box=box, references=shown) if box else found[-1]
                pointed.append(own)
            print(f"{category}, {defect}", file=sys.stderr, flush=True)
        pointed = pointed if marked else []  # a single picture without a mask keeps the region that was found
        columns = {
            f"{kind}_{field}": np.stack([getattr(own, field) for own in rows])
            for kind, rows in (("found", found), ("pointed", pointed))
            for field in RegionFeatures._fields
            if rows
        }
        np.savez(kept, names=np.array(names), **columns)
    with np.load(kept, allow_pickle=False) as stored:

        def rows_of(kind: str) -> Rows:
            if f"{kind}_region" not in stored:
                return []
            blocks = [stored[f"{kind}_{field}"] for field in RegionFeatures._fields]
            return [(name, RegionFeatures(*own)) for name, *own in zip(stored["names"].tolist(), *blocks, strict=True)]

        return rows_of("found"), rows_of("pointed")


def cases(
    rows: Rows,
    prior: Sequence[float],
    shots: int,
    draws: int,
    *,
    hidden: str | None = None,
    taught_as: Rows | None = None,
) -> list[list[Case]]:
    """For each draw what comes of the pictures that were not taught; with `hidden`, that type is not taught, and only its
    pictures are named; with `taught_as`, the vectors of what is taught come from there."""
    shown_as = taught_as or rows
    kinds = sorted({name for name, _ in rows})
    types = [kind for kind in kinds if sum(name == kind for name, _ in rows) > shots and kind != hidden]
    if len(types) < 2:
        return []
    result = []
    for draw in range(draws):
        order = list(range(len(rows)))
        random.Random(draw).shuffle(order)
        taught = [i for kind in types for i in [j for j in order if rows[j][0] == kind][:shots]]
        index = LooksIndex([shown_as[i][1] for i in taught], [rows[i][0] for i in taught], prior)
        asked = [i for i in order if i not in taught and (rows[i][0] == hidden if hidden else rows[i][0] in types)]
        shown = np.stack([shown_as[i][1].region for i in taught])
        result.append(
            [
                Case(
                    index.similarity(rows[i][1])[0],
                    None if hidden else index.names.index(rows[i][0]),
                    index.reliability,
                    rows[taught[int((shown @ rows[i][1].region).argmax())]][0] == rows[i][0],
                )
                for i in asked
            ]
        )
    return result


def recall(drawn: Sequence[Case], plain: bool = False) -> float:
    """Share named rightly (or by the plain rule), mean over the types."""
    right = np.array([case.right for case in drawn])
    hit = np.array([case.plain if plain else int(case.similarity.argmax()) == case.right for case in drawn])
    return float(np.mean([hit[right == kind].mean() for kind in np.unique(right)]))


def auroc(known: Sequence[Case], unknown: Sequence[Case]) -> float:
    from sklearn.metrics import roc_auc_score

    scores = [case.similarity.max() for case in (*known, *unknown)]
    return float(roc_auc_score([1] * len(known) + [0] * len(unknown), scores))


def fitted(known: dict[tuple[str, int], list[Case]], unknown: dict[tuple[str, int], list[Case]]) -> Constants:
    """Constants of the calibration by logistic regression; every set and number of examples weighs the same."""
    from sklearn.linear_model import LogisticRegression

    def regression(rows: list[tuple[np.ndarray, bool, float]]) -> tuple[float, ...]:
        columns, right, weight = (np.array(column) for column in zip(*rows, strict=True))
        model = LogisticRegression(C=10.0, max_iter=1000, fit_intercept=False)
        model.fit(columns, right, sample_weight=weight / weight.mean())
        return tuple(round(float(value), 2) for value in model.coef_[0])

    one, more, none = [], [], []
    for cells, share in ((known, 1 - UNKNOWN_SHARE), (unknown, UNKNOWN_SHARE)):
        for cell in cells.values():
            for case in cell:
                hit, weight = int(case.similarity.argmax()) == case.right, share / len(cell)
                columns, _ = looks_index.terms(case.similarity, case.reliability)
                (one if case.reliability is None else more).append((columns, hit, weight))
                if not hit:
                    none.append((np.array([1.0, case.similarity.max()]), case.right is None, weight))
    return regression(one), regression(more), regression(none)


def use(constants: Constants) -> None:
    """Puts constants in place of those of the product."""
    looks_index.FIRST_OF_ONE, looks_index.FIRST, looks_index.NONE = constants


def outcomes(cell: Sequence[Case]) -> list[tuple[float, bool, float, bool]]:
    """Probability of the first name, whether it is right, probability of "none of them", whether that is right."""
    rows = []
    for case in cell:
        shares, unknown = looks_index.probabilities(case.similarity, case.reliability)
        rows.append(
            (
                float(shares[int(case.similarity.argmax())]),
                int(case.similarity.argmax()) == case.right,
                unknown,
                case.right is None,
            )
        )
    return rows


def calibration_error(probability: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((probability * 10).astype(int), 9)
    total = 0.0
    for number in np.unique(bins):
        inside = bins == number
        share = weight[inside] / weight[inside].sum()
        total += weight[inside].sum() * abs(float((share * (probability - right)[inside]).sum()))
    return total / float(weight.sum())


def figures(
    rows: Rows, prior: Sequence[float], draws: int, taught_as: Rows | None = None
) -> tuple[np.ndarray, dict[int, list[Case]], dict[int, list[Case]]]:
    """Share named rightly, the same by the plain rule, and AUROC of unknown types, each by number of examples (nan: too few
    pictures), in one row; and the cases of taught and of hidden types by number of examples."""
    counts = Counter(name for name, _ in rows)
    rows = [row for row in rows if counts[row[0]] > 1]
    taught_as = taught_as and [row for row in taught_as if counts[row[0]] > 1]
    named, plain, areas = [], [], []
    known: dict[int, list[Case]] = {}
    unknown: dict[int, list[Case]] = {}
    for shots in SHOTS:
        drawn = cases(rows, prior, shots, draws, taught_as=taught_as)
        named.append(float(np.mean([recall(draw) for draw in drawn])) if drawn else float("nan"))
        plain.append(float(np.mean([recall(draw, plain=True) for draw in drawn])) if drawn else float("nan"))
        known[shots] = [case for draw in drawn for case in draw]
        kinds = [kind for kind in sorted(counts) if counts[kind] > shots]
        few = max(1, draws // 5)
        hidden = [cases(rows, prior, shots, few, hidden=kind, taught_as=taught_as) for kind in kinds]
        unknown[shots] = [case for cell in hidden for draw in cell for case in draw]
        both = known[shots] and unknown[shots]
        areas.append(auroc(known[shots], unknown[shots]) if both else float("nan"))
    return np.array([*named, *plain, *areas]), known, unknown


def line_of(name: str, values: np.ndarray) -> str:
    """One line of the table."""
    return f"| {name} | {' | '.join(f'{value:.2f}' if np.isfinite(value) else '' for value in values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/looks"))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--sets", nargs="+", default=[category for _, category in SETS], help="some of the sets only")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    known: dict[tuple[str, int], list[Case]] = {}
    unknown: dict[tuple[str, int], list[Case]] = {}
    names = [category for _, category in SETS if category in args.sets]
    head = [f"{what}, {n}" for what in ("named", "plain", "unknown") for n in SHOTS]
    print(f"| set | {' | '.join(head)} |\n" + "|---" * (1 + len(head)) + "|")
    told = []
    for group, category in SETS:
        if category not in names:
            continue
        found, pointed = measured(args.data, group, category, args.out)
        prior = PRIOR_WITHOUT_REFERENCE if category == "hot_rolled_steel" else PRIOR
        values, known_here, unknown_here = figures(found, prior, args.draws)
        told.append(values)
        types = sum(count > 1 for count in Counter(name for name, _ in found).values())
        print(line_of(f"{category} ({types} types)", values), flush=True)
        known |= {(category, shots): cell for shots, cell in known_here.items()}
        unknown |= {(category, shots): cell for shots, cell in unknown_here.items()}
        if pointed:
            print(line_of("- taught with boxes", figures(found, prior, args.draws, pointed)[0]))
            sure = (*PRIOR[:-1], prior[-1] and PRIOR[-1])
            print(line_of("- pointed at", figures(pointed, sure, args.draws)[0]), flush=True)
    print(line_of("mean", np.nanmean(told, axis=0)))
    print(line_of("worst", np.nanmin(told, axis=0)))
    if len(names) < 3:
        return
    result = []
    for name in names:
        others = [key for key in known if key[0] != name]
        use(fitted({key: known[key] for key in others}, {key: unknown[key] for key in others}))
        for shots in SHOTS:
            for cells, share in ((known, 1 - UNKNOWN_SHARE), (unknown, UNKNOWN_SHARE)):
                rows_of = outcomes(cells[name, shots])
                result += [(*row, share / len(rows_of), shots) for row in rows_of]
    first, right, none, is_none, weight, shots_of = (np.array(column) for column in zip(*result, strict=True))
    print(f"\nSet left out of the calibration, {UNKNOWN_SHARE:.0%} of the regions of a kind that was not taught:")
    print('| examples | calibration error of the first name | of "none of them" |')
    print("|---|---|---|")
    for shots in SHOTS:
        at = shots_of == shots
        print(
            f"| {shots} | {calibration_error(first[at], right[at], weight[at]):.3f} "
            f"| {calibration_error(none[at], is_none[at], weight[at]):.3f} |"
        )
    print("\n| probability said | " + " | ".join(f"right, {n} | share of regions, {n}" for n in SHOTS) + " |")
    print("|---" * (1 + 2 * len(SHOTS)) + "|")
    for low, high in ((0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        line = []
        for shots in SHOTS:
            whole, said = weight[shots_of == shots].sum(), (shots_of == shots) & (first >= low) & (first < high)
            held = (weight * right)[said].sum() / weight[said].sum() if said.any() else float("nan")
            line += [f"{held:.2f}", f"{weight[said].sum() / whole:.2f}"]
        print(f"| {low} to {min(high, 1)} | {' | '.join(line)} |")
    print("\n| asserted from | " + " | ".join(f"precision, {n} | of the known ones, {n}" for n in SHOTS) + " |")
    print("|---" * (1 + 2 * len(SHOTS)) + "|")
    for level in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95):
        line = []
        for shots in SHOTS:
            said = (shots_of == shots) & (first >= level)
            whole = weight[(shots_of == shots) & ~is_none].sum()
            precision = (weight * right)[said].sum() / weight[said].sum() if said.any() else float("nan")
            line += [f"{precision:.2f}", f"{weight[said & ~is_none].sum() / whole:.2f}"]
        print(f"| {level} | {' | '.join(line)} |")
    one, more, none = fitted(known, unknown)
    print(f"\nFIRST_OF_ONE = {one}\nFIRST = {more}\nNONE = {none}")


if __name__ == "__main__":
    main()
