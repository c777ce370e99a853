"""`sage-kb`: makes, fills, searches, judges and shares the packs of facts that inspections cite."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sage_ad.vlm.commandline import EXIT_LISTED_FAILURES, print_json, quiet_libraries, run_app
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.knowledge.facts import Fact
    from sage_ad.knowledge.ingestion.pipeline import IngestionReport
    from sage_ad.knowledge.store.fact_store import FactStore

LEFT_OUT = 20
"""So many sentences of a file that are no facts are printed."""
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="The knowledge base: facts by domain, each with its source.",
)

Domain = Annotated[str | None, typer.Option("--domain", "-d", help="Only this domain.")]
Kind = Annotated[
    str | None, typer.Option(help="Only this kind: appearance, cause, consequence, normal-variation, inspection.")
]
Status = Annotated[str | None, typer.Option(help="Only this status: approved, proposed, rejected.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
Ids = Annotated[
    list[str], typer.Argument(help="Ids of facts (their first four digits or more do).", show_default=False)
]


def main() -> None:
    """Runs `sage-kb`."""
    run_app(app, on_interrupt="What was acknowledged is stored; run the command again for the rest.")


@contextmanager
def _store(*, warn: bool = True) -> Iterator[FactStore]:
    quiet_libraries()
    from sage_ad.knowledge.store.fact_store import FactStore

    with FactStore.open(warn=warn) as store:
        yield store


@app.command("new-domain")
def new_domain(
    name: Annotated[str, typer.Argument(help="Name of the domain: lower-case letters, digits, '-'.")],
    json: Json = False,
) -> None:
    """Makes a pack folder to fill in: products, a defect card, an example of a fact."""
    with _store() as store:
        folder = store.new_domain(name)
    if json:
        print_json({"domain": name, "folder": str(folder)})
        return
    print(f"Made {folder}")
    print(f"Name its products in {folder / 'pack.yaml'} and its defects in {folder / 'cards' / 'cards.yaml'},")
    print(f"then: sage-kb check; sage-kb add {name} FILE...")


@app.command("add-looks")
def add_looks_command(
    domain: Annotated[str, typer.Argument(help="Domain of the product.", show_default=False)],
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, or folders of them; or labels: a COCO or Label Studio file.", show_default=False
        ),
    ],
    product: Annotated[str, typer.Option(help="Name of the product.", show_default=False)],
    defect: Annotated[str | None, typer.Option(help="Name of the defect that every picture shows.")] = None,
    good: Annotated[bool, typer.Option("--good", help="The pictures show good parts.")] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of the pictures of a labels file, where it does not say itself.")
    ] = None,
    source: Annotated[str, typer.Option(help="Where the pictures come from.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Take none if anything in a folder is left out.")] = False,
    json: Json = False,
) -> None:
    """Teaches a pack by showing: good parts, or a defect by its name. Three pictures of a defect are enough to begin."""
    from sage_ad.knowledge.looks.labels import add_labelled
    from sage_ad.knowledge.looks.naming import card_name, named_twice, taught, unnamed_product
    from sage_ad.knowledge.looks.pictures import add_looks, looks_folder
    from sage_ad.vlm.images import expand_references

    notes: list[str] = []
    with _store() as store:
        store.cards(domain)  # an unknown domain stops it before anything is written
        pack = store.packs()[domain]
    if paths[0].suffix.lower() == ".json":
        if len(paths) > 1 or good or strict or defect is not None:
            raise InputError(
                "A file of labels says itself what its pictures show; give it alone, without --defect, --good and --strict."
            )
        found = add_labelled(domain, product, paths[0], pack=pack, pictures=pictures, source=source)
        added, notes = found.added, found.notes
    elif good == (defect is not None):
        raise InputError("Say what the pictures show: --defect NAME, or --good.")
    elif pictures is not None:
        raise InputError("--pictures goes with a file of labels; name the pictures themselves.")
    else:
        chosen = expand_references(paths, notes.append)
        if strict and notes:
            raise InputError(f"{' '.join(notes)} Leave out --strict to take the others.")
        if defect is not None:
            defect, note = card_name(pack, defect)
            notes += [note] if note else []
        added = add_looks(domain, product, chosen, defect=defect, source=source)
    if (note := unnamed_product(pack, product)) is not None:
        notes.append(note)
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    folder, counts = looks_folder(domain), taught(domain, product)
    for note in named_twice(pack, counts):
        print(f"Note: {note}", file=sys.stderr)
    if json:
        print_json(
            {
                "domain": domain,
                "product": product,
                "added": [look.model_dump(mode="json") for look in added.new],
                "known": [str(path) for path in added.known],
                "folder": str(folder),
                "counts": counts,
            }
        )
        return
    print(
        f"Added {len(added.new)} picture{'s' * (len(added.new) != 1)}"
        + (f"; {len(added.known)} known already" if added.known else "")
    )
    print(f"{product}: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + f" ({folder})")


@app.command()
def add(
    domain: Annotated[str, typer.Argument(help="Domain that the facts are about.", show_default=False)],
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Markdown, text, PDF, DOCX, XLSX, HTML, CSV or JSON files, MMAD domain knowledge, folders.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Language model that extracts facts, http://host:port/v1#model; default: sentences, offline."
        ),
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Store sentences taken word for word as approved, not as proposed.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda (for --model).")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Status 1 also for notes (pictures, ratings, repeated cells ...).")
    ] = False,
    json: Json = False,
) -> None:
    """Adds the facts of documents; a changed document updates its own facts only."""
    if model is None and device != "auto":
        raise InputError(
            f"--device {device} is the model's, and no model reads these documents; add --model, or leave it out."
        )
    with _store() as store:
        store.cards(domain)  # an unknown domain stops it before a model is loaded
        from sage_ad.knowledge.ingestion.pipeline import ingest

        backend = None
        if model is not None:
            from sage_ad.vlm.backends.registry import load_backend

            backend = load_backend(model, device=device)
        report = ingest(paths, domain, store, backend, _progress, approve=approve)
    if json:
        print_json(report.record())
    else:
        _show_ingestion(report)
    if report.failed or report.problems or (strict and report.notes):
        raise typer.Exit(EXIT_LISTED_FAILURES)


def _progress(step: str, file: str, summary: str) -> None:
    print(f"{file}: {step}: {summary}", file=sys.stderr)


def _show_ingestion(report: IngestionReport) -> None:
    for fact in report.added:
        _line(fact)
    for checked in report.contradictions:
        print(f"Contradiction {checked.fact.id}: {checked.reason}")
    for checked in report.refused:
        print(f"Not stored ({checked.outcome}): {checked.fact.text[:80]}: {checked.reason}")
    for file in report.files:
        for line in file.left_out[:LEFT_OUT]:
            print(f"Left out: {line}")
        if (more := len(file.left_out) - LEFT_OUT) > 0:
            print(f"Left out: {more} more of {file.file} (--json lists all)")
    for problem in report.problems:
        print(f"Problem: {problem}")
    for note in report.notes:
        print(f"Note: {note}")
    counts = f"{len(report.added)} facts added, {len(report.merged)} merged, {len(report.refused)} not stored"
    print(f"{report.domain}: {counts}, {len(report.failed)} files failed ({report.seconds:.1f} s)")
    if any(fact.status == "proposed" for fact in report.added):
        print(f"Look at what is proposed and judge it: sage-kb list -d {report.domain} --status proposed")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="A question, or any words.", show_default=False)],
    domain: Domain = None,
    kind: Kind = None,
    status: Status = None,
    k: Annotated[int, typer.Option("-k", help="How many facts at most.")] = 8,
    mode: Annotated[str, typer.Option(help="fused (meaning and words), dense (meaning), lexical (words).")] = "fused",
    product: Annotated[str | None, typer.Option(help="Product that the facts should suit.")] = None,
    place: Annotated[str | None, typer.Option(help='Place of the defect, such as "upper left".')] = None,
    defect: Annotated[str | None, typer.Option(help="What is seen.")] = None,
    json: Json = False,
) -> None:
    """Finds the facts that fit a question best."""
    if not text.strip():
        raise InputError("The search is empty; give a question or some words.")
    with _store() as store:
        found = store.search(
            text,
            domain=domain,
            kind=kind,
            status=status or ("approved", "proposed"),
            k=k,
            mode=mode,  # type: ignore[arg-type]  # checked there, with one line for the user
            product=product,
            place=place,
            defect=defect,
        )
    if json:
        print_json({"query": text, "facts": [{**_plain(item.fact), "score": round(item.score, 4)} for item in found]})
        return
    for item in found:
        _line(item.fact, f"{item.score:.2f}")
    if not found:
        print("Nothing found.")


@app.command("list")
def list_facts(
    domain: Domain = None,
    kind: Kind = None,
    status: Status = None,
    source: Annotated[
        str | None, typer.Option(help="Only facts of this source (a file's name, as show prints it).")
    ] = None,
    json: Json = False,
) -> None:
    """Lists facts: one line each, rejected ones too."""
    with _store() as store:
        facts = list(store.iterate(domain, kind=kind, status=status, source=source))
        if source and not facts:
            resolved = str(Path(source).expanduser().resolve())
            facts = list(store.iterate(domain, kind=kind, status=status, source=resolved))
            if not facts:
                print(
                    f"No fact has the source {source!r}; give the file's path as sage-kb show ID prints it.",
                    file=sys.stderr,
                )
        if json:
            print_json({"facts": [_plain(fact) for fact in facts]})
            return
        for fact in facts:
            _line(fact)


@app.command()
def show(ids: Ids, json: Json = False) -> None:
    """Shows facts with everything that is known of where they came from."""
    with _store() as store:
        facts = [store.get(identity) for identity in ids]
    if json:
        print_json({"facts": [_plain(fact) for fact in facts]})
        return
    for fact in facts:
        _show(fact)


@app.command()
def approve(ids: Ids, json: Json = False) -> None:
    """Says that facts are right: answers may lean on them without a remark."""
    _judge(ids, "approved", json)


@app.command()
def reject(ids: Ids, json: Json = False) -> None:
    """Says that facts are wrong: they are kept, but neither found nor cited, nor proposed again."""
    _judge(ids, "rejected", json)


def _judge(ids: Sequence[str], status: str, json: bool) -> None:
    with _store() as store:
        chosen = [store.get(identity).id for identity in ids]  # an unknown id stops it before anything changes
        facts = [store.set_status(identity, status) for identity in chosen]
    _report(facts, status, json)


@app.command()
def edit(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the fact.", show_default=False)],
    text: Annotated[str | None, typer.Option(help="The new sentence. Without any option an editor opens.")] = None,
    kind: Annotated[str | None, typer.Option(help="The new kind.")] = None,
    product: Annotated[
        list[str] | None, typer.Option(help="Product it is about; may be repeated; '' takes all away.")
    ] = None,
    defect: Annotated[
        list[str] | None, typer.Option(help="Defect it is about; may be repeated; '' takes all away.")
    ] = None,
    json: Json = False,
) -> None:
    """Changes a fact; its id and sources stay."""
    given = {"text": text, "kind": kind, "products": product or None, "defects": defect or None}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in fields.keys() & {"products", "defects"}:
        fields[name] = [item for item in fields[name] if item.strip()]
    with _store() as store:
        fact = store.get(identity)
        if not fields:
            written = _in_editor(fact.text)
            if not written.strip() or written.strip() == fact.text:
                raise InputError(f"Fact {fact.id} was not changed: the editor gave no new text; or use --text.")
            fields = {"text": written}
        fact = store.edit(fact.id, **fields)
    _report([fact], "edited", json)


def _in_editor(text: str) -> str:
    """Lets the user change a text in $VISUAL or $EDITOR."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise InputError("No editor is known; set EDITOR, or give the new sentence with --text.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fact.txt"
        path.write_text(text + "\n", encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f"The editor {editor!r} failed ({error}); give the new sentence with --text.") from None
        return path.read_text(encoding="utf-8")


