"""`sage-inspect`: inspects one part and says what was found, why, and how far to trust it."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sage_ad.vlm.backends.base import DEFAULT_BACKEND
from sage_ad.vlm.commandline import garbage_left_alone, print_json, printable, quiet_libraries, run_app
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER, ENCODER_HELP
from sage_ad.vlm.evidence.tiles import TILE_HELP

if TYPE_CHECKING:
    from sage_ad.agents.inspector import SageInspector
    from sage_ad.evaluation.inspection import InspectionTrace

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
EXAMPLE = Path(__file__).parent / "example"
"""Pictures of `--example`, drawn by tools/demo_examples.py."""


@app.command()
def inspect(
    image: Annotated[Path | None, typer.Argument(help="Picture of the part to inspect.", show_default=False)] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="Picture of a good part, or a folder of them; may be repeated.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="Question to answer beside the explanation; may be repeated.")
    ] = None,
    standard_questions: Annotated[
        bool, typer.Option("--standard-questions", help="Ask the five questions that evaluations ask, too.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Inspect a drawn piece of leather that comes with SAGE.")
    ] = False,
    mm_per_pixel: Annotated[
        float | None, typer.Option(help="Scale of the picture: sizes are then in millimetres too.")
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="Knowledge pack to use (see sage-kb stats). Default: found from product and questions."),
    ] = None,
    product: Annotated[str | None, typer.Option(help="Name of the product, if you know it.")] = None,
    model: Annotated[
        str, typer.Option(help="sage-tiny, a Hugging Face name or folder, or http://host:port/v1#model.")
    ] = DEFAULT_BACKEND,
    facts: Annotated[
        str,
        typer.Option(help="How facts reach the model: soft (fusion attention), hard (in the prompt), none, or auto."),
    ] = "auto",
    learn: Annotated[
        bool, typer.Option("--learn", help="Keep facts that the model writes in your knowledge base, as proposed.")
    ] = False,
    judge: Annotated[str, typer.Option(help="Judge of the answers: local, or http://host:port/v1#model.")] = "local",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print facts, boxes, self-checks and times as well.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the trace as one JSON object, and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for evidence.png and trace.json.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    encoder: Annotated[str, typer.Option(help=ENCODER_HELP)] = DEFAULT_ENCODER,
    tile: Annotated[str, typer.Option(help=TILE_HELP)] = "auto",
) -> None:
    """Inspects a part against good ones and prints the verdict with its evidence, facts and trust."""
    import time

    quiet_libraries()
    start = time.perf_counter()
    from sage_ad.agents.inspector import SageInspector, check_words
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.vlm.errors import InputError

    questions = list(question or [])
    if standard_questions:
        from sage_ad.evaluation import questions as known

        questions += [own.text for own in known.standard_questions()]
    if not questions:
        refuse_idle_options(model, facts, learn, judge)
    if example:
        refuse_own_part(image, reference, product)
        image, reference, product = EXAMPLE / "leather-test.jpg", [EXAMPLE / "leather-good-1.jpg"], "leather"
    elif image is None:
        raise InputError("Give a picture of the part (sage-inspect part.png --reference good.png), or --example.")
    request = InspectionRequest(
        image=image, references=reference or [], questions=questions, domain=domain, product=product
    )
    check_words(request)
    check_files(image, reference or [], out)
    with garbage_left_alone():
        import_heavy(model if questions else None)
        imported = time.perf_counter()
        inspector = SageInspector(
            model=model,
            facts=facts,
            learn=learn,
            judge=judge,
            seed=seed,
            device=device,
            encoder=encoder,
            tile=tile,
            mm_per_pixel=mm_per_pixel,
        )
        inspector.load(language=bool(questions))
    loaded = time.perf_counter()
    trace = watch(inspector, request, quiet=json)
    timing = {"imports": imported - start, "model load": loaded - imported}
    trace = with_timing(trace, timing)
    written = write(inspector, trace, out) if out else []
    if json:
        print_json(trace.model_dump(mode="json"))
    else:
        show(trace, written, timing, verbose)
        if example:
            print("The part was drawn. Now one of yours: sage-inspect part.png --reference good.png --product NAME")


def refuse_idle_options(model: str, facts: str, learn: bool, judge: str) -> None:
    """Refuses options that only an answer to a question would read."""
    from sage_ad.vlm.errors import InputError

    given = [
        name
        for name, idle in (
            ("--model", model != DEFAULT_BACKEND),
            ("--facts", facts in ("soft", "hard")),
            ("--learn", learn),
            ("--judge", judge != "local"),
        )
        if idle
    ]
    if given:
        raise InputError(
            f"{given[0]} is about answers to questions, and none was asked; add --question TEXT or --standard-questions."
        )


def refuse_own_part(image: Path | None, reference: list[Path] | None, product: str | None) -> None:
    """Refuses a part of the user's own beside --example."""
    from sage_ad.vlm.errors import InputError

    for given, name in ((image, str(image)), (reference, "--reference"), (product, "--product")):
        if given:
            raise InputError(f"--example brings its own part, reference and product; leave out {name} or --example.")


