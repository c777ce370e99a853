"""A watched folder: each picture once, however it arrives and however the watch ends."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from light_workers import picky_worker
from plates import plate

from sage_ad.agents.batch import watch
from sage_ad.agents.batch.local_engine import LocalEngine
from sage_ad.agents.batch.manifest import Part, PartMaker
from sage_ad.agents.batch.run import BatchSettings, BatchSummary
from sage_ad.agents.batch.store import read_table
from sage_ad.vlm.errors import InputError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(watch, "READABLE_WITHIN", 1.5)
    monkeypatch.setattr(watch, "WEBHOOK_PAUSES", (0.0, 0.1, 0.1))
    monkeypatch.setattr(watch, "WEBHOOK_TIMEOUT", 1.0)


def watched(root: Path, steps: Iterator[float], **more: Any) -> BatchSummary:
    """Watches `root/in` while `steps` does things and yields how long to wait; stops at its end."""
    until = time.monotonic()

    def stopped() -> bool:
        nonlocal until
        if time.monotonic() < until:
            return False
        try:
            until = time.monotonic() + next(steps)
        except StopIteration:
            return True
        return False

    engine = LocalEngine(BatchSettings(), workers=1, chunk=2, make=picky_worker)
    return watch.watch_folder(
        root / "in", root / "out", BatchSettings(), PartMaker(), stopped=stopped, engine=engine, **more
    )


def until(done: Callable[[], bool]) -> Iterator[float]:
    for _ in range(300):
        if done():
            return
        yield 0.1
    raise AssertionError("it took too long")


def test_each_part_once_whole_and_again_after_a_restart(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    whole = plate(tmp_path / "whole.png", True, 1).read_bytes()
    plate(folder / "first.png", False, 2)
    said: list[str] = []

    def lines(name: str) -> Callable[[], bool]:
        return lambda: any(line.startswith(f"{name}:") for line in said)

    def arrive() -> Iterator[float]:
        yield from until(lines("first.png"))
        # Half a file that rests for a while, then the other half; a name that appears when the file is whole.
        (folder / "slow.png").write_bytes(whole[: len(whole) // 2])
        (folder / "notes.txt").write_text("no picture")
        yield 0.8
        assert not lines("slow.png")()
        (folder / "slow.png").write_bytes(whole)
        (tmp_path / "whole.png").rename(folder / "moved.png")
        (folder / "broken.png").write_bytes(b"never a picture")
        (folder / "empty.png").touch()
        for name in ("slow.png", "moved.png", "broken.png", "empty.png"):
            yield from until(lines(name))

    summary = watched(tmp_path, arrive(), say=said.append)
    assert (summary.parts, summary.errors) == (5, 2)
    assert {Path(item["image"]).name for item in summary.errors_shown} == {"broken.png", "empty.png"}
    assert (out / "report.html").is_file()
    (folder / "first.png").unlink()  # taken away by the line: its row stays

    def more() -> Iterator[float]:
        plate(folder / "second.png", False, 3)
        yield from until(lines("second.png"))
        yield 0.6

    summary = watched(tmp_path, more(), say=said.append)
    assert (summary.parts, summary.resumed) == (6, 5)
    rows = list(read_table(out / "results.parquet"))
    assert [row["part"] for row in rows] == [1, 2, 3, 4, 5, 6]
    names = [Path(row["image"]).name for row in rows]
    assert sorted(names) == ["broken.png", "empty.png", "first.png", "moved.png", "second.png", "slow.png"]
    assert names[0] == "first.png"
    assert names[-1] == "second.png"


def arrivals_in(folder: Path) -> tuple[watch.Arrivals, Callable[[], list[Part]]]:
    """The arrivals of a folder, and what waits for the next ones."""
    arrivals = watch.Arrivals(folder, lambda path: PartMaker().of_file(path, 1), lambda key: False)

    def taken() -> list[Part]:
        for _ in range(50):
            if found := arrivals.look():
                return found
            time.sleep(0.1)
        raise AssertionError("it took too long")

    return arrivals, taken


def test_after_a_pause_parts_come_in_the_order_in_which_they_were_taken(tmp_path: Path) -> None:
    for age, name in enumerate("cadb"):
        os.utime(plate(tmp_path / f"{name}.png", False, 1), (1000 - age, 1000 - age))
    _, taken = arrivals_in(tmp_path)
    assert [Path(part.image).stem for part in taken()] == ["b", "d", "a", "c"]


@pytest.mark.parametrize("recursive", [False, True])
def test_folders_below_are_entered_or_named(tmp_path: Path, recursive: bool, capfd: pytest.CaptureFixture[str]) -> None:
    plate(tmp_path / "real" / "b.png", False, 1)
    watched_folder = plate(tmp_path / "in" / "a.png", False, 1).parent
    plate(watched_folder / ".thumbs" / "a.png", False, 1)
    (watched_folder / "today").symlink_to(tmp_path / "real")
    arrivals = watch.Arrivals(
        watched_folder, lambda path: PartMaker().of_file(path, 1), lambda key: False, recursive=recursive
    )
    names: list[str] = []
    while not names:
        names = [Path(part.image).name for part in arrivals.look()]
        time.sleep(0.1)
    assert sorted(names) == (["a.png", "b.png"] if recursive else ["a.png"])
    assert capfd.readouterr().err.count("today is not watched (add --recursive") == (not recursive)


def test_a_part_that_is_gone_before_its_turn_is_named_and_may_come_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arrivals, taken = arrivals_in(tmp_path)
    file = plate(tmp_path / "a.png", False, 1)
    (part,) = taken()
    content, times = file.read_bytes(), file.stat()
    file.unlink()
    assert not arrivals.settled(part, True)
    while "a.png was taken away" not in capfd.readouterr().err:
        assert not arrivals.look()
        time.sleep(0.1)
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [again.image for again in taken()] == [part.image]


def test_a_file_that_is_written_anew_while_it_is_inspected_counts_once(tmp_path: Path) -> None:
    arrivals, taken = arrivals_in(tmp_path)
    file = plate(tmp_path / "a.png", False, 1)
    (old,) = taken()
    file.write_bytes(plate(tmp_path / "below" / "b.png", True, 2).read_bytes())
    assert not arrivals.settled(old, False)
    (new,) = taken()
    assert (new.image, new.key == old.key) == (old.image, False)
    file.unlink()
    assert arrivals.settled(new, False)


def test_a_report_that_takes_long_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REPORT_SECONDS", 0.0)
    (tmp_path / "in").mkdir()
    real, ready, said = watch.write_reports, threading.Event(), list[str]()

    def slow(*given: Any) -> None:
        assert ready.wait(20)
        real(*given)

    monkeypatch.setattr(watch, "write_reports", slow)

    def arrive() -> Iterator[float]:
        for name in ("first", "second"):
            plate(tmp_path / "in" / f"{name}.png", False, len(name))
            yield from until(lambda name=name: any(line.startswith(name) for line in said))
            yield 0.6
        ready.set()

    assert watched(tmp_path, arrive(), say=said.append).parts == 2
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("<h3>") == 2


def test_a_picture_that_kills_its_worker_stops_nothing(tmp_path: Path) -> None:
    plate(tmp_path / "in" / "deadly.png", False, 1)
    said: list[str] = []

    def arrive() -> Iterator[float]:
        yield from until(lambda: any(line.startswith("deadly.png: ") for line in said))
        plate(tmp_path / "in" / "next.png", False, 2)
        yield from until(lambda: any(line.startswith("next.png: normal") for line in said))

    assert watched(tmp_path, arrive(), say=said.append).errors == 1


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook that refuses its first call and redirects its second one; its address and what it got."""
    got: list[dict[str, Any]] = []
    calls: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append(1)
            self.send_response([503, 302, 200][min(len(calls), 3) - 1])
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            if len(calls) > 2:
                got.append({**body, "idempotency": self.headers["Idempotency-Key"]})

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook?token=sesame", got
        server.shutdown()


