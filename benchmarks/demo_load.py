"""Load on the demo: many visitors at once, each with a part of their own; nothing may fail or be mixed up.

    .venv/bin/python benchmarks/demo_load.py --users 20 --inspections 5 --out runs/demo-load

Starts `sage-demo` in a process of its own. First each visitor's part is inspected alone; then all visitors inspect
theirs at the same time, and every trace must be that of its own part. Memory is the server's resident set, before,
at its highest, and after the load (the allocator gives memory back late, so the last figure is the lowest of a minute).
"""

from __future__ import annotations

import json
import os
import re
import statistics
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

from vlm.commandline import print_json, run_app
from vlm.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
COMPARED = ("image", "verdict", "anomaly_score", "threshold", "regions")
START = "from demo.cli import main; main()"


@contextmanager
def served(home: Path) -> Iterator[tuple[str, int]]:
    """The demo on a free port with a user folder of its own; yields address and process id."""
    environment = {**os.environ, "SAGE_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-c", START, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise InputError("The demo did not start; run sage-demo by itself to see why.")
        try:
            yield found.group(0), process.pid
        finally:
            process.terminate()


def memory(process: int) -> float:
    """Resident set in megabytes."""
    import psutil

    return float(psutil.Process(process).memory_info().rss / 2**20)


class Watch:
    """The highest memory of a process while the block runs."""

    def __init__(self, process: int) -> None:
        self.process, self.highest, self._end = process, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._end.wait(0.5):
            self.highest = max(self.highest, memory(self.process))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def draw_parts(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """A synthetic part and its good piece for every visitor, each of another design."""
    from alignment.synthetic import PRODUCTS, generate

    parts = []
    for number in range(count):
        sample = generate(number, product=PRODUCTS[number % len(PRODUCTS)], defect="maybe")
        assert sample.reference is not None
        test, good = folder / f"part-{number}.png", folder / f"good-{number}.png"
        sample.image.save(test)
        sample.reference.save(good)
        parts.append((test, good))
    return parts


def inspect(client: Any, part: tuple[Path, Path]) -> dict[str, Any]:
    """One inspection through the API, with the five standard questions."""
    from gradio_client import handle_file

    found: dict[str, Any] = client.predict(
        image=handle_file(part[0]), references=[handle_file(part[1])], facts=True, api_name="/inspect"
    )
    return found


def visitor(
    url: str, part: tuple[Path, Path], alone: dict[str, Any], times: int, gate: threading.Barrier
) -> dict[str, Any]:
    """One visitor's inspections: how long each took, what failed, what was not theirs."""
    from gradio_client import Client

    client = Client(url, verbose=False, httpx_kwargs={"timeout": 600})
    gate.wait()
    result: dict[str, Any] = {"seconds": [], "failed": [], "mixed": []}
    for _ in range(times):
        start = time.perf_counter()
        try:
            found = inspect(client, part)
        except Exception as error:  # whatever fails is what this benchmark counts
            result["failed"].append(f"{type(error).__name__}: {error}"[:300])
            continue
        result["seconds"].append(time.perf_counter() - start)
        result["mixed"] += [f"{part[0].name}: {name}" for name in COMPARED if found[name] != alone[name]]
    result["ended"] = time.perf_counter()
    return result


@app.command()
def load(
    users: Annotated[int, typer.Option(help="Visitors at the same time.")] = 20,
    inspections: Annotated[int, typer.Option(help="Inspections of each visitor.")] = 5,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json.")] = None,
) -> None:
    """Puts the demo under load and reports failures, mixed-up results, waiting and memory."""
    from gradio_client import Client

    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "home") as (url, process):
        parts = draw_parts(Path(folder), users)
        client = Client(url, verbose=False, httpx_kwargs={"timeout": 600})
        alone = [inspect(client, part) for part in parts]
        before, gate, start = memory(process), threading.Barrier(users), time.perf_counter()
        with Watch(process) as watch, ThreadPoolExecutor(users) as pool:
            jobs = [
                pool.submit(visitor, url, part, truth, inspections, gate)
                for part, truth in zip(parts, alone, strict=True)
            ]
            results = [job.result() for job in jobs]
        seconds = time.perf_counter() - start
        after = min(memory(process) for _ in range(60) if not time.sleep(1))
    report = {
        "users": users,
        "inspections": users * inspections,
        "failed": [line for result in results for line in result["failed"]],
        "mixed_up": [line for result in results for line in result["mixed"]],
        "seconds": round(seconds, 1),
        "seconds_each": round(statistics.median(s for result in results for s in result["seconds"]), 2),
        "first_visitor_done": round(min(result["ended"] for result in results) - start, 1),
        "last_visitor_done": round(max(result["ended"] for result in results) - start, 1),
        "memory_mb": {"before": round(before), "highest": round(watch.highest), "after": round(after)},
    }
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if json_:
        print_json(report)
        return
    for name, value in report.items():
        print(f"{name:<20} {value}")


if __name__ == "__main__":
    run_app(app)
