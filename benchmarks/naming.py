"""How often the right defect is on a card of the pack, and among the names that an inspection lists first.

    python benchmarks/naming.py DATA [--references 4] [--images 8] [--json]

DATA is a folder of groups (`dev`, `test`) with typed categories in MVTec layout. Every typed defective image is inspected
against good parts of its category (those without good parts, without a reference); nothing is taught. A name counts as right if
it is a name of the label's defect, or names the same concept (`sage_ad.evaluation.judge.defect_match`). Printed are, by
category and in the mean: the share of images whose defect is on a card of the pack at all, and the share of those found
anomalous whose defect is among the first three candidates.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

GROUPS = ("dev", "test")
UNNAMED = {"good", "defective", "defect", "anomaly"}


def typed_images(category: Path, count: int) -> list[tuple[str, Path]]:
    """At most `count` images of each defect that has a name, drawn by seed."""
    found = []
    for folder in sorted((category / "test").iterdir()):
        if folder.name not in UNNAMED:
            images = sorted(path for path in folder.iterdir() if path.is_file())
            random.Random(0).shuffle(images)
            found += [(folder.name, path) for path in images[:count]]
    return found


def is_right(name: str, label: str) -> bool:
    """Whether a candidate's name and a label mean the same defect."""
    from sage_ad.evaluation.judge.defect_match import concepts_of
    from sage_ad.evaluation.questions import defect_words

    words = defect_words(label) or label.replace("_", " ")
    return name.casefold() == words.casefold() or bool(concepts_of(name) & concepts_of(words))


def measure(category: Path, references: int, count: int) -> dict[str, object] | None:
    """Figures of one category; None if no defect of it has a name."""
    from sage_ad.agents.inspector import SageInspector
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.evaluation.questions import product_words

    images = typed_images(category, count)
    if len({label for label, _ in images}) < 2:
        return None
    good = sorted((category / "train" / "good").glob("*"))
    random.Random(0).shuffle(good)
    inspector = SageInspector()
    store, product = inspector.resources.store, product_words(category.name)
    match = store.match_product(product)
    names = [name for card in store.cards(match.domain) for name in (card.name, *card.synonyms)]
    found = right = carded = 0
    for label, path in images:
        carded += any(is_right(name, label) for name in names)
        trace = inspector.inspect(InspectionRequest(image=path, references=good[:references], product=product))
        if trace.verdict == "anomalous":
            found += 1
            right += any(is_right(item.name, label) for item in trace.candidates[:3])
    return {
        "category": category.name,
        "pack": match.domain,
        "images": len(images),
        "on a card": carded / len(images),
        "found": found / len(images),
        "first three": right / found if found else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--references", type=int, default=4)
    parser.add_argument("--images", type=int, default=8, help="of each defect, at most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for group in GROUPS:
        for category in sorted(path for path in (options.data / group).iterdir() if path.is_dir()):
            row = measure(category, options.references, options.images)
            if row is not None:
                rows.append(row)
                print(row, file=sys.stderr)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        share = "-" if row["first three"] is None else f"{row['first three']:.2f}"
        print(
            f"{row['category']:16} {row['pack']:14} {row['images']:4} {row['on a card']:.2f} {row['found']:.2f} {share}"
        )


if __name__ == "__main__":
    main()
