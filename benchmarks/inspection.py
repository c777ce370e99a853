"""Seconds of an inspection: cold processes, a warm comparison beside the plain match, and a warm inspector.

    .venv/bin/python benchmarks/inspection.py [--repeats 3] [--no-warm]

The parts are the cells of `make inspect`. What is compared takes turns. Of cold processes the processor seconds are printed,
too: those of a busy machine are nearly those of an idle one, where the time on the clock is not.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def cells() -> tuple[Path, Path]:
    """The cracked and the good cell of `make inspect`."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The package elpv-dataset is not installed; run make setup.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "images"
    return folder / "cell0404.png", folder / "cell0532.png"


EVIDENCE_ONLY = """
import sys
from pathlib import Path
from sage_ad.agents.batch.manifest import read_parts
from sage_ad.agents.batch.worker import BatchSettings, PartWorker
worker = PartWorker(BatchSettings(language=False))
worker.load()
Path(sys.argv[1], "parts.csv").write_text(f"image,references\\n{sys.argv[2]},{sys.argv[3]}\\n")
(row,) = worker.inspect(read_parts(Path(sys.argv[1], "parts.csv"))).rows
print(row["verdict"])
"""
"""What a worker of `sage-batch --evidence-only` does, in one process."""


def cold(image: Path, reference: Path, repeats: int) -> None:
    """Whole processes: seconds on the clock and of the processor; the first finds no kept references, later ones do."""
    inspect = [str(Path(sys.executable).with_name("sage-inspect")), str(image), "--reference", str(reference)]
    inspect += ["--domain", "photovoltaics", "--product", "solar cell", "--json"]
    with tempfile.TemporaryDirectory(prefix="sage-inspection-") as folder:
        ways = {
            "bare `import torch`": [sys.executable, "-c", "import torch"],
            "evidence only": [sys.executable, "-c", EVIDENCE_ONLY, folder, str(image), str(reference)],
            "explanation": inspect,
            "five questions": [*inspect, "--standard-questions"],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, command in ways.items():
                before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                environment = {**os.environ, "SAGE_HOME": folder}
                subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                spent = resource.getrusage(resource.RUSAGE_CHILDREN)
                busy = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
                found[name].append((time.perf_counter() - start, busy))
    for name, times in found.items():
        wall, busy = (statistics.median(column) for column in zip(*times[1:], strict=True))
        print(
            f"cold process, {name}: {wall:.1f} s, {busy:.1f} s of the processor (median of {repeats}; "
            f"the very first {times[0][0]:.1f}, {times[0][1]:.1f})"
        )


def against_plain(image: Path, reference: Path, repeats: int) -> None:
    """A warm comparison beside the plain match's, in turns."""
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings
    from sage_ad.vlm.images import load_image

    part, good = load_image(image), load_image(reference)
    plain = EvidenceExtractor(EvidenceSettings(method="nearest-neighbour"))
    extractors = {"ours": EvidenceExtractor(encoder=plain.encoder), "plain": plain}
    banks = {name: extractor.prepare([good]) for name, extractor in extractors.items()}
    ratios, times = [], {"ours": 0.0, "plain": 0.0}
    for _ in range(10 * repeats):
        for name, extractor in extractors.items():
            start = time.process_time()
            extractor.extract(part, banks[name])
            times[name] = time.process_time() - start
        ratios.append(times["ours"] / times["plain"])
    print(
        f"warm comparison: {statistics.median(ratios):.2f} times the plain match's (median of {len(ratios)} pairs, processor "
        f"seconds; the last took {times['ours']:.3f} and {times['plain']:.3f})"
    )


def warm(image: Path, reference: Path, repeats: int) -> None:
    """A warm inspector that has the reference encoded already."""
    from sage_ad.agents.inspector import SageInspector
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.evaluation.questions import standard_questions

    inspector = SageInspector()
    inspector.load()
    asked = [question.text for question in standard_questions()]
    for label, questions in (("explanation", []), ("one question", asked[:1]), ("five questions", asked)):
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
    parser.add_argument("--no-warm", action="store_true", help="leave out the warm inspector")
    arguments = parser.parse_args()
    image, reference = cells()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    against_plain(image, reference, arguments.repeats)
    cold(image, reference, arguments.repeats)
    if not arguments.no_warm:
        warm(image, reference, arguments.repeats)


if __name__ == "__main__":
    main()
