"""Can a trained look at the evidence give a better verdict, or a better place, than the evidence itself?

    .venv/bin/python benchmarks/verdict_trials.py ../shared/data/train ../shared/data/dev --drawn 700 --out runs/verdicts

Two roads. A small net reads the patches with most evidence (how each differs from its match in the reference, channel by
channel, and how it stands out in its own picture), learns from masks of drawn, pasted and *train* defects which of them
are defects, and is measured on products that it never saw: all of *dev*, and each *train* category left out in turn. And
the score is counted from the map's own upper level instead of from zero. What is measured is kept in --out.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HOT = 96
"""Patches with most evidence that are read of each picture."""

SCORED = 5
"""Of these, as many as make the product's score (0.3 % of 1,600)."""

INPUTS = {
    "difference from the reference": ("difference", "numbers"),
    "its size alone": ("size", "numbers"),
    "difference and own look": ("difference", "own", "numbers"),
    "evidence alone": ("numbers",),
}
Row = dict[str, Any]


def balanced(decision: np.ndarray, state: np.ndarray, category: np.ndarray) -> list[float]:
    """Balanced accuracy of each category."""
    cells = [category == name for name in np.unique(category)]
    return [float(((decision[c & state] > 0).mean() + (decision[c & ~state] <= 0).mean()) / 2) for c in cells]


# ---- measuring -------------------------------------------------------------------------------------------------------


def parts_of(data: Path, drawn: int) -> Iterator[tuple[Any, np.ndarray | None]]:
    """Parts with a reference, and the mask of each (None where nobody drew one)."""
    from sage_ad.alignment.data.labelled import _drawn, drawn_parts, pasted_parts, real_parts
    from sage_ad.alignment.synthetic.generate import paste_defect
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.datasets.masks import load_mask
    from sage_ad.vlm.images import load_image

    if drawn:
        for part in drawn_parts(drawn, seed=1):
            made = part.picture
            yield part, _drawn(made.seed, made.product, made.defect, made.size).mask if part.anomalous else None
        return
    dataset = open_dataset(data)
    samples = {s.id: s for category in dataset.categories for s in dataset.samples(category)}
    train = data.resolve().name == "train"
    for part in real_parts(dataset, seed=1 if train else 0, limit=60 if train else 24):
        sample = samples[part.group]
        yield part, load_mask(sample) if part.anomalous and sample.mask_kind else None
    if train:
        for part in pasted_parts(dataset, seed=1, limit=60):
            made = part.picture
            yield part, paste_defect(load_image(Path(made.path)), made.seed, defect=made.defect or "any").mask


def measured(data: Path, drawn: int) -> Iterator[Row]:
    """One row a part: its hottest patches, how they differ from the reference, and which of them the mask covers."""
    import torch
    import torch.nn.functional as F

    from sage_ad.vlm.evidence.defect_head import _weights, relative_to_picture
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.images import even_exposure

    extractor, usual = EvidenceExtractor(), _weights("cpu")
    found = sorted(
        ((p, m) for p, m in parts_of(data, drawn) if p.reference is not None),
        key=lambda pair: str(pair[0].reference.key),
    )
    known: dict[str, Any] = {}
    for number, (part, mask) in enumerate(found):
        if number % 50 == 0:
            print(f"{data.name or 'drawn'}: {number} of {len(found)}", file=sys.stderr, flush=True)
        if part.reference.key not in known:
            picture = part.reference.load()
            seen = extractor.encoder.encode([even_exposure(picture)], context=True)
            known = {part.reference.key: (extractor.prepare([picture]), seen)}
        bank, reference = known[part.reference.key]
        picture = part.picture.load()
        with torch.no_grad():
            evidence = extractor.extract(picture, bank)
            seen = extractor.encoder.encode([even_exposure(picture)], context=True)
            hot = evidence.margins.flatten().topk(HOT).indices
            likeness = seen[0].flatten(0, 1)[hot] @ reference[0].flatten(0, 1).T
            best = likeness.argmax(1)
            own = seen.context[0].flatten(0, 1)[hot] - reference.context[0].flatten(0, 1)[best]
            covered = None
            if not part.anomalous:
                covered = torch.zeros(HOT)
            elif mask is not None:
                grid = F.adaptive_avg_pool2d(
                    torch.tensor(mask, dtype=torch.float32)[None, None], evidence.margins.shape
                )
                covered = grid[0, 0].flatten()[hot]
        yield {
            "difference": (own / usual["spread"]).clamp(-5, 5).half(),
            "own": relative_to_picture(seen.context[0], usual["mean"], usual["spread"])[hot].half(),
            "margins": evidence.margins.flatten()[hot].clone(),
            "distances": evidence.distances.flatten()[hot].clone(),
            "unlike": 1 - likeness.amax(1),
            "level": float(torch.quantile(evidence.distances.flatten(), 0.95)),
            "margin": evidence.margin, "score": evidence.score, "threshold": evidence.threshold, "covered": covered,
            "anomalous": part.anomalous, "category": part.category, "source": part.source,
        }  # fmt: skip


