"""Load on the service or the demo: many clients at once, each with a part of their own; nothing may fail or be mixed up.

    .venv/bin/python benchmarks/server_load.py service --users 20 --inspections 5 --out runs/serve-load
    .venv/bin/python benchmarks/server_load.py demo --users 20 --inspections 5 --out runs/demo-load

Starts `sage-serve` or `sage-demo` in a process of its own. First each visitor's part is inspected alone, twice round
(this warms the server up); then all visitors inspect theirs at the same time, and every trace must be that of its own
part. Memory is the server's resident set: before the load, at its highest, and after it (the lowest of half a minute).
It is "back" if it ends no more than `--leak` megabytes above where it was. The exit status is 1 unless everything held.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from resident import ResidentPeak, resident

from sage_ad.vlm.commandline import print_json, run_app
from sage_ad.vlm.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
COMPARED = ("image", "references", "product", "verdict", "anomaly_score", "threshold", "regions", "answers")
START = {
    "service": "from sage_ad.demo.server.cli import main; main()",
    "demo": "from sage_ad.demo.cli import main; main()",
}
REST_SECONDS = 30
"""How long the server may rest before its memory counts as "after"."""


class Client:
    """One client of the server; its own connection."""

    def __init__(self, server: str, url: str) -> None:
        self.server, self.url = server, url
        if server == "service":
            import httpx

            self.connection: Any = httpx.Client(base_url=url, timeout=1800)
        else:
            from gradio_client import Client as GradioClient

            self.connection = GradioClient(url, verbose=False, httpx_kwargs={"timeout": 1800})

    def inspect(self, part: tuple[Path, Path]) -> dict[str, Any]:
        """One inspection; what of it must always be the same."""
        if self.server == "service":
            sent = {
                name: (path.name, path.read_bytes()) for name, path in zip(("image", "references"), part, strict=True)
            }
            reply = self.connection.post("/inspect", files=sent)
            reply.raise_for_status()
            found: dict[str, Any] = reply.json()
        else:
            from gradio_client import handle_file

            found = self.connection.predict(
                image=handle_file(part[0]), references=[handle_file(part[1])], facts=True, api_name="/inspect"
            )
        kept = {name: found[name] for name in COMPARED}
        kept["answers"] = [[answer["question"], answer["text"]] for answer in found["answers"]]
        return kept


@contextmanager
def served(server: str, home: Path) -> Iterator[tuple[str, int]]:
    """The server on a free port with a user folder of its own; yields address and process id."""
    environment = {**os.environ, "SAGE_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-c", START[server], "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise InputError(f"The {server} did not start; run it by itself to see why.")
        try:
            yield found.group(0), process.pid
        finally:
            process.terminate()


def draw_parts(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """A synthetic part and its good piece for every visitor, each of another design; the same ones every time."""
    from sage_ad.alignment.synthetic.generate import PRODUCTS, generate

    parts = []
    for number in range(count):
        sample = generate(number, product=PRODUCTS[number % len(PRODUCTS)], defect="maybe")
        assert sample.reference is not None
        test, good = folder / f"part-{number}.png", folder / f"good-{number}.png"
        sample.image.save(test)
        sample.reference.save(good)
        parts.append((test, good))
    return parts


def alone(client: Client, parts: list[tuple[Path, Path]]) -> list[dict[str, Any]]:
    """What is found when each part is inspected with nobody else there.

    Raises:
        InputError: the same part was judged differently the second time.
    """
    expectations: list[dict[str, Any]] = []
    for number, part in enumerate([*parts, *parts]):
        found = client.inspect(part)
        if number >= len(parts) and found != expectations[number - len(parts)]:
            raise InputError(f"{part[0].name} is judged differently when it comes again; nothing can be compared.")
        expectations.append(found)
        if (number + 1) % max(1, len(parts) // 2) == 0:
            print(f"{number + 1} of {2 * len(parts)} alone", file=sys.stderr, flush=True)
    return expectations[: len(parts)]


def visit(
    client: Client, part: tuple[Path, Path], expected: dict[str, Any], times: int, gate: threading.Barrier
) -> list[dict[str, Any]]:
    """One visitor's inspections: how long each took, what failed, what was not theirs."""
    gate.wait()
    entries = []
    for _ in range(times):
        start = time.perf_counter()
        entry: dict[str, Any] = {"failed": None, "mixed": []}
        try:
            found = client.inspect(part)
            entry["mixed"] = [f"{part[0].name}: {name}" for name in COMPARED if found[name] != expected[name]]
        except Exception as error:  # whatever fails is what this benchmark counts
            entry["failed"] = f"{type(error).__name__}: {error}"[:300]
        entries.append({**entry, "seconds": round(time.perf_counter() - start, 3)})
    print(f"{part[0].stem} done", file=sys.stderr, flush=True)
    return entries