@app.command()
def remove(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of facts.", show_default=False)] = None,
    source: Annotated[
        str | None, typer.Option(help="Remove this file as a source, and all facts that have no other one.")
    ] = None,
    domain: Domain = None,
    json: Json = False,
) -> None:
    """Removes facts; one of a shipped pack is hidden."""
    if bool(ids) == bool(source):
        raise InputError("Name the facts to remove by their ids, or a source with --source, not both.")
    with _store() as store:
        if source:
            from sage_ad.knowledge.store.sources import remove_source

            facts = remove_source(store, source, domain).removed
        else:
            facts = store.remove(ids or [])
    _report(facts, "removed", json)


@app.command()
def stats(json: Json = False) -> None:
    """Counts facts by domain, status and kind."""
    from dataclasses import asdict

    with _store() as store:
        infos = store.domains()
    if json:
        rows = [{**asdict(info), "products": len(info.products), "defects": len(info.defects)} for info in infos]
        print_json({"domains": rows, "facts": sum(sum(info.counts.values()) for info in infos)})
        return
    print(f"{'domain':<18}{'approved':>9}{'proposed':>9}{'rejected':>9}  from")
    for info in infos:
        origin = " + ".join(name for name, is_so in (("shipped", info.shipped), ("yours", info.edited)) if is_so)
        counts = "".join(f"{info.counts[status]:>9}" for status in ("approved", "proposed", "rejected"))
        print(f"{info.name:<18}{counts}  {origin}")
    print(f"{sum(sum(info.counts.values()) for info in infos)} facts in {len(infos)} domains")


