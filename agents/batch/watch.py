"""Inspects the pictures that arrive in a folder, each once, for as long as nobody says stop: how a camera PC is connected.

A picture is taken when its file has not changed between two looks. What cannot be read then is tried again for a while,
because a network may pause in the middle of a file. Rows are safe on disk before they count; whoever starts the watch again
goes on where it ended, whether it was stopped or the power failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from stat import S_ISREG
from typing import Any
from urllib.parse import urlsplit

from sage_ad.agents.batch.local_engine import LocalEngine
from sage_ad.agents.batch.manifest import Part, PartMaker
from sage_ad.agents.batch.report import COLUMNS, write_reports
from sage_ad.agents.batch.run import BatchSummary, keep, summary_of, usual_workers
from sage_ad.agents.batch.store import BatchStopped, BatchStore, Row, read_table
from sage_ad.agents.batch.worker import BatchSettings
from sage_ad.vlm.commandline import printable
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.pictures.pages import file_of

LOOK_SECONDS, LOOK_SHARE = 1.0, 0.25
"""Time between two looks at the folder, and the share of the time that looking takes at most."""

READABLE_WITHIN = 15.0
"""For so many seconds from its arrival on, a picture that cannot be read is tried again."""

REPORT_SECONDS, REPORT_SHARE = 60.0, 0.1
"""The report is written anew so often at most, and for at most this share of the time: that of a long watch takes minutes."""

PARTS_TOGETHER = 4

FOLDERS_NAMED = 5
"""So many folders that are not entered are named at a time."""

WEBHOOK_PAUSES = (0.0, 1.0, 4.0, 15.0)
"""Seconds before each try to call the webhook; then the part is given up, and named."""

WEBHOOK_TIMEOUT, WEBHOOK_WAITING = 10.0, 10_000


class Arrivals:
    """The pictures of a folder that have come to rest and were not inspected yet.

    Args:
        folder: the folder; it may be empty.
        recursive: look into the folders below it, too.
        make: makes the parts of a file.
        finished: whether the piece of work of a key is done.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(
        self, folder: Path, make: Callable[[Path], list[Part]], finished: Callable[[str], bool], recursive: bool = False
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder} to watch; make it, or check the path.")
        # Absolute, as parts name their files.
        folder = Path(os.path.abspath(folder))
        self._folder, self._make, self._finished, self._recursive = folder, make, finished, recursive
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._taken: dict[Path, tuple[int, int]] = {}
        self._under_way: dict[str, tuple[float, tuple[int, int]]] = {}
        self._again: list[Part] = []
        self._due = 0.0
        self._away = False
        self._closed: set[Path] = set()

    def look(self) -> list[Part]:
        """Parts that have come to rest since the last look; looks again after `LOOK_SECONDS`."""
        now = time.monotonic()
        if now < self._due:
            return []
        try:
            before, self._stamps = self._stamps, dict(self._files())
        except OSError as error:  # a network drive that is away comes back
            self._complain(error)
            return []
        self._away = False
        found, self._again = self._unchanged(self._again), []
        # The oldest first: after a pause the parts come in the order in which the camera took them.
        for path, stamp in sorted(self._stamps.items(), key=lambda item: item[1][1]):
            if before.get(path) == stamp and self._taken.get(path) != stamp:
                self._taken[path] = stamp
                for part in self._make(path):
                    if not self._finished(part.key):
                        self._under_way[part.key] = now, stamp
                        found.append(part)
        return found

    def settled(self, part: Part, failed: bool) -> bool:
        """Whether what was found of a part counts.

        It does not if the file has changed since the part was taken: its new content comes as another part. A part that
        could not be read is tried again for a while.
        """
        arrived, stamp = self._under_way[part.key]
        changed = False
        with contextlib.suppress(OSError):  # taken away after it was inspected
            stat = file_of(part.image).stat()
            changed = (stat.st_size, stat.st_mtime_ns) != stamp
        if failed and not changed and time.monotonic() - arrived <= READABLE_WITHIN:
            self._again.append(part)
            return False
        del self._under_way[part.key]
        return not changed

    def _complain(self, error: OSError) -> None:
        if not self._away:
            self._away = True
            print(
                f"{self._folder} cannot be read ({error.strerror or error}); it is tried again until it can.",
                file=sys.stderr,
                flush=True,
            )

    def _unchanged(self, parts: Sequence[Part]) -> list[Part]:
        """Those whose file is there as it was. One that has changed comes as another part; one that is gone is named."""
        found = []
        for part in parts:
            path = file_of(part.image)
            if path not in self._stamps:
                self._taken.pop(path, None)  # it may come back
                print(
                    f"{printable(part.image)} was taken away before it could be inspected.", file=sys.stderr, flush=True
                )
            elif self._stamps[path] == self._taken[path]:
                found.append(part)
        return found

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        from sage_ad.vlm.images import files_in
        from sage_ad.vlm.pictures.formats import is_picture

        closed: dict[Path, str] = {}
        for path in files_in(self._folder, recursive=self._recursive, closed=closed):
            try:
                status = path.stat()
                if S_ISREG(status.st_mode) and (path in self._stamps or is_picture(path)):
                    yield path, (status.st_size, status.st_mtime_ns)
            except OSError:
                continue  # taken away or renamed at this moment: the next look finds what is there then
        for path in sorted(closed.keys() - self._closed)[:FOLDERS_NAMED]:
            why = closed[path] or "add --recursive to enter folders"
            print(f"The folder {printable(str(path))} is not watched ({why}).", file=sys.stderr, flush=True)
        self._closed |= closed.keys()


