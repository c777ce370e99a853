"""Training in several processes: the ready configurations, and a run of two processes on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

EXPECTED = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED", "cpu": "MULTI_GPU"}


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_takes_the_configuration(repository: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands import launch
    from accelerate.commands.config.config_args import load_config_from_file

    file = repository / "alignment" / "configs" / f"{name}.yaml"
    assert load_config_from_file(str(file)).distributed_type == EXPECTED[name]
    command = ["--config_file", str(file), "--num_processes", "2", "-m", "sage_ad.alignment", "edpo"]
    launched: list[Namespace] = []
    for launcher in ("simple_launcher", "multi_gpu_launcher", "deepspeed_launcher"):
        monkeypatch.setattr(launch, launcher, launched.append)
    launch.launch_command(launch.launch_command_parser().parse_args(command))
    (args,) = launched
    assert args.num_processes == 2
    assert (args.use_fsdp, args.use_deepspeed) == (name == "fsdp2", name == "zero3")
    if name == "fsdp2":
        assert str(args.fsdp_version) == "2"
    if name == "zero3":
        assert args.zero_stage == 3


def test_no_configuration_is_untested(repository: Path) -> None:
    assert {file.stem for file in (repository / "alignment" / "configs").glob("*.yaml")} == set(EXPECTED)


@pytest.mark.timeout(1200)
def test_two_processes_align_a_tiny_model(repository: Path, tmp_path: Path) -> None:
    from tiny_models import tiny_language_model, tiny_tokenizer

    model = tmp_path / "tiny"
    tiny_language_model().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    answers = ["anomalous. True. a scratch", "True. a hole", "False.", "normal. False."]
    scores = [{"type": s, "localisation": s, "logic": s, "mean": s} for s in (5, 4, 2, 1)]
    line = {
        "image": None, "reference": None, "mask": None, "object": "plate", "domain": "machining",
        "pair_type": "standard comparison", "question": "Is there a scratch?", "gold": None, "facts": [],
        "answers": answers, "rank_source": "writer", "scores": scores, "judge": "local",
    }  # fmt: skip
    data = tmp_path / "ranked.jsonl"
    rows = [{"id": str(number), "group": str(number), **line} for number in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", repository / "alignment" / "configs" / "cpu.yaml", "--main_process_port", "0"),
        *("-m", "sage_ad.alignment", "edpo", "--data", data, "--model", model, "--out", tmp_path / "run"),
        *("--steps", "2", "--batch", "1", "--lora-rank", "2", "--device", "cpu", "--json"),
    ]
    ran = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=repository, timeout=1100, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    printed = json.loads(ran.stdout)  # one object, from the first process alone
    assert printed["steps"] == 2
    assert (Path(printed["model"]) / "config.json").is_file()
