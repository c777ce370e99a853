"""Latency, throughput and memory of evidence, fusion, generation and E-DPO steps, against what the device can do at all.

    python benchmarks/gpu.py [--sizes embedded,3b,8b] [--device auto] [--repeats 5] [--out FOLDER] [--json] [--quick]

First the device's own rates are measured: bytes a second of a copy, operations a second of a matrix product. Every row
then has a bound, the time that its bytes (weights read once a pass) or its operations alone would take at these rates,
and `of bound`, the share of the measured time that the bound explains: 1.00 cannot be beaten on this device. Models have
the sizes of the embedded one and of a 3B and an 8B configuration, and random weights. `--quick` runs tiny sizes (and
says so): it shows that the benchmark works, not how fast anything is. The CPU is measured with two threads.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True},
    "embedded": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                 "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": False},
}  # fmt: skip
"""Language models: SmolLM2-135M; the language parts of Qwen2.5-VL-3B and of 8B models on Qwen3-8B."""

PATCHES, CHANNELS, IMAGE_SIDE, FACTS, FACT_TOKENS = 20, 168, 6, 6, 20
QUESTION, ANSWERS, ANSWER = 40, 4, 40
IMAGE_ID, FACT_ID = 3, 4


@dataclass
class Amounts:
    """How much is measured: full, or just enough to see that it runs."""

    repeats: int
    new_tokens: int
    prompt: int
    batches: tuple[int, ...]
    copy_bytes: int
    matrix: int
    picture: int


FULL_GPU = Amounts(5, 64, 512, (1, 8), 2**30, 8192, 448)
FULL_CPU = Amounts(3, 16, 256, (1, 8), 2**28, 2048, 448)
QUICK = Amounts(1, 3, 32, (1, 2), 2**22, 256, 96)


@dataclass
class Row:
    """One line of the table; times in milliseconds, memory in GiB (None on a CPU)."""

    part: str
    size: str
    variant: str
    batch: int
    ms: float
    rate: float
    unit: str
    bound_ms: float
    of_bound: float
    memory: float | None


class Device:
    """The device, its clock, its memory, and the rates that bound everything else."""

    def __init__(self, name: str, amounts: Amounts) -> None:
        import torch

        self.torch, self.name, self.amounts = torch, name, amounts
        self.gpu = name.startswith("cuda")
        self.dtype = torch.bfloat16
        self.copy_rate = self._copy_rate()
        self.matrix_rate = self._matrix_rate()

    def _copy_rate(self) -> float:
        """Bytes read and written a second."""
        source = self.torch.empty(self.amounts.copy_bytes, dtype=self.torch.uint8, device=self.name)
        target = self.torch.empty_like(source)
        seconds, _ = self.time(lambda: target.copy_(source))
        return 2 * self.amounts.copy_bytes / seconds

    def _matrix_rate(self) -> float:
        """Floating-point operations a second of a square bfloat16 product."""
        n = self.amounts.matrix
        left = self.torch.randn(n, n, device=self.name).to(self.dtype)
        seconds, _ = self.time(lambda: left @ left)
        return 2 * n**3 / seconds

    def time(self, work: Callable[[], Any]) -> tuple[float, float | None]:
        """Median seconds of some repeats after one that is not counted, and the peak of the memory in GiB."""
        work()
        self.wait()
        if self.gpu:
            self.torch.cuda.reset_peak_memory_stats(self.name)
        taken = []
        for _ in range(self.amounts.repeats):
            begin = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - begin)
        memory = self.torch.cuda.max_memory_allocated(self.name) / 2**30 if self.gpu else None
        return statistics.median(taken), memory

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.gpu:
            self.torch.cuda.synchronize(self.name)

    def row(self, part: str, size: str, variant: str, batch: int, seconds: float, memory: float | None, *, units: float,
            unit: str, moved: float, operations: float) -> Row:  # fmt: skip
        """A line of the table; `units` were done in `seconds`, moving so many bytes and doing so many operations."""
        bound = max(moved / self.copy_rate, operations / self.matrix_rate)
        return Row(
            part, size, variant, batch, 1e3 * seconds, units / seconds, unit, 1e3 * bound, bound / seconds, memory
        )


# --- evidence --------------------------------------------------------------------------------------------------------


def evidence(device: Device) -> Iterator[Row]:
    """The embedded encoder alone, by batch, eager and compiled; then whole parts against one reference."""
    import numpy as np
    from PIL import Image
    from torch.utils.flop_counter import FlopCounterMode

    from sage_ad.vlm.evidence.encoders import load_encoder
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings

    torch, side = device.torch, device.amounts.picture
    noise = np.random.default_rng(0)
    pictures = [
        Image.fromarray(noise.integers(0, 255, (side, side, 3), dtype=np.uint8))
        for _ in range(max(device.amounts.batches))
    ]
    encoder: Any = load_encoder(device=device.name)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder.encode(pictures[:1], side)
    operations = counter.get_total_flops()
    for batch in device.amounts.batches:
        seconds, memory = device.time(lambda b=batch: encoder.encode(pictures[:b], side))
        yield device.row("evidence", "EfficientNet-Lite2", "features", batch, seconds, memory, units=batch,
                         unit="pictures/s", moved=0, operations=operations * batch)  # fmt: skip
    extractor = EvidenceExtractor(EvidenceSettings(device=device.name), encoder)
    bank = extractor.prepare(pictures[:1])
    seconds, memory = device.time(lambda: extractor.extract(pictures[-1], bank))
    yield device.row("evidence", "EfficientNet-Lite2", "whole part", 1, seconds, memory, units=1, unit="parts/s",
                     moved=0, operations=operations)  # fmt: skip


# --- models ----------------------------------------------------------------------------------------------------------


def sage_model(size: str, device: Device) -> Any:
    """A SAGE model on patch features around a language model of this size, random weights, bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sage_ad.vlm.sage.wrapping import from_base

    config = LlamaConfig(**SHAPES[size], max_position_embeddings=8192, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(device.dtype)
    try:
        with torch.device(device.name):
            base = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    base.generation_config.eos_token_id = None  # random weights would end at random
    return from_base(
        base, patch_channels=CHANNELS, image_side=IMAGE_SIDE, image_token_id=IMAGE_ID, fact_token_id=FACT_ID,
        state_words=[[10], [11]], answer_header=[8, 9], fusion_heads=SHAPES[size]["num_attention_heads"],
    )  # fmt: skip


def sage_inputs(batch: int, device: Device) -> dict[str, Any]:
    """A prompt as in an inspection: 36 image tokens, 6 facts, a question; patch features; fact sentences."""
    torch = device.torch
    row = [1, *[IMAGE_ID] * IMAGE_SIDE**2, *[FACT_ID] * FACTS, *[20] * QUESTION, 8, 9]
    features = torch.randn(batch, PATCHES, PATCHES, CHANNELS, device=device.name)
    ids = torch.tensor([row] * batch, device=device.name)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "patch_features": torch.nn.functional.normalize(features, dim=-1),
        "fact_ids": torch.randint(30, 400, (batch, FACTS, FACT_TOKENS), device=device.name),
        "evidence_log_odds": torch.zeros(batch, device=device.name),
    }


