"""How well the search finds the facts that answer 150 labelled queries over 15 packs: dense, lexical and fused.

    python benchmarks/pack_retrieval.py [--json]

With the pack known (as in an inspection) and in all 15 packs together. Queries that no fact answers are only counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

QUERIES = Path(__file__).resolve().parents[1] / "tests" / "data" / "pack_retrieval_queries.yaml"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.knowledge.store.retrieval import MODES
    from sage_ad.knowledge.store.retrieval_eval import measure, read_queries

    queries = read_queries(QUERIES)
    with tempfile.TemporaryDirectory() as home, FactStore.open(home) as store:
        figures = {
            name: {mode: measure(store, queries, mode, together=together) for mode in MODES}  # type: ignore[arg-type]
            for name, together in (("pack known", False), ("all packs", True))
        }
    if wanted.json:
        print(json.dumps(figures, indent=2))
        return
    for name, modes in figures.items():
        for mode, row in modes.items():
            print(
                f"{name:<12}{mode:<9}"
                + "  ".join(f"{key} {value:.3f}" if value <= 1 else f"{key} {value:.0f}" for key, value in row.items())
            )


if __name__ == "__main__":
    main()
