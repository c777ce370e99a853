"""Do features of stride 16 that lie where those of stride 8 lie, or a mirrored border, tell defects better? (docs/detection.md)

    .venv/bin/python benchmarks/aligned_features.py ../shared/data

The padding of the embedded encoder's strided convolutions moves what stride 16 sees by .75 of a stride-8 cell against what stride
8 sees. The categories, images and draws are those of `evidence_trials.py`; image AUROC with 1, 4 and 8 references.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import evidence_trials as trials
import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL import Image

WAYS = {"plain": (0.0, 0), "moved by .5": (0.5, 0), "moved by .75": (0.75, 0), "moved by 1": (1.0, 0),
        "mirrored border": (0.0, 32), "mirrored border, moved by .75": (0.75, 32)}  # fmt: skip
"""Cells by which stride 16 is moved, pixels of border that mirror the picture and are cut off again."""


def joined(fine: torch.Tensor, coarse: torch.Tensor, moved: float, cut: int) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    fine, coarse = F.normalize(fine, dim=1), F.normalize(coarse, dim=1)
    axes = [
        2 * ((torch.arange(n) + 0.5 + moved) * m / n) / m - 1
        for n, m in zip(fine.shape[-2:], coarse.shape[-2:], strict=True)
    ]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    at = torch.stack([columns, rows], dim=-1)[None]
    coarse = F.normalize(F.grid_sample(coarse, at, padding_mode="border", align_corners=False), dim=1)
    whole = (torch.cat([fine, coarse], dim=1) / 2**0.5)[0].permute(1, 2, 0)
    return whole[cut : whole.shape[0] - cut, cut : whole.shape[1] - cut].contiguous()


def encoded(encoder: Any, picture: Image.Image) -> dict[str, torch.Tensor]:
    import torch
    import torch.nn.functional as F

    from sage_ad.vlm.evidence.encoders import to_tensor, working_size

    pixels = to_tensor(picture, *working_size(*picture.size, 320, multiple=16))
    found = {}
    with torch.inference_mode():
        for border in {border for _, border in WAYS.values()}:
            levels = encoder.levels(F.pad(pixels, (border,) * 4, mode="reflect") if border else pixels)
            for name, (moved, own) in WAYS.items():
                if own == border:
                    found[name] = joined(levels["8"], levels["16"], moved, border // 8)
    return found


def main() -> None:
    import torch

    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.vlm.evidence.encoders import load_encoder
    from sage_ad.vlm.images import load_image

    torch.set_num_threads(1)
    root, encoder = Path(sys.argv[1]), load_encoder()
    table: dict[str, dict[str, list[float]]] = {}
    for group in trials.GROUPS:
        for category in open_dataset(root / group).categories:
            dataset = open_dataset(root / group, categories=[category])
            tests = trials._tests(dataset, category)
            own = all(sample.reference for sample in tests)
            pool = sorted(dataset.normals(category), key=lambda s: s.id)
            random.Random(category).shuffle(pool)
            references = [s.reference for s in tests] if own else [s.image for s in pool[: trials.REFERENCES]]
            if len({sample.anomalous for sample in tests}) < 2 or not references:
                continue
            good = [encoded(encoder, load_image(path)) for path in references]
            data: dict[str, Any] = {"anomalous": np.array([bool(s.anomalous) for s in tests]), "own": own}
            data["quantiles"] = np.zeros((len(tests) + len(good), 1))
            for i, sample in enumerate(tests):
                seen = encoded(encoder, load_image(sample.image))
                for way in WAYS:
                    others = [good[j][way] for j in ([i] if own else range(len(good)))]
                    data[f"{i}/{way}"] = trials._distances(seen[way], others)
            table[category] = {
                way: [trials.auroc(data, shots, trials.way(way), trials.SHARE) for shots in trials.SHOTS]
                for way in WAYS
            }
            print(
                f"| {category} | {' | '.join(', '.join(f'{v:.3f}' for v in row) for row in table[category].values())} |"
            )
    for way in WAYS:
        rows = np.array([row[way] for row in table.values()])
        lost = rows - np.array([row["plain"] for row in table.values()])
        worst = ", ".join(f"{100 * np.nanmin(column):+.1f} {list(table)[np.nanargmin(column)]}" for column in lost.T)
        print(f"{way}: {', '.join(f'{v:.3f}' for v in np.nanmean(rows, axis=0))}; worst {worst}")


if __name__ == "__main__":
    main()
