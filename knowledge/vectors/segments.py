"""An immutable segment of the vector index: a memory-mapped FAISS file beside the rows and labels of its vectors.

Vectors are kept as 16-bit floats (`IndexScalarQuantizer`, QT_fp16): half the memory of 32 bits, a search twice as fast,
and the same ten best neighbours in all but a few queries of a thousand. FAISS maps such a file without reading it.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DEAD = 0
"""Label code of a vector that was deleted."""

_WHOLE_CHECK = 1 << 26
_BLOCK = 1 << 16


class UnusableIndex(Exception):
    """The index on disk is damaged or belongs to another model or version; the message says which."""


@dataclass(frozen=True)
class SegmentInfo:
    """What the index remembers of a segment: its name, the rows it covers, the version it was written at, checksums."""

    name: str
    first: int
    last: int
    count: int
    version: int
    check: str


class Segment:
    """A mapped segment. `codes` says for every position which label its vector has; `DEAD` means deleted.

    Args:
        folder: the index's folder.
        info: which segment.

    Raises:
        UnusableIndex: when a file is not what was written.
        FileNotFoundError: when it is gone, as after a merge by another process.
    """

    def __init__(self, folder: Path, info: SegmentInfo) -> None:
        import faiss

        self.info = info
        paths = segment_files(folder, info.name)
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(path)
        if not _looks_whole(paths, info.check):
            raise UnusableIndex(f"{paths[0].name} is damaged")
        try:
            self.index = faiss.read_index(str(paths[0]), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            if not paths[0].exists():  # taken away since we looked
                raise FileNotFoundError(paths[0]) from None
            raise UnusableIndex(f"{paths[0].name} cannot be read ({str(error).splitlines()[0]})") from None
        self.rows: np.ndarray = np.load(paths[1], mmap_mode="r")
        # A copy, because deletions since the segment was written are marked in it: 4 bytes a vector.
        self.codes: np.ndarray = np.array(np.load(paths[2], mmap_mode="r"))
        if not self.index.ntotal == len(self.rows) == len(self.codes) == info.count:
            raise UnusableIndex(f"{paths[0].name} and its rows do not have the same length")

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def gpu(self) -> Any:
        """A copy of the vectors on the GPU, made at the first search; None where there is none."""
        from sage_ad.knowledge.vectors.gpu import on_gpu

        return on_gpu(self.index.d, len(self), self.blocks(np.ones(len(self), dtype=bool)))

    def positions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rows stand in this segment: (positions, mask over `rows` of those that are here)."""
        return positions_of(rows, self.rows)

    def blocks(self, keep: np.ndarray, size: int = 8192) -> Iterable[np.ndarray]:
        """The vectors whose position is set in the mask `keep`, in blocks."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            if keep[start:stop].any():
                yield self.index.reconstruct_n(start, stop - start)[keep[start:stop]]


def positions_of(wanted: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where `wanted` rows stand in ascending `rows`: (positions, mask over `wanted` of those that are there)."""
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(len(wanted), bool)
    where = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    here = rows[where] == wanted
    return where[here], here


def segment_files(folder: Path, name: str) -> list[Path]:
    """The files of a segment: vectors, rows, label codes."""
    return [folder / f"{name}{ending}" for ending in (".faiss", ".rows.npy", ".codes.npy")]


def write_segment(
    folder: Path,
    name: str,
    dimensions: int,
    blocks: Iterable[np.ndarray],
    rows: np.ndarray,
    codes: np.ndarray,
    version: int,
) -> SegmentInfo:
    """Writes a segment's files, each on the disk when this returns. No reader knows of them until they are announced.

    Args:
        folder: the index's folder.
        name: a name that was never used before.
        dimensions: length of a vector.
        blocks: the vectors in the order of `rows`, in blocks (n, dimensions) float32.
        rows: their row numbers, ascending.
        codes: their label codes.
        version: the version of the index that the codes describe.
    """
    import faiss

    index = faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for block in blocks:
        index.add(np.ascontiguousarray(block, dtype=np.float32))
    paths = segment_files(folder, name)
    try:
        faiss.write_index(index, str(paths[0]))
        np.save(paths[1], rows.astype(np.int64))
        np.save(paths[2], codes.astype(np.uint32))
        for path in paths:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    except (OSError, RuntimeError) as error:  # FAISS reports a full disk as a RuntimeError
        for path in paths:
            path.unlink(missing_ok=True)
        raise OSError(f"a segment of {len(rows)} vectors could not be written: {str(error).splitlines()[0]}") from None
    first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, 0)
    return SegmentInfo(name, first, last, len(rows), version, _checksums(paths))


def verify_segment(folder: Path, info: SegmentInfo) -> None:
    """Reads every byte of a segment; raises `UnusableIndex` when one is not what was written."""
    for path, written in zip(segment_files(folder, info.name), json.loads(info.check), strict=True):
        if _crc(path, whole=True) != written["whole"]:
            raise UnusableIndex(f"{path.name} is damaged")


def _checksums(paths: list[Path]) -> str:
    return json.dumps(
        [{"bytes": p.stat().st_size, "sampled": _crc(p, whole=False), "whole": _crc(p, whole=True)} for p in paths]
    )


def _looks_whole(paths: list[Path], check: str) -> bool:
    """Size and sampled checksum of every file: milliseconds, whatever the size."""
    return all(
        path.stat().st_size == written["bytes"] and _crc(path, whole=False) == written["sampled"]
        for path, written in zip(paths, json.loads(check), strict=True)
    )


def _crc(path: Path, *, whole: bool) -> int:
    """CRC-32 of a file: of every byte, or (`whole` false, over 64 MB) of 64 blocks from its first to its last."""
    size = path.stat().st_size
    crc = 0
    with path.open("rb") as stream:
        if whole or size <= _WHOLE_CHECK:
            for block in iter(functools.partial(stream.read, 1 << 20), b""):
                crc = zlib.crc32(block, crc)
        else:
            for number in range(64):
                stream.seek((size - _BLOCK) * number // 63)
                crc = zlib.crc32(stream.read(_BLOCK), crc)
    return crc
