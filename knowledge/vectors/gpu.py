"""Segments on a GPU, where one is visible to a FAISS that can use it (`faiss-gpu`); elsewhere everything stays mapped.

A GPU index knows no selectors: a filtered search takes more neighbours than asked for and drops those that may not be
found; when too few are left, the mapped segment answers instead, so that the result is the same in every case.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

SMALLEST = 50_000
"""Vectors from which a copy on the GPU pays: below, the mapped segment answers within a few milliseconds."""

_MOST = 2048  # neighbours that a GPU index can find in one search


def gpu_count() -> int:
    """How many GPUs the installed FAISS can use; 0 for faiss-cpu."""
    import faiss

    count = getattr(faiss, "get_num_gpus", None)
    return int(count()) if count is not None and hasattr(faiss, "StandardGpuResources") else 0


def on_gpu(dimensions: int, size: int, blocks: Iterable[np.ndarray]) -> Any:
    """A 16-bit copy of vectors on the first GPU, as a FAISS index; None without a GPU, for few vectors, on failure.

    Args:
        dimensions: length of a vector.
        size: how many vectors there are.
        blocks: the vectors in order, (n, dimensions) each.
    """
    if size < SMALLEST or not gpu_count():
        return None
    try:
        index = _empty(dimensions)
        for block in blocks:
            index.add(np.ascontiguousarray(block, dtype=np.float32))
        return index
    except RuntimeError as error:  # most often: its memory is full
        reason = str(error).splitlines()[0]
        print(f"Warning: {size} vectors were not copied to the GPU ({reason}); the CPU searches them.", file=sys.stderr)
        return None


def _empty(dimensions: int) -> Any:
    import faiss

    settings = faiss.GpuIndexFlatConfig()
    settings.useFloat16 = True
    index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dimensions, settings)
    return index


def search_copy(index: Any, query: np.ndarray, k: int, selector: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores and positions, best first, of the k best that a selector lets pass; None when the copy cannot tell.

    Args:
        index: what `on_gpu` gave.
        query: (1, dimensions).
        k: how many.
        selector: a FAISS selector over positions; None lets all pass.
    """
    if k > _MOST:
        return None
    wide = min(_MOST, index.ntotal, k if selector is None else max(8 * k, 256))
    scores, positions = index.search(query, wide)
    if selector is None:
        return scores[0], positions[0]
    kept = np.array([position >= 0 and selector.is_member(int(position)) for position in positions[0]], dtype=bool)
    if kept.sum() < k and wide < index.ntotal:
        return None
    return scores[0][kept][:k], positions[0][kept][:k]
