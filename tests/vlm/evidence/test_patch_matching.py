"""Eq. 1 against plain loops in double precision, in both readings of its inner operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sage_ad.vlm.evidence.patch_matching import (
    distinct_patches,
    patch_similarity,
    top_mean,
    within_similarity,
)


def unit(rng: np.random.Generator, count: int, channels: int = 7) -> np.ndarray:
    values = rng.normal(size=(count, channels))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def by_loops(test: np.ndarray, reference: np.ndarray, matching: str) -> list[float]:
    """max_j (or, as printed, min_j) of the cosine between test patch i and reference patch j."""
    found = []
    for i in range(len(test)):
        similarities = []
        for j in range(len(reference)):
            dot = sum(float(a) * float(b) for a, b in zip(test[i], reference[j], strict=True))
            similarities.append(dot)
        found.append(max(similarities) if matching == "nearest" else min(similarities))
    return found


@pytest.mark.parametrize("matching", ["nearest", "paper"])
@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_similarity_equals_plain_loops(matching: str, chunk: int) -> None:
    rng = np.random.default_rng(3)
    test, reference = unit(rng, 23), unit(rng, 11)
    found = patch_similarity(
        torch.tensor(test, dtype=torch.float32),
        torch.tensor(reference, dtype=torch.float32),
        matching=matching,
        chunk=chunk,
    )
    np.testing.assert_allclose(found.numpy(), by_loops(test, reference, matching), atol=1e-6)


@pytest.mark.parametrize("matching", ["nearest", "paper"])
def test_distinct_patches_are_the_k_least_similar(matching: str) -> None:
    rng = np.random.default_rng(4)
    test, reference = unit(rng, 40), unit(rng, 15)
    similarity = by_loops(test, reference, matching)
    wanted = sorted(range(40), key=lambda i: similarity[i])[:6]
    assert distinct_patches(torch.tensor(similarity), 6).tolist() == wanted


def test_the_two_readings_differ() -> None:
    """A patch that equals one reference patch and opposes another is normal for one and distinct for the other."""
    reference = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    test = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert distinct_patches(patch_similarity(test, reference, matching="nearest"), 1).tolist() == [1]
    assert distinct_patches(patch_similarity(test, reference, matching="paper"), 1).tolist() == [0]


def test_more_distinct_patches_than_patches_gives_all_and_ties_keep_their_order() -> None:
    assert distinct_patches(torch.tensor([0.5, 0.2, 0.2]), 10).tolist() == [1, 2, 0]


def test_wrong_input_raises() -> None:
    a, b = torch.ones(2, 3), torch.ones(2, 4)
    with pytest.raises(ValueError, match="expected"):
        patch_similarity(a, b)
    with pytest.raises(ValueError, match="no reference patch"):
        patch_similarity(a, a[:0])
    with pytest.raises(ValueError, match="matching"):
        patch_similarity(a, a, matching="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        distinct_patches(torch.ones(3), 0)


def test_top_mean_takes_at_least_one_value() -> None:
    values = torch.arange(200.0)
    assert top_mean(values, 0.01).item() == pytest.approx(198.5)
    assert top_mean(values[:5], 0.01).item() == 4.0


def unit_grid(seed: int, height: int = 6, width: int = 5) -> np.ndarray:
    return unit(np.random.default_rng(seed), height * width).reshape(height, width, -1)


def test_within_similarity_equals_plain_loops() -> None:
    grid, radius = unit_grid(8), 1
    found = within_similarity(torch.tensor(grid), radius, chunk=7)
    for y in range(6):
        for x in range(5):
            apart = [
                float(grid[y, x] @ grid[v, u])
                for v in range(6)
                for u in range(5)
                if max(abs(v - y), abs(u - x)) > radius
            ]
            assert found[y, x].item() == pytest.approx(max(apart))
