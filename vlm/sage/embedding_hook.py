"""Vectors in the place of placeholder tokens, whatever the base model does with the ids beside embedding them.

A base model embeds its tokens itself and may do more with their ids (3-D positions, its own image tokens). So the
vectors are set into what its embedding layer gives, for one call and in one thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def vectors_at(embedding: nn.Module, places: list[torch.Tensor], vectors: list[torch.Tensor]) -> Iterator[None]:
    """While open, the embedding layer gives `vectors` at `places` instead of token embeddings.

    Args:
        embedding: the layer that is called with ids (batch, length).
        places: masks (batch, length).
        vectors: for each mask (n, width), in the order of its true places, row by row.

    Raises:
        ValueError: places and vectors differ in number.
    """
    for where, rows in zip(places, vectors, strict=True):
        if int(where.sum()) != len(rows):
            raise ValueError(f"the prompt has {int(where.sum())} placeholders for {len(rows)} vectors")
    thread = threading.get_ident()

    def hook(_module: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        # Two inspections may share the model in two threads; each sees its own facts.
        if threading.get_ident() != thread or output.shape[:2] != places[0].shape:
            return output
        for where, rows in zip(places, vectors, strict=True):
            output = output.masked_scatter(where.to(output.device)[..., None], rows.to(output.device, output.dtype))
        return output

    handle = embedding.register_forward_hook(hook) if places else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def flat_rows(features: Any) -> torch.Tensor:
    """Rows of image features, whether a base gives (tiles, tokens, width) or a list of (tokens, width)."""
    return features.flatten(0, 1) if isinstance(features, torch.Tensor) else torch.cat(list(features))


def project_rows(project: nn.Module, features: Any) -> Any:
    """Image features through a layer, in the form in which the base gave them."""
    return project(features) if isinstance(features, torch.Tensor) else [project(part) for part in features]


def last_places(keep: int | torch.Tensor, ids: torch.Tensor | None) -> int | torch.Tensor:
    """The last `keep` places as a tensor of indices where there are several rows.

    Hugging Face's models cut the last places out with a slice. Of several rows that is not contiguous, and `matmul` then
    copies a frozen output layer once for each row: 4.5 GB for 80 rows of SmolLM2-135M. What is indexed is contiguous.
    """
    if isinstance(keep, torch.Tensor) or not keep or ids is None or len(ids) == 1:
        return keep
    length = ids.shape[1]
    return torch.arange(max(0, length - keep), length, device=ids.device)
