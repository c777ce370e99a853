"""The mathematics of comparing a test picture with references, patch by patch (Eq. 1); no pictures, no models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Matching = Literal["nearest", "paper"]
CHUNK = 2048
"""Test patches compared at a time: 2,048 x 100,000 reference patches take 0.8 GB."""


def patch_similarity(
    test: torch.Tensor, reference: torch.Tensor, *, matching: Matching = "nearest", chunk: int = CHUNK
) -> torch.Tensor:
    """Similarity of every test patch to the reference: the inner operator of Eq. 1.

    `matching="nearest"` takes a patch's best match, max_j <v_t,i , v_r,j>, as nearest-neighbour practice does;
    `matching="paper"` takes its worst match, min_j <v_t,i , v_r,j>, as Eq. 1 is printed.

    Args:
        test: (n, C) unit-length vectors.
        reference: (m, C) unit-length vectors, of one or several references.
        chunk: test patches at a time, which bounds the memory.

    Returns:
        (n,) cosine similarities in [-1, 1].

    Raises:
        ValueError: shapes that do not fit, no reference patch, or an unknown matching.
    """
    import torch

    if matching not in ("nearest", "paper"):
        raise ValueError(f"matching must be 'nearest' or 'paper', not {matching!r}")
    if test.ndim != 2 or reference.ndim != 2 or test.shape[1] != reference.shape[1]:
        raise ValueError(f"expected (n, C) and (m, C), got {tuple(test.shape)} and {tuple(reference.shape)}")
    if not len(reference):
        raise ValueError("there is no reference patch to compare with")
    found = []
    for part in test.split(chunk):
        similarity = part @ reference.T
        found.append(similarity.amax(dim=1) if matching == "nearest" else similarity.amin(dim=1))
    return torch.cat(found) if found else test.new_zeros(0)


def within_similarity(features: torch.Tensor, radius: int, chunk: int = 512, most: int | None = None) -> torch.Tensor:
    """Best match of every patch anywhere else in the same picture: low where a patch is rare.

    Args:
        features: (h, w, C) unit-length vectors.
        radius: patches at most this many rows and columns away overlap the patch and do not count.
        chunk: patches at a time, which bounds the memory.
        most: compare with so many patches at most, spread evenly, which bounds the time; None takes all.

    Returns:
        (h, w) cosine similarities; -1 where the picture is too small to hold another patch.
    """
    import torch

    height, width = features.shape[:2]
    tokens = features.flatten(0, 1)
    index = torch.arange(height * width, device=features.device)
    rows, columns = index // width, index % width
    others = index
    if most is not None and most < len(index):
        others = torch.linspace(0, len(index) - 1, most, device=index.device).long()
    known = tokens[others].T
    found = []
    for part in index.split(chunk):
        near = (rows[part, None] - rows[others]).abs() <= radius
        near &= (columns[part, None] - columns[others]).abs() <= radius
        found.append((tokens[part] @ known).masked_fill_(near, -1.0).amax(dim=1))
    return torch.cat(found).reshape(height, width)


def distinct_patches(similarity: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the K patches with the lowest similarity to the reference (Eq. 1), lowest first.

    Args:
        similarity: (n,) similarity of each test patch.
        k: how many; all of them if there are fewer.

    Returns:
        (min(k, n),) int64 indices into the test patches; ties go to the earlier patch.
    """
    import torch

    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return torch.sort(similarity, stable=True).indices[:k]


def top_mean(values: torch.Tensor, share: float) -> torch.Tensor:
    """Mean of the highest `share` (0 to 1) of the values, at least one of them."""
    count = max(1, round(share * values.numel()))
    return values.flatten().topk(count).values.mean()