def check_files(image: Path, references: list[Path], out: Path | None) -> None:
    """Refuses what cannot be read before seconds go into loading models."""
    from sage_ad.vlm.errors import InputError
    from sage_ad.vlm.images import expand_references, load_image

    notes: list[str] = []
    for path in [image, *expand_references(references, notes.append)]:
        load_image(path)
    for note in notes:
        print(f"Note: {printable(note)}", file=sys.stderr)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"The folder {out} cannot be made ({error.strerror}); name another with --out.") from None


def import_heavy(model: str | None) -> None:
    """Imports what an inspection needs, so that its time is not mistaken for that of the models.

    Args:
        model: answers the questions; None where none was asked.
    """
    from sage_ad.vlm.weights.embedded import smollm2_checked_meanwhile

    with smollm2_checked_meanwhile() if model == DEFAULT_BACKEND else contextlib.nullcontext():
        import faiss  # noqa: F401
        import torch  # noqa: F401

        if model is not None:
            import transformers  # noqa: F401

        import sage_ad.agents.graph
        import sage_ad.knowledge.store.fact_store  # noqa: F401


def watch(inspector: SageInspector, request: Any, quiet: bool) -> InspectionTrace:
    """Runs the inspection; each step is a line on standard error as it ends."""
    for event in inspector.stream(request):
        if event["event"] == "step" and not quiet:
            step = event["step"]
            print(f"  {step['name']:<9} {step['seconds']:6.2f} s  {step['summary']}", file=sys.stderr)
        elif event["event"] == "trace":
            trace: InspectionTrace = event["trace"]
            return trace
    raise AssertionError("an inspection without review ends with a trace")


def with_timing(trace: InspectionTrace, timing: dict[str, float]) -> InspectionTrace:
    """The trace with imports and model load as its first steps, so that a cold process says why it is slow."""
    from sage_ad.evaluation.inspection import TraceStep

    cold = [
        TraceStep(name=name, seconds=round(seconds, 4), summary="once a process") for name, seconds in timing.items()
    ]
    return trace.model_copy(update={"steps": [*cold, *trace.steps]})


def write(inspector: SageInspector, trace: InspectionTrace, out: Path) -> list[Path]:
    """Writes evidence.png and trace.json; returns their paths."""
    from sage_ad.vlm.errors import InputError
    from sage_ad.vlm.evidence.visualize import evidence_picture

    view = inspector.resources.view(Path(trace.image), [Path(path) for path in trace.references])
    picture, text = out / "evidence.png", out / "trace.json"
    try:
        evidence_picture(view.image, view.references, view.evidence).save(picture)
        text.write_text(trace.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The results cannot be written to {out} ({error.strerror or error}); name another folder with --out."
        ) from None
    return [picture, text]


