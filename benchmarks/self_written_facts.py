"""How good are the facts that a model writes itself? Judged against the packs, for products of three of them.

    python benchmarks/self_written_facts.py [--model sage-tiny] [--facts 10] [--json FILE]

For each product the model writes facts (`knowledge.ingestion.writing.write_facts`), and each is judged against the approved facts
of the product's pack:

- on topic: it reads like a fact (classifier) and is closer to its own pack than the domain check asks;
- duplicate: it repeats a known fact, or one that it wrote before;
- contradicts: it contradicts an approved fact;
- orders: it reads like an order to a model;
- backed: its cosine similarity to an approved fact of the same kind is 0.70 or more: the pack says something like it;
- support: mean similarity to the nearest approved fact of the same kind (1 = the pack says it).

On topic does not mean true: a small model writes fluent sentences about the right product that no expert would sign.
"Backed" is the share that comes near to what experts wrote.

The figures of the untuned embedded model are what training has to beat.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

BACKED = 0.70
PRODUCTS = {
    "photovoltaics": ("monocrystalline solar cell", "polycrystalline solar cell"),
    "fasteners": ("screw", "metal nut"),
    "bare-pcb": ("circuit pattern", "bare printed circuit board"),
}


def measure(model: str, count: int, device: str) -> list[dict[str, Any]]:
    """One row a product: the facts that the model wrote and what the checks say of them."""
    from sage_ad.knowledge.facts import KINDS
    from sage_ad.knowledge.ingestion.checks import check_facts
    from sage_ad.knowledge.ingestion.writing import write_facts
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.vlm.backends.registry import load_backend

    backend = load_backend(model, device=device)
    rows = []
    with tempfile.TemporaryDirectory() as home, FactStore.open(home) as store:
        for domain, products in PRODUCTS.items():
            known = {kind: store.embed(store.facts(domain, status="approved", kind=kind)) for kind in KINDS}
            for product in products:
                began = time.perf_counter()
                written = write_facts(backend, product=product, domain=domain, n=count)
                seconds = time.perf_counter() - began
                checked = check_facts(written, store)
                vectors = store.embed(written)
                support = [(known[fact.kind] @ vectors[row]).max() for row, fact in enumerate(written)]
                facts = [
                    {"text": c.fact.text, "kind": c.fact.kind, "outcome": c.outcome, "support": round(float(s), 3)}
                    for c, s in zip(checked, support, strict=True)
                ]
                rows.append(
                    {"domain": domain, "product": product, "asked": count, "seconds": round(seconds, 1), "facts": facts}
                )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over all facts of some rows."""
    facts = [fact for row in rows for fact in row["facts"]]
    counts = Counter(fact["outcome"] for fact in facts)
    total = max(1, len(facts))
    off = counts["off-domain"] + counts["not-a-fact"] + counts["instruction"]
    return {
        "asked": sum(row["asked"] for row in rows),
        "written": len(facts),
        "on_topic": round(1 - off / total, 3),
        "duplicate": round(counts["duplicate"] / total, 3),
        "contradicts": round(counts["contradiction"] / total, 3),
        "orders": round(counts["instruction"] / total, 3),
        "backed": round(sum(fact["support"] >= BACKED for fact in facts) / total, 3),
        "support": round(sum(fact["support"] for fact in facts) / total, 3),
        "seconds_a_fact": round(sum(row["seconds"] for row in rows) / total, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="sage-tiny")
    parser.add_argument("--facts", type=int, default=10, help="requests a product")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write all facts and figures here")
    arguments = parser.parse_args()
    rows = measure(arguments.model, arguments.facts, arguments.device)
    names = list(summary(rows))
    print(f"{'pack':<16}" + "".join(f"{name:>16}" for name in names))
    figures = {domain: summary([row for row in rows if row["domain"] == domain]) for domain in PRODUCTS}
    figures["all"] = summary(rows)
    for domain, values in figures.items():
        print(f"{domain:<16}" + "".join(f"{values[name]:>16}" for name in names))
    for row in rows:
        print(f"\n{row['product']} ({row['domain']})")
        for fact in row["facts"]:
            print(f"  {fact['outcome']:<14}{fact['support']:>6}  {fact['kind']}: {fact['text']}")
    if arguments.json:
        record = {"model": arguments.model, "figures": figures, "rows": rows}
        arguments.json.write_text(json.dumps(record, ensure_ascii=False, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
