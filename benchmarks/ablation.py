"""The ablation of the paper on names: stage 1, + DPO (extreme pair), + E-DPO with each form of the entropy, three seeds.

    python benchmarks/ablation.py ../shared/data --stage1 sage-tiny-sft --out runs/ablation

What is preferred: the right name over an honest "not known" over vague words over a wrong name (where the right name was not
taught, "not known" is best), and the right place over none over a wrong one. Each list stands beside the candidates that an
inspection has: names with probabilities from 1, 3 or 5 taught pictures a type, some types not taught. Trained on drawn parts
and *train*, measured on product categories of *dev* and *test*, in wordings that training never sees:

- risk against coverage of names: how many of the asserted first names are wrong, by how much more likely the model finds the
  name than "not known". The probability of the candidate itself is the baseline, and asserting from .9 on the product's rule.
- place: of nine, which the model finds likeliest; the baseline is the measured place.
- reward accuracy on all pairs of the measured lists.

None of these is set by our judge, which scores the training lists. Killed at any time, the same command continues.
`--cases 3 --steps 2 --seeds 1` is a quick trial.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sage_ad.alignment.data.labelled import LabelledPart
    from sage_ad.knowledge.looks.index import Naming

STAGE_1, REFERENCE = "stage 1", "reference"
ARMS: dict[str, dict[str, Any]] = {
    "DPO (extreme pair)": {"pairs": "extreme", "eta": 0.0, "entropy": "term"},
    "E-DPO, term": {"pairs": "edpo", "entropy": "term", "eta": 1.0},
    # Gaps of surprisal are about ten times those of the term: the same push takes a tenth of eta (docs/alignment.md).
    "E-DPO, surprisal": {"pairs": "edpo", "entropy": "surprisal", "eta": 0.1},
}
PAIRS_A_LIST = {"extreme": 1, "edpo": 2}
TRAINED = (("train", "pcb_pattern"),)
DRAWN = ("screw", "machined disc", "ceramic tile", "leather", "woven fabric", "solar cell")
MEASURED = (
    ("dev", "hot_rolled_steel"), ("dev", "fabric_02"), ("dev", "fabric_03"), ("dev", "screw"), ("test", "magnetic_tile"),
    ("test", "bottle"), ("test", "sewing_stitch"),
)  # fmt: skip
SHOTS, HIDDEN = (1, 3, 5), 0.3
"""Taught pictures a type, and the share of draws in which one type is not taught."""
DRAWN_PARTS = 350
"""Drawn parts of all products, of which those of `DRAWN` are used."""
PICTURES = 8
"""Pictures of a type, at most."""
QUESTION = "Is there a defect on this {product}? If so, name it and its place."
WORDINGS: dict[str, dict[str, list[str]]] = {
    "train": {
        "named": ["There is {defect} on the {product}{place}.", "The {product} shows {defect}{place}."],
        "unknown": [
            "There is a defect on the {product}{place}; which one is not known.",
            "The {product} shows a defect{place}, whose kind cannot be told.",
        ],
        "vague": ["Something is wrong with it.", "The {product} is not in order.", "It shows an anomaly."],
    },
    "held_out": {
        "named": ["The flaw that I see is {defect}{place}.", "What is wrong is {defect}{place}."],
        "unknown": ["The flaw that I see{place} has no name that I know.", "What is wrong{place} is of no known kind."],
        "vague": ["It has some kind of problem."],
    },
}
FIGURES = {
    "AURC": "names.aurc", "coverage at risk .2": "names.coverage", "asserted": "names.said", "of these wrong": "names.wrong",
    "place": "place", "reward accuracy": "held_out.eval_rewards/accuracies",
    "of neighbours": "held_out.eval_rewards/accuracies_neighbours", "of ends": "held_out.eval_rewards/accuracies_ends",
    "drift": "held_out.eval_kl",
}  # fmt: skip
"""Where each figure of the table stands in a cell's `cell.json`. AURC: mean risk over all coverages, lower is better."""
DECIDING = ("AURC", "coverage at risk .2", "place", "reward accuracy")


