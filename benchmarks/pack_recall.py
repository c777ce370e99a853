"""Whether an inspection that asserts no name looks up facts of the right defect: by what is measured, and by true descriptions.

    python benchmarks/pack_recall.py DATA [--images 12] [--json]

DATA has the groups `dev` and `test`; no other is read. At most so many pictures of each label of tests/data/defect_looks.yaml
are measured against their own reference or four good parts, and facts are looked up for the anomalous ones: *guided* by the
cards whose look agrees with the region, and by the search alone. *true* does the same with what the label means.
Figures are shares: `first`, the first fact about a defect is about the right one; `any`, some fact is; `facts`, how many
are. `most facts` is the pick of the defect with most facts, `blind` of any. Means are over categories.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from pack_retrieval import DATA, bearing

GROUPS = ("dev", "test")
SHARES = {"tiny": 0.0005, "small": 0.005, "medium": 0.05, "large": 0.2}
TONES = {"darker": ("dark ", -0.3), "lighter": ("bright ", 0.3), "same": ("", 0.0)}


def pictures(data: Path, count: int, labels: set[tuple[str, str]]) -> list[dict[str, str]]:
    """Rows of the index, at most `count` of each label, drawn by seed."""
    found = defaultdict(list)
    with (data / "index.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["group"] in GROUPS and (row["category"], row["defect"]) in labels:
                found[row["category"], row["defect"]].append(row)
    return [row for rows in found.values() for row in random.Random(0).sample(rows, min(count, len(rows)))]


def good_parts(data: Path, row: dict[str, str]) -> list[Path]:
    """The picture's own reference, or four good parts of its category; none where there are none."""
    if row["reference"]:
        return [data / row["reference"]]
    good = sorted((data / row["group"] / row["category"] / "train" / "good").glob("*"))
    return random.Random(0).sample(good, min(4, len(good)))


def described(entry: dict[str, str]) -> dict[str, Any]:
    """The state of an inspection that measured what a label means."""
    tone, change = TONES[entry["tone"]]
    shape = {"blob": "spot", "edge": "area"}.get(entry["shape"], entry["shape"])
    measured = {"tone": change, "shape": shape, "share": SHARES[entry["size"]]}
    regions = [{"place": "centre", "measured": measured}]
    return {"evidence": {"verdict": "anomalous", "regions": regions}, "appearances": [tone + shape]}


def unguided(state: dict[str, Any]) -> dict[str, Any]:
    """The same without the numbers that the cards are compared with."""
    regions = [{**region, "measured": {}} for region in state["evidence"]["regions"]]
    return {**state, "evidence": {**state["evidence"], "regions": regions}}


def main() -> None:
    """Measures and prints."""
    import numpy as np
    import yaml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=12, help="of each label, at most")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    from sage_ad.agents.inspector import SageInspector
    from sage_ad.agents.nodes import fits, recall_facts
    from sage_ad.agents.perception import measure_part
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.evaluation.questions import product_words

    entries = yaml.safe_load((DATA / "defect_looks.yaml").read_text(encoding="utf-8"))
    labels = {(entry["category"], entry["defect"]): entry for entry in entries}
    figures: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as home:
        os.environ["SAGE_HOME"] = home  # nothing was taught there
        inspector = SageInspector()
        store, settings = inspector.resources.store, inspector.settings.model_dump()

        def note(way: str, entry: dict[str, str], state: dict[str, Any]) -> None:
            """Adds the figures of one description, if the defect is on a card."""
            name = product_words(entry["category"])
            match = store.match_product(name)
            cards = [card for card in store.cards(match.domain) if not card.products or match.product in card.products]
            if not (right := bearing(cards, entry.get("means", entry["defect"]))):
                return
            request = {"image": "part.png", "product": name}
            for mode, own in (("guided", state), ("search alone", unguided(state))):
                full = {**own, "request": request, "settings": settings}
                found = recall_facts(full, inspector.resources, match.domain, name, match.product, None)
                about = [set(fact["defects"]) & right for fact in found if fact["defects"]]
                row = [bool(about and about[0]), any(about), sum(map(bool, about)) / max(len(found), 1)]
                figures[f"{way}, {mode}"][entry["category"]].append(row)
            counts = Counter(
                defect for fact in store.iterate(match.domain) if fits(fact, match.product) for defect in fact.defects
            )
            most = max((card.name for card in cards), key=lambda defect: counts[defect])
            figures[f"{way}, most facts"][entry["category"]].append([most in right])
            figures[f"{way}, blind"][entry["category"]].append([len(right) / len(cards)])

        for row in pictures(wanted.data, wanted.images, set(labels)):
            request = InspectionRequest(image=wanted.data / row["path"], references=good_parts(wanted.data, row))
            state, _ = measure_part(request, settings, inspector.resources)
            if state["evidence"]["verdict"] == "anomalous" and state["appearances"]:
                note("measured", labels[row["category"], row["defect"]], state)
        for entry in entries:
            note("true", entry, described(entry))
    table = {}
    for way, by_category in figures.items():
        means = [np.mean(rows, axis=0) for rows in by_category.values()]
        names = ("first", "any", "facts")[: len(means[0])]
        table[way] = {
            "descriptions": sum(map(len, by_category.values())),
            "mean": dict(zip(names, np.mean(means, axis=0).round(3).tolist(), strict=True)),
            "worst": dict(zip(names, np.min(means, axis=0).round(3).tolist(), strict=True)),
        }
    if wanted.json:
        print(json.dumps(table, indent=2))
        return
    for way, row in table.items():
        print(f"{way:<24}{row}")


if __name__ == "__main__":
    main()
