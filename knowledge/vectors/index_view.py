"""One consistent view of the vector index in memory, and the search in it.

A view is made of parts: the mapped segments, and the delta of what was added since. Every part knows for each position
the row of its vector and the code of its label; a filter becomes a bitmap over positions, which FAISS asks while it
searches (`IDSelectorBitmap`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sage_ad.knowledge.vectors.gpu import search_copy
from sage_ad.knowledge.vectors.segments import DEAD, Segment, positions_of

Label = Mapping[str, Any]


@dataclass
class Delta:
    """Vectors that are in no segment yet, in memory."""

    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    index: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rows: list[int], codes: list[int], vectors: np.ndarray) -> None:
        """Appends vectors (n, dimensions) under rows that are higher than all before."""
        import faiss

        if self.index is None:
            self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)
        self.rows = np.concatenate([self.rows, np.array(rows, np.int64)])
        self.codes = np.concatenate([self.codes, np.array(codes, np.uint32)])

    def positions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rows stand: (positions, mask over `rows` of those that are here)."""
        return positions_of(rows, self.rows)

    def blocks(self, keep: np.ndarray) -> Iterable[np.ndarray]:
        """The vectors whose position is set in the mask `keep`."""
        if keep.any():
            yield self.index.reconstruct_n(0, len(self))[keep]


Part = Segment | Delta


@dataclass
class View:
    """Segments and delta as they were at one version of the index."""

    version: int = 0
    layout: str = ""
    segments: list[Segment] = field(default_factory=list)
    delta: Delta = field(default_factory=Delta)
    labels: dict[int, Label] = field(default_factory=dict)
    _selectors: dict[bytes, list[Any]] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        """All segments, then the delta."""
        return [*self.segments, self.delta]

    @property
    def last_row(self) -> int:
        """The highest row that stands in the view."""
        if len(self.delta):
            return int(self.delta.rows[-1])
        return max((segment.info.last for segment in self.segments), default=0)

    @property
    def changed_since(self) -> int:
        """The version from which changes must be laid over the segments as they were written."""
        return min((segment.info.version for segment in self.segments), default=-1)

    def mark(self, rows: list[int], codes: list[int]) -> None:
        """Gives the vectors of these rows other codes (`DEAD` deletes them), wherever they stand."""
        order = np.argsort(np.array(rows, np.int64))
        ordered, values = np.array(rows, np.int64)[order], np.array(codes, np.uint32)[order]
        for part in self.parts:
            positions, here = part.positions(ordered)
            part.codes[positions] = values[here]
        self._selectors.clear()

    def selectors(self, allowed: Callable[[Label], bool] | None, only: np.ndarray | None = None) -> list[Any]:
        """For every part: None (all may be found), False (nothing may) or a FAISS selector.

        Args:
            allowed: decides by label; None allows all that is alive.
            only: the only rows that may be found.
        """
        table = np.zeros(max(self.labels, default=0) + 1, dtype=bool)
        for code, label in self.labels.items():
            table[code] = allowed is None or allowed(label)
        table[DEAD] = False
        if only is not None:
            return [_selector(table[part.codes] & np.isin(part.rows, only)) for part in self.parts]
        name = table.tobytes()
        if name not in self._selectors:
            if len(self._selectors) >= 16:
                self._selectors.pop(next(iter(self._selectors)))
            self._selectors[name] = [_selector(table[part.codes]) for part in self.parts]
        return self._selectors[name]


def _selector(mask: np.ndarray) -> Any:
    import faiss

    if mask.all():
        return None
    if not mask.any():
        return False
    bits = np.packbits(mask, bitorder="little")
    selector: Any = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
    selector.bits = bits  # FAISS only points to the bitmap: it must live as long as the selector
    return selector


def search_part(part: Part, query: np.ndarray, k: int, selector: Any) -> list[tuple[float, int]]:
    """The k best of one part as (score, row); `selector` as `View.selectors` gives it, `query` (1, dimensions)."""
    import faiss

    if selector is False or not len(part):
        return []
    k = min(k, len(part))
    copy = part.gpu if isinstance(part, Segment) else None
    found = search_copy(copy, query, k, selector) if copy is not None else None
    if found is None:
        parameters = None if selector is None else faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, positions = part.index.search(query, k, params=parameters)
        found = scores[0], positions[0]
    return [(float(score), int(part.rows[position])) for score, position in zip(*found, strict=True) if position >= 0]