def _host(url: str) -> str:
    """The host of an address that can be called."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.port != 0 and not parts.username
        if usable and parts.hostname and url.isascii() and url.split() == [url]:
            return parts.hostname
    raise InputError("The webhook is no address; give --webhook http://host/path or https://host/path.")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected call is a failed one: it would be repeated as a GET, without the row."""

    def redirect_request(self, *_: object) -> None:
        return None


_CALLS = urllib.request.build_opener(_NoRedirects)


class Webhook:
    """Calls an address for each part, in a thread of its own: however slow it is, the line does not wait.

    Args:
        url: http or https address; the row is posted to it as JSON (the columns of results.csv), its key as Idempotency-Key.
        say: is given a sentence when a part is given up.

    Raises:
        InputError: this is no address.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        # Its path and query may hold a secret: they are not said.
        self._url, self.host, self._say = url, _host(url), say
        self.failed = 0
        self._rows: queue.Queue[Row | None] = queue.Queue(WEBHOOK_WAITING)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="webhook", daemon=True)
        self._thread.start()

    def call(self, row: Row) -> None:
        """Calls the address for a row, later."""
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._give_up(row, f"{WEBHOOK_WAITING} calls are waiting")

    def close(self) -> None:
        """Delivers what waits, as far as a few seconds and one try for each go."""
        self._end.set()
        with contextlib.suppress(queue.Full):
            self._rows.put_nowait(None)
        self._thread.join(WEBHOOK_TIMEOUT + 1)
        if left := self._rows.qsize():
            self._say(f"The webhook at {self.host} was not called for {left} parts; their rows are in the folder.")

    def _deliver(self) -> None:
        while (row := self._rows.get()) is not None:
            why = ""
            for pause in WEBHOOK_PAUSES:
                if pause and self._end.wait(pause):
                    break
                why = self._post(row)
                if not why:
                    break
            if why:
                self._give_up(row, why)

    def _post(self, row: Row) -> str:
        """Why a call failed; empty if it did not."""
        told = {name: row.get(name) for name in (*COLUMNS, "references", "width", "height")}
        body = json.dumps(told, ensure_ascii=False).encode(errors="replace")
        headers = {"Content-Type": "application/json", "Idempotency-Key": row["key"], "User-Agent": "sage-batch"}
        try:
            request = urllib.request.Request(self._url, body, headers)
            with _CALLS.open(request, timeout=WEBHOOK_TIMEOUT) as reply:
                reply.read(1)
        except urllib.error.HTTPError as error:
            return f"status {error.code}"
        except urllib.error.URLError as error:
            return str(error.reason)
        except Exception as error:  # whatever a foreign server does, the line goes on
            return type(error).__name__
        return ""

    def _give_up(self, row: Row, why: str) -> None:
        self.failed += 1
        self._say(
            f"The webhook at {self.host} did not take {printable(row['image'])} ({why}); its row is in the folder."
        )


def watch_folder(
    folder: Path,
    out: Path,
    settings: BatchSettings,
    make: PartMaker,
    *,
    stopped: Callable[[], bool] | None = None,
    recursive: bool = False,
    engine: LocalEngine | None = None,
    workers: int = 0,
    webhook: str | None = None,
    retry_errors: bool = False,
    say: Callable[[str], None] | None = None,
) -> BatchSummary:
    """Inspects what arrives in a folder until it is told to stop; then finishes what it is at and writes table and reports.

    Args:
        folder: the folder that is watched.
        out: folder of the results; a batch that is there is continued if it has the same settings.
        settings: how parts are inspected.
        make: makes parts of files.
        stopped: whether to stop; asked twice a second. None: SIGTERM and Ctrl-C stop it.
        recursive: watch the folders below, too.
        engine: a ready engine with `run(parts, arriving)`; by default worker processes here.
        workers: number of workers; 0 takes one for each core.
        webhook: address that is called for each part.
        retry_errors: inspect parts once more whose row is an error.
        say: is given a line for each part.

    Raises:
        InputError: a folder, an address or a setting cannot be used.
        BackendError: the models cannot be loaded, or no worker stays alive.
        BatchStopped: the disk is full or the model's server is gone; finished rows are safe, and the same command goes on.
    """
    tell = say or (lambda line: None)
    stopped = stopped or stop_politely()
    with BatchStore(out, settings.of_rows(), resume=True, retry_errors=retry_errors) as store:
        resumed = sum(map(store.finished, store.offsets))
        arrivals = Arrivals(folder, lambda path: make.of_file(path, len(store.offsets) + 1), store.finished, recursive)
        caller = Webhook(webhook, lambda line: print(line, file=sys.stderr, flush=True)) if webhook else None
        workers = workers or usual_workers(settings)
        made = engine or LocalEngine(settings, workers=workers, chunk=settings.chunk or PARTS_TOGETHER)
        start = time.perf_counter()
        # Beside the line, which must not wait for it.
        reporter, due = ThreadPoolExecutor(1), start + REPORT_SECONDS
        report: Future[float] | None = None
        waiting: dict[str, Part] = {}
        tell(f"watching {folder}; {resumed} parts are finished already. Ctrl-C or SIGTERM ends it")

        def arriving() -> Sequence[Part] | None:
            nonlocal report, due
            if stopped():
                tell("stopping: what is under way is finished first")
                return None
            found = arrivals.look()
            waiting.update((part.key, part) for part in found)
            if report is not None and report.done():
                due = time.perf_counter() + max(REPORT_SECONDS, report.result() / REPORT_SHARE)
                report = None
            if new and report is None and time.perf_counter() > due:
                new.clear()
                report = reporter.submit(_seconds, write_reports, out, store.rows())
            return found

        new: list[str] = []
        try:
            with closing(made.run([], arriving)) as work:
                for done in work:
                    done.rows = [
                        row for row in done.rows if arrivals.settled(waiting.pop(row["key"]), bool(row["error"]))
                    ]
                    for number, row in enumerate(done.rows, len(store.offsets) + 1):
                        row["part"] = number
                    for row in keep(store, done):
                        new.append(row["key"])
                        tell(_line(row))
                        if caller:
                            caller.call(row)
                    if done.stopped:
                        raise BatchStopped(f"{done.stopped} {_safe(store)}")
            seconds = time.perf_counter() - start
            reporter.shutdown()  # or it would put its older report in the place of the last one
            store.complete()
            write_reports(out, read_table(store.results))
        except OSError as error:
            raise BatchStopped(f"{out} cannot be written ({error.strerror or error}). {_safe(store)}") from error
        finally:
            reporter.shutdown()
            if caller:
                caller.close()
        return summary_of(store, made, resumed, seconds)


def _seconds(work: Callable[..., None], *given: Any) -> float:
    """Does some work; returns how long it took."""
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def stop_politely() -> Callable[[], bool]:
    """Makes SIGTERM and Ctrl-C ask to stop; the function says whether one came. A second one interrupts."""
    asked = threading.Event()

    def ask(*_: object) -> None:
        asked.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return asked.is_set


def _safe(store: BatchStore) -> str:
    return f"{len(store.offsets)} parts are safe in {store.folder}; mend it and start the same command again."


def _line(row: Row) -> str:
    name = printable(row["id"] or Path(row["image"]).name)
    if row["error"]:
        return f"{name}: {printable(row['error'])}"
    sign = ">" if row["anomaly_score"] > row["threshold"] else "<="
    defect = f" ({row['defect']})" if row["defect"] else ""
    return f"{name}: {row['verdict']}{defect}, {row['anomaly_score']:.3f} {sign} {row['threshold']:.3f}"