def kept(name: str, data: Path, drawn: int, out: Path) -> list[Row]:
    """The rows of a set, from disk or measured now."""
    import torch

    file = out / f"{name}.pt"
    if not file.is_file():
        rows = list(measured(data, drawn))
        part = file.with_suffix(".part")
        torch.save(rows, part)
        part.replace(file)
    return list(torch.load(file))


# ---- a net on the hottest patches ------------------------------------------------------------------------------------


def inputs(row: Row, names: tuple[str, ...]) -> Any:
    """(HOT, n) what the net reads of each patch."""
    import torch

    made = {
        "difference": row["difference"].float(),
        "size": row["difference"].float().abs(),
        "own": row["own"].float(),
        "numbers": torch.stack([row["margins"].clamp(-6, 10) / 4, row["distances"] * 4, row["unlike"] * 4], 1),
    }
    return torch.cat([made[name] for name in names], 1)


def fitted(rows: list[Row], names: tuple[str, ...], steps: int = 1200, seed: int = 0) -> Any:
    """A net of one hidden layer that tells patches under a mask from others; categories weigh by the root of their size."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.manual_seed(seed)
    count = Counter(row["category"] for row in rows)
    values, labels, weights = [], [], []
    for row in rows:
        if row["covered"] is None:
            continue
        # Patches at the edge of a mask are neither.
        clear = (row["covered"] < 0.02) | (row["covered"] > 0.3)
        values.append(inputs(row, names)[clear])
        labels.append((row["covered"][clear] > 0.3).float())
        weights.append(torch.full_like(labels[-1], count[row["category"]] ** -0.5))
    x, y, w = torch.cat(values), torch.cat(labels), torch.cat(weights)
    net = nn.Sequential(nn.Dropout(0.2), nn.Linear(x.shape[1], 32), nn.GELU(), nn.Dropout(0.3), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=3e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    even, w = (y == 0).sum() / (y == 1).sum(), w / w.mean()
    for _ in range(steps):
        drawn = torch.randint(0, len(x), (1024,))
        loss = F.binary_cross_entropy_with_logits(net(x[drawn])[:, 0], y[drawn], pos_weight=even, weight=w[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def looked(net: Any, rows: list[Row], names: tuple[str, ...]) -> list[np.ndarray]:
    """Log-odds of each row's patches."""
    import torch

    with torch.no_grad():
        return [net(inputs(row, names))[:, 0].numpy() for row in rows]


# ---- figures ---------------------------------------------------------------------------------------------------------


def auroc(decision: np.ndarray, state: np.ndarray, category: np.ndarray) -> float:
    """Mean over the categories that have both states."""
    from sklearn.metrics import roc_auc_score

    cells = [category == name for name in np.unique(category)]
    return float(np.mean([roc_auc_score(state[c], decision[c]) for c in cells]))


def told(name: str, decision: np.ndarray, rows: list[Row], places: list[bool] | None = None) -> None:
    """A line of the table."""
    state, category = columns(rows)
    mean = float(np.mean(balanced(decision, state, category)))
    place = f"{np.mean(places):.3f}" if places else "-"
    print(f"| {name} | {auroc(decision, state, category):.3f} | {mean:.3f} | {place} |", flush=True)