def test_the_webhook_is_called_again_until_it_takes_the_row(tmp_path: Path, hook: tuple[str, list[Any]]) -> None:
    url, got = hook
    plate(tmp_path / "in" / "a.png", False, 1)
    watched(tmp_path, until(lambda: bool(got)), webhook=url)
    assert [(item["verdict"], Path(item["image"]).name, item["part"]) for item in got] == [("normal", "a.png", 1)]
    assert got[0]["idempotency"] == got[0]["key"]


def test_a_dead_webhook_holds_up_nobody_and_keeps_its_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plate(tmp_path / "in" / "a.png", False, 1)
    said: list[str] = []
    rows = lambda: any(line.startswith("a.png") for line in said)  # noqa: E731
    summary = watched(tmp_path, until(rows), say=said.append, webhook="http://127.0.0.1:9/hook?token=sesame")
    assert summary.parts == 1
    err = capfd.readouterr().err
    assert "a.png" in err
    assert "127.0.0.1" in err
    assert "sesame" not in err


@pytest.mark.parametrize(
    ("folder", "webhook", "said"),
    [
        ("gone", None, "no folder"),
        ("in", "ftp://x/y", "--webhook http"),
        ("in", "http://[x/y", "--webhook http"),
        ("in", "http://x:port/y", "--webhook http"),
        ("in", "http://user:word@x/y", "--webhook http"),
    ],
)
def test_what_cannot_be_watched_is_refused(tmp_path: Path, folder: str, webhook: str | None, said: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=said):
        watch.watch_folder(
            tmp_path / folder, tmp_path / "out", BatchSettings(), PartMaker(), stopped=lambda: True, webhook=webhook
        )
    assert os.path.exists(tmp_path / "in")
