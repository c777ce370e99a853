"""Facts and cards of the shipped packs, drawn by a seed, to be judged one by one by somebody who did not write them.

python benchmarks/pack_sample.py SEED [--facts 60] [--cards 40] > sample.txt
"""

from __future__ import annotations

import argparse
import random


def main() -> None:
    """Draws and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("--facts", type=int, default=60)
    parser.add_argument("--cards", type=int, default=40)
    wanted = parser.parse_args()
    import yaml

    from sage_ad.knowledge.store.packs import SHIPPED

    draw = random.Random(wanted.seed)
    facts, cards = (
        [
            (path.parent.parent.name, path.stem, entry)
            for path in sorted(SHIPPED.glob(f"*/{part}/*.yaml"))
            for entry in yaml.safe_load(path.read_text(encoding="utf-8"))
        ]
        for part in ("facts", "cards")
    )
    for number, (domain, kind, fact) in enumerate(draw.sample(facts, wanted.facts), start=1):
        products, defects = (", ".join(fact.get(key, ())) for key in ("products", "defects"))
        about = f"products: {products or 'all'}; defects: {defects or 'none'}"
        print(f"F{number} [{domain}, {kind}; {about}] {fact['text']}")
    for number, (domain, _, card) in enumerate(draw.sample(cards, wanted.cards), start=1):
        print(f"\nC{number} [{domain}]\n{yaml.safe_dump(card, allow_unicode=True, sort_keys=False, width=120)}", end="")


if __name__ == "__main__":
    main()
