"""Five questions about one part: asked together, with picture and facts read once, and one by one.

    .venv/bin/python benchmarks/shared_prefix.py [--rounds 5] [--model sage-tiny]

Both ways are timed in alternation in one warm process, on a drawn part with six facts; the answers are compared. The last
line is a whole inspection of a new part with five questions (evidence, facts, answers, scores).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="sage-tiny")
    args = parser.parse_args()
    from dataclasses import replace

    from sage_ad.agents import SageInspector
    from sage_ad.alignment.synthetic.generate import generate
    from sage_ad.evaluation.inspection import InspectionRequest
    from sage_ad.evaluation.questions import standard_questions
    from sage_ad.vlm.sage.generation import PartQuery
    from sage_ad.vlm.sage.visual_inputs import visual_inputs_of

    inspector = SageInspector(model=args.model)
    inspector.load()
    backend: Any = inspector.resources.backend
    questions = standard_questions()
    together, apart, alike, whole = [], [], [], []
    for number in range(args.rounds + 1):
        sample = generate(100 + number, product="perforated plate", defect="scratch")
        assert sample.reference is not None
        extractor = inspector.resources.extractor
        seen = extractor.extract(sample.image, extractor.prepare([sample.reference]))
        facts = [hit.fact.text for hit in inspector.resources.store.search("scratch on metal", domain="machining", k=6)]
        query = PartQuery(
            visual_inputs_of(seen),
            tuple(q.text for q in questions),
            tuple(q.polarity for q in questions),
            tuple(facts),
            "perforated plate",
        )
        single = [
            replace(query, questions=(q,), polarities=(p,))
            for q, p in zip(query.questions, query.polarities, strict=True)
        ]
        start = time.perf_counter()
        (reply,) = backend.answer_parts([query])
        middle = time.perf_counter()
        texts = tuple(backend.answer_parts([one])[0].texts[0] for one in single)
        end = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("part.png", "good.png")]
            sample.image.save(paths[0])
            sample.reference.save(paths[1])
            begin = time.perf_counter()
            inspector.inspect(InspectionRequest(image=paths[0], references=[paths[1]], product="perforated plate"))
            took = time.perf_counter() - begin
        if number:  # the first round warms up
            together.append(middle - start)
            apart.append(end - middle)
            alike.append(sum(a == b for a, b in zip(texts, reply.texts, strict=True)))
            whole.append(took)
    first, second = statistics.median(together), statistics.median(apart)
    print(f"five questions together: {first:.2f} s, one by one: {second:.2f} s, ratio {second / first:.2f}")
    print(f"answers alike word for word: {sum(alike)} of {5 * len(alike)} (bfloat16 rounds differently in batches)")
    print(f"whole inspection of a new part, reference encoded anew: {statistics.median(whole):.2f} s")


if __name__ == "__main__":
    main()
