"""Scale and speed of the knowledge base: beside raw FAISS, beside llama-index's default store, in one run.

    python benchmarks/knowledge_base.py                    everything, with 1,000,000 synthetic vectors (3 GB of disk)
    python benchmarks/knowledge_base.py --vectors 100000   a smaller index
    python benchmarks/knowledge_base.py --only embedding   embedding alone; also: scale, retrieval

The vectors of the scale part are synthetic (a mixture of 2,000 Gaussian clusters, unit length): a million sentences
would take more than an hour to embed here. Memory is measured in processes of their own, one for each contender.
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
SIMPLE = 5_000
"""Vectors for llama-index's default store: it holds Python lists, and a million of them do not fit into memory."""

RAW = "raw.faiss"

DOMAINS = [f"domain{number}" for number in range(10)]
KINDS = ["appearance", "cause", "consequence", "normal-variation", "inspection"]


def synthetic(total: int, seed: int = 0) -> Iterator[Any]:
    """Blocks of unit vectors around 2,000 centres, the same for every contender."""
    import numpy as np

    centres = np.random.default_rng(seed).standard_normal((2000, DIMENSIONS), dtype=np.float32)
    for number, start in enumerate(range(0, total, BLOCK)):
        rng = np.random.default_rng([seed, number])
        size = min(BLOCK, total - start)
        block = centres[rng.integers(len(centres), size=size)]
        block += rng.standard_normal((size, DIMENSIONS), dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def queries(seed: int = 0) -> Any:
    """Queries from the same mixture that are not in the index."""
    import numpy as np

    centres = np.random.default_rng(seed).standard_normal((2000, DIMENSIONS), dtype=np.float32)
    rng = np.random.default_rng([seed, 10**9])
    found = centres[rng.integers(len(centres), size=QUERIES)] + rng.standard_normal(
        (QUERIES, DIMENSIONS), dtype=np.float32
    )
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


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


# -- the contenders, each in a process of its own -----------------------------------------------------------------


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


def simple(folder: Path, total: int) -> dict[str, Any]:
    """llama-index's default store, on fewer vectors."""
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores import SimpleVectorStore
    from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery

    count = min(SIMPLE, total)
    before = memory()
    start = time.perf_counter()
    store = SimpleVectorStore()
    number = 0
    for block in synthetic(count):
        nodes = []
        for vector in block.tolist():
            nodes.append(TextNode(id_=str(number), text="", embedding=vector, metadata=label(number)))
            number += 1
        store.add(nodes)
    added = time.perf_counter() - start
    path = folder / "simple.json"
    store.persist(str(path))
    after = memory()
    asked = [query.tolist() for query in queries()[:10]]
    plain = milliseconds(lambda q: store.query(VectorStoreQuery(query_embedding=q, similarity_top_k=K)), asked)
    chosen = MetadataFilters(filters=[MetadataFilter(key="domain", value="domain3")])
    one = milliseconds(
        lambda q: store.query(VectorStoreQuery(query_embedding=q, similarity_top_k=K, filters=chosen)), asked
    )
    start = time.perf_counter()
    SimpleVectorStore.from_persist_path(str(path))
    opened = time.perf_counter() - start
    size = path.stat().st_size / 1e6
    path.unlink()
    return {
        "vectors": count,
        "seconds_adding": added,
        "open_seconds": opened,
        "search_ms": plain,
        "search_one_domain_ms": one,
        "memory_mb": after - before,
        "index_file_mb": size,
    }


CONTENDERS = {"build": build, "ours": ours, "raw": raw, "simple": simple}


def apart(name: str, folder: Path, total: int) -> dict[str, Any]:
    """Runs a contender in a process of its own and returns what it measured."""
    command = [sys.executable, __file__, "--contender", name, "--folder", str(folder), "--vectors", str(total)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# -- embedding and retrieval ---------------------------------------------------------------------------------------


def embedding(rounds: int = 5) -> dict[str, Any]:
    """Sentences a second of our embedder beside the bare encoder (tokeniser and forward, padded batches of 32)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.knowledge.vectors.embedding import default_embedder
    from sage_ad.vlm.weights.embedded import minilm_folder

    with FactStore.open() as store:
        texts = [fact.text for fact in store.facts()][:320]
    folder = minilm_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    embedder = default_embedder()

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, len(texts), 32):
                batch = tokenizer(texts[start : start + 32], padding=True, truncation=True, return_tensors="pt")
                model(**batch)

    def measure(task: Callable[[], Any]) -> float:
        start = time.perf_counter()
        task()
        return len(texts) / (time.perf_counter() - start)

    pairs = [(measure(lambda: embedder.encode(texts)), measure(bare)) for _ in range(rounds)]
    return {
        "sentences": len(texts),
        "ours_per_second": statistics.median(pair[0] for pair in pairs),
        "bare_per_second": statistics.median(pair[1] for pair in pairs),
        "share": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def retrieval() -> dict[str, Any]:
    """recall@5 and nDCG@10 on the labelled queries, and how long opening and one search of the shipped packs take."""
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.knowledge.store.retrieval_eval import measure, read_queries

    path = Path(__file__).parents[1] / "tests" / "data" / "pack_retrieval_queries.yaml"
    wanted = read_queries(path)
    with FactStore.open() as store:
        store.search("warm up")
        result: dict[str, Any] = {mode: measure(store, wanted, mode) for mode in ("dense", "lexical", "fused")}
    start = time.perf_counter()
    with FactStore.open() as store:
        store.prepare()
        result["open_seconds"] = time.perf_counter() - start
        result["search_ms"] = milliseconds(lambda query: store.search(query.text, domain=query.domain), wanted)
        result["facts"] = sum(sum(info.counts.values()) for info in store.domains())
    return result


# -- printing ------------------------------------------------------------------------------------------------------


def show_scale(total: int, result: dict[str, Any]) -> None:
    """One table of the contenders, and the promises beside what was measured."""
    mine, mapped, loaded, default = (
        result["ours"],
        result["raw"]["mapped"],
        result["raw"]["in memory"],
        result["simple"],
    )
    threads = os.environ.get("OMP_NUM_THREADS", f"{os.cpu_count()} (all)")
    print(
        f"\n{total:,} synthetic vectors of {DIMENSIONS} numbers (16-bit, exhaustive search), k = {K}, threads {threads}"
    )
    print(f"{'':<44}{'SAGE':>10}{'FAISS':>12}{'FAISS':>12}{'llama-index':>13}")
    print(f"{'':<44}{'':>10}{'mapped':>12}{'in memory':>12}{default['vectors']:>13,}")
    rows = [
        ("open, s", "open_seconds", "{:.3f}", None),
        ("search p50, ms", "search_ms", "{:.1f}", "p50"),
        ("search p95, ms", "search_ms", "{:.1f}", "p95"),
        ("search one domain of ten p50, ms", "search_one_domain_ms", "{:.1f}", "p50"),
        ("search one domain and kind p50, ms", "search_domain_and_kind_ms", "{:.1f}", "p50"),
        ("search after adds and deletions p50, ms", "search_after_adds_and_deletions_ms", "{:.1f}", "p50"),
        ("resident memory, MB", "memory_mb", "{:.0f}", None),
        ("index file, MB", "index_file_mb", "{:.0f}", None),
        ("add 1,000, s", "add_1000_seconds", "{:.2f}", None),
        ("delete 1,500, s", "delete_1500_seconds", "{:.2f}", None),
        ("compact, s", "compact_seconds", "{:.2f}", None),
    ]
    for title, key, form, part in rows:
        cells = []
        for column in (mine, mapped, loaded, default):
            value = column.get(key)
            value = value[part] if value is not None and part else value
            cells.append("-" if value is None else form.format(value))
        print(f"{title:<44}{cells[0]:>10}{cells[1]:>12}{cells[2]:>12}{cells[3]:>13}")
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
    parser.add_argument("--vectors", type=int, default=1_000_000, help="synthetic vectors of the scale part")
    parser.add_argument("--only", choices=("scale", "embedding", "retrieval"), help="one part alone")
    parser.add_argument("--folder", type=Path, help="where the index is built (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--contender", choices=tuple(CONTENDERS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        print(json.dumps(CONTENDERS[given.contender](given.folder, given.vectors)))
        return
    result: dict[str, Any] = {}
    if given.only in (None, "embedding"):
        result["embedding"] = embedding()
    if given.only in (None, "retrieval"):
        result["retrieval"] = retrieval()
    if given.only in (None, "scale"):
        folder = Path(tempfile.mkdtemp(prefix="sage-index-", dir=given.folder))
        try:
            result["scale"] = {name: apart(name, folder, given.vectors) for name in CONTENDERS}
        finally:
            shutil.rmtree(folder)
    if given.json:
        print(json.dumps({"vectors": given.vectors, **result}, indent=2))
        return
    if "embedding" in result:
        e = result["embedding"]
        print(
            f"embedding {e['sentences']} facts: {e['ours_per_second']:.0f} sentences/s, bare encoder "
            f"{e['bare_per_second']:.0f}/s: {100 * e['share']:.0f} % ({'kept' if e['share'] >= 0.9 else 'MISSED'}: 90)"
        )
    if "retrieval" in result:
        r = result["retrieval"]
        print(f"\n{'retrieval':<12}{'recall@5':>10}{'nDCG@10':>10}   ({r['dense']['queries']} labelled queries)")
        for mode in ("dense", "lexical", "fused"):
            print(f"{mode:<12}{r[mode]['recall@5']:>10.3f}{r[mode]['ndcg@10']:>10.3f}")
        print(f"open {r['facts']} facts: {r['open_seconds']:.3f} s; search p50 {r['search_ms']['p50']:.1f} ms")
    if "scale" in result:
        show_scale(given.vectors, result["scale"])


if __name__ == "__main__":
    main()
