"""Parts of a batch judged by one another: who is compared with whom, and what their scores say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sage_ad.vlm.evidence.peers import PEERS, batch_threshold, draw_peers, nearest_mean


def test_each_part_gets_a_bounded_number_of_others_by_content() -> None:
    contents = [f"content {number}" for number in range(100)]
    drawn = draw_peers(contents)
    assert all(len(set(peers)) == PEERS and own not in peers for own, peers in enumerate(drawn))
    turned = draw_peers(contents[::-1])[::-1]  # other names, another order: the same pictures are compared
    assert [{99 - peer for peer in peers} for peers in turned] == [set(peers) for peers in drawn]
    assert all(own in drawn[peer] for own, peers in enumerate(drawn) for peer in peers)
    assert all(len(peers) == 19 for peers in draw_peers(contents[:20]))
    assert [sorted(peers) for peers in draw_peers(contents[:3])] == [[1, 2], [0, 2], [0, 1]]


def test_a_part_that_is_there_twice_does_not_explain_itself() -> None:
    drawn = draw_peers(["a", "b", "a", "c"])
    assert [sorted(peers) for peers in drawn] == [[1, 3], [0, 3], [1, 3], [0, 1]]


def test_a_patch_counts_by_the_parts_that_explain_it_best() -> None:
    maps = torch.full((10, 2), 0.5)
    maps[3:5, 0] = torch.tensor([0.1, 0.2])  # two of ten have the like of the first patch
    assert nearest_mean(maps).tolist() == pytest.approx([0.15, 0.5])
    assert nearest_mean(maps[:1]).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("odd", [0, 2, 6])
def test_odd_parts_lie_above_the_threshold_and_within_the_estimate(odd: int, scale: float) -> None:
    usual = np.exp(np.random.default_rng(0).normal(0, 0.1, 20 - odd)) * 0.1 * scale
    found = batch_threshold([*usual, *[0.3 * scale] * odd])
    assert (usual > found.threshold).sum() <= 2
    assert found.threshold < 0.3 * scale
    assert found.odd[0] <= odd <= found.odd[1]
    assert "other parts of this batch" in found.reason
    assert not found.warnings


def test_few_parts_are_a_warning() -> None:
    (warning,) = batch_threshold([0.1, 0.1, 0.1, 0.1, 0.3]).warnings
    assert "Only 5 parts" in warning
    assert "Give a good part" in warning
