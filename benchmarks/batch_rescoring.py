"""Two more parts of MuSc (Li et al., ICLR 2024) in a batch: neighbourhoods of 3 x 3 patches, scores smoothed over like pictures.

    .venv/bin/python benchmarks/batch_rescoring.py ../shared/data --out runs/batch-rescoring

Batches, draws and maps are those of `batch_peers.py`; image AUROC. Distances are kept in --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import batch_peers as peers
import numpy as np


def coarser(grid: Any) -> Any:
    """(h, w, C) means of 3 x 3 patches, of unit length."""
    import torch.nn.functional as F

    mean = F.avg_pool2d(grid.permute(2, 0, 1)[None], 3, 1, 1, count_include_pad=False)
    return F.normalize(mean[0].permute(1, 2, 0), dim=-1)


def main() -> None:
    import torch.nn.functional as F

    from sage_ad.evaluation.reports.metrics import rank_auroc
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    plain, means = EvidenceExtractor.features_of, list[np.ndarray]()

    def seen(extractor: EvidenceExtractor, image: Any) -> Any:
        grid = plain(extractor, image)
        means.append(F.normalize(grid.mean(dim=(0, 1)), dim=0).numpy())
        return grid

    rows: dict[str, dict[tuple[str, int, float], float]] = {}
    for group, names in peers.CATEGORIES.items():
        for name in names.split():
            ways = {"plain": seen, "3 x 3": lambda extractor, image: coarser(plain(extractor, image))}
            data = {}
            for way, features_of in ways.items():
                kept = args.out / f"{name} {way}.npz"
                kept.parent.mkdir(parents=True, exist_ok=True)
                if not kept.exists():
                    means.clear()
                    EvidenceExtractor.features_of = features_of  # type: ignore[method-assign]
                    np.savez(kept, **peers._measure(args.data / group / name), means=np.array(means))
                data[way] = dict(np.load(kept))
            data["3 x 3"]["contents"] = data["plain"]["contents"]  # the same peers
            for size, share in peers.BATCHES:
                found: dict[str, list[float]] = {}
                for batch, _ in peers.batches(data["plain"]["anomalous"], size, share):
                    state = data["plain"]["anomalous"][batch]
                    maps = {way: peers.peer_maps(own, batch) for way, own in data.items()}
                    score = peers.pooled(maps["plain"])
                    alike = data["plain"]["means"][batch] @ data["plain"]["means"][batch].T
                    np.fill_diagonal(alike, -1)
                    scores = {"plain": score, "3 x 3": peers.pooled(maps["3 x 3"])}
                    scores["both"] = peers.pooled([a + b for a, b in zip(maps["plain"], maps["3 x 3"], strict=True)])
                    for near in (3, 8):
                        others = score[np.argsort(-alike, axis=1)[:, :near]].mean(axis=1)
                        scores[f"smoothed over {near}"] = 0.7 * score + 0.3 * others
                    for way, values in scores.items():
                        found.setdefault(way, []).append(rank_auroc(state, values) or 0.0)
                for way, values in found.items():
                    rows.setdefault(way, {})[name, size, share] = float(np.mean(values))
    for way, cells in rows.items():
        means_of = [np.mean([v for key, v in cells.items() if key[1:] == kind]) for kind in peers.BATCHES]
        print(way, ", ".join(f"{mean:.3f}" for mean in means_of))


if __name__ == "__main__":
    main()
