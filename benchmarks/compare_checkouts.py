"""Whether two checkouts give the same results: inspections, judged answers, detection figures, ten steps of E-DPO.

    .venv/bin/python -m benchmarks.compare_checkouts OTHER_CHECKOUT ../shared/data [--parts 20] [--only inspect ...]

A change that only moves code must leave everything equal, times aside. Each checkout runs in a process of its own, with
the packages of this environment; the other may be older than the name `sage_ad`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
JOBS = ("inspect", "judge", "detect", "edpo")
TIMES = {"seconds", "seconds_per_image"}
"""Fields that differ between two runs of the same code."""

INSPECT = """
import importlib, json, sys
from pathlib import Path
room = "sage_ad." if Path("sage_ad").is_dir() else ""
request = importlib.import_module(room + "evaluation.inspection").InspectionRequest
inspector = importlib.import_module(room + "agents.inspector").SageInspector()
for image, good, product in json.loads(sys.argv[1]):
    for references in ([good], []):
        trace = inspector.inspect(request(image=image, references=references, product=product))
        print(trace.to_json(indent=None))
"""
COMMAND = """
import importlib, sys
from pathlib import Path
room = "sage_ad." if Path("sage_ad").is_dir() else ""
name = sys.argv.pop(1)
sys.argv[0] = f"sage-{name}"
importlib.import_module(room + {"eval": "evaluation", "train": "alignment"}[name] + ".cli").main()
"""


def run(checkout: Path, code: str, *arguments: str, home: Path) -> str:
    """Standard output of a process that sees this checkout alone."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "SAGE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=checkout, env=environment, capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(f"{checkout} failed: {ran.stderr.strip()[-2000:]}")
    return ran.stdout


def without_times(value: Any) -> Any:
    """The same value without what may differ between two runs of the same code."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Places at which two values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [line for key in keys for line in differences(one.get(key), other.get(key), f"{where}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for number, (a, b) in pairs for line in differences(a, b, f"{where}[{number}]")]
    return [] if one == other else [f"{where}: {str(one)[:80]!r} against {str(other)[:80]!r}"]


def parts(data: Path, count: int) -> list[tuple[str, str, str]]:
    """Parts of *dev*, good and bad in turn over its categories: image, a good part, the product's name."""
    chosen = []
    categories = sorted(folder for folder in (data / "dev").iterdir() if (folder / "train" / "good").is_dir())
    for number in range(count):
        folder = categories[number % len(categories)]
        kinds = sorted(kind for kind in (folder / "test").iterdir() if (kind.name == "good") == (number % 2 == 0))
        good = sorted((folder / "train" / "good").iterdir())[0]
        images = sorted(kinds[number % len(kinds)].iterdir())
        chosen.append((str(images[number % len(images)]), str(good), folder.name.replace("_", " ")))
    return chosen


def results(job: str, checkout: Path, data: Path, count: int, folder: Path) -> Any:
    """What a checkout gives for one job, without times."""
    home = folder / "home"
    if job == "inspect":
        lines = run(checkout, INSPECT, json.dumps(parts(data, count)), home=home).splitlines()
        return without_times([json.loads(line) for line in lines])
    if job == "judge":
        sets = sorted((HERE / "tests" / "data").glob("ranked_*.jsonl"))
        judged = {one.name: run(checkout, COMMAND, "eval", "judge", str(one), "--json", home=home) for one in sets}
        return without_times({name: json.loads(text) for name, text in judged.items()})
    if job == "detect":
        chosen = ("--categories", "solar_cell_mono,fabric_02", "--draws", "1", "--out", str(folder / "detect"))
        return without_times(
            json.loads(run(checkout, COMMAND, "eval", "detect", str(data / "dev"), *chosen, "--json", home=home))
        )
    scored, out = folder / "scored", folder / "edpo"
    answers = HERE / "tests" / "data" / "ranked_first.jsonl"
    run(checkout, COMMAND, "train", "score", str(answers), "--out", str(scored), home=home)
    options = ("--steps", "10", "--device", "cpu", "--model", "smollm2-135m", "--json")
    file = next(scored.glob("*.jsonl"))
    text = run(checkout, COMMAND, "train", "edpo", "--data", str(file), "--out", str(out), *options, home=home)
    return without_times(json.loads(text.replace(str(folder), "")))


def main() -> None:
    """Compares this checkout with another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--parts", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=JOBS)
    options = parser.parse_args()
    unequal = 0
    for job in options.only:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            given = (options.data.resolve(), options.parts)
            found = differences(
                results(job, options.other.resolve(), *given, Path(one)), results(job, HERE, *given, Path(two))
            )
        print(f"{job}: {'equal' if not found else f'{len(found)} differences'}", flush=True)
        print("".join(f"  {line}\n" for line in found[:20]), end="")
        unequal += bool(found)
    raise SystemExit(1 if unequal else 0)


if __name__ == "__main__":
    main()
