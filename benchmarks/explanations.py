"""What a SAGE model's explanations add to the template's: 40 pairs to be read blind, and the judge with gold.

    python benchmarks/explanations.py ../shared/data --model sage-tiny --out runs/explanations
    python benchmarks/explanations.py ../shared/data --out runs/explanations --read runs/explanations/read.txt

Two defective and two good parts of each of ten products, drawn by seed, with four references; three pictures of each kind of
defect are taught of four products. The first command writes `pairs.md` (picture, text A, text B, in an order drawn by seed)
and `pairs.json`, and prints what the judge gives both with the gold answer. Read the pairs, and write a line "NUMBER A",
"NUMBER B" or "NUMBER =" for each into a file before you look at `pairs.json`. The second command counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

PRODUCTS = (
    ("dev", "screw"), ("dev", "fabric_02"), ("dev", "solar_cell_mono"), ("dev", "pump_impeller"), ("dev", "pill_xray"),
    ("dev", "xray_wheel_casting"), ("test", "magnetic_tile"), ("test", "bottle"), ("test", "pavement"),
    ("test", "powerline_insulator"),
)  # fmt: skip
TAUGHT = ("screw", "fabric_02", "magnetic_tile", "bottle")
EXAMPLES, REFERENCES, EACH = 3, 4, 2
QUESTION = "Explain what was found."


def parts(data: Path) -> list[tuple[Any, list[Path]]]:
    """The parts with their references; teaches what is to be taught into `SAGE_HOME`."""
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.questions import defect_words, product_words
    from sage_ad.knowledge.looks.pictures import add_looks
    from sage_ad.knowledge.store.fact_store import FactStore

    chosen = []
    for group, category in PRODUCTS:
        dataset, rng = open_dataset(data / group, None, [category]), random.Random(category)
        references = [s.image for s in rng.sample(dataset.normals(category), REFERENCES)]
        tests = sorted(dataset.samples(category, "test"), key=lambda sample: sample.id)
        rng.shuffle(tests)
        if category in TAUGHT:
            domain = FactStore.open().match_product(product_words(category)).domain
            for kind in sorted({s.defect for s in tests if defect_words(s.defect)}):
                shown = [s for s in tests if s.defect == kind][:EXAMPLES]
                tests = [s for s in tests if s not in shown]
                add_looks(domain, product_words(category), [s.image for s in shown], defect=defect_words(kind))
        chosen += [
            (s, references) for state in (True, False) for s in [t for t in tests if t.anomalous is state][:EACH]
        ]
    return chosen


def written(data: Path, model: str, out: Path) -> None:
    """Both texts of every part, in an order that tells nothing, and the judge's levels of both."""
    from sage_ad.agents import SageInspector
    from sage_ad.evaluation.datasets import place_of_sample
    from sage_ad.evaluation.inspection import Gold, InspectionRequest, JudgeRequest
    from sage_ad.evaluation.judge.loading import load_judge
    from sage_ad.evaluation.questions import defect_words, product_words

    chosen = parts(data)
    requests = [
        InspectionRequest(
            image=sample.image, references=references, product=product_words(sample.category), questions=[QUESTION]
        )
        for sample, references in chosen
    ]
    pairs: list[dict[str, Any]] = []
    judged = {"model": [], "template": []}
    for (sample, _), trace in zip(chosen, SageInspector(model=model).inspect_many(requests), strict=True):
        texts = {"model": trace.answers[0].text, "template": " ".join(trace.explanation.splitlines())}
        order = sorted(texts, key=lambda name: random.Random(f"{sample.id} {name}").random())
        pairs.append({"image": str(sample.image), "defect": sample.defect, "order": order, **texts})
        bad = bool(sample.anomalous)
        gold = Gold(
            anomalous=bad, defect=defect_words(sample.defect) if bad else None,
            place=place_of_sample(sample) if bad else None,
        )  # fmt: skip
        for name, text in texts.items():
            judged[name].append(
                JudgeRequest(QUESTION, text, "defect identification", gold=gold, object=product_words(sample.category))
            )
    (out / "pairs.json").write_text(json.dumps(pairs, indent=1), encoding="utf-8")
    shown = [
        f"## {number}\n{pair['image']}\n\nA: {pair[pair['order'][0]]}\n\nB: {pair[pair['order'][1]]}\n"
        for number, pair in enumerate(pairs, start=1)
    ]
    (out / "pairs.md").write_text("\n".join(shown), encoding="utf-8")
    own = sum(pair["model"] != pair["template"] for pair in pairs)
    print(f"{own} of {len(pairs)} explanations are the model's own; of the others its words did not hold.\n")
    print("| | MLE mean | type | place | logic | unscored | words |\n|---|---|---|---|---|---|---|")
    judge = load_judge("local")
    for name, asked in judged.items():
        scores = judge.judge(asked)
        cells = []
        for level in ("mean", "type", "localisation", "logic"):
            values = [value for score in scores if (value := getattr(score, level)) is not None]
            cells.append(f"{statistics.fmean(values):.2f}" if values else "-")
        count = statistics.fmean(len(request.answer.split()) for request in asked)
        print(f"| {name} | {' | '.join(cells)} | {sum(s.mean is None for s in scores)} | {count:.0f} |")


def counted(out: Path, file: Path) -> None:
    """Which of the two reads better, over the pairs that differ."""
    pairs = json.loads((out / "pairs.json").read_text(encoding="utf-8"))
    found: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        number, choice = line.split()[:2]
        pair = pairs[int(number) - 1]
        if pair["model"] != pair["template"]:
            found["equal" if choice == "=" else pair["order"]["AB".index(choice)]] += 1
    print(
        ", ".join(f"{name} better: {count}" if name != "equal" else f"equal: {count}" for name, count in found.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sage-tiny")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--read", type=Path, help="count what was read, in place of writing the pairs")
    args = parser.parse_args()
    if args.read:
        counted(args.out, args.read)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["SAGE_HOME"] = str((args.out / "home").resolve())
    written(args.data, args.model, args.out)


if __name__ == "__main__":
    main()
