"""One process of two that make `EDPOTrainer`s on the CPU, for test_reference_cache.py: gloo between them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from datasets import Dataset
from tiny_models import tiny_language_model, tiny_tokenizer

from sage_ad.alignment import EDPOConfig, EDPOTrainer

ANSWERS = ["anomalous. True. a scratch", "True. a hole", "False.", "normal. False."]


def reference(folder: Path, rank: int) -> list[list[float]]:
    """What a new trainer takes for the reference's log-probabilities of three questions."""
    # The note makes another fingerprint in each process, as a shuffled or mapped set can have.
    rows = [
        {"prompt": f"Is there a hole {i}?", "answers": ANSWERS, "scores": [5.0, 4.0, 2.0, 1.0], "note": str(rank)}
        for i in range(3)
    ]
    args = EDPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True)
    trainer = EDPOTrainer(
        tiny_language_model(), args=args, train_dataset=Dataset.from_list(rows), processing_class=tiny_tokenizer()
    )
    trainer.accelerator.wait_for_everyone()
    return list(trainer.train_dataset["ref_logps"])


def main(rank: int, folder: Path, port: int) -> list[list[list[float]]]:
    """Three times: with no cache; with one that the first process alone has; with one that the second alone has."""
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ.update(world, RANK=str(rank), LOCAL_RANK=str(rank))
    # Folders of their own: a disk need not be shared.
    own = folder / str(rank)
    found = [reference(own, rank)]
    if rank == 0:
        (kept,) = (own / "reference").iterdir()
        kept.write_text(json.dumps([[value - 1 for value in row] for row in found[0]]), encoding="utf-8")
    found.append(reference(own, rank))
    if rank == 0:
        (folder / "1" / "reference").mkdir(parents=True)
        kept.rename(folder / "1" / "reference" / kept.name)
    found.append(reference(own, rank))
    return found
