"""How well a batch without references explains itself: image AUROC, false alarms, misses and the estimate of odd parts.

    .venv/bin/python benchmarks/batch_peers.py ../shared/data --out runs/batch-peers [--categories bottle,screw]

Batches of 20 and 60 parts, 10 and 30 % of them defective, are drawn from the categories of *dev* and *test* that have
enough images (up to 60 good ones of both splits, up to 24 defective ones), and judged as `sage-batch` judges them. Distances
between pictures are measured once and kept in --out. `--references` measures one to eight references, alone and together
with the batch, in batches of 20.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CATEGORIES = {
    "dev": "solar_cell_mono solar_cell_poly screw pump_impeller fabric_02 fabric_03 xray_wheel_casting ac_piston pill_xray",
    "test": "magnetic_tile bottle pavement powerline_insulator",
}
GOOD, DEFECTIVE = 60, 24
BATCHES = ((20, 0.1), (20, 0.3), (60, 0.1), (60, 0.3))
DRAWS = {20: 5, 60: 3}
SHOTS = (1, 4, 8)


def measured(data: Path, out: Path, wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """For each category: distances of the patches of each picture to each other picture, states, digests of content."""
    out.mkdir(parents=True, exist_ok=True)
    for group, names in CATEGORIES.items():
        for name in names.split():
            if wanted and name not in wanted:
                continue
            kept = out / f"{name}.npz"
            if not kept.exists():
                np.savez(kept, **_measure(data / group / name))
            yield name, dict(np.load(kept))


def _measure(folder: Path) -> dict[str, Any]:
    import torch

    from sage_ad.vlm.evidence.encoders import one_thread
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.images import load_image, scan_folder

    kinds = {path.name: scan_folder(path).pictures for path in sorted((folder / "test").iterdir())}
    good = kinds.pop("good") + scan_folder(folder / "train" / "good").pictures
    defective = [path for pictures in kinds.values() for path in pictures]
    draw = random.Random(0)
    draw.shuffle(good)
    draw.shuffle(defective)
    chosen = good[:GOOD] + defective[:DEFECTIVE]
    extractor = EvidenceExtractor()
    features = [extractor.features_of(load_image(path)).flatten(0, 1).half().float() for path in chosen]
    distances = np.full((len(chosen), len(chosen), max(map(len, features))), np.nan, np.float16)
    with torch.inference_mode(), one_thread():
        for i, own in enumerate(features):
            for j, other in enumerate(features[:i]):
                # One product serves both ways; bfloat16 takes half the time, and there are 3,486 pairs a category.
                similarity = (own.bfloat16() @ other.bfloat16().T).float()
                distances[i, j, : len(own)] = (1 - similarity.amax(dim=1)).numpy()
                distances[j, i, : len(other)] = (1 - similarity.amax(dim=0)).numpy()
    return {
        "distances": distances,
        "anomalous": np.arange(len(chosen)) >= min(GOOD, len(good)),
        "contents": np.array([hashlib.sha256(grid.half().numpy().tobytes()).hexdigest() for grid in features]),
    }


def batches(
    anomalous: np.ndarray, size: int, share: float, references: int = 0
) -> Iterator[tuple[list[int], list[int]]]:
    """Pictures of each drawn batch, and good pictures outside it as references; nothing where there are too few."""
    good, bad = np.flatnonzero(~anomalous).tolist(), np.flatnonzero(anomalous).tolist()
    odd = round(size * share)
    if len(good) < size - odd + references or len(bad) < odd:
        return
    for seed in range(DRAWS[size]):
        draw = random.Random(seed)
        usual = draw.sample(good, size - odd + references)
        yield usual[references:] + draw.sample(bad, odd), usual[:references]


def peer_maps(data: dict[str, np.ndarray], batch: Sequence[int]) -> list[np.ndarray]:
    """Distance of each patch of each picture of a batch to its peers."""
    import torch

    from sage_ad.vlm.evidence.peers import draw_peers, nearest_mean

    found = []
    for own, drawn in zip(batch, draw_peers([str(data["contents"][i]) for i in batch]), strict=True):
        maps = data["distances"][own][[batch[other] for other in drawn]].astype(np.float32)
        found.append(nearest_mean(torch.from_numpy(maps[:, ~np.isnan(maps[0])])).numpy())
    return found


def pooled(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Score of each map."""
    import torch

    from sage_ad.vlm.evidence.extractor import TOP_SHARE
    from sage_ad.vlm.evidence.patch_matching import top_mean

    return np.array([float(top_mean(torch.from_numpy(values), TOP_SHARE)) for values in maps])


def without_references(data: dict[str, np.ndarray], size: int, share: float) -> list[tuple[float, ...]]:
    """AUROC, false alarms among good, misses among defective, and whether the estimate holds the number of odd parts."""
    from sage_ad.evaluation.reports.metrics import rank_auroc
    from sage_ad.vlm.evidence.peers import batch_threshold

    rows = []
    for batch, _ in batches(data["anomalous"], size, share):
        state, scores = data["anomalous"][batch], pooled(peer_maps(data, batch))
        found = batch_threshold(scores.tolist())
        called = scores > found.threshold
        held = found.odd[0] <= state.sum() <= found.odd[1]
        rows.append((rank_auroc(state, scores) or 0.0, called[~state].mean(), (~called[state]).mean(), float(held)))
    return rows


def with_references(data: dict[str, np.ndarray], share: float, shots: int) -> list[tuple[float, ...]]:
    """AUROC of the references alone, of the batch alone, and of the smaller of both distances."""
    from sage_ad.evaluation.reports.metrics import rank_auroc

    rows = []
    for batch, references in batches(data["anomalous"], 20, share, shots):
        state, peers = data["anomalous"][batch], peer_maps(data, batch)
        alone = [data["distances"][own][references].astype(np.float32).min(axis=0) for own in batch]
        alone = [values[~np.isnan(values)] for values in alone]
        both = [np.minimum(a, b) for a, b in zip(alone, peers, strict=True)]
        rows.append(tuple(rank_auroc(state, pooled(maps)) or 0.0 for maps in (alone, peers, both)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds the groups")
    parser.add_argument("--out", type=Path, default=Path("runs/batch-peers"))
    parser.add_argument("--categories", default="", help="names with commas between them; default: all")
    parser.add_argument("--references", action="store_true")
    args = parser.parse_args()
    if args.references:
        columns = [(f"{100 * share:.0f} %, {shots} ref.", share, shots) for share in (0.1, 0.3) for shots in SHOTS]
        shown = ("references", "batch", "both")
    else:
        columns = [(f"{size}, {100 * share:.0f} %", share, size) for size, share in BATCHES]
        shown = ("AUROC", "overkill", "miss", "estimate holds")
    table: dict[str, list[np.ndarray | None]] = {}
    for name, data in measured(args.data, args.out, [part for part in args.categories.split(",") if part]):
        table[name] = []
        for _, share, number in columns:
            rows = with_references(data, share, number) if args.references else without_references(data, number, share)
            table[name].append(np.mean(rows, axis=0) if rows else None)
    print("| category | " + " | ".join(f"{title}: {', '.join(shown)}" for title, *_ in columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    means = [[cell for cell in column if cell is not None] for column in zip(*table.values(), strict=True)]
    print("| **mean** | " + " | ".join(_cell(np.mean(cells, axis=0) if cells else None) for cells in means) + " |")


def _cell(values: np.ndarray | None) -> str:
    return "-" if values is None else ", ".join(f"{value:.3f}".removeprefix("0") for value in values)


if __name__ == "__main__":
    main()