def weight_bytes(model: Any) -> float:
    """Bytes of all weights that a pass reads (an embedding table of its own is looked up, not read)."""
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    table = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is table
    return held - (0 if tied else table.numel() * table.element_size())


def fusion(model: Any, size: str, device: Device) -> Iterator[Row]:
    """Adapter, distinct patches and fusion attention (Eq. 1, 2, 9) of one part and of several."""
    added = sum(p.numel() for p in model.fusion.parameters())
    moved = sum(p.numel() * p.element_size() for p in model.fusion.parameters())
    for batch in device.amounts.batches:
        inputs = sage_inputs(batch, device)

        def fuse(given: dict[str, Any] = inputs) -> None:
            rest = {k: v for k, v in given.items() if k not in ("input_ids", "attention_mask")}
            with device.torch.inference_mode():
                model.encode(given["input_ids"], rest)

        seconds, memory = device.time(fuse)
        # The adapter sees every patch; the other weights see a few dozen tokens, which is small beside it.
        adapter = sum(p.numel() for p in model.fusion.adapter.parameters())
        operations = 2 * batch * (adapter * PATCHES**2 + (added - adapter) * (IMAGE_SIDE**2 + FACTS))
        yield device.row("fusion", size, "encode", batch, seconds, memory, units=batch, unit="parts/s", moved=moved,
                         operations=operations)  # fmt: skip


