"""The ablation of the paper: stage 1, + DPO (extreme pair), + E-DPO with each form of the entropy, seeds with spread.

    python benchmarks/ablation.py --stage1 sage-tiny-sft --train ../shared/data/train --data ../shared/data/dev --headline \\
        --out runs/ablation

Every arm makes the same number of optimiser steps on the same number of pairs. Preference data is written by rule with
wordings for training, scored by the local judge; rewards are measured on lists in held-out wordings about the categories
that are measured. Answers are measured by `sage-eval answer` with the inspector of this project. Our own judge scores the
training data, so the figures that decide are those that it does not set: accuracy, Acc-G, place, naming, reward accuracy.
`--rewards-only` leaves the answers out: settings can be tried on *dev* in a tenth of the time.
Killed at any time, the same command continues. `--limit 4 --steps 4 --drawn 8 --seeds 1` is a quick trial.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

STAGE_1 = "stage 1"
REFERENCE = "reference"
"""Where a run keeps the reference model's log-probabilities (`sage_ad.alignment.edpo.run`), by model and list."""
ARMS: dict[str, dict[str, Any]] = {
    "DPO (extreme pair)": {"pairs": "extreme", "eta": 0.0, "entropy": "term"},
    "E-DPO, term": {"pairs": "edpo", "entropy": "term"},
    # Gaps of surprisal are about ten times those of the term: the same push takes a tenth of eta (docs/alignment.md).
    "E-DPO, surprisal": {"pairs": "edpo", "entropy": "surprisal", "eta": 0.1},
    # Tried beside them with --arms: what the choice of pairs does alone, and Eq. 6 as printed.
    "pairs by term, eta 0": {"pairs": "edpo", "eta": 0.0, "entropy": "term"},
    "pairs by surprisal, eta 0": {"pairs": "edpo", "eta": 0.0, "entropy": "surprisal"},
    "E-DPO, surprisal, reference-free": {"pairs": "edpo", "entropy": "surprisal", "reference_free": True},
    "E-DPO, term, eta 5": {"pairs": "edpo", "entropy": "term", "eta": 5.0},
    "E-DPO, surprisal, eta 0.5": {"pairs": "edpo", "entropy": "surprisal", "eta": 0.5},
    "all pairs, eta 0": {"pairs": "all", "eta": 0.0, "entropy": "term"},
}
PAIRS_A_LIST = {"extreme": 1, "edpo": 2, "all": 6}
"""Of four answers; so many questions a step make about the same number of pairs."""
DEFAULT_ARMS = "DPO (extreme pair);E-DPO, term;E-DPO, surprisal"
FIGURES = {
    "accuracy": "accuracy.value",
    "Acc-G": "acc_g.value",
    "place": "place_found.value",
    "naming": "naming.value",
    "reward accuracy": "held_out.eval_rewards/accuracies",
    "of neighbours": "held_out.eval_rewards/accuracies_neighbours",
    "of ends": "held_out.eval_rewards/accuracies_ends",
    "reward margin": "held_out.eval_rewards/margins",
    "kl, held-out": "held_out.eval_kl",
    "MLE": "mle.mean.value",
    "SBERT": "sbert.value",
}
"""Where each figure of the table stands in a cell's `cell.json`."""
DECIDING = ("accuracy", "Acc-G", "place", "naming", "reward accuracy")


def arguments() -> argparse.Namespace:
    """What is compared on what."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stage1", default="sage-tiny-sft", help="model that all arms begin with")
    parser.add_argument("--train", type=Path, action="append", default=[], help="labelled sets that arms train on")
    parser.add_argument("--drawn", type=int, default=200, help="drawn parts beside them")
    parser.add_argument("--pasted", type=int, default=20, help="good parts of a category with a defect pasted on")
    parser.add_argument("--train-per-class", type=int, default=20, help="good and defective images a training category")
    parser.add_argument("--data", type=Path, required=True, help="labelled set that answers are measured on")
    parser.add_argument("--categories", help="only these, separated by commas")
    parser.add_argument("--headline", action="store_true", help="the headline categories of dev or test")
    parser.add_argument("--per-class", type=int, default=20, help="good and defective images a measured category")
    parser.add_argument("--limit", type=int, help="at most so many measured images in all")
    parser.add_argument(
        "--held-out", type=int, default=5, help="good and defective images a category for reward accuracy"
    )
    parser.add_argument(
        "--verdicts",
        default="mixed",
        help="right: no answer of a list has the wrong verdict (alignment/data/build_preferences.py)",
    )
    parser.add_argument(
        "--writer", default="rule", help="of the answers trained on: rule, local (sampled from --stage1) or a URL"
    )
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--arms", default=DEFAULT_ARMS, help="separated by semicolons: " + "; ".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs-per-step", type=int, default=8)
    parser.add_argument(
        "--questions-at-once", type=int, default=1, help="bounds memory; changes no result beyond rounding"
    )
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--eta", type=float, default=1.0, help="of arms that name none")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--sft-weight", type=float, default=0.0, help="of the best answers' likelihood, in all arms")
    parser.add_argument("--rewards-only", action="store_true", help="measure rewards on held-out wordings, no answers")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.headline:
        from detection import HEADLINE

        args.categories = ",".join(HEADLINE[args.data.name])
    unknown = [name for name in args.arms.split(";") if name not in ARMS]
    if unknown:
        parser.error(f"there is no arm {unknown[0]!r}")
    return args


def categories(args: argparse.Namespace) -> list[str] | None:
    """The measured categories, or None for all."""
    return args.categories.split(",") if args.categories else None


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What every finished cell depends on, so that a folder is not gone on with under other settings."""
    free = {"out", "arms", "seeds", "one", "device", "questions_at_once"}
    return {name: json.loads(json.dumps(value, default=str)) for name, value in vars(args).items() if name not in free}


