"""Batch inspection: a folder or manifest of parts in, one row a part out, on one machine or a Ray cluster.

    from pathlib import Path
    from sage_ad.agents.batch.run import BatchSettings, run_batch
    from sage_ad.agents.batch.manifest import read_parts

    parts = read_parts(Path("parts"), references=[Path("good")])
    summary = run_batch(parts, Path("out"), BatchSettings(language=False))

A batch that ends early (Ctrl-C, a full disk, a server that vanished, kill -9) keeps every finished row and continues with
`resume=True`. Call it from under `if __name__ == "__main__":`, since workers are processes of their own.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from sage_ad.agents.batch.manifest import Part, in_working_order
from sage_ad.agents.batch.peers import compared_with_peers, forget_features
from sage_ad.agents.batch.progress import Progress
from sage_ad.agents.batch.report import REPORT, doubts, write_reports
from sage_ad.agents.batch.store import BatchStopped, BatchStore, Row, read_table
from sage_ad.agents.batch.worker import BatchSettings, Finished
from sage_ad.vlm.errors import BackendError, InputError

CHUNK_WITH_LANGUAGE, CHUNK_EVIDENCE_ONLY = 16, 8
ERRORS_SHOWN, ODDEST_SHOWN = 100, 20
WORKER_BYTES = {False: 0.5e9, True: 1.5e9}
"""Memory of a worker without and with the embedded language model; half of the machine's is given to workers."""
ENGINES = ("local", "ray")
EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Something that inspects parts with several workers."""

    name: str
    workers: int
    restarts: int

    def run(self, parts: Sequence[Part]) -> Generator[Finished, None, None]: ...


@dataclass
class JudgedByBatch:
    """Parts of one product that were judged by one another.

    Attributes:
        product: name of the product, if it was given.
        parts: how many they are.
        odd: least and greatest number of them that are probably odd.
        reason: how their threshold was found.
        warnings: what makes the judgement doubtful.
        oddest: part, image, verdict and score of those that differ most, the oddest first.
    """

    product: str | None
    parts: int
    odd: tuple[int, int]
    reason: str
    warnings: tuple[str, ...]
    oddest: list[dict[str, Any]]


@dataclass
class BatchSummary:
    """What a finished batch amounts to; `asdict` of it is what `sage-batch --json` prints.

    Attributes:
        parts: parts of the batch; `normal`, `anomalous` and `errors` add up to it.
        resumed: parts that were finished before this run.
        errors_shown: the first errors: part, image and sentence.
        judged_by_batch: for each product whose parts had no references and were judged by one another: how many of them are
            probably odd, what is doubtful about it, and the oddest, first the one that differs most.
        seconds, parts_a_second: of this run, from the first part handed out, loading of models included.
        restarts: workers that died and were replaced.
        results: path of the table; `report`: path of the page for people, beside CSV, Excel and label files.
        warnings: what makes the batch doubtful as a whole, in sentences.
    """

    parts: int
    normal: int
    anomalous: int
    errors: int
    resumed: int
    seconds: float
    parts_a_second: float | None
    engine: str
    workers: int
    restarts: int
    results: str
    report: str
    warnings: list[str]
    errors_shown: list[dict[str, Any]] = field(default_factory=list)
    judged_by_batch: list[JudgedByBatch] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def run_batch(
    parts: Sequence[Part],
    out: Path,
    settings: BatchSettings | None = None,
    *,
    engine: EngineName | Engine = "local",
    workers: int = 0,
    resume: bool = False,
    retry_errors: bool = False,
    say: Callable[[str], None] | None = None,
    on_rows: Callable[[list[Row]], None] | None = None,
) -> BatchSummary:
    """Inspects parts and keeps one row for each in `results.parquet`.

    Args:
        parts: what to inspect (`sage_ad.agents.batch.manifest.read_parts`).
        out: folder of the results.
        settings: how the parts are inspected.
        engine: "local" (worker processes here), "ray" (a Ray cluster, or Ray here), or an engine made by the caller.
        workers: number of workers; 0 takes one for each core, at most as many as there are chunks of parts.
        resume: continue the batch in `out`; only parts without a row are inspected.
        retry_errors: with `resume`, inspect parts whose row is an error once more.
        say: is given lines of progress.
        on_rows: is given rows as soon as they are safe on disk.

    Raises:
        InputError: the folder or a setting cannot be used.
        BackendError: the models cannot be loaded, or no worker stays alive.
        BatchStopped: the disk is full or the model's server is gone; finished rows are safe, and `resume` continues.
    """
    settings = settings or BatchSettings()
    with BatchStore(out, settings.of_rows(), resume=resume, retry_errors=retry_errors) as store:
        todo = [part for part in in_working_order(parts) if not store.finished(part.key)]
        resumed = len(parts) - len(todo)
        if say and resumed:
            say(f"{resumed} of {len(parts)} parts are finished already")
        made = make_engine(engine, settings, workers, len(todo)) if isinstance(engine, str) else engine
        start = time.perf_counter()
        todo = compared_with_peers(parts, todo, out, settings, workers or usual_workers(settings), say)
        progress = Progress(len(todo), say)
        try:
            with closing(made.run(todo) if todo else nothing()) as work:
                for done in work:
                    new = keep(store, done)
                    progress.add(new)
                    if on_rows and new:
                        on_rows(new)
                    if done.stopped:
                        raise BackendError(done.stopped)
            seconds = time.perf_counter() - start
            store.complete(parts)
            forget_features(out)
            write_reports(out, read_table(store.results))
        except BackendError as error:
            # On the way, not before anything was done: say what is safe.
            if not progress.done:
                raise
            raise BatchStopped(_stopped(store, parts, str(error))) from error
        except OSError as error:
            reason = f"The results cannot be written to {out} ({error.strerror or error})."
            raise BatchStopped(_stopped(store, parts, reason)) from error
        return summary_of(store, made, resumed, seconds)


def nothing() -> Generator[Finished, None, None]:
    """No work: a batch that is complete already."""
    yield from ()


def keep(store: BatchStore, done: Finished) -> list[Row]:
    """Pictures first, then their rows: a row that stands in the journal has its picture. Returns the rows that are new."""
    for row in done.rows:
        if row["key"] in done.pictures and not store.finished(row["key"]):
            row["picture"] = store.keep_picture(row, done.pictures[row["key"]])
    return store.append(done.rows)


def _stopped(store: BatchStore, parts: Sequence[Part], reason: str) -> str:
    safe = sum(store.finished(part.key) for part in parts)
    return (
        f"{reason} {safe} of {len(parts)} parts are safe in {store.folder}; "
        "mend it and run the same command with --resume."
    )


def summary_of(store: BatchStore, engine: Engine, resumed: int, seconds: float) -> BatchSummary:
    """The summary of a batch whose table is written."""
    import pyarrow.parquet as pq

    columns = ["part", "image", "product", "verdict", "anomaly_score", "threshold_from", "error"]
    rows = pq.read_table(store.results, columns=columns).to_pylist()
    failed = [row for row in rows if row["error"]]
    anomalous = sum(row["verdict"] == "anomalous" for row in rows)
    judged = len(rows) - len(failed)
    return BatchSummary(
        parts=len(rows),
        normal=judged - anomalous,
        anomalous=anomalous,
        errors=len(failed),
        resumed=resumed,
        seconds=round(seconds, 3),
        parts_a_second=round((len(rows) - resumed) / seconds, 3) if len(rows) > resumed else None,
        engine=engine.name,
        workers=engine.workers,
        restarts=engine.restarts,
        results=str(store.results),
        report=str(store.folder / REPORT),
        warnings=doubts(anomalous, judged),
        errors_shown=[
            {"part": row["part"], "image": plain(row["image"]), "error": plain(row["error"])}
            for row in failed[:ERRORS_SHOWN]
        ],
        judged_by_batch=_judged_by_batch([row for row in rows if row["threshold_from"] == "batch"]),
    )


def _judged_by_batch(rows: Sequence[Row]) -> list[JudgedByBatch]:
    """What the scores of parts that were judged by one another say of each product."""
    from sage_ad.vlm.evidence.peers import batch_threshold

    products: dict[str | None, list[Row]] = {}
    for row in rows:
        products.setdefault(row["product"], []).append(row)
    found = []
    for product, own in products.items():
        batch = batch_threshold([row["anomaly_score"] for row in own])
        own.sort(key=lambda row: (-row["anomaly_score"], row["part"]))
        oddest = [
            {**{name: row[name] for name in ("part", "verdict", "anomaly_score")}, "image": plain(row["image"])}
            for row in own[:ODDEST_SHOWN]
        ]
        found.append(JudgedByBatch(product, len(own), batch.odd, batch.reason, batch.warnings, oddest))
    return found


def plain(text: str) -> str:
    """A text that can be printed: bytes of a file name that are no characters become question marks."""
    return text.encode(errors="replace").decode()


def make_engine(name: EngineName, settings: BatchSettings, workers: int, parts: int, **more: Any) -> Engine:
    """Makes an engine by name.

    Args:
        name: "local" or "ray".
        settings: how parts are inspected.
        workers: number of workers; 0 leaves the choice to SAGE.
        parts: how many parts there are, so that few parts are shared out, too.
        **more: passed to the engine (`address` of a Ray cluster).
    """
    if workers < 0 or settings.chunk < 0:
        raise InputError("The numbers of workers and of parts in a chunk cannot be negative.")
    likely = workers or usual_workers(settings)
    usual = CHUNK_WITH_LANGUAGE if settings.language and settings.asks else CHUNK_EVIDENCE_ONLY
    chunk = settings.chunk or max(1, min(usual, -(-parts // likely)))
    if name == "local":
        from sage_ad.agents.batch.local_engine import LocalEngine

        return LocalEngine(settings, workers=likely, chunk=chunk)
    if name == "ray":
        from sage_ad.agents.batch.ray_engine import RayEngine

        return RayEngine(settings, workers=workers, chunk=chunk, **more)
    raise InputError(f"There is no engine {name!r}; use one of: {', '.join(ENGINES)}.")


def usual_workers(settings: BatchSettings) -> int:
    """One worker a core on a CPU, as far as memory goes; with a GPU one, since workers would share it."""
    on_gpu = settings.agent.device.startswith("cuda") or (
        settings.agent.device == "auto" and shutil.which("nvidia-smi") is not None
    )
    if on_gpu:
        return 1
    from sage_ad.vlm.devices import cores

    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return cores()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores(), int(memory / 2 / WORKER_BYTES[settings.language and settings.asks])))


def say_on_terminal(line: str) -> None:
    """Prints a line of progress on standard error."""
    print(f"  {line}", file=sys.stderr, flush=True)
