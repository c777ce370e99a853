"""Seconds of an inspection: cold processes, a warm inspector, and five questions together or one by one.

    .venv/bin/python benchmarks/inspection.py [--rounds 3] [--model sage-tiny] [--only cold|warm|questions]

Cold and warm inspect the cells of `make inspect`, warm with one question and with five. The questions are those about a
drawn part with six facts, in alternation in one warm process: asked together, with picture and facts read once, and one by
one; the answers are compared. Run it on an idle machine: torch's threads wait for one another, so one busy neighbour on
two cores can make decoding ten times slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cells import solar_cells


def cold(rounds: int, model: str) -> None:
    """Whole processes: wall time, and what of it went into imports, model load and inspection."""
    image, reference = (str(path) for path in solar_cells("cell0404.png", "cell0532.png"))
    told = ("--domain", "photovoltaics", "--product", "solar cell", "--model", model, "--json")
    command = [str(Path(sys.executable).with_name("sage-inspect")), image, "--reference", reference, *told]
    walls, parts = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        walls.append(time.perf_counter() - start)
        trace = json.loads(ran.stdout)
        steps = {step["name"]: step["seconds"] for step in trace["steps"]}
        parts.append((steps["imports"], steps["model load"], trace["seconds"]))
    imports, load, inspection = (statistics.median(column) for column in zip(*parts, strict=True))
    print(f"cold process, five questions: {statistics.median(walls):.1f} s (median of {rounds})")
    print(f"  imports {imports:.1f} s, model load {load:.1f} s, inspection {inspection:.1f} s")


def warm(inspector: Any, rounds: int) -> None:
    """A warm inspector that has the reference encoded already."""
    from sage_ad.evaluation.inspection import InspectionRequest

    image, reference = solar_cells("cell0404.png", "cell0532.png")
    for label, questions in (("one question", ["Is this solar cell defective?"]), ("five questions", [])):
        request = InspectionRequest(
            image=image, references=[reference], questions=questions, domain="photovoltaics", product="solar cell"
        )
        inspector.inspect(request)
        times = []
        for _ in range(rounds):
            inspector.resources.forget_views()
            start = time.perf_counter()
            trace = inspector.inspect(request)
            times.append(time.perf_counter() - start)
        steps = ", ".join(f"{step.name} {step.seconds:.2f}" for step in trace.steps)
        print(f"warm, {label}: {statistics.median(times):.2f} s (median of {rounds}; last: {steps})")


def together_and_apart(inspector: Any, rounds: int) -> None:
    """Five questions about a drawn part, in one go and one by one."""
    from dataclasses import replace

    from sage_ad.alignment.synthetic.generate import generate
    from sage_ad.evaluation.questions import standard_questions
    from sage_ad.vlm.sage.generation import PartQuery
    from sage_ad.vlm.sage.visual_inputs import visual_inputs_of

    backend, questions = inspector.resources.backend, standard_questions()
    extractor, store = inspector.resources.extractor, inspector.resources.store
    together, apart, alike = [], [], 0
    for number in range(rounds + 1):
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
    print(f"answers alike word for word: {alike} of {5 * rounds} (bfloat16 rounds differently in batches)")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="sage-tiny")
    parser.add_argument("--only", choices=("cold", "warm", "questions"), help="one measurement alone")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.only in (None, "cold"):
        cold(options.rounds, options.model)
    if options.only == "cold":
        return
    from sage_ad.agents import SageInspector

    inspector = SageInspector(model=options.model)
    inspector.load()
    if options.only != "questions":
        warm(inspector, options.rounds)
    if options.only != "warm":
        together_and_apart(inspector, options.rounds)


if __name__ == "__main__":
    main()
