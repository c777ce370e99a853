"""The table of the model card: what training, facts and the reference are each worth, on unseen categories.

    .venv/bin/python benchmarks/model_table.py ../shared/data/dev --out runs/table-dev
    .venv/bin/python benchmarks/model_table.py ../shared/data/dev --out runs/table-dev --limit 24     # a quick trial

Rows: the untuned language model with evidence and facts in its prompt; our checkpoint with hard facts, with soft ones,
and without; the constant verdicts and the evidence threshold with template sentences stand beside them. Every row is
measured with one reference and with none. Inspected images are kept in --out, so a killed run continues where it stopped.
*test* is for one report at the end; every choice is made on *dev*.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from detection import HEADLINE

FIGURES = (
    ("balanced accuracy", "accuracy"), ("Acc-G", "acc_g"), ("SBERT", "sbert"), ("verdict AUROC", "verdict_auroc"),
    ("evidence AUROC", "evidence_auroc"), ("defect named", "naming"), ("place", "place"),
    ("place of those found", "place_found"), ("consistency", "consistency"),
)  # fmt: skip


def rows(model: str, hard: str | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name of each row, its inspector and its settings."""
    table: dict[str, tuple[str, dict[str, Any]]] = {
        "untuned, facts in the prompt": ("language-model", {"model": "smollm2-135m"}),
        "stage 1, soft facts": ("sage", {"model": model, "facts": "soft"}),
        "stage 1, without facts": ("sage", {"model": model, "facts": "none"}),
    }
    if hard:
        table["stage 1, hard facts"] = ("sage", {"model": hard, "facts": "hard"})
    return table


def rates(file: Path) -> tuple[float | None, float | None]:
    """Overkill and miss of the verdicts on whole images, averaged over categories with both states."""
    images = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    states: dict[str, dict[bool, list[bool]]] = {}
    for image in images:
        if image["anomalous"] is not None:
            wrong = (image["verdict"] == "anomalous") != image["anomalous"]
            states.setdefault(image["category"], {}).setdefault(image["anomalous"], []).append(wrong)
    both = [own for own in states.values() if len(own) == 2]
    if not both:
        return None, None
    return tuple(sum(sum(own[s]) / len(own[s]) for own in both) / len(both) for s in (False, True))  # type: ignore[return-value]


def named_on_normal(file: Path) -> tuple[int, int]:
    """Answers that assert a named defect of a part whose verdict is normal, and how many answers there are of such parts."""
    from sage_ad.evaluation.text.answer_parser import read

    answers = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    calm = [a for a in answers if a["verdict"] is not None and (a["verdict"] == (a["polarity"] == "normal"))]
    return sum(bool(read(a["text"], a["question"]).asserted("bad", "defect")) for a in calm), len(calm)


def shown(figure: dict[str, Any] | None) -> str:
    """A figure with its interval."""
    if not figure or figure.get("value") is None:
        return "-"
    if figure.get("low") is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.2f}-{figure['high']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--model", default="sage-tiny", help="checkpoint trained with soft facts")
    parser.add_argument("--hard-model", help="checkpoint trained with hard facts")
    parser.add_argument("--shots", default="1,0")
    parser.add_argument("--rows", help="only rows whose name contains this")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--all", action="store_true", help="every category, not the headline ones alone")
    args = parser.parse_args()
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.reports.answer_run import AnswerSettings, measure
    from sage_ad.evaluation.runs import Progress

    categories = None if args.all else HEADLINE.get(args.data.resolve().name)
    print("| row | shots | " + " | ".join(name for name, _ in FIGURES) + " | MLE | overkill | miss | named on normal |")
    print("|---" * (len(FIGURES) + 6) + "|", flush=True)
    for shots in map(int, args.shots.split(",")):
        baselines: dict[str, Any] = {}
        for name, (inspector, options) in rows(args.model, args.hard_model).items():
            if args.rows and args.rows not in name:
                continue
            out = args.out / f"{name.replace(' ', '-').replace(',', '')}-{shots}"
            dataset = open_dataset(args.data, categories=categories)
            settings = AnswerSettings(inspector, options, shots, per_class=args.per_class, limit=args.limit)
            result = measure(dataset, settings, out=out, progress=Progress())
            (out / "results.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
            baselines = result["baselines"]
            overkill, miss = rates(out / "images.jsonl")
            wrong, calm = named_on_normal(out / "answers.jsonl")
            cells = [shown(result.get(key)) for _, key in FIGURES] + [shown(result["mle"]["mean"])]
            cells += ["-" if value is None else f"{value:.2f}" for value in (overkill, miss)] + [f"{wrong} of {calm}"]
            print(f"| {name} | {shots} | " + " | ".join(cells) + " |", flush=True)
        for name, figures in baselines.items():
            cells = [shown(figures.get(key)) for _, key in FIGURES] + [shown(figures.get("mle", {}).get("mean"))]
            print(f"| {name} | {shots} | " + " | ".join(cells) + " | - | - | - |", flush=True)


if __name__ == "__main__":
    main()
