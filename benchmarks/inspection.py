"""Seconds of an inspection: cold processes, a warm inspector, and five questions together or one by one.

    .venv/bin/python benchmarks/inspection.py [--repeats 3] [--only cold|warm|questions]

Cold and warm inspect the cells of `make inspect`; of cold processes the processor seconds are printed, too: those of a busy
machine are nearly those of an idle one, where the time on the clock is not. The questions are those about a drawn part with
six facts, in alternation in one warm process: asked together, with picture and facts read once, and one by one; the answers
are compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cells import solar_cells

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


def cold(repeats: int) -> None:
    """Whole processes: seconds on the clock and of the processor; the first finds no kept references, later ones do."""
    image, reference = solar_cells("cell0404.png", "cell0532.png")
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


def warm(inspector: Any, repeats: int) -> None:
    """A warm inspector that has the reference encoded already."""
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.evaluation.questions import standard_questions

    image, reference = solar_cells("cell0404.png", "cell0532.png")
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


def together_and_apart(inspector: Any, repeats: int) -> None:
    """Five questions about a drawn part, in one go and one by one."""
    from dataclasses import replace

    from sage_ad.alignment.synthetic.generate import generate
    from sage_ad.evaluation.questions import standard_questions
    from sage_ad.vlm.sage.generation import PartQuery
    from sage_ad.vlm.sage.visual_inputs import visual_inputs_of

    backend, questions = inspector.resources.backend, standard_questions()
    extractor, store = inspector.resources.extractor, inspector.resources.store
    together, apart, alike = [], [], 0
    for number in range(repeats + 1):
        sample = generate(100 + number, product="perforated plate", defect="scratch")
        assert sample.reference is not None
        seen = visual_inputs_of(extractor.extract(sample.image, extractor.prepare([sample.reference])))
        facts = tuple(hit.fact.text for hit in store.search("scratch on metal", domain="machining", k=6))
        texts, polarities = tuple(q.text for q in questions), tuple(q.polarity for q in questions)
        query = PartQuery(seen, texts, polarities, facts, "perforated plate")
        single = [replace(query, questions=(q,), polarities=(p,)) for q, p in zip(texts, polarities, strict=True)]
        start = time.perf_counter()
        (reply,) = backend.answer_parts([query])
        middle = time.perf_counter()
        alone = [backend.answer_parts([one])[0].texts[0] for one in single]
        end = time.perf_counter()
        if number:  # the first round warms up
            together.append(middle - start)
            apart.append(end - middle)
            alike += sum(a == b for a, b in zip(alone, reply.texts, strict=True))
    first, second = statistics.median(together), statistics.median(apart)
    print(f"five questions together: {first:.2f} s, one by one: {second:.2f} s, ratio {second / first:.2f}")
    print(f"answers alike word for word: {alike} of {5 * repeats} (bfloat16 repeats differently in batches)")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("cold", "warm", "questions"), help="one measurement alone")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.only in (None, "cold"):
        cold(options.repeats)
    if options.only == "cold":
        return
    from sage_ad.agents.inspector import SageInspector

    inspector = SageInspector()
    inspector.load()
    if options.only != "questions":
        warm(inspector, options.repeats)
    if options.only != "warm":
        together_and_apart(inspector, options.repeats)


if __name__ == "__main__":
    main()