def columns(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """State and category of each row."""
    return np.array([bool(row["anomalous"]) for row in rows]), np.array([row["category"] for row in rows])


def hits(rows: list[Row], scores: list[np.ndarray]) -> list[bool]:
    """For defects that were found and have a mask: whether the patch with the highest score lies in it."""
    return [
        bool(row["covered"][int(own.argmax())] > 0)
        for row, own in zip(rows, scores, strict=True)
        if row["anomalous"] and row["covered"] is not None and row["margin"] > 0
    ]


def nets(title: str, rows: list[Row], learnt_for: Any) -> None:
    """A table of the nets on some rows; `learnt_for(category, names)` gives the net that may look at a category."""
    margin = np.array([row["margin"] for row in rows])
    print(f"\n{title}\n\n| verdict | AUROC | balanced accuracy | place |\n|---|---|---|---|")
    told("evidence", margin, rows, hits(rows, [row["margins"].numpy() for row in rows]))
    for name, names in INPUTS.items():
        found = [looked(learnt_for(row["category"], names), [row], names)[0] for row in rows]
        own = np.array([values[:SCORED].mean() for values in found])
        told(f"net: {name}", own, rows, hits(rows, found))
        both = [values + row["margins"].numpy() for values, row in zip(found, rows, strict=True)]
        told("the same, added to the evidence", margin + own, rows, hits(rows, both))


def level_trials(rows: list[Row]) -> None:
    """Scores counted from the map's own level; the offset of each category comes from the others."""
    state, category = columns(rows)
    score, threshold, level = (np.array([row[key] for row in rows]) for key in ("score", "threshold", "level"))
    print(
        "\nAll real parts, offset from the other categories\n\n| verdict | AUROC | balanced accuracy | place |\n|---|---|---|---|"
    )
    told("evidence, as it stands", score - threshold, rows)
    for share in (0.0, 0.25, 0.5, 0.75):
        for held in (1.0, 0.5, 0.0):
            raw = score - held * threshold - share * level
            told(f"score - {held:g} x threshold - {share:g} x map's 95 %", centred(raw, state, category), rows)
    print("\nAUROC of the score, and of the score less half of the map's 95 %:")
    for name in np.unique(category):
        own = category == name
        pair = (auroc(values[own], state[own], category[own]) for values in (score, score - 0.5 * level))
        print(f"- {name}: " + ", ".join(f"{value:.3f}" for value in pair))


def centred(raw: np.ndarray, state: np.ndarray, category: np.ndarray) -> np.ndarray:
    """`raw` minus the cut that suits all categories but the row's own best."""
    result = np.zeros(len(raw))
    for name in np.unique(category):
        other = category != name
        cuts = np.quantile(raw[other], np.linspace(0.02, 0.98, 97))
        best = max(cuts, key=lambda cut: np.mean(balanced(raw[other] - cut, state[other], category[other])))
        result[~other] = raw[~other] - best
    return result


def main() -> None:
    """Measures what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("train", type=Path, help="the group that weights may learn from")
    parser.add_argument("dev", type=Path, help="the group that settings are chosen on; never *test*")
    parser.add_argument("--drawn", type=int, default=700, help="drawn parts to learn from")
    parser.add_argument("--out", type=Path, default=Path("runs/verdicts"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train, dev = kept("train", args.train, 0, args.out), kept("dev", args.dev, 0, args.out)
    learnt = train + kept(f"drawn-{args.drawn}", Path(), args.drawn, args.out)
    both = [row for row in train + dev if row["source"] == "real"]
    level_trials(both)
    made: dict[Any, Any] = {}

    def net_for(category: str, names: tuple[str, ...]) -> Any:
        key = (category if any(row["category"] == category for row in train) else None, names)
        if key not in made:
            made[key] = fitted([row for row in learnt if row["category"] != key[0]], names)
        return made[key]

    nets("dev (learnt from train and drawn parts)", dev, net_for)
    nets("train, each category left out in turn", train, net_for)


if __name__ == "__main__":
    main()