def cells(args: argparse.Namespace) -> list[tuple[str, int | None]]:
    """Every model that is measured: stage 1 (it has no rewards), and each arm with each seed."""
    return [
        *([] if args.rewards_only else [(STAGE_1, None)]),
        *((arm, seed) for arm in args.arms.split(";") for seed in range(args.seeds)),
    ]


def folder(args: argparse.Namespace, arm: str, seed: int | None) -> Path:
    """Where a cell keeps its work."""
    name = "".join(c if c.isalnum() else "-" for c in arm).strip("-")
    return args.out / (name if seed is None else f"{name}-{seed}")


# ---- preference data -------------------------------------------------------------------------------------------------


def preferences(args: argparse.Namespace) -> tuple[Path, Path]:
    """Scored answers to train on, and scored answers in held-out wordings about the measured categories."""
    from sage_ad.alignment.data.labelled import drawn_parts, pasted_parts, real_parts
    from sage_ad.evaluation.datasets import open_dataset

    def training() -> Any:
        for path in args.train:
            dataset = open_dataset(path)
            yield from real_parts(dataset, limit=args.train_per_class or None)
            if args.pasted:
                yield from pasted_parts(dataset, limit=args.pasted)
        if args.drawn:
            yield from drawn_parts(args.drawn)

    def measured() -> Any:
        few = 3 if args.limit else args.held_out
        yield from real_parts(open_dataset(args.data, None, categories(args)), limit=few)

    return (
        prepared(args, args.out / "train", training, "train", args.writer),
        # Wordings that no arm trains on are written by rule alone.
        prepared(args, args.out / "held-out", measured, "held_out", "rule"),
    )


def prepared(args: argparse.Namespace, place: Path, parts: Any, wordings: Any, writer: str) -> Path:
    """Writes and scores ranked answers, unless that was done."""
    from sage_ad.alignment.commands.preferences import make_writer
    from sage_ad.alignment.data.build_preferences import PreferenceSettings, build_preferences
    from sage_ad.alignment.data.judge_scores import report_markdown, score_lines, spread
    from sage_ad.alignment.data.questions import FactPool
    from sage_ad.evaluation.judge.loading import load_judge
    from sage_ad.evaluation.ranked import read_ranked, write_ranked
    from sage_ad.evaluation.runs import Progress
    from sage_ad.knowledge.store.fact_store import FactStore

    ranked, scored = place / "ranked.jsonl", place / "scored.jsonl"
    if not ranked.exists():
        with FactStore.open() as store:
            settings = PreferenceSettings(wordings=wordings, verdicts=args.verdicts)
            made_by = make_writer(writer, args.stage1, settings, args.device)
            lines = build_preferences(parts(), made_by, FactPool(store), settings, place)
            write_ranked(ranked, Progress().count(lines, "Questions"))
    if not scored.exists():
        lines, problems = score_lines(read_ranked(ranked), load_judge(), folder=place, out=place, progress=Progress())
        write_ranked(scored, lines)
        (place / "report.md").write_text(report_markdown(spread(lines), "local", problems) + "\n", encoding="utf-8")
    return scored


def copy_new(source: Path, target: Path) -> None:
    """Copies the files of a folder that another has not yet."""
    for file in source.glob("*.json"):
        target.mkdir(parents=True, exist_ok=True)
        if not (target / file.name).exists():
            shutil.copy(file, target / file.name)


# ---- one cell --------------------------------------------------------------------------------------------------------


