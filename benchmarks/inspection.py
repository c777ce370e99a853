"""Seconds of an inspection: cold processes, and a warm inspector with one question and with five.

    .venv/bin/python benchmarks/inspection.py [--repeats 3]

The parts are the cells of `make inspect`. Run it on an idle machine: torch's threads wait for one another, so one busy
neighbour on two cores can make decoding ten times slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def cells() -> tuple[Path, Path]:
    """The cracked and the good cell of `make inspect`."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The package elpv-dataset is not installed; run make setup.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "images"
    return folder / "cell0404.png", folder / "cell0532.png"


def cold(image: Path, reference: Path, repeats: int) -> None:
    """Whole processes: wall time, and what of it went into imports, model load and inspection."""
    command = [
        str(Path(sys.executable).with_name("sage-inspect")),
        *(str(image), "--reference", str(reference), "--domain", "photovoltaics", "--product", "solar cell", "--json"),
    ]
    walls, parts = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        walls.append(time.perf_counter() - start)
        trace = json.loads(ran.stdout)
        steps = {step["name"]: step["seconds"] for step in trace["steps"]}
        parts.append((steps["imports"], steps["model load"], trace["seconds"]))
    imports, load, inspection = (statistics.median(column) for column in zip(*parts, strict=True))
    print(f"cold process, five questions: {statistics.median(walls):.1f} s (median of {repeats})")
    print(f"  imports {imports:.1f} s, model load {load:.1f} s, inspection {inspection:.1f} s")


def warm(image: Path, reference: Path, repeats: int) -> None:
    """A warm inspector that has the reference encoded already."""
    from sage_ad.agents.inspector import SageInspector
    from sage_ad.evaluation.inspection import InspectionRequest

    inspector = SageInspector()
    inspector.load()
    for label, questions in (("one question", ["Is this solar cell defective?"]), ("five questions", [])):
        request = InspectionRequest(
            image=image, references=[reference], questions=questions, domain="photovoltaics", product="solar cell"
        )
        inspector.inspect(request)
        times = []
        for _ in range(repeats):
            inspector.resources.forget_views()
            start = time.perf_counter()
            trace = inspector.inspect(request)
            times.append(time.perf_counter() - start)
        steps = ", ".join(f"{step.name} {step.seconds:.2f}" for step in trace.steps)
        print(f"warm, {label}: {statistics.median(times):.2f} s (median of {repeats}; last: {steps})")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    image, reference = cells()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    cold(image, reference, arguments.repeats)
    warm(image, reference, arguments.repeats)


if __name__ == "__main__":
    main()
