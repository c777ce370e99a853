"""Writes the table of shipped packs into docs/domains.md, and their number into README.md, from the packs themselves.

python tools/pack_table.py          # write
python tools/pack_table.py --check  # say whether they are up to date; exit status 1 when not
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sage_ad.knowledge.store.cards import read_cards
from sage_ad.knowledge.store.packs import SHIPPED, read_pack

ROOT = Path(__file__).resolve().parents[1]
SYNONYMS = 3
"""How many synonyms of a product stand in the table; all are in its `pack.yaml`."""


def table() -> str:
    """The table: a row a pack, with its products and some of their synonyms, and its number of cards."""
    rows = ["| pack | products (some of the synonyms) | cards |", "|---|---|---|"]
    for folder in sorted(path.parent for path in SHIPPED.glob("*/pack.yaml")):
        products = [
            f"**{term.name}**" + (f" ({', '.join(term.synonyms[:SYNONYMS])})" if term.synonyms else "")
            for term in read_pack(folder / "pack.yaml").products
        ]
        rows.append(f"| `{folder.name}` | {'; '.join(products) or 'everything else'} | {len(read_cards(folder))} |")
    return "\n".join(rows)


def updated(name: str, text: str) -> str:
    """The text of a document with what it says of the packs made true."""
    count = len(list(SHIPPED.glob("*/pack.yaml")))
    cards = sum(len(read_cards(path.parent)) for path in SHIPPED.glob("*/pack.yaml"))
    if name == "README.md":
        return re.sub(
            r"\d+ domain packs with \d+ defect cards", f"{count} domain packs with {cards} defect cards", text
        )
    return re.sub(
        r"(<!-- packs:[^\n]*\n).*?(<!-- end of packs)", lambda m: f"{m[1]}{table()}\n{m[2]}", text, flags=re.DOTALL
    )


def main() -> None:
    """Writes, or checks with --check."""
    stale = []
    for name in ("README.md", "docs/domains.md"):
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        if (after := updated(name, before)) != before:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)}: not what the packs say; run python tools/pack_table.py.")


if __name__ == "__main__":
    main()