@dataclass(frozen=True)
class Case:
    """A found defect with the names that it may bear; `taught` says whether the right one is among them."""

    part: LabelledPart
    naming: Naming
    taught: bool

    @property
    def names(self) -> list[tuple[str, float]]:
        return [(own.name, own.probability) for own in self.naming.candidates]

    @property
    def right(self) -> bool:
        """Whether the first name is the right one."""
        return self.names[0][0] == self.part.defect


# ---- cases -----------------------------------------------------------------------------------------------------------


def drawn(folder: Path) -> list[LabelledPart]:
    """Drawn defects as files, so that they are measured like real ones."""
    from sage_ad.alignment.data.build_preferences import file_of
    from sage_ad.alignment.data.labelled import Picture, drawn_parts

    def stored(picture: Picture) -> Picture:
        return Picture("file", file_of(picture, folder) or "")

    parts = (part for part in drawn_parts(DRAWN_PARTS, good=0) if part.product in DRAWN)
    return [
        replace(part, picture=stored(part.picture), reference=stored(part.reference))
        for part in parts
        if part.reference
    ]


def real(data: Path, group: str, category: str) -> list[LabelledPart]:
    """Typed defects of a labelled set."""
    from sage_ad.alignment.data.labelled import real_parts
    from sage_ad.evaluation.datasets import open_dataset

    return [part for part in real_parts(open_dataset(data / group, None, [category])) if part.defect]


