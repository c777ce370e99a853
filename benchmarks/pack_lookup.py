"""How well typed product names find their pack: names written by hand, and the packs' own names held out one by one.

    python benchmarks/pack_lookup.py            # tests/data/product_names.yaml, in sets written without a look at the packs
    python benchmarks/pack_lookup.py --held-out # the packs' own names: known ones without themselves, and of absent packs
    python benchmarks/pack_lookup.py --open     # time and memory of opening all packs in a new process

A name is right with its own pack or one that its label allows, unknown with none, wrong with another.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

NAMES = Path(__file__).resolve().parents[1] / "tests" / "data" / "product_names.yaml"


def typed(store: Any, show: bool) -> dict[str, Any]:
    """The names written by hand, by set: shares that are right, wrong, and unknown though a pack serves them."""
    import yaml

    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for entry in yaml.safe_load(NAMES.read_text(encoding="utf-8")):
        match = store.match_product(entry["name"])
        found = None if match.how in ("unknown", "ambiguous") else match.domain
        outcome = (
            "right" if found in (entry["pack"], *entry.get("alt", ())) else "unknown" if found is None else "wrong"
        )
        counts[entry.get("set", 1)][outcome] += 1
        if show and outcome != "right":
            print(f"{outcome:<8}{entry['name']:<40}{entry['pack']!s:<24}{match.how} {match.note}")
    return {
        f"set {number}": {"names": own.total()}
        | {name: round(own[name] / own.total(), 4) for name in ("right", "wrong", "unknown")}
        for number, own in counts.items()
    }


def opening() -> dict[str, Any]:
    """Opens all packs in two new processes, the first of which makes the catalogue; the second is told."""
    code = (
        "import re, sys, time\n"
        "from pathlib import Path\n"
        "began, used = time.perf_counter(), time.process_time()\n"
        "from sage_ad.knowledge.store.fact_store import FactStore\n"
        "with FactStore.open(sys.argv[1], cache=sys.argv[1]) as store:\n"
        "    count = len(store.packs())\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(count, time.perf_counter() - began, time.process_time() - used, int(peak) / 1024)\n"
    )
    with tempfile.TemporaryDirectory() as home:
        for _ in range(2):
            ran = subprocess.run([sys.executable, "-c", code, home], capture_output=True, text=True, check=True)
    packs, seconds, of_processor, megabytes = ran.stdout.split()
    return {
        "packs": int(packs),
        "seconds": round(float(seconds), 3),
        "of_processor": round(float(of_processor), 3),
        "peak_mb": round(float(megabytes)),
    }


def held_out(store: Any, count: int, seed: int = 0) -> dict[str, Any]:
    """The packs' own names in Latin letters, drawn by seed: each without itself, and each without its whole pack.

    Without its pack a name should be unknown; some packs are neighbours, so not every match of it is a mistake.
    """
    from sage_ad.knowledge.store.packs import GENERAL
    from sage_ad.knowledge.store.product_match import ProductNames

    packs = store.packs()
    names = [
        (pack.name, term, text)
        for pack in packs.values()
        for term in pack.products
        for text in term.names[1:]
        if all(ord(char) < 0x2E80 for char in text)
    ]
    without_name: Counter[str] = Counter()
    without_pack: Counter[str] = Counter()
    for domain, term, text in random.Random(seed).sample(names, count):
        keep = {
            "synonyms": [name for name in term.synonyms if name != text],
            "de": [name for name in term.de if name != text],
        }
        products = tuple(p.model_copy(update=keep) if p.name == term.name else p for p in packs[domain].products)
        less = {**packs, domain: packs[domain].model_copy(update={"products": products})}
        match = ProductNames(less, GENERAL).match(text, store.embed_texts)
        nothing = match.how in ("unknown", "ambiguous")
        without_name["unknown" if nothing else "right" if match.domain == domain else "wrong"] += 1
        less = {name: pack for name, pack in packs.items() if name != domain}
        without_pack[ProductNames(less, GENERAL).match(text, store.embed_texts).how] += 1
    return {
        "held_out": count,
        "without_itself": {name: round(number / count, 3) for name, number in without_name.items()},
        "without_its_pack": {name: round(number / count, 3) for name, number in without_pack.items()},
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=int, nargs="?", const=300, metavar="COUNT", help="the packs' own names")
    parser.add_argument("--show", action="store_true", help="print every name that is not right")
    parser.add_argument("--open", action="store_true", help="opening in a new process")
    wanted = parser.parse_args()
    if wanted.open:
        print(opening())
        return
    from sage_ad.knowledge.store.fact_store import FactStore

    with tempfile.TemporaryDirectory() as home, FactStore.open(home) as store:
        print(held_out(store, wanted.held_out) if wanted.held_out else typed(store, wanted.show))


if __name__ == "__main__":
    main()
