"""Speed of the embedded language model: load, first token, tokens a second one by one and in a batch of 8.

    .venv/bin/python benchmarks/language.py [--threads 2] [--dtype bfloat16] [--repeats 3] [--json]

The first line of times includes importing torch and transformers in this fresh process. Run it on an idle machine:
torch's threads wait for one another at every layer, so a busy neighbour costs more than its share.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

SYSTEM = (
    "You word the result of an inspection. Evidence: anomaly score 31.2, threshold 14.0, region upper left. "
    "Facts: a crack is a dark line that crosses the fingers of a cell; a cell area behind a crack can lose contact and "
    "stays dark; a broken finger is a short dark bar that ends at a busbar; grain boundaries of polycrystalline cells "
    "are normal and have no sharp ends."
)
QUESTIONS = [
    "Is the cell free of defects?", "Does it match the good cell?", "Which defect is there?", "Where is the defect?",
    "Can the cell still be used?", "What causes such a defect?", "What does it look like?", "Is the cell defective?",
]  # fmt: skip


def measure(threads: int, dtype: str, repeats: int, tokens: int = 64) -> dict[str, Any]:
    """All figures; times in seconds, medians over the repeats."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    started = time.perf_counter()
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    from sage_ad.vlm.backends.smollm import load_smollm2
    from sage_ad.vlm.weights.embedded import smollm2_folder

    torch.set_num_threads(threads)
    imported = time.perf_counter()
    smollm2_folder(lambda line: print(line, flush=True))
    checked = time.perf_counter()
    backend = load_smollm2(device="cpu", dtype=dtype)
    loaded = time.perf_counter()
    prompts = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": q}] for q in QUESTIONS]
    backend.generate(prompts[0], max_new_tokens=2)

    firsts, rates, batch_rates, batch_seconds = [], [], [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        stream = backend.stream(prompts[0], max_new_tokens=4)
        next(stream)
        firsts.append(time.perf_counter() - begin)
        list(stream)
        begin = time.perf_counter()
        written = backend.complete(prompts[0], max_new_tokens=tokens).completion_tokens
        rates.append(written / (time.perf_counter() - begin))
        before, begin = backend.usage.completion_tokens, time.perf_counter()
        backend.generate_batch(prompts, max_new_tokens=tokens)
        batch_seconds.append(time.perf_counter() - begin)
        batch_rates.append((backend.usage.completion_tokens - before) / batch_seconds[-1])
    return {
        "threads": threads,
        "dtype": dtype,
        "import_seconds": imported - started,
        "checksum_seconds": checked - imported,
        "load_seconds": loaded - checked,
        "prompt_tokens": backend.complete(prompts[0], max_new_tokens=1).prompt_tokens,
        "first_token_seconds": statistics.median(firsts),
        "tokens_per_second": statistics.median(rates),
        "batch_of_8_tokens_per_second": statistics.median(batch_rates),
        "batch_of_8_seconds": statistics.median(batch_seconds),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.threads, options.dtype, options.repeats)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:30} {value:.2f}" if isinstance(value, float) else f"{name:30} {value}")


if __name__ == "__main__":
    main()
