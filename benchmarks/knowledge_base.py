"""Scale and speed of the knowledge base's index beside raw FAISS, in one run.

    python benchmarks/knowledge_base.py                    1,000,000 synthetic vectors (3 GB of disk)
    python benchmarks/knowledge_base.py --vectors 100000   a smaller index

The vectors are synthetic (a mixture of 2,000 Gaussian clusters, unit length): a million sentences would take more than an
hour to embed here. Memory is measured in processes of their own, one for each contender. How well the search finds what
people want is measured by `benchmarks/pack_retrieval.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DIMENSIONS = 384
BLOCK = 50_000
QUERIES = 60
K = 10
RAW = "raw.faiss"

DOMAINS = [f"domain{number}" for number in range(10)]
KINDS = ["appearance", "cause", "consequence", "normal-variation", "inspection"]


def clusters(rng: Any, size: int, seed: int = 0) -> Any:
    """Unit vectors around the 2,000 centres of a seed, the same for every contender."""
    import numpy as np

    centres = np.random.default_rng(seed).standard_normal((2000, DIMENSIONS), dtype=np.float32)
    vectors = centres[rng.integers(len(centres), size=size)] + rng.standard_normal((size, DIMENSIONS), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def synthetic(total: int, seed: int = 0) -> Iterator[Any]:
    """What is indexed, in blocks."""
    import numpy as np

    for number, start in enumerate(range(0, total, BLOCK)):
        yield clusters(np.random.default_rng([seed, number]), min(BLOCK, total - start), seed)


def queries() -> Any:
    """Queries from the same mixture that are not in the index."""
    import numpy as np

    return clusters(np.random.default_rng([0, 10**9]), QUERIES)


def label(number: int) -> dict[str, str]:
    """The label of the n-th vector."""
    return {"domain": DOMAINS[number % 10], "kind": KINDS[number // 10 % 5], "status": "approved"}


def memory() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def milliseconds(task: Callable[[Any], Any], items: Any) -> dict[str, float]:
    """Median and 95th percentile of the time of one call."""
    times = []
    for item in items:
        start = time.perf_counter()
        task(item)
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return {"p50": statistics.median(times), "p95": times[int(0.95 * len(times))]}


def build(folder: Path, total: int) -> dict[str, Any]:
    """Builds our index in blocks, as many adds would; writes the same vectors as FAISS's own file, for `raw`."""
    import faiss
    import numpy as np

    from sage_ad.knowledge.vectors.index import VectorIndex

    own: Any = faiss.IndexScalarQuantizer(DIMENSIONS, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    start = time.perf_counter()
    index = VectorIndex(folder, DIMENSIONS, "synthetic")
    exact: list[tuple[Any, Any]] = []
    asked = queries()
    added = 0
    comparing = 0.0
    for block in synthetic(total):
        keys = [f"{number:016x}" for number in range(added, added + len(block))]
        index.upsert(keys, block, [label(number) for number in range(added, added + len(block))])
        begun = time.perf_counter()
        scores = asked @ block.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        exact.append((np.take_along_axis(scores, best, 1), best + added))
        own.add(block)
        comparing += time.perf_counter() - begun
        added += len(block)
    filled = time.perf_counter() - start - comparing
    index.close()
    faiss.write_index(own, str(folder / RAW))
    scores = np.concatenate([part[0] for part in exact], axis=1)
    numbers = np.concatenate([part[1] for part in exact], axis=1)
    top = np.take_along_axis(numbers, np.argsort(-scores, axis=1)[:, :K], axis=1)
    np.save(folder / "exact.npy", top)
    return {"seconds_adding": filled}


def ours(folder: Path, total: int) -> dict[str, Any]:
    """Opens our index in a fresh process, searches it, adds to it, deletes from it."""
    import faiss  # noqa: F401  what the import costs is not what opening costs
    import numpy as np

    from sage_ad.knowledge.vectors.index import VectorIndex

    before = memory()
    start = time.perf_counter()
    index = VectorIndex(folder, DIMENSIONS, "synthetic")
    index.search(queries()[0], 1, keys=["none"])
    opened = time.perf_counter() - start
    asked = queries()
    start = time.perf_counter()
    index.search(asked[0], K)
    first = time.perf_counter() - start
    plain = milliseconds(lambda query: index.search(query, K), asked)
    after = memory()
    top = np.load(folder / "exact.npy")
    hits = [{int(key, 16) for key, _ in index.search(query, K)} for query in asked]
    recall = statistics.mean(len(found & set(row.tolist())) / K for found, row in zip(hits, top, strict=True))
    one = milliseconds(lambda query: index.search(query, K, {"domain": ["domain3"]}), asked)
    narrow = milliseconds(lambda query: index.search(query, K, {"domain": ["domain3"], "kind": ["cause"]}), asked)
    fresh = next(synthetic(1000, seed=7))
    start = time.perf_counter()
    index.upsert([f"n{number:015x}" for number in range(1000)], fresh, [label(number) for number in range(1000)])
    adding = time.perf_counter() - start
    found = all(index.search(fresh[number], 1)[0][0] == f"n{number:015x}" for number in range(0, 1000, 100))
    start = time.perf_counter()
    index.delete([f"{number:016x}" for number in range(1000)] + [f"n{number:015x}" for number in range(500)])
    deleting = time.perf_counter() - start
    changed = milliseconds(lambda query: index.search(query, K), asked)
    gone = index.search(fresh[0], 1)[0][0] != "n" + "0" * 15
    index.delete([f"n{number:015x}" for number in range(1000)])
    start = time.perf_counter()
    index.compact()
    compacting = time.perf_counter() - start
    files = sum(path.stat().st_size for path in folder.glob("vectors-*")) / 1e6
    return {
        "open_seconds": opened,
        "first_search_ms": 1000 * first,
        "search_ms": plain,
        "search_one_domain_ms": one,
        "search_domain_and_kind_ms": narrow,
        "search_after_adds_and_deletions_ms": changed,
        "recall_at_10": recall,
        "memory_mb": after,
        "memory_before_opening_mb": before,
        "index_file_mb": files,
        "add_1000_seconds": adding,
        "delete_1500_seconds": deleting,
        "compact_seconds": compacting,
        "added_are_found": found,
        "deleted_are_gone": gone,
    }


def raw(folder: Path, total: int) -> dict[str, Any]:
    """The same vectors in FAISS's own file, read by FAISS itself: into memory, and mapped."""
    import faiss

    path = str(folder / RAW)
    result: dict[str, Any] = {}
    for name, flags in (("mapped", faiss.IO_FLAG_MMAP_IFC), ("in memory", 0)):
        before = memory()
        start = time.perf_counter()
        index = faiss.read_index(path, flags)
        opened = time.perf_counter() - start
        asked = queries()
        index.search(asked[:1], K)
        times = milliseconds(lambda query, index=index: index.search(query[None], K), asked)  # type: ignore[misc]
        result[name] = {"open_seconds": opened, "search_ms": times, "memory_mb": memory() - before}
        del index
    return result


CONTENDERS = {"build": build, "ours": ours, "raw": raw}


def apart(name: str, folder: Path, total: int) -> dict[str, Any]:
    """Runs a contender in a process of its own and returns what it measured."""
    command = [sys.executable, __file__, "--contender", name, "--folder", str(folder), "--vectors", str(total)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(total: int, result: dict[str, Any]) -> None:
    """One table of the contenders, and the promises beside what was measured."""
    from sage_ad.evaluation.reports.tables import markdown_table

    mine, mapped, loaded = result["ours"], result["raw"]["mapped"], result["raw"]["in memory"]
    threads = os.environ.get("OMP_NUM_THREADS", f"{os.cpu_count()} (all)")
    print(f"{total:,} vectors of {DIMENSIONS} numbers (16-bit, exhaustive search), k = {K}, threads {threads}\n")

    def cell(value: Any) -> Any:
        return f"{value['p50']:.1f} / {value['p95']:.1f}" if isinstance(value, dict) else value

    rows = [[key.replace("_", " "), *(cell(column.get(key)) for column in (mine, mapped, loaded))] for key in mine]
    print(markdown_table(["times p50 / p95", "SAGE", "FAISS mapped", "FAISS in memory"], rows))
    print(f"built in {result['build']['seconds_adding']:.0f} s")
    fastest = min(mapped["search_ms"]["p50"], loaded["search_ms"]["p50"])
    ratio = mine["search_ms"]["p50"] / fastest
    promises = [
        ("open < 1 s", mine["open_seconds"], mine["open_seconds"] < 1),
        ("search p50 / raw FAISS <= 1.5", ratio, ratio <= 1.5),
        ("recall@10 >= 0.95", mine["recall_at_10"], mine["recall_at_10"] >= 0.95),
        (
            "resident memory / index file <= 1.3",
            mine["memory_mb"] / mine["index_file_mb"],
            mine["memory_mb"] <= 1.3 * mine["index_file_mb"],
        ),
        ("adding 1,000 takes seconds", mine["add_1000_seconds"], mine["add_1000_seconds"] < 5),
        ("added are found, deleted are gone", 1.0, mine["added_are_found"] and mine["deleted_are_gone"]),
    ]
    print("promises (made for a million vectors; far fewer are not worth an index):")
    for title, value, kept in promises:
        print(f"  {'kept' if kept else 'MISSED':<7}{title:<40}{value:.3f}")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="synthetic vectors")
    parser.add_argument("--folder", type=Path, help="where the index is built (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--contender", choices=tuple(CONTENDERS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        print(json.dumps(CONTENDERS[given.contender](given.folder, given.vectors)))
        return
    folder = Path(tempfile.mkdtemp(prefix="sage-index-", dir=given.folder))
    try:
        result = {name: apart(name, folder, given.vectors) for name in CONTENDERS}
    finally:
        shutil.rmtree(folder)
    if given.json:
        print(json.dumps({"vectors": given.vectors, "scale": result}, indent=2))
        return
    show(given.vectors, result)


if __name__ == "__main__":
    main()