def generation(model: Any, size: str, device: Device) -> Iterator[Row]:
    """Reading the prompt, and writing token by token with a growing cache, a static one, and CUDA graphs."""
    torch, amounts, base = device.torch, device.amounts, model.base
    parameters, moved = sum(p.numel() for p in base.parameters()), weight_bytes(base)
    for batch in amounts.batches:
        ids = torch.randint(30, 400, (batch, amounts.prompt), device=device.name)
        mask = torch.ones_like(ids)

        def read(given: Any = ids) -> None:
            with torch.inference_mode():
                base(given, use_cache=True, logits_to_keep=1)

        seconds, memory = device.time(read)
        yield device.row("generation", size, "prompt", batch, seconds, memory, units=batch * amounts.prompt,
                         unit="tokens/s", moved=moved, operations=2 * parameters * batch * amounts.prompt)  # fmt: skip
        for variant, settings in cache_variants(device).items():

            def write(count: int, given: Any = ids, seen: Any = mask, how: Any = settings) -> Callable[[], Any]:
                return lambda: base.generate(
                    given, attention_mask=seen, max_new_tokens=count, min_new_tokens=count, do_sample=False, **how
                )

            short, _ = device.time(write(1))
            long, memory = device.time(write(amounts.new_tokens))
            step = max(long - short, 1e-9) / (amounts.new_tokens - 1)
            yield device.row("generation", size, variant, batch, step, memory, units=batch, unit="tokens/s", moved=moved,
                             operations=2 * parameters * batch)  # fmt: skip


def cache_variants(device: Device) -> dict[str, dict[str, Any]]:
    """Arguments of `generate` by variant; transformers compiles a static cache's step into CUDA graphs on its own."""
    variants: dict[str, dict[str, Any]] = {
        "growing cache": {},
        "static cache": {"cache_implementation": "static", "disable_compile": True},
    }
    if device.gpu:
        variants["static cache, CUDA graphs"] = {"cache_implementation": "static"}
    return variants


