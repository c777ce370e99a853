"""`sage-batch`: inspects a folder or manifest of parts, one row each; can be stopped at any time and goes on with --resume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sage_ad.vlm.commandline import EXIT_LISTED_FAILURES, print_json, quiet_libraries, run_app, stop_on_terminate

if TYPE_CHECKING:
    from sage_ad.agents.batch.manifest import Part
    from sage_ad.agents.batch.run import BatchSettings, BatchSummary

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def batch(
    parts: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER_OR_MANIFEST",
            help="Folder of pictures, or a CSV or JSONL file with a line for each part: image, and if wanted id, "
            "references, product, domain, questions (several with | between them in CSV).",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.parquet and pictures.", show_default=False)],
    reference: Annotated[
        list[Path] | None, typer.Option(help="Picture of a good part, or a folder of them; may be repeated.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="Question to answer; may be repeated. Default: five standard ones.")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Knowledge pack to use. Default: found from the product.")] = None,
    product: Annotated[str | None, typer.Option(help="Name of the product, if you know it.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Take pictures in subfolders, too.")] = False,
    evidence_only: Annotated[
        bool, typer.Option("--evidence-only", help="Verdict, score and regions only: no facts, no language model.")
    ] = False,
    pictures: Annotated[bool, typer.Option("--pictures", help="Write an evidence picture of every part.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the batch in --out.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="With --resume: inspect parts that ended in an error once more.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local (processes on this machine) or ray (a Ray cluster).")] = "local",
    workers: Annotated[int, typer.Option(help="Number of workers; 0: one a core, with a GPU one.")] = 0,
    chunk: Annotated[
        int, typer.Option(help="Parts a worker takes at a time, whose words are written together; 0: 16 (8 without).")
    ] = 0,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join (auto, host:6379); default: $RAY_ADDRESS, else Ray here.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="sage-tiny, a Hugging Face name or folder, or http://host:port/v1#model.")
    ] = "sage-tiny",
    facts: Annotated[str, typer.Option(help="How facts reach the model: soft, hard, none or auto.")] = "auto",
    judge: Annotated[str, typer.Option(help="Judge of the answers: local, or http://host:port/v1#model.")] = "local",
    json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object, and nothing else.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Inspects many parts and keeps one row for each in OUT/results.parquet."""
    quiet_libraries()
    stop_on_terminate()
    from sage_ad.agents.batch.manifest import read_parts
    from sage_ad.agents.batch.run import BatchSettings, make_engine, run_batch, say_on_terminal
    from sage_ad.agents.settings import make_settings
    from sage_ad.vlm.errors import InputError

    if retry_errors and not resume:
        raise InputError("--retry-errors goes on with a batch; add --resume.")
    if address is not None and engine != "ray":
        raise InputError("--address names a Ray cluster; add --engine ray.")
    agent = {"model": model, "facts": facts, "judge": judge, "seed": seed, "device": device}
    settings = BatchSettings(make_settings(agent), language=not evidence_only, pictures=pictures, chunk=chunk)
    listed = read_parts(
        parts,
        references=reference or [],
        product=product,
        domain=domain,
        questions=question or [],
        recursive=recursive,
        say=lambda note: print(note, file=sys.stderr),
    )
    check(listed, settings, list(reference or []), domain)
    more = {"address": address} if address is not None else {}
    made = make_engine(engine, settings, workers, len(listed), **more)  # type: ignore[arg-type]
    summary = run_batch(
        listed,
        out,
        settings,
        engine=made,
        resume=resume,
        retry_errors=retry_errors,
        say=None if json else say_on_terminal,
    )
    if json:
        print_json(summary.to_dict())
    else:
        show(summary)
    if summary.errors:
        raise typer.Exit(EXIT_LISTED_FAILURES)


def check(parts: list[Part], settings: BatchSettings, references: list[Path], domain: str | None) -> None:
    """Refuses what every part would fail by: a shared reference that is no picture, a domain that does not exist."""
    from sage_ad.vlm.errors import InputError
    from sage_ad.vlm.images import expand_references, load_image

    for path in expand_references(references):
        load_image(path)
    if domain is not None and settings.language:
        from sage_ad.knowledge.store.fact_store import FactStore

        with FactStore.open() as store:
            known = sorted(info.name for info in store.domains())
        if domain not in known:
            raise InputError(f"There is no domain named {domain!r}; the domains are: {', '.join(known)}.")


def show(summary: BatchSummary) -> None:
    """Prints the summary for a person."""
    new = summary.parts - summary.resumed
    print(
        f"{summary.parts} parts: {summary.anomalous} anomalous, {summary.normal} normal, {summary.errors} with an error"
    )
    rate = f", {summary.parts_a_second:.2f} parts/s" if summary.parts_a_second else ""
    print(f"{new} inspected now by {summary.workers} {summary.engine} workers in {summary.seconds:.1f} s{rate}")
    if summary.restarts:
        print(f"{summary.restarts} workers died and were replaced")
    for item in summary.errors_shown:
        print(f"Part {item['part']}: {item['error']}", file=sys.stderr)
    if summary.errors > len(summary.errors_shown):
        print(f"... and {summary.errors - len(summary.errors_shown)} more; column `error` has them.", file=sys.stderr)
    print(f"Wrote {summary.results}")


def main() -> None:
    """Entry point of `sage-batch`."""
    run_app(
        app,
        on_interrupt="Every part finished so far is safe in the folder of --out; run the same command with --resume.",
    )
