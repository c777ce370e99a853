"""Trains `vlm/evidence/defect_head.safetensors`: what a defect tends to look like, seen relative to its own picture.

    python -m benchmarks.train_defect_head ../shared/data --out vlm/evidence/defect_head.safetensors

Three quarters of the pictures are drawn parts (`alignment/synthetic`, in grey), one quarter are crops of good pictures of
the *train* group (its licences allow it); each is read as it is and with one drawn defect. No picture of the groups *dev*
and *test* is read.

The shipped weights came from one net on 800 pictures, each brought to a median of 140, with another drawing of parts and
defects (in the history up to 51a46cd); another run gives other weights, and runs scatter (docs/detection.md), so compare
on *dev* before you replace them.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sage_ad.alignment.synthetic.generate import generate, paste_defect

if TYPE_CHECKING:
    import torch

SIDE = 320
POSITIVE, NEGATIVE = 80, 200
"""Patches taken of each picture, with and without a defect."""


def train_group(data: Path) -> list[Path]:
    """Good pictures of the *train* group."""
    with (data / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [data / row["path"] for row in rows if row["group"] == "train" and row["defect"] == "good"]


def real_crop(rng: np.random.Generator, paths: list[Path]) -> Image.Image:
    """A turned crop of a good picture under another light."""
    image = Image.open(paths[rng.integers(len(paths))]).convert("L")
    share = rng.uniform(0.35, 1)
    width, height = int(image.width * share), int(image.height * share)
    x, y = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    crop = image.crop((x, y, x + width, y + height)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    values = np.rot90(np.asarray(crop, float), int(rng.integers(4))).copy()
    if rng.random() < 0.5:
        values = np.clip((values - values.mean()) * rng.uniform(0.4, 1.2) + rng.uniform(80, 180), 0, 255)
    return Image.fromarray(values.astype(np.uint8))


def pictures(data: Path, count: int, seed: int) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """`count` good pictures and their defective twins, with where the defect is on the 40 x 40 grid (bool)."""
    paths = train_group(data)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        if index % 4 == 0:
            good = real_crop(rng, paths)
            bad = paste_defect(good, seed + index)
        else:
            bad = generate(seed + index, size=SIDE)
            assert bad.reference is not None
            good = bad.reference
        yield good.convert("L"), np.zeros((40, 40), bool)
        if bad.mask.any():
            yield bad.image.convert("L"), bad.mask.reshape(40, 8, 40, 8).any(axis=(1, 3))
        if index % 50 == 0:
            print(f"{index} of {count} pictures read", file=sys.stderr)


def sample(where: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of some patches with a defect and some well away from one, and their labels."""
    import torch
    from scipy import ndimage

    inside = np.flatnonzero(where)
    outside = np.flatnonzero(~ndimage.binary_dilation(where, np.ones((3, 3))))
    inside, outside = rng.permutation(inside)[:POSITIVE], rng.permutation(outside)[:NEGATIVE]
    labels = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))])
    return torch.from_numpy(np.concatenate([inside, outside])), labels


def collect(data: Path, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patches relative to their pictures, their labels, and the mean and spread of the raw channels."""
    import torch

    from sage_ad.vlm.evidence.defect_head import relative_to_picture
    from sage_ad.vlm.evidence.encoders import load_encoder

    encoder, rng = load_encoder(device="cpu"), np.random.default_rng(seed)

    def read(image: Image.Image) -> torch.Tensor:
        contexts = encoder.encode([image], SIDE, context=True).context
        assert contexts is not None
        return contexts[0]

    # What is usual is learned from the first pictures, so that the others need not be kept (2 MB each).
    first = torch.cat([read(image).flatten(0, 1)[::37] for image, _ in pictures(data, min(count, 200), seed)])
    mean, spread = first.mean(dim=0), first.std(dim=0) + 1e-3
    values, labels = [], []
    for image, where in pictures(data, count, seed):
        context = read(image)
        chosen, label = sample(where, rng)
        values.append(relative_to_picture(context, mean, spread)[chosen].half())
        labels.append(label)
    return torch.cat(values), torch.cat(labels), mean, spread


def fit(values: torch.Tensor, labels: torch.Tensor, *, steps: int, seed: int) -> torch.nn.Sequential:
    """A net of one hidden layer; a missed defect patch weighs twice a false one."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.manual_seed(seed)
    layers = [nn.Dropout(0.1), nn.Linear(values.shape[1], 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, 1)]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        batch = torch.randint(0, len(values), (1024,))
        logits = net(values[batch].float())[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, labels[batch], pos_weight=torch.tensor(2.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr)
    return net.eval()


def mean_of(nets: list[torch.nn.Sequential]) -> dict[str, torch.Tensor]:
    """The mean of several nets as one wider net, which scatters less from seed to seed than a single one."""
    import torch

    states = [net.state_dict() for net in nets]
    return {
        "hidden.weight": torch.cat([state["1.weight"] for state in states]),
        "hidden.bias": torch.cat([state["1.bias"] for state in states]),
        "out.weight": torch.cat([state["4.weight"] for state in states], dim=1) / len(nets),
        "out.bias": torch.stack([state["4.bias"] for state in states]).mean(dim=0),
    }


def main() -> None:
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the real images (with index.csv)")
    parser.add_argument("--out", type=Path, required=True, help="file to write (safetensors)")
    parser.add_argument("--pictures", type=int, default=800)
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps of each net")
    parser.add_argument("--members", type=int, default=1, help="nets whose mean is taken")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    values, labels, mean, spread = collect(options.data, options.pictures, options.seed)
    nets = [fit(values, labels, steps=options.steps, seed=options.seed + member) for member in range(options.members)]
    save_file({**mean_of(nets), "mean": mean, "spread": spread}, options.out)
    print(f"{options.out}: {len(labels)} patches, {labels.mean():.3f} of them with a defect")


if __name__ == "__main__":
    main()