def rested(process: int) -> float:
    """The lowest memory while the server rests."""
    lowest = resident(process)
    for _ in range(REST_SECONDS):
        time.sleep(1)
        lowest = min(lowest, resident(process))
    return lowest


def under_load(server: str, users: int, inspections: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All inspections at once: what became of each, and seconds and memory of the whole."""
    with tempfile.TemporaryDirectory() as folder, served(server, Path(folder) / "home") as (url, process):
        parts = draw_parts(Path(folder), users)
        expectations = alone(Client(server, url), parts)
        before, gate, start = rested(process), threading.Barrier(users), time.perf_counter()
        with ResidentPeak(process, 0.5) as watch, ThreadPoolExecutor(users) as pool:
            jobs = [
                pool.submit(visit, Client(server, url), part, expected, inspections, gate)
                for part, expected in zip(parts, expectations, strict=True)
            ]
            done = [entry for job in jobs for entry in job.result()]
        seconds = time.perf_counter() - start
        after = rested(process)
    return done, {
        "seconds": round(seconds, 1),
        "memory_mb": {"before": round(before), "highest": round(watch.highest), "after": round(after)},
    }


def summary(
    users: int, inspections: int, leak: float, done: list[dict[str, Any]], measured: dict[str, Any]
) -> dict[str, Any]:
    """All figures, and whether everything held."""
    failed = [entry["failed"] for entry in done if entry["failed"]]
    mixed = [line for entry in done for line in entry["mixed"]]
    used = measured["memory_mb"]
    lasted = sorted(entry["seconds"] for entry in done)

    def at(share: float) -> float:
        return float(lasted[math.ceil(share * len(lasted)) - 1])

    checks = {
        "no failure": not failed,
        "no mixed-up result": not mixed,
        "memory back": used["after"] <= used["before"] + leak,
    }
    return {
        "users": users,
        "inspections": len(done),
        **measured,
        "seconds_each": {"p50": at(0.5), "p95": at(0.95), "longest": at(1.0)},
        "failed": failed,
        "mixed_up": mixed,
        "checks": checks,
        "passed": all(checks.values()),
    }


@app.command()
def load(
    server: Annotated[str, typer.Argument(help="service or demo.")],
    users: Annotated[int, typer.Option(help="Visitors at the same time.")] = 20,
    inspections: Annotated[int, typer.Option(help="Inspections of each visitor.")] = 5,
    leak: Annotated[float, typer.Option(help="Megabytes that the server may keep above what it had before.")] = 60.0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json.")] = None,
) -> None:
    """Puts a server under load and reports failures, mixed-up results, waiting and memory."""
    if server not in START:
        raise InputError(f"There is no server {server!r}; name service or demo.")
    done, measured = under_load(server, users, inspections)
    report = summary(users, inspections, leak, done, measured)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if json_:
        print_json(report)
    else:
        for name, value in report.items():
            print(f"{name:<22} {value}")
        missed = [name for name, held in report["checks"].items() if not held]
        print("PASSED: all checks held" if not missed else f"NOT PASSED: {', '.join(missed)}")
    raise typer.Exit(0 if report["passed"] else 1)


if __name__ == "__main__":
    run_app(app)
