"""`sage-train build-preferences` and `sage-train convert`: ranked answers from labelled sets, and their other forms."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sage_ad.vlm.backends.base import DEFAULT_BACKEND
from sage_ad.vlm.commandline import EXIT_LISTED_FAILURES, print_json, quiet_libraries
from sage_ad.vlm.errors import BackendError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sage_ad.alignment.data.build_preferences import PreferenceSettings, PreferenceWriter
    from sage_ad.alignment.data.labelled import LabelledPart
    from sage_ad.evaluation.ranked import RankedAnswers

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Pairs = Annotated[
    str, typer.Option(help="For TRL: extreme, edpo, adjacent or all (all but extreme and all need scores).")
]
Entropy = Annotated[str, typer.Option(help="For TRL with scores: form of the entropy, term or surprisal.")]


def build_command(
    out: Annotated[Path, typer.Option(help="Folder for ranked.jsonl (and drawn pictures).")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Labelled set, AD-PL file, or preference data (JSONL, Parquet); may be given again."),
    ] = None,
    drawn: Annotated[int, typer.Option(help="Synthetic parts to draw beside them.")] = 0,
    pasted: Annotated[int, typer.Option(help="Good parts of a category that get a defect pasted on, at most.")] = 0,
    writer: Annotated[
        str, typer.Option(help="rule (no model), local (answers sampled from --model, ranked by the labels), or a URL.")
    ] = "rule",
    model: Annotated[str, typer.Option(help="Model that --writer local samples from.")] = DEFAULT_BACKEND,
    answers: Annotated[int, typer.Option(help="Answers a question: 2, 3 or 4.")] = 4,
    per_class: Annotated[int, typer.Option(help="Good and defective images a category; 0 takes all.")] = 0,
    facts: Annotated[
        int, typer.Option(help="Facts of the knowledge base attached to a part, at most; 0 for none.")
    ] = 6,
    verdicts: Annotated[
        str,
        typer.Option(
            help="mixed: the worst answer has the wrong verdict; right: none has (for SAGE models, whose verdict is the "
            "evidence's)."
        ),
    ] = "mixed",
    held_out: Annotated[bool, typer.Option("--held-out", help="Use the wordings that training never sees.")] = False,
    categories: Annotated[str | None, typer.Option(help="Only these categories, separated by commas.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda (for --writer local).")] = "auto",
    json: Json = False,
) -> None:
    """Builds ranked answers (best first) from labelled inspection sets."""
    quiet_libraries()
    from sage_ad.alignment.data.build_preferences import PreferenceSettings
    from sage_ad.evaluation.preference_data import beside, read_preferences, require_pictures
    from sage_ad.evaluation.ranked import write_ranked
    from sage_ad.evaluation.runs import Progress, output_folder

    if not data and not drawn:
        raise InputError("There is nothing to build from; give --data SET, or --drawn N for synthetic parts.")
    if writer != "local" and (model != DEFAULT_BACKEND or device != "auto"):
        raise InputError(f"--model and --device belong to --writer local, and the writer is {writer}; leave them out.")
    settings = PreferenceSettings(
        answers=answers,
        seed=seed,
        wordings="held_out" if held_out else "train",
        facts=facts,
        verdicts=verdicts,  # type: ignore[arg-type]
    )
    output_folder(out)
    ready: list[RankedAnswers] = []
    labelled: list[Path] = []
    for path in data or []:
        found = read_preferences(path, out / "pictures")
        require_pictures(found or [], path)
        ready += beside(found or [], out)
        labelled += [path] if found is None else []
    made_by = make_writer(writer, model, settings, device)
    problems: list[str] = []
    made = _written(_parts(labelled, drawn, pasted, per_class, categories, seed, problems), made_by, settings, out)
    lines = ready + list(Progress().count(made, "Questions"))
    problems += getattr(made_by, "failed", [])
    if not lines:
        raise InputError("No list of ranked answers could be built; check that --data holds labelled images.")
    write_ranked(out / "ranked.jsonl", lines)
    result = {
        "ranked": str(out / "ranked.jsonl"),
        "lists": len(lines),
        "answers": sum(len(line.answers) for line in lines),
        "images": len({line.group for line in lines}),
        "by_source": dict(Counter(line.rank_source or "unknown" for line in lines)),
        "problems": problems,
    }
    if json:
        print_json(result)
    else:
        print(f"{result['lists']} lists of ranked answers about {result['images']} images stand in {result['ranked']}.")
        for problem in problems:
            print(f"- {problem}")
    if problems:
        raise typer.Exit(EXIT_LISTED_FAILURES)


def _parts(
    sets: list[Path], drawn: int, pasted: int, per_class: int, categories: str | None, seed: int, problems: list[str]
) -> Iterator[LabelledPart]:
    from sage_ad.alignment.data.labelled import drawn_parts, pasted_parts, real_parts
    from sage_ad.evaluation.datasets import open_dataset

    wanted = [name.strip() for name in categories.split(",") if name.strip()] if categories else None
    for path in sets:
        dataset = open_dataset(path, None, wanted)
        yield from real_parts(dataset, seed=seed, limit=per_class or None)
        if pasted:
            yield from pasted_parts(dataset, seed=seed, limit=pasted)
        problems += map(str, dataset.problems)
    if drawn:
        yield from drawn_parts(drawn, seed=seed)


def _written(
    parts: Iterator[LabelledPart], writer: PreferenceWriter, settings: PreferenceSettings, out: Path
) -> Iterator[RankedAnswers]:
    """Lists as they are written; a server that fails ends the work with what is to be done."""
    from sage_ad.alignment.data.build_preferences import build_preferences
    from sage_ad.alignment.data.questions import FactPool
    from sage_ad.knowledge.store.fact_store import FactStore

    with FactStore.open() if settings.facts else nullcontext() as store:
        pool = FactPool(store) if store is not None else None
        try:
            yield from build_preferences(parts, writer, pool, settings, out)
        except BackendError as error:
            raise BackendError(f"The writer failed, so no list was written: {error}") from error


def make_writer(name: str, model: str, settings: PreferenceSettings, device: str = "auto") -> PreferenceWriter:
    """The writer of answers by name: "rule", "local" (samples from `model`) or a URL.

    Raises:
        InputError: there is no such writer.
    """
    from sage_ad.alignment.data.build_preferences import RuleWriter

    if name == "rule":
        return RuleWriter(settings)
    if name == "local":
        from sage_ad.alignment.data.preference_writers import SampledWriter
        from sage_ad.alignment.edpo.loading import load_sampler

        return SampledWriter(load_sampler(model, device), settings)
    if name.startswith(("http://", "https://")):
        from sage_ad.alignment.data.preference_writers import LanguageModelWriter
        from sage_ad.vlm.backends.registry import load_backend

        return LanguageModelWriter(load_backend(name), settings)
    raise InputError(f"There is no writer {name!r}; use rule, local, or the URL of an OpenAI-compatible server.")


def convert_command(
    source: Annotated[
        Path, typer.Argument(help="Ranked answers, AD-PL, or TRL or LlamaFactory preference data.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    to: Annotated[str, typer.Option(help="ranked, adpl or trl.")] = "ranked",
    pairs: Pairs = "extreme",
    entropy: Entropy = "term",
    json: Json = False,
) -> None:
    """Turns ranked answers, AD-PL records and TRL preference data into each other."""
    quiet_libraries()
    from sage_ad.alignment.data.exchange import write_preferences
    from sage_ad.evaluation.preference_data import read_answers, require_pictures

    if to not in ("ranked", "adpl", "trl"):
        raise InputError(f"There is no form {to!r} of preference data; use ranked, adpl or trl.")
    if to != "trl" and (pairs != "extreme" or entropy != "term"):
        raise InputError(f"--pairs and --entropy belong to --to trl, and this is --to {to}; leave them out.")
    lines = read_answers(source, out.parent / f"{out.stem}-pictures")
    require_pictures(lines, source)
    target: Any = to
    written = write_preferences(lines, out, target, pairs, entropy)
    result = {"lists": len(lines), "written": written, "file": str(out)}
    print_json(result) if json else print(f"{written} records from {len(lines)} lists stand in {out}.")
