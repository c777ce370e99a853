"""How long the local judge takes for a thousand short answers, on one thread and on two.

    .venv/bin/python benchmarks/judge_speed.py

The answers are those of tests/data/ranked_first.jsonl, each made unlike the others by a number, so that nothing that is
remembered helps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

FIRST = Path(__file__).resolve().parents[1] / "tests" / "data" / "ranked_first.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1000)
    count = parser.parse_args().answers
    import torch

    from sage_ad.evaluation.inspection import JudgeRequest
    from sage_ad.evaluation.judge.loading import load_judge
    from sage_ad.evaluation.ranked import read_ranked

    known = [(line, answer) for line in read_ranked(FIRST) for answer in line.answers]
    asked = [known[number % len(known)] for number in range(count)]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        requests = [
            JudgeRequest(line.question, f"{answer} (part {threads}{number:04d})", gold=line.gold)
            for number, (line, answer) in enumerate(asked)
        ]
        judge = load_judge("local")
        judge.judge(requests[:4])  # what is loaded when first used
        wall, processor = time.perf_counter(), time.process_time()
        judge.judge(requests)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"{count} answers, {threads} threads: {wall:.1f} s ({processor:.1f} s of processor time)", flush=True)


if __name__ == "__main__":
    main()
