"""Speed and memory of `EDPOTrainer` beside TRL's `DPOTrainer`: the same pairs, model, precision and machine, by turns.

    python benchmarks/edpo.py [--rounds 3] [--prompt 300] [--answer 40] [--lora-rank 16] [--device auto] [--json]

One question with a picture and four answers makes two pairs (the ends, and the closest neighbours). TRL sees them as two
rows of `prompt`, `chosen`, `rejected`; with pictures it cannot ask the reference ahead of time, on words alone it does. The
model has the size of the embedded one (SmolLM2-135M) and random weights, its eyes are a small CLIP. In every round each
trainer makes one step of the same two pairs, data preparation included; a first round is not counted. On a busy machine
read the processor time: waiting is not in it.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resident import ResidentPeak

PICTURE, PATCH = 112, 14
VOCABULARY = 49152
SMOLLM2 = {
    "vocab_size": VOCABULARY,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "rope_theta": 100000.0,
}


@dataclass
class Contestant:
    """A trainer, the rows of one step (by microbatch), and what was measured."""

    name: str
    trainer: Any
    batches: list[list[Any]]
    wall: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def step(self, device: str) -> None:
        """Loss, gradients and the optimiser's step on two pairs."""
        trainer = self.trainer
        trainer.model.train()
        for rows in self.batches:
            batch = trainer._prepare_inputs(trainer.data_collator([dict(row) for row in rows]))
            (trainer.compute_loss(trainer.model, batch) / len(self.batches)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if device == "cuda":
            import torch

            torch.cuda.synchronize()

    def __post_init__(self) -> None:
        import torch

        self.optimizer = torch.optim.AdamW([p for p in self.trainer.model.parameters() if p.requires_grad], lr=1e-5)


def tokenizer() -> Any:
    """One token a word: lengths are exact."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(2000))])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.add_tokens(["<image>"], special_tokens=True)
    made.padding_side = "left"
    return made


def processor() -> Any:
    """LLaVA's, without torchvision."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil(size={"shortest_edge": PICTURE}, crop_size={"height": PICTURE, "width": PICTURE})
    return LlavaProcessor(
        pixels,
        tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )


def seeing_model(layers: int, dtype: Any, device: str) -> Any:
    """LLaVA with a small CLIP and the embedded language model's sizes."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=PICTURE,
        patch_size=PATCH,
    )
    text = LlamaConfig(**SMOLLM2, num_hidden_layers=layers)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4)
    return LlavaForConditionalGeneration(config).to(device=device, dtype=dtype)


def shared_copy(model: Any) -> Any:
    """A model with the same weights in the same memory: the base is frozen, so trainers can share it."""
    import torch

    with torch.device("meta"):
        copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict(), assign=True, strict=True)
    # Positions' frequencies are no weights; they are made on the real device.
    for (_, new), (_, old) in zip(copy.named_modules(), model.named_modules(), strict=True):
        for name, buffer in old._buffers.items():
            new._buffers[name] = buffer
    copy.tie_weights()
    return copy


def words_model(model: Any) -> Any:
    """The language model alone, on the same weights."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        alone = LlamaForCausalLM(model.config.text_config)
    alone.model = model.model.language_model
    alone.lm_head = model.lm_head
    return alone


def rows(prompt: int, answer: int, pictured: bool) -> tuple[list[dict], list[dict]]:
    """One question as ranked answers, and as TRL's pairs."""
    import numpy as np
    from PIL import Image

    image_tokens = (PICTURE // PATCH) ** 2
    words = " ".join(f"w{i}" for i in range(prompt - (image_tokens if pictured else 0)))
    text = f"<image> {words}" if pictured else words
    answers = [" " + " ".join(f"w{100 * (k + 1) + i}" for i in range(answer - 1)) + " </s>" for k in range(4)]
    common: dict[str, Any] = {"prompt": text}
    if pictured:
        noise = np.random.default_rng(0).integers(0, 255, (PICTURE, PICTURE, 3), dtype=np.uint8)
        common["images"] = [Image.fromarray(noise)]
    # The middle answers lie closest, so all four are needed: two pairs without an answer in common.
    ranked = [{**common, "answers": answers, "scores": [5.0, 3.4, 3.0, 1.0]}]
    pairs = [{**common, "chosen": answers[w], "rejected": answers[x]} for w, x in ((1, 2), (0, 3))]
    return ranked, pairs


def contestants(args: argparse.Namespace, folder: str, device: str) -> tuple[list[Contestant], float]:
    """The four trainers, and the seconds of processor time in which ours asked the reference about one question."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    from sage_ad.alignment import EDPOConfig, EDPOTrainer

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    seeing = seeing_model(args.layers, dtype, device)
    plain: dict[str, Any] = {
        "use_cpu": device == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "report_to": "none",
        "disable_tqdm": True,
    }
    found, asked = [], 0.0
    for pictured in (True, False):
        ranked, pairs = rows(args.prompt, args.answer, pictured)
        for ours in (True, False):
            base = shared_copy(seeing)
            model = base if pictured else words_model(base)
            name = f"{'ours' if ours else 'TRL'}, {'picture' if pictured else 'words'}"
            common = {
                "processing_class": processor() if pictured else tokenizer(),
                "peft_config": LoraConfig(
                    r=args.lora_rank,
                    target_modules=r".*language_model.*(q|k|v|o|gate|up|down)_proj" if pictured else "all-linear",
                ),
            }
            start = time.process_time()
            if ours:
                config: Any = EDPOConfig(output_dir=f"{folder}/{name}", eta=1.0, entropy="surprisal", **plain)
                trainer: Any = EDPOTrainer(model, args=config, train_dataset=Dataset.from_list(ranked), **common)
                asked = time.process_time() - start
            else:
                config = DPOConfig(output_dir=f"{folder}/{name}", precompute_ref_log_probs=not pictured, **plain)
                trainer = DPOTrainer(model, args=config, train_dataset=Dataset.from_list(pairs), **common)
            data = list(trainer.train_dataset)
            at_once = 1 if ours else args.pairs_at_once
            found.append(Contestant(name, trainer, [data[i : i + at_once] for i in range(0, len(data), at_once)]))
    return found, asked


def trim() -> None:
    """Gives freed memory back to the system, so that a peak is the step's own."""
    import ctypes

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def measured(step: Callable[[], None], device: str) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, and peak memory in MiB above the resting model."""
    import torch

    trim()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        resting = torch.cuda.memory_allocated()
    with ResidentPeak() as watcher:
        wall, work = time.perf_counter(), time.process_time()
        step()
        wall, work = time.perf_counter() - wall, time.process_time() - work
    memory = watcher.highest - watcher.before
    if device == "cuda":
        memory = (torch.cuda.max_memory_allocated() - resting) / 2**20
    return wall, work, memory


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before that are not counted")
    parser.add_argument("--prompt", type=int, default=300, help="tokens of the prompt, image tokens among them")
    parser.add_argument("--answer", type=int, default=40, help="tokens of each answer")
    parser.add_argument("--layers", type=int, default=30, help="layers of the language model (the embedded one has 30)")
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--pairs-at-once", type=int, default=2, help="pairs that TRL puts through the model together")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    from sage_ad.vlm.commandline import quiet_libraries
    from sage_ad.vlm.devices import pick_device

    quiet_libraries()
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        entrants, asked = contestants(args, folder, device)
        for turn in range(-args.warm_up, args.rounds):
            for one in entrants:
                values = measured(lambda one=one: one.step(device), device)
                line = f"{values[1]:.1f} s of processor time, {values[0]:.1f} s in all, {values[2]:.0f} MiB"
                print(f"round {turn + 1}, {one.name}: {line}", file=sys.stderr, flush=True)
                if turn >= 0:
                    for kept, value in zip((one.wall, one.work, one.memory), values, strict=True):
                        kept.append(value)
    print(report(entrants, asked, device, args))


def report(entrants: list[Contestant], asked: float, device: str, args: argparse.Namespace) -> str:
    """The table, or JSON."""
    clock = "wall" if device == "cuda" else "work"
    result = {
        one.name: {
            "pairs_a_second": 2 / statistics.median(getattr(one, clock)),
            "pairs_a_second_wall": 2 / statistics.median(one.wall),
            "peak_mib": max(one.memory),
        }
        for one in entrants
    }
    ratios = {
        kind: result[f"ours, {kind}"]["pairs_a_second"] / result[f"TRL, {kind}"]["pairs_a_second"]
        for kind in ("picture", "words")
    }
    if args.json:
        whole = {
            "device": device,
            "settings": vars(args),
            "trainers": result,
            "ratio": ratios,
            "reference_seconds": asked,
        }
        return json.dumps(whole, indent=2)
    from sage_ad.evaluation.reports.tables import markdown_table

    head = ["trainer", "pairs/s (processor time)", "pairs/s (wall)", "peak above the model, MiB"]
    rows = [
        [name, row["pairs_a_second"], row["pairs_a_second_wall"], round(row["peak_mib"])]
        for name, row in result.items()
    ]
    return (
        f"{args.prompt} tokens of prompt, four answers of {args.answer}, LoRA rank {args.lora_rank}, {args.layers} layers, "
        f"{device}; median of {args.rounds} rounds\n{markdown_table(head, rows)}\n"
        f"ours to TRL: {ratios['picture']:.2f} with a picture, {ratios['words']:.2f} on words (TRL's reference asked ahead)"
    )


if __name__ == "__main__":
    main()
