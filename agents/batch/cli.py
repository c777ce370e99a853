"""`sage-batch`: inspects a folder or manifest of parts, or what arrives in a folder; one row each, and never one twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from sage_ad.vlm.backends.base import DEFAULT_BACKEND
from sage_ad.vlm.commandline import (
    EXIT_LISTED_FAILURES,
    print_json,
    printable,
    quiet_libraries,
    run_app,
    stop_on_terminate,
)
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER, ENCODER_HELP
from sage_ad.vlm.evidence.tiles import TILE_HELP
from sage_ad.vlm.options import check_options, option, options_command

if TYPE_CHECKING:
    from sage_ad.agents.batch.manifest import Part
    from sage_ad.agents.batch.run import BatchSummary, JudgedByBatch

ODDEST_PRINTED = 10

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class BatchOptions:
    """The options of `sage-batch`."""

    parts: Path = option(
        help="Folder of pictures, or a CSV or JSONL file with a line for each part: image, and if wanted id, "
        "references, product, domain, questions (several with | between them in CSV).",
        metavar="FOLDER_OR_MANIFEST",
    )
    out: Path = option(help="Folder for results.parquet and pictures.")
    reference: tuple[Path, ...] = option((), help="Picture of a good part, or a folder of them; may be repeated.")
    question: tuple[str, ...] = option((), help="Question to answer beside the explanation; may be repeated.")
    domain: str | None = option(None, help="Knowledge pack to use. Default: found from the product.")
    product: str | None = option(None, help="Name of the product, if you know it.")
    recursive: bool = option(False, help="Take pictures in subfolders, too.")
    evidence_only: bool = option(False, help="Verdict, score and regions only: no facts, no language model.")
    pictures: bool = option(False, help="Write an evidence picture of every part.")
    resume: bool = option(False, help="Go on with the batch in --out.")
    retry_errors: bool = option(False, help="With --resume: inspect parts that ended in an error once more.")
    watch: bool = option(False, help="Go on for ever and inspect what arrives in FOLDER; SIGTERM or Ctrl-C ends it.")
    webhook: str | None = option(None, help="With --watch: address to which each row is posted as JSON.")
    strict: bool = option(False, help="Inspect nothing if a folder holds what is no picture or is not entered.")
    engine: Literal["local", "ray"] = option("local", help="local (processes on this machine) or ray (a Ray cluster).")
    workers: int = option(0, help="Number of workers; 0: one a core, with a GPU one.")
    chunk: int = option(0, help="Parts a worker takes at a time, whose words are written together; 0: 16 (8 without).")
    address: str | None = option(
        None, help="Ray cluster to join (auto, host:6379); default: $RAY_ADDRESS, else Ray here."
    )
    model: str = option(
        DEFAULT_BACKEND, help=f"{DEFAULT_BACKEND}, a Hugging Face name or folder, or http://host:port/v1#model."
    )
    facts: Literal["auto", "soft", "hard", "none"] = option(
        "auto", help="How facts reach the model; auto: as it was trained."
    )
    judge: str = option("local", help="Judge of the answers: local, or http://host:port/v1#model.")
    seed: int = option(0, help="Seed of everything random.")
    device: str = option("auto", help="auto, cpu or cuda.")
    encoder: str = option(DEFAULT_ENCODER, help=ENCODER_HELP)
    tile: str = option("auto", help=TILE_HELP)

    def __post_init__(self) -> None:
        check_options(self, BatchOptions)
        if self.retry_errors and not (self.resume or self.watch):
            raise InputError("--retry-errors continues a batch; add --resume.")
        if self.evidence_only and self.question:
            raise InputError("--evidence-only answers no question; leave out one of the two.")
        if self.webhook is not None and not self.watch:
            raise InputError("--webhook calls an address for parts as they arrive; add --watch.")
        if self.watch and self.engine != "local":
            raise InputError("--watch works with the workers of this machine; leave out --engine.")
        if self.recursive and self.pictures and self.out.resolve().is_relative_to(self.parts.resolve()):
            raise InputError(
                "With --recursive the evidence pictures in --out would be parts, too; name a folder elsewhere."
            )
        if self.address is not None and self.engine != "ray":
            raise InputError("--address names a Ray cluster; add --engine ray.")


def batch(options: BatchOptions, json: bool) -> None:
    """Inspects many parts and keeps one row for each in OUT/results.parquet."""
    quiet_libraries()
    stop_on_terminate()
    from sage_ad.agents.batch.manifest import PartMaker, read_parts
    from sage_ad.agents.batch.run import BatchSettings, make_engine, run_batch, say_on_terminal
    from sage_ad.agents.settings import make_settings

    given: dict[str, Any] = {name: getattr(options, name) for name in ("product", "domain")}
    given["questions"] = options.question
    left_out: list[str] = []
    parts: list[Part] = []
    if options.watch:
        make = PartMaker(options.reference, **given)
    else:
        parts = read_parts(
            options.parts, references=options.reference, **given, recursive=options.recursive, say=left_out.append
        )
    asks = bool(options.question) or any(part.questions for part in parts)
    if not asks and (options.model != DEFAULT_BACKEND or options.judge != "local"):
        raise InputError("--model and --judge are about answers to questions, and no part brings one; add --question.")
    agent = {name: getattr(options, name) for name in ("model", "facts", "judge", "seed", "device", "encoder", "tile")}
    settings = BatchSettings(
        make_settings(agent),
        language=not options.evidence_only,
        asks=asks,
        pictures=options.pictures,
        chunk=options.chunk,
    )
    check(options.reference, {options.domain, *(part.domain for part in parts)}, left_out.append)
    if asks and options.evidence_only:
        left_out.append("With --evidence-only the questions in the list are not answered.")
    if options.strict and left_out:
        raise InputError(f"{' '.join(left_out)} Leave out --strict to inspect the others.")
    for note in left_out:
        print(printable(note), file=sys.stderr)
    say = None if json else say_on_terminal
    if options.watch:
        from sage_ad.agents.batch.watch import watch_folder

        summary = watch_folder(
            options.parts,
            options.out,
            settings,
            make,
            recursive=options.recursive,
            workers=options.workers,
            webhook=options.webhook,
            retry_errors=options.retry_errors,
            say=say,
        )
        print_summary(summary, json)
        return  # with status 0, as a service that was told to stop
    more = {"address": options.address} if options.address is not None else {}
    summary = run_batch(
        parts,
        options.out,
        settings,
        engine=make_engine(options.engine, settings, options.workers, len(parts), **more),
        resume=options.resume,
        retry_errors=options.retry_errors,
        say=say,
    )
    print_summary(summary, json)
    if summary.errors:
        raise typer.Exit(EXIT_LISTED_FAILURES)


def print_summary(summary: BatchSummary, json: bool) -> None:
    """Prints the summary as one JSON object or for a person."""
    if json:
        print_json(summary.to_dict())
    else:
        show(summary)


app.command()(options_command(BatchOptions, batch))


def check(references: Sequence[Path], domains: Iterable[str | None], say: Callable[[str], None]) -> None:
    """Refuses what parts would fail by: a shared reference that is no picture, a domain that does not exist."""
    from sage_ad.vlm.images import expand_references, load_image

    for path in expand_references(references, say):
        load_image(path)
    if named := {domain for domain in domains if domain is not None}:
        from sage_ad.knowledge.store.fact_store import FactStore

        with FactStore.open() as store:
            for domain in sorted(named):
                store.check_domain(domain)


def show(summary: BatchSummary) -> None:
    """Prints the summary for a person."""
    new = summary.parts - summary.resumed
    print(
        f"{summary.parts} parts: {summary.anomalous} anomalous, {summary.normal} normal, {summary.errors} with an error"
    )
    # The rate without the loading of models stands on the lines before.
    print(
        f"{new} inspected now by {summary.workers} {summary.engine} worker{'s' * (summary.workers != 1)} in "
        f"{summary.seconds:.1f} s, loading of models included"
    )
    if summary.restarts:
        several = summary.restarts > 1
        print(f"{summary.restarts} worker{'s' * several} died and {'were' if several else 'was'} replaced")
    for group in summary.judged_by_batch:
        show_batch(group)
    for item in summary.errors_shown:
        print(f"Part {item['part']}: {printable(item['error'])}", file=sys.stderr)
    if summary.errors > len(summary.errors_shown):
        print(f"... and {summary.errors - len(summary.errors_shown)} more; column `error` has them.", file=sys.stderr)
    for sentence in summary.warnings:
        print(f"Warning: {sentence}", file=sys.stderr)
    print(f"Wrote {summary.report}, and results.csv, .xlsx and .parquet beside it")


def show_batch(group: JudgedByBatch) -> None:
    """Prints what parts that were judged by one another say of their batch, the oddest first."""
    least, most = group.odd
    about = f"{least}" if least == most else f"{least} to {most}"
    of = f" of {group.product}" if group.product else ""
    print(
        f"{group.parts} parts{of} without references were judged by the other parts of this batch; about {about} are odd"
    )
    for sentence in group.warnings:
        print(f"  {sentence}")
    for item in group.oddest[:ODDEST_PRINTED]:
        print(f"  {item['anomaly_score']:.3f} {item['verdict']:9} {printable(item['image'])}")


def main() -> None:
    """Entry point of `sage-batch`."""
    run_app(
        app,
        on_interrupt="Every part finished so far is safe in the folder of --out; run the same command with --resume.",
    )