def escape(text: str) -> str:
    """Text from outside as Rich prints it, line by line."""
    from rich.markup import escape as without_markup

    return without_markup("\n".join(map(printable, text.split("\n"))))


def show(trace: InspectionTrace, written: list[Path], timing: dict[str, float], verbose: bool) -> None:
    """Prints the trace for a person. Text from outside is printed as text: neither markup nor control characters in it work."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    colour = "red" if trace.verdict == "anomalous" else "green"
    part = f"{trace.product or 'part'} {Path(trace.image).name}"
    pack = f"pack {trace.domain}" if trace.domain else "no pack"
    console.print(f"\n[bold {colour}]{trace.verdict.upper()}[/]  {escape(part)}  [dim]{pack} (another: --domain)[/]")
    for warning in trace.warnings:
        console.print(f"[yellow]Warning:[/] {escape(warning)}")
    console.print(escape(trace.explanation))
    for item in trace.answers:
        console.print(f"\n[bold]{escape(item.question)}[/]\n{escape(item.text)}")
    if verbose:
        show_details(console, trace, timing)
    console.print()
    for path in written:
        console.print(f"Wrote {escape(str(path))}")
    if not written:
        more = "" if verbose else ", --verbose for details"
        console.print(f"Add --out FOLDER for the evidence picture and the trace{more}.", style="dim")
    if trace.verdict == "anomalous" and not trace.candidates and trace.product:
        command = f"sage-kb add-looks {trace.domain or 'DOMAIN'} PICTURES --product {shlex.quote(trace.product)} --defect NAME"
        console.print(f"Teach it a name: {escape(command)}", style="dim")


def show_details(console: Any, trace: InspectionTrace, timing: dict[str, float]) -> None:
    """Prints threshold, boxes, candidates, facts, self-checks, model and times."""
    console.print(f"\n[bold]Measured[/]\n{escape(trace.threshold_reason)}")
    for region in trace.regions:
        console.print(f"Region {region.place}: box {tuple(region.box)}, score {region.score:.3f}")
    for candidate in trace.candidates:
        chance = "" if candidate.probability is None else f"{candidate.probability:.2f}, "
        console.print(escape(f"Candidate {candidate.name} ({candidate.source}: {chance}{candidate.reason})"))
    for item in trace.answers:
        if item.mle is not None:
            console.print(escape(f"{item.question} {mle_line(item.mle)}"), style="dim")
    if trace.facts:
        console.print("\n[bold]Facts[/]")
        for number, fact in enumerate(trace.facts, start=1):
            console.print(escape(f"[{number}] {fact.text} ({fact.kind}, {fact.status}, {fact.source}, id {fact.id})"))
    console.print(f"\nModel: {escape(trace.model)}")
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in timing.items())
    console.print(f"Time: {spent}, inspection {trace.seconds:.1f} s")


def mle_line(score: Any) -> str:
    """What the judge says of one answer, in a line: its levels, and each objection.

    A self-check (no gold answer) has no type and no mean, and only the levels that are worth a number.
    """
    if score.basis == "self-check":
        known = [f"{name} {level}/5" for name in ("localisation", "logic") if (level := getattr(score, name))]
        objections = "; ".join(score.deductions) or "no objection"
        return f"Self-check (type not judged: no gold answer): {', '.join([*known, objections])}"
    if score.unscored:
        return f"MLE unscored: {score.unscored}"
    levels = ", ".join(f"{name} {getattr(score, name) or '-'}" for name in ("type", "localisation", "logic"))
    line = f"MLE {score.mean:.2f} ({levels})"
    return line + (f"; off: {'; '.join(score.deductions)}" if score.deductions else "")


def main() -> None:
    """Entry point of `sage-inspect`."""
    from sage_ad.vlm.commandline import end_at_once

    try:
        run_app(app, on_interrupt="An inspection keeps nothing until it is done; run the same command again.")
    except SystemExit as end:
        if "torch" in sys.modules:  # without it there is little to take apart
            end_at_once(end.code)
        raise