def alignment(model: Any, size: str, device: Device) -> Iterator[Row]:
    """E-DPO steps on one question with four answers: LoRA (r = 16), loss, gradients, AdamW; the reference precomputed."""
    from peft import LoraConfig, get_peft_model

    from sage_ad.alignment.data.prefix_sharing import answer_sums, pack_answers, token_log_probs
    from sage_ad.alignment.edpo.loss import edpo_logits, edpo_loss

    torch = device.torch
    projections = "(q|k|v|o|gate|up|down)_proj"
    tuned: Any = get_peft_model(model, LoraConfig(r=16, target_modules=rf".*base\..*{projections}")).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-5)
    inputs = sage_inputs(1, device)
    ids, owners = pack_answers([[[12] * ANSWER for _ in range(ANSWERS)]])
    ids, owners = ids.to(device.name), owners.to(device.name)
    with torch.no_grad():
        reference = answer_sums(token_log_probs(model, inputs, ids, owners), owners, ANSWERS)[0]
    gaps = torch.tensor([0.3, 0.05], device=device.name)

    def step() -> None:
        sums = answer_sums(token_log_probs(model, inputs, ids, owners, call=tuned), owners, ANSWERS)[0]
        winner, loser = [0, 1], [ANSWERS - 1, 2]
        loss = edpo_loss(
            edpo_logits(
                sums[winner], sums[loser], gaps, ref_winner=reference[winner], ref_loser=reference[loser], beta=0.1
            )
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds, memory = device.time(step)
    parameters = sum(p.numel() for p in model.base.parameters())
    tokens = inputs["input_ids"].shape[1] + ANSWERS * ANSWER
    # Forward and the gradients of the activations; the frozen weights get none of their own.
    yield device.row("E-DPO", size, "step, LoRA r 16", 1, seconds, memory, units=2, unit="pairs/s",
                     moved=2 * weight_bytes(model.base), operations=4 * parameters * tokens)  # fmt: skip


# --- all of it -------------------------------------------------------------------------------------------------------


def measure(sizes: list[str], name: str, amounts: Amounts, tell: Callable[[Row], None]) -> dict[str, Any]:
    """All figures; each row is also passed to `tell` as soon as it is there."""
    import torch

    if not name.startswith("cuda"):
        torch.set_num_threads(2)
    device, rows = Device(name, amounts), []
    works: list[Callable[[], Iterator[Row]]] = [lambda: evidence(device)]
    for size in sizes:
        works.append(lambda s=size: of_model(s, device))  # type: ignore[misc]
    for work in works:
        for row in work():
            rows.append(row)
            tell(row)
        gc.collect()
        if device.gpu:
            torch.cuda.empty_cache()
    title = torch.cuda.get_device_name(name) if device.gpu else f"CPU, {torch.get_num_threads()} threads"
    return {
        "device": title,
        "copy_gb_s": device.copy_rate / 1e9,
        "matrix_tflop_s": device.matrix_rate / 1e12,
        "quick": amounts is QUICK,
        "rows": [asdict(row) for row in rows],
    }


def of_model(size: str, device: Device) -> Iterator[Row]:
    """Fusion, generation and alignment of one size; the model is made once and forgotten at the end."""
    model = sage_model(size, device)
    yield from fusion(model, size, device)
    yield from generation(model, size, device)
    yield from alignment(model, size, device)


def line(row: Row) -> str:
    """A row for people."""
    memory = "" if row.memory is None else f"{row.memory:7.2f} GiB"
    return (
        f"{row.part:<10} {row.size:<18} {row.variant:<25} batch {row.batch:<3}{row.ms:10.2f} ms "
        f"{row.rate:10.1f} {row.unit:<10} bound {row.bound_ms:9.3f} ms ({row.of_bound:5.2f} of bound) {memory}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="embedded,3b,8b", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--repeats", type=int, help="measurements of which the median is taken")
    parser.add_argument("--out", type=Path, help="folder for gpu.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    chosen = parser.parse_args()
    sizes = ["tiny"] if chosen.quick else [size for size in chosen.sizes.split(",") if size]
    if unknown := [size for size in sizes if size not in SHAPES]:
        parser.error(f"there is no size {unknown[0]!r}; the sizes are: {', '.join(SHAPES)}")
    from sage_ad.vlm.commandline import quiet_libraries
    from sage_ad.vlm.devices import pick_device

    quiet_libraries()
    device = pick_device(chosen.device)
    amounts = QUICK if chosen.quick else FULL_GPU if device.startswith("cuda") else FULL_CPU
    if chosen.repeats:
        amounts.repeats = chosen.repeats
    found = measure(sizes, device, amounts, lambda row: print(line(row), file=sys.stderr, flush=True))
    found["sizes"] = sizes
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "gpu.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    if chosen.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['device']}: copy {found['copy_gb_s']:.1f} GB/s, bfloat16 matrix product "
            f"{found['matrix_tflop_s']:.3f} TFLOP/s" + ("; tiny sizes, no statement of speed" if found["quick"] else "")
        )


if __name__ == "__main__":
    main()
