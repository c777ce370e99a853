"""The benchmarks that say what runs where: they run, and the arithmetic counts what the library counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_gpu_benchmark_runs_in_small(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--quick", "--device", "cpu", "--json", "--out", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    assert found == json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert found["quick"]
    assert found["copy_gb_s"] > 0
    assert found["matrix_tflop_s"] > 0
    assert {row["part"] for row in found["rows"]} == {"evidence", "fusion", "generation", "E-DPO"}
    assert all(row["ms"] > 0 and row["rate"] > 0 and row["of_bound"] >= 0 for row in found["rows"])


def test_the_memory_table_counts_weights_as_the_library_does(repository: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6,
                "num_key_value_heads": 2, "vocab_size": 500}  # fmt: skip
    for tied in (True, False):
        config = LlamaConfig(**settings, tie_word_embeddings=tied)
        with torch.device("meta"):
            counted = sum(weight.numel() for weight in LlamaForCausalLM(config).parameters())
        config.save_pretrained(tmp_path)
        command = [sys.executable, "benchmarks/memory.py", "--config", str(tmp_path), "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=True)
        assert json.loads(ran.stdout)["weights"] == {tmp_path.name: counted}


def test_a_larger_prompt_needs_more_and_fewer_bits_less(repository: Path) -> None:
    def table(*more: str) -> dict[str, dict[str, float]]:
        command = [sys.executable, "benchmarks/memory.py", "--json", *more]
        return json.loads(subprocess.run(command, capture_output=True, text=True, cwd=repository, check=True).stdout)[
            "gib"
        ]

    usual, long = table(), table("--prompt", "9000")
    for name, found in usual.items():
        assert found["inspect 4bit"] < found["inspect 8bit"] < found["inspect bf16"] < long[name]["inspect bf16"]
        assert found["LoRA 4bit"] < found["LoRA bf16"]