def cases_of(parts: list[LabelledPart], wanted: int, out: Path) -> list[Case]:
    """Found defects of one product, each named from pictures of the others; `wanted` at most."""
    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.knowledge.looks.index import PRIOR, PRIOR_WITHOUT_REFERENCE, LooksIndex
    from sage_ad.vlm.evidence.region_features import RegionFeatures

    kinds = sorted({part.defect or "" for part in parts})
    kept = [p for kind in kinds for p in [part for part in parts if part.defect == kind][:PICTURES]]
    counts = {kind: sum(part.defect == kind for part in kept) for kind in kinds}
    kept = [part for part in kept if counts[part.defect or ""] > 1]
    vectors = [RegionFeatures(*measured(part, out)) for part in kept]
    prior = PRIOR if kept[0].reference else PRIOR_WITHOUT_REFERENCE
    cache, found = VisualInputCache(), []
    for draw in range(20):
        rng = random.Random(f"{kept[0].category} {draw}")
        shots, order = rng.choice(SHOTS), rng.sample(range(len(kept)), len(kept))
        hidden = rng.choice(kinds) if rng.random() < HIDDEN else None
        taught = [
            i for kind in kinds if kind != hidden
            for i in [j for j in order if kept[j].defect == kind][: min(shots, counts[kind] - 1)]
        ]  # fmt: skip
        index = LooksIndex([vectors[i] for i in taught], [kept[i].defect or "" for i in taught], prior)
        if len(index.names) < 2:
            continue
        asked = [i for i in order if i not in taught][: max(1, wanted // 5)]
        for i in asked:
            if cache.get(kept[i].picture, kept[i].reference).anomalous:
                found.append(Case(kept[i], index.name(vectors[i]), kept[i].defect != hidden))
    return random.Random(0).sample(found, min(wanted, len(found)))


def measured(part: LabelledPart, out: Path) -> list[np.ndarray]:
    """The vectors that looks are compared by, from `out` where they were measured before."""
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor
    from sage_ad.vlm.evidence.region_features import region_features

    file = out / "vectors" / f"{part.picture.key}.npz"
    if not file.is_file():
        extractor = measured.__dict__.setdefault("extractor", EvidenceExtractor())
        references = [part.reference.load()] if part.reference else []
        bank = extractor.prepare(references) if references else None
        image = part.picture.load()
        heat = extractor.extract(image, bank).distances.cpu().numpy()
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, *region_features(extractor.encoder, image, heat=heat, references=references))
    with np.load(file) as stored:
        return [stored[name] for name in stored.files]


# ---- lists -----------------------------------------------------------------------------------------------------------


def filled(template: str, case: Case, defect: str | None, place: str | None) -> str:
    from sage_ad.evaluation.questions import filled as fill

    return f"True. {fill(template, case.part.product, defect=defect, place=place)}"


def lists_of(case: Case, wordings: str, number: int, place: str) -> list[dict[str, Any]]:
    """A list about the name and, where the place is known, one about the place; `place` is the measured one."""
    from sage_ad.evaluation.ranked import RankedAnswers
    from sage_ad.vlm.places import PLACES, cell_of_place

    part, data, rng = case.part, WORDINGS[wordings], random.Random(f"{wordings} {number}")
    choice = rng.randrange(len(data["named"]))
    named, unknown, vague = data["named"][choice], data["unknown"][choice], rng.choice(data["vague"])
    wrong = next(name for name, _ in case.names if name != part.defect)
    by_name = [filled(named, case, part.defect, place)] if case.taught else []
    by_name += [filled(unknown, case, None, place), filled(vague, case, None, None), filled(named, case, wrong, place)]
    lists = [by_name]
    if part.place:
        row, column = cell_of_place(part.place)
        far = [p for p in PLACES if max(abs(cell_of_place(p)[0] - row), abs(cell_of_place(p)[1] - column)) > 1]
        other = rng.choice(far or [p for p in PLACES if p != part.place])
        lists.append([filled(named, case, None, p) for p in (part.place, None, other)])
    return [
        RankedAnswers(
            id=f"{part.group}#{number}.{kind}", image=part.picture.path, object=part.product, group=part.group,
            reference=part.reference.path if part.reference else None, pair_type="defect identification",
            question=QUESTION.format(product=part.product), candidates=case.names, answers=answers, rank_source="writer",
            gold={"verdict": True, "anomalous": True, "defect": part.defect, "place": part.place if kind else place},
        )
        for kind, answers in enumerate(lists)
    ]  # fmt: skip


def prepared(args: argparse.Namespace) -> tuple[Path, Path, list[Case]]:
    """Scored lists to train on, scored lists about the measured categories in held-out wordings, and their cases."""
    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.alignment.data.judge_scores import score_lines
    from sage_ad.evaluation.judge.loading import load_judge
    from sage_ad.evaluation.ranked import read_ranked, write_ranked
    from sage_ad.evaluation.runs import Progress

    own = drawn(args.out)
    training = [[part for part in own if part.product == product] for product in DRAWN]
    training += [real(args.data, *name) for name in TRAINED]
    wanted, cache = args.cases, VisualInputCache()
    asked = [case for name in MEASURED for case in cases_of(real(args.data, *name), wanted, args.out)]
    files = []
    for wordings, found in (
        ("train", [case for parts in training for case in cases_of(parts, 2 * wanted, args.out)]),
        ("held_out", asked),
    ):
        place = args.out / wordings
        scored = place / "scored.jsonl"
        if not scored.is_file():
            lists = [
                line
                for number, case in enumerate(found)
                for line in lists_of(case, wordings, number, cache.get(case.part.picture, case.part.reference).place)
            ]
            write_ranked(place / "ranked.jsonl", lists)
            judged = score_lines(
                read_ranked(place / "ranked.jsonl"), load_judge(), folder=place, out=place, progress=Progress()
            )
            write_ranked(scored, judged[0])
        files.append(scored)
    return files[0], files[1], asked


# ---- one cell --------------------------------------------------------------------------------------------------------


def name_figures(scores: np.ndarray, right: np.ndarray, said: np.ndarray) -> dict[str, float | None]:
    """Risk and coverage of first names.

    Args:
        scores: the higher, the sooner a name is asserted.
        right: whether it is right.
        said: whether it is asserted.
    """
    order = np.argsort(-scores, kind="stable")
    risks = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    safe = np.flatnonzero(risks <= 0.2)
    return {
        "aurc": float(risks.mean()),
        "coverage": float((safe.max() + 1) / len(order)) if len(safe) else 0.0,
        "said": float(said.mean()),
        "wrong": float((~right[said]).mean()) if said.any() else None,
    }


def preferred(model_name: str, asked: list[Case]) -> dict[str, Any]:
    """What a model finds likeliest of each case: the first name or "not known", and which of nine places."""
    import torch

    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.alignment.data.prefix_sharing import answer_sums, pack_answers, token_log_probs
    from sage_ad.alignment.data.sage_prompts import VisualInputPrompts, visual_inputs_of_row
    from sage_ad.alignment.edpo.loading import load_for_alignment, with_state
    from sage_ad.vlm.places import PLACES

    loaded, cache = load_for_alignment(model_name), VisualInputCache()
    inner = loaded.model.get_base_model().eval()
    encoder = VisualInputPrompts(inner, loaded.processing_class, cache)
    margins, placed = [], []
    for case in asked:
        part, question = case.part, QUESTION.format(product=case.part.product)
        row: dict[str, Any] = {
            "prompt": question, "facts": [], "picture_file": part.picture.path, "product": part.product,
            "reference_file": part.reference.path if part.reference else None,
            "candidates": [{"name": name, "probability": share} for name, share in case.names],
        }  # fmt: skip
        place = visual_inputs_of_row(row, cache).place
        data = WORDINGS["held_out"]
        texts = [filled(template, case, case.names[0][0], place) for template in data["named"]]
        texts += [filled(template, case, None, place) for template in data["unknown"]]
        texts += [filled(data["named"][0], case, None, p) for p in PLACES] if part.place else []
        row["answers"] = [with_state(text, question) for text in texts]
        ids, owners = pack_answers([encoder.prepare(row, range(len(texts)))["answer_ids"]])
        with torch.no_grad():
            sums = answer_sums(token_log_probs(inner, encoder.encode([row]), ids, owners), owners, len(texts))[0]
        count = len(data["named"])
        margins.append(float((sums[:count] - sums[count : 2 * count]).mean()))
        if part.place:
            placed.append(PLACES[int(sums[2 * count :].argmax())] == part.place)
    scores, right = np.array(margins), np.array([case.right for case in asked])
    return {"names": name_figures(scores, right, scores > 0), "place": float(np.mean(placed)) if placed else None}


def baselines(asked: list[Case]) -> dict[str, dict[str, Any]]:
    """The candidate's own probability, asserted as the product does, and the measured place."""
    from sage_ad.alignment.data.features import VisualInputCache

    cache = VisualInputCache()
    right = np.array([case.right for case in asked])
    first = np.array([case.names[0][1] for case in asked])
    said = np.array([case.naming.asserted is not None for case in asked])
    placed = [
        cache.get(c.part.picture, c.part.reference).place == c.part.place for c in asked if c.part.place is not None
    ]
    return {"candidates": {"names": name_figures(first, right, said), "place": float(np.mean(placed))}}


def copy_new(source: Path, target: Path) -> None:
    """Copies the files of a folder that another has not yet."""
    for file in source.glob("*.json"):
        target.mkdir(parents=True, exist_ok=True)
        if not (target / file.name).exists():
            shutil.copy(file, target / file.name)


def run_cell(args: argparse.Namespace, arm: str, seed: int | None) -> None:
    """Aligns (unless it is stage 1), measures, and writes cell.json."""
    from sage_ad.alignment.edpo.run import EDPORun, align
    from sage_ad.vlm.files import write_whole

    train, held_out, asked = prepared(args)
    place, model, result = folder(args, arm, seed), args.stage1, {}
    if seed is not None:
        questions = max(1, args.pairs_per_step // PAIRS_A_LIST[ARMS[arm]["pairs"]])
        run = EDPORun(
            data=(train,), held_out=held_out, out=place, model=args.stage1, steps=args.steps, batch=1, accumulate=questions,
            learning_rate=args.learning_rate, beta=args.beta, seed=seed, resume=True, **ARMS[arm],
        )  # fmt: skip
        kept = place / "results.json"
        # All arms begin with the same model and lists, so its log-probabilities are computed once for all of them.
        copy_new(args.out / REFERENCE, place / REFERENCE)
        result = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else align(run) or {}
        copy_new(place / REFERENCE, args.out / REFERENCE)
        model = result["model"]
    figures = preferred(model, asked) | {"held_out": result.get("held_out", {})}
    write_whole(place / "cell.json", json.dumps(figures, indent=2))


# ---- the table -------------------------------------------------------------------------------------------------------


def cells(args: argparse.Namespace) -> list[tuple[str, int | None]]:
    """Every model that is measured: stage 1 (it has no rewards), and each arm with each seed."""
    return [(STAGE_1, None), *((arm, seed) for seed in range(args.seeds) for arm in ARMS)]


def folder(args: argparse.Namespace, arm: str, seed: int | None) -> Path:
    """Where a cell keeps its work."""
    name = "".join(c if c.isalnum() else "-" for c in arm).strip("-")
    return args.out / (name if seed is None else f"{name}-{seed}")


def table(args: argparse.Namespace, asked: list[Case]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every figure and arm."""
    from sage_ad.evaluation.reports.finished_runs import figure_at

    found: dict[str, list[Any]] = {arm: [figures] for arm, figures in baselines(asked).items()}
    for arm, seed in cells(args):
        file = folder(args, arm, seed) / "cell.json"
        found.setdefault(arm, []).append(json.loads(file.read_text(encoding="utf-8")))
    result: dict[str, Any] = {}
    for arm, runs in found.items():
        for name, path in FIGURES.items():
            values = [value for figures in runs if (value := figure_at(figures, path)) is not None]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else None
                result.setdefault(arm, {})[name] = {"mean": statistics.fmean(values), "deviation": spread}
    return result


def verdicts(result: dict[str, Any]) -> list[str]:
    """For each E-DPO arm and deciding figure: its distance to DPO, beyond the spread of the seeds or not."""
    plain, lines = result["DPO (extreme pair)"], []
    for arm in (arm for arm in ARMS if arm.startswith("E-DPO")):
        for name in DECIDING:
            own, other = result[arm].get(name), plain.get(name)
            if own is None or other is None or own["deviation"] is None:
                continue
            gain = own["mean"] - other["mean"]
            limit = statistics.fmean(entry["deviation"] ** 2 for entry in (own, other)) ** 0.5
            where = "beyond" if abs(gain) > limit else "within"
            lines.append(f"{arm}, {name}: {gain:+.3f} to DPO, {where} the spread of {limit:.3f}")
    return lines


def report(args: argparse.Namespace, asked: list[Case], result: dict[str, Any]) -> str:
    """The table and the verdicts as Markdown."""
    from sage_ad.evaluation.reports.tables import markdown_table

    def cell(entry: dict[str, Any] | None) -> str:
        if entry is None:
            return "-"
        return f"{entry['mean']:.3f}" + (f" ± {entry['deviation']:.3f}" if entry["deviation"] is not None else "")

    head = (
        f"{len(asked)} found defects of {len({case.part.category for case in asked})} categories, "
        f"{sum(case.right for case in asked)} first names right, {sum(not case.taught for case in asked)} not taught; "
        f"{args.steps} steps of {args.pairs_per_step} pairs, {args.seeds} seeds (mean ± deviation)"
    )
    rows = [[arm, *(cell(own.get(name)) for name in FIGURES)] for arm, own in result.items()]
    return "\n\n".join([head, markdown_table(["arm", *FIGURES], rows), "\n".join(f"- {v}" for v in verdicts(result))])


def arguments() -> argparse.Namespace:
    """What is compared on what."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    # Lists name their pictures, and a path in them starts from the folder of the list.
    parser.add_argument(
        "data", type=lambda name: Path(name).resolve(), help="folder with the groups train, dev and test"
    )
    parser.add_argument("--stage1", default="sage-tiny-sft", help="model that all arms begin with")
    parser.add_argument("--cases", type=int, default=8, help="measured cases a category, and half of the trained ones")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--pairs-per-step", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Runs what is missing, each cell in a process of its own, and prints the table."""
    args = arguments()
    from sage_ad.alignment.data.run_folder import begin_folder
    from sage_ad.vlm.commandline import quiet_libraries
    from sage_ad.vlm.errors import InputError

    quiet_libraries()
    settings = {name: str(value) for name, value in vars(args).items() if name not in {"out", "one", "seeds"}}
    try:
        begin_folder(args.out, settings, resume=True)
    except InputError as error:
        sys.exit(f"Error: {error}")
    if args.one:
        arm, _, seed = args.one.rpartition("#")
        run_cell(args, arm, int(seed) if seed else None)
        return
    asked = prepared(args)[2]
    for arm, seed in cells(args):
        if (folder(args, arm, seed) / "cell.json").is_file():
            continue
        print(arm if seed is None else f"{arm}, seed {seed}", file=sys.stderr, flush=True)
        one = f"{arm}#{'' if seed is None else seed}"
        # A process a cell: no model stays in memory, and a crash costs one cell.
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", one], check=True)
    text = report(args, asked, table(args, asked))
    (args.out / "ablation.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
