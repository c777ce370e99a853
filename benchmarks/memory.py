"""Which model fits which card: memory for inspection and for training, by arithmetic from the model's configuration.

    python benchmarks/memory.py [--config FOLDER] [--prompt 4500] [--parts 8] [--gpus 8] [--markdown] [--json]

Inspection: weights, key-value cache of `--parts` prompts at once, activations of one prompt being read, and a fixed GiB
for CUDA and the evidence. Training: E-DPO with LoRA (r = 16) on one card, LoRA on 4-bit weights, and all weights shared
out over `--gpus` cards (FSDP 2 or ZeRO-3), one question with four answers a card. Weights and cache are exact;
activations are the usual estimate of 34 bytes a token, layer and channel, and half as much again for a gated MLP.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

GIB = 2**30
CARDS = (8, 12, 16, 24, 32, 48, 80, 141, 192)
"""GiB of common cards; a share of each stays free (see `USABLE`)."""
USABLE = 0.92
FIXED = 1.0
RANK = 16
BITS = {"bf16": 16.0, "8bit": 8.0, "4bit": 4.5}
"""Bits a weight of the linear layers; NF4 keeps a scale for every block of 64 weights."""


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs of a model; `vision` counts the weights beside the language model.

    Attributes:
        hidden, layers, heads, kv_heads, head, mlp, vocabulary: of the language model.
        tied: whether the output layer is the embedding table.
        vision: weights of the visual encoder and its projection.
        norms: whether queries and keys have norms of their own (Qwen3); biases: whether q, k, v have biases (Qwen2.5).
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocabulary: int
    tied: bool
    vision: float = 0.0
    norms: bool = False
    biases: bool = False

    @property
    def linear(self) -> int:
        """Weights of the layers' matrices, which quantising makes smaller."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    @property
    def tables(self) -> int:
        """Weights of the embedding table and the output layer, and the few of norms and biases."""
        small = self.hidden * (2 * self.layers + 1)
        small += self.layers * 2 * self.head if self.norms else 0
        small += self.layers * self.head * (self.heads + 2 * self.kv_heads) if self.biases else 0
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + small

    @property
    def weights(self) -> float:
        """All weights."""
        return self.linear + self.tables + self.vision

    @property
    def lora(self) -> int:
        """Weights of LoRA on all seven matrices of a layer."""
        width, small = self.heads * self.head, self.kv_heads * self.head
        ends = [(self.hidden, width), (self.hidden, small), (self.hidden, small), (width, self.hidden)]
        ends += [(self.hidden, self.mlp)] * 2 + [(self.mlp, self.hidden)]
        return self.layers * RANK * sum(a + b for a, b in ends)

    def stored(self, precision: str) -> float:
        """Bytes of the weights; the tables and the eyes stay in bfloat16."""
        return self.linear * BITS[precision] / 8 + 2 * (self.tables + self.vision)

    def cache(self, tokens: int) -> float:
        """Bytes of the key-value cache in bfloat16."""
        return 2 * 2 * self.layers * self.kv_heads * self.head * tokens

    def activations(self, tokens: int) -> float:
        """Bytes that the backward pass needs (all layers)."""
        return 51 * tokens * self.hidden * self.layers


SHAPES = {
    "SmolLM2-135M (embedded)": Shape(576, 30, 9, 3, 64, 1536, 49152, True),
    "Qwen2.5-VL-3B": Shape(2048, 36, 16, 2, 128, 11008, 151936, True, 0.67e9, biases=True),
    "Qwen2.5-VL-7B": Shape(3584, 28, 28, 4, 128, 18944, 152064, False, 0.68e9, biases=True),
    "InternVL3.5-8B": Shape(4096, 36, 32, 8, 128, 12288, 151936, False, 0.34e9, norms=True),
    "Qwen2.5-VL-32B": Shape(5120, 64, 40, 8, 128, 27648, 152064, False, 0.69e9, biases=True),
    "Qwen2.5-VL-72B": Shape(8192, 80, 64, 8, 128, 29568, 152064, False, 0.69e9, biases=True),
}
"""Language parts as published; the weights of the eyes to two digits."""


def shape_of(folder: Path) -> Shape:
    """The shape of a model folder's `config.json`; its eyes are counted from the size of its weight files."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = {**config, **(config.get("text_config") or config.get("llm_config") or {})}
    heads = text["num_attention_heads"]
    shape = Shape(
        text["hidden_size"],
        text["num_hidden_layers"],
        heads,
        text.get("num_key_value_heads") or heads,
        text.get("head_dim") or text["hidden_size"] // heads,
        text["intermediate_size"],
        text["vocab_size"],
        bool(text.get("tie_word_embeddings", False)),
        norms="qwen3" in str(text.get("model_type")),
        biases="qwen2" in str(text.get("model_type")),
    )
    # Files of bfloat16 weights hold two bytes for each; what is beyond the language model are the eyes.
    held = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2
    return replace(shape, vision=max(0.0, held - shape.weights))


def needs(shape: Shape, prompt: int, parts: int, gpus: int) -> dict[str, float]:
    """GiB by use."""
    reading = 2 * 8 * prompt * max(shape.hidden, shape.mlp)  # one layer's activations of one prompt
    found = {
        f"inspect {precision}": (shape.stored(precision) + shape.cache(prompt * parts) + reading) / GIB + FIXED
        for precision in BITS
    }
    trained = shape.activations(prompt + 4 * 64)
    # LoRA's weights, gradients and the two moments of AdamW are kept in float32: 16 bytes each.
    found["LoRA bf16"] = (shape.stored("bf16") + 16 * shape.lora + trained) / GIB + FIXED
    found["LoRA 4bit"] = (shape.stored("4bit") + 16 * shape.lora + trained) / GIB + FIXED
    layer = 2 * (shape.linear / shape.layers)
    found[f"all, {gpus} GPUs"] = (16 * shape.weights / gpus + 2 * layer + trained) / GIB + FIXED
    return found


def smallest_card(gib: float) -> str:
    """The smallest common card that holds so much, or how many of the largest usual one."""
    fits = [card for card in CARDS if gib <= USABLE * card]
    return f"{fits[0]} GB" if fits else f"{-(-gib // (USABLE * 80)):.0f} x 80 GB"


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: GiB and the smallest card for each model and use."""
    from sage_ad.evaluation.reports.tables import markdown_table

    uses = list(next(iter(rows.values())))
    cells = [[name, *(f"{gib:.1f} ({smallest_card(gib)})" for gib in found.values())] for name, found in rows.items()]
    return markdown_table(["model", *uses], cells)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="model folder in place of the known models")
    parser.add_argument("--prompt", type=int, default=4500, help="tokens of a prompt: three pictures and the words")
    parser.add_argument("--parts", type=int, default=8, help="parts that are answered at once")
    parser.add_argument("--gpus", type=int, default=8, help="cards that share a full training")
    parser.add_argument("--markdown", action="store_true", help="only the table")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    chosen = parser.parse_args()
    shapes: dict[str, Any] = SHAPES if chosen.config is None else {chosen.config.name: shape_of(chosen.config)}
    rows = {name: needs(shape, chosen.prompt, chosen.parts, chosen.gpus) for name, shape in shapes.items()}
    if chosen.json:
        print(json.dumps({"weights": {name: s.weights for name, s in shapes.items()}, "gib": rows}))
        return
    if not chosen.markdown:
        print(
            f"GiB (smallest card) with prompts of {chosen.prompt} tokens, {chosen.parts} parts at once; "
            f"a card counts as full at {USABLE:.0%}.\n"
        )
    print(table(rows))


if __name__ == "__main__":
    main()