def run_cell(args: argparse.Namespace, arm: str, seed: int | None, train: Path, held_out: Path) -> None:
    """Aligns (unless it is stage 1), measures, and writes cell.json."""
    from sage_ad.alignment.edpo.run import EDPORun, align
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.reports.answer_run import AnswerSettings, measure
    from sage_ad.evaluation.runs import Progress
    from sage_ad.vlm.files import write_whole

    place, model, result = folder(args, arm, seed), args.stage1, {}
    if seed is not None:
        settings = {"eta": args.eta, **ARMS[arm]}
        questions = max(1, args.pairs_per_step // PAIRS_A_LIST[settings["pairs"]])
        at_once = min(questions, args.questions_at_once)
        run = EDPORun(
            data=(train,),
            held_out=held_out,
            out=place,
            model=args.stage1,
            steps=args.steps,
            batch=at_once,
            accumulate=max(1, questions // at_once),
            learning_rate=args.learning_rate,
            beta=args.beta,
            sft_weight=args.sft_weight,
            seed=seed,
            device=args.device,
            resume=True,
            **settings,
        )
        kept = place / "results.json"
        # All arms begin with the same model and lists, so its log-probabilities are computed once for all of them.
        copy_new(args.out / REFERENCE, place / REFERENCE)
        result = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else align(run) or {}
        copy_new(place / REFERENCE, args.out / REFERENCE)
        model = result["model"]
    figures: dict[str, Any] = {}
    if not args.rewards_only:
        options = {"model": model} | ({} if args.device == "auto" else {"device": args.device})
        asked = AnswerSettings(options=options, shots=args.shots, per_class=args.per_class, limit=args.limit)
        dataset = open_dataset(args.data, None, categories(args))
        figures = measure(dataset, asked, out=place / "answers", progress=Progress())
    figures["held_out"] = result.get("held_out", {})
    figures["alignment"] = {key: result.get(key) for key in ("steps", "pairs", "seconds", "last")}
    write_whole(place / "cell.json", json.dumps(figures, indent=2))


# ---- the table -------------------------------------------------------------------------------------------------------


def table(args: argparse.Namespace) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every figure and arm."""
    from sage_ad.evaluation.reports.finished_runs import figure_at

    result: dict[str, Any] = {}
    for arm, seed in cells(args):
        figures = json.loads((folder(args, arm, seed) / "cell.json").read_text(encoding="utf-8"))
        for name, path in FIGURES.items():
            value = figure_at(figures, path)
            if value is not None:
                result.setdefault(arm, {}).setdefault(name, []).append(value)
    return {
        arm: {
            name: {
                "mean": statistics.fmean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                "values": values,
            }
            for name, values in own.items()
        }
        for arm, own in result.items()
    }


def verdicts(result: dict[str, Any]) -> list[str]:
    """For each E-DPO arm and deciding figure: ahead of DPO by how much, beyond the spread of the seeds or not."""
    plain = result.get("DPO (extreme pair)")
    lines = []
    for arm, own in result.items():
        if plain is None or not arm.startswith("E-DPO"):
            continue
        for name in DECIDING:
            if name not in own or name not in plain:
                continue
            gain = own[name]["mean"] - plain[name]["mean"]
            wide = [entry[name]["deviation"] for entry in (own, plain)]
            if None in wide:
                said = "one seed, so no spread"
            else:
                limit = statistics.fmean(value**2 for value in wide) ** 0.5
                said = f"{'beyond' if abs(gain) > limit else 'within'} the spread of {limit:.3f}"
            lines.append(f"{arm}, {name}: {gain:+.3f} to DPO, {said}")
    return lines


def report(args: argparse.Namespace, result: dict[str, Any]) -> str:
    """The table and the verdicts as Markdown."""
    from sage_ad.evaluation.reports.tables import markdown_table

    def cell(entry: dict[str, Any] | None) -> str:
        if entry is None:
            return "-"
        return f"{entry['mean']:.3f}" + (f" ± {entry['deviation']:.3f}" if entry["deviation"] is not None else "")

    rows = [[arm, *(cell(own.get(name)) for name in FIGURES)] for arm, own in result.items()]
    head = f"{args.data.name}, {args.steps} steps of {args.pairs_per_step} pairs, {args.seeds} seeds (mean ± deviation)"
    return "\n\n".join(
        [head, markdown_table(["arm", *FIGURES], rows), "\n".join(f"- {line}" for line in verdicts(result))]
    )


def main() -> None:
    """Runs what is missing, each cell in a process of its own, and prints the table."""
    args = arguments()
    from sage_ad.alignment.data.run_folder import begin_folder
    from sage_ad.vlm.commandline import quiet_libraries
    from sage_ad.vlm.errors import InputError

    quiet_libraries()
    try:
        begin_folder(args.out, settings_of(args), resume=True)
    except InputError as error:
        sys.exit(f"Error: {error}")
    train, held_out = preferences(args)
    if args.one:
        arm, _, seed = args.one.rpartition("#")
        run_cell(args, arm, int(seed) if seed else None, train, held_out)
        return
    for arm, seed in cells(args):
        if (folder(args, arm, seed) / "cell.json").is_file():
            continue
        print(f"{arm}, seed {seed}" if seed is not None else arm, file=sys.stderr, flush=True)
        one = f"{arm}#{'' if seed is None else seed}"
        # A process a cell: no model stays in memory, and a crash costs one cell.
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", one], check=True)
    result = table(args)
    (args.out / "ablation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    text = report(args, result)
    (args.out / "ablation.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