@app.command()
def check(json: Json = False) -> None:
    """Checks packs and index: files, cards and facts against the schema, names claimed twice, every byte of the index."""
    with _store(warn=False) as store:  # it prints them itself
        problems = store.check()
        count = sum(sum(info.counts.values()) for info in store.domains())
    if json:
        print_json({"facts": count, "problems": problems})
    else:
        for problem in problems:
            print(problem)
        print(f"{count} facts checked, {len(problems)} problem{'s' * (len(problems) != 1)}.")
    if problems:
        raise typer.Exit(EXIT_LISTED_FAILURES)


@app.command("export")
def export_domain(
    domain: Annotated[str, typer.Argument(help="Domain to export.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="File to write, such as casting.sagepack.", show_default=False)],
    json: Json = False,
) -> None:
    """Writes a domain, with all provenance, into one portable file."""
    from sage_ad.knowledge.portable import export_pack

    with _store() as store:
        count = export_pack(store, domain, file)
    if json:
        print_json({"domain": domain, "file": str(file), "facts": count})
    else:
        print(f"Wrote {count} facts of {domain} to {file}")


@app.command("import")
def import_domain(
    file: Annotated[Path, typer.Argument(help="File that sage-kb export wrote.", show_default=False)],
    json: Json = False,
) -> None:
    """Takes a domain over from a portable file."""
    from sage_ad.knowledge.portable import import_pack

    with _store() as store:
        report = import_pack(store, file)
    numbers = {name: len(getattr(report.stored, name)) for name in ("added", "merged", "known")}
    if json:
        about = {"domain": report.domain, "created": report.created, **numbers, "looks": report.looks}
        print_json({**about, "refused": report.refused})
    else:
        pictures = f", {report.looks} pictures added" if report.looks else ""
        print(f"{report.domain}: " + ", ".join(f"{count} {name}" for name, count in numbers.items()) + pictures)
        for line in report.refused:
            print(f"Refused {line}")
    if report.refused:
        raise typer.Exit(EXIT_LISTED_FAILURES)


# -- how facts are shown -------------------------------------------------------------------------------------------


def _plain(fact: Fact) -> dict[str, Any]:
    """A fact as JSON, with every field, so that a program need not know the defaults."""
    return fact.model_dump(mode="json")


def _line(fact: Fact, score: str = "") -> None:
    mark = "" if fact.status == "approved" else f" [{fact.status}]"
    print(f"{score + '  ' if score else ''}{fact.id}  {fact.domain}/{fact.kind}{mark}  {fact.text}{_tags(fact)}")


def _tags(fact: Fact) -> str:
    about = "; ".join(", ".join(names) for names in (fact.defects, fact.products) if names)
    return f"  ({about})" if about else ""


def _show(fact: Fact) -> None:
    print(f"{fact.id}  {fact.domain}/{fact.kind}  {fact.status}")
    print(f"  {fact.text}")
    for name in ("products", "defects", "flags"):
        if values := getattr(fact, name):
            print(f"  {name}: {', '.join(values)}")
    for source in fact.sources:
        details = [source.extractor or "", source.date or ""]
        details += [f"sha256 {source.sha256[:12]}" if source.sha256 else ""]
        if source.location and source.location.span:
            details.insert(0, "characters {}-{}".format(*source.location.span))
        print(f"  source: {source}" + "".join(f", {detail}" for detail in details if detail))
    for name in ("added", "edited"):
        if value := getattr(fact, name):
            print(f"  {name}: {value}")


def _report(facts: Sequence[Fact], done: str, json: bool) -> None:
    if json:
        print_json({"done": done, "facts": [_plain(fact) for fact in facts]})
        return
    for fact in facts:
        print(f"{done} {fact.id}  {fact.text}{_tags(fact)}")
    if not facts:
        print("Nothing to do.")


if __name__ == "__main__":
    main()
